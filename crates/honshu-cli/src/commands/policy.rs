//! `honshu policy`.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::args::{Global, PolicyCommand};
use crate::client::{Api, escape};
use crate::commands::{compartment, policy_check, with_api};
use crate::fail::{Failure, Result};
use crate::output::{Output, field};

const POLICIES: &str = "/20160918/policies";

/// The largest file of statements that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs a command.
pub(crate) fn run(global: &Global, command: PolicyCommand, output: &Output) -> Result<ExitCode> {
    match command {
        PolicyCommand::Check { statements, file } => {
            let statements = statements_of(statements, file.as_deref())?;
            policy_check::check(&statements, output)
        }
        command => with_api(
            global,
            |api| async move { call(&api, command, output).await },
        ),
    }
}

async fn call(api: &Api, command: PolicyCommand, output: &Output) -> Result<()> {
    match command {
        PolicyCommand::Create {
            compartment,
            name,
            description,
            statements,
        } => {
            let compartment = compartment::resolve(api, &compartment).await?;
            // OCI asks for a description; a name says enough here.
            let description = if description.is_empty() {
                name.clone()
            } else {
                description
            };
            let policy: Value = api
                .post(
                    POLICIES,
                    &json!({
                        "compartmentId": compartment,
                        "name": name,
                        "description": description,
                        "statements": statements,
                    }),
                )
                .await?
                .json()?;
            show(&policy, output)
        }
        PolicyCommand::List { compartment } => {
            let compartment = compartment::resolve(api, &compartment).await?;
            let policies = api
                .list(&format!(
                    "{POLICIES}?compartmentId={}",
                    escape(&compartment)
                ))
                .await?;
            output.list(&policies, &["name", "statements", "id"], |policy| {
                vec![
                    field(policy, "name"),
                    statements(policy).join("; "),
                    field(policy, "id"),
                ]
            })
        }
        PolicyCommand::Get { policy_id } => {
            let policy: Value = api.get(&path(&policy_id)).await?;
            show(&policy, output)
        }
        PolicyCommand::Update {
            policy_id,
            description,
            statements,
        } => {
            let mut body = Map::new();
            if let Some(description) = description {
                body.insert("description".to_owned(), description.into());
            }
            if !statements.is_empty() {
                body.insert("statements".to_owned(), statements.into());
            }
            if body.is_empty() {
                return Err(
                    Failure::usage("nothing to change").hint("give --statement or --description")
                );
            }
            let policy: Value = api
                .put(&path(&policy_id), &Value::Object(body))
                .await?
                .json()?;
            show(&policy, output)
        }
        PolicyCommand::Delete { policy_id } => {
            api.delete(&path(&policy_id)).await?;
            output.tell("The policy is deleted.", "ポリシーを削除しました。");
            Ok(())
        }
        PolicyCommand::Check { .. } => Ok(()),
    }
}

fn path(id: &str) -> String {
    format!("{POLICIES}/{}", escape(id))
}

fn statements(policy: &Value) -> Vec<String> {
    policy
        .get("statements")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn show(policy: &Value, output: &Output) -> Result<()> {
    let lang = output.lang;
    output.value(policy, |rows| {
        for (label, name) in [
            (lang.pick("name", "名前"), "name"),
            (lang.pick("description", "説明"), "description"),
            ("OCID", "id"),
            (
                lang.pick("compartment", "コンパートメント"),
                "compartmentId",
            ),
            (lang.pick("created", "作成日時"), "timeCreated"),
        ] {
            rows.push((label.to_owned(), field(policy, name)));
        }
        for statement in statements(policy) {
            rows.push((
                lang.pick("statement", "ステートメント").to_owned(),
                statement,
            ));
        }
    })
}

/// The statements of the flags and the file; in a file, empty lines and lines with `#` are passed over.
fn statements_of(mut statements: Vec<String>, file: Option<&Path>) -> Result<Vec<String>> {
    if let Some(file) = file {
        let mut text = String::new();
        let read = if file == Path::new("-") {
            std::io::stdin()
                .lock()
                .take(FILE_BYTES_MAX)
                .read_to_string(&mut text)
        } else {
            std::fs::File::open(file)
                .and_then(|opened| opened.take(FILE_BYTES_MAX).read_to_string(&mut text))
        };
        read.map_err(|error| {
            Failure::new(format!("cannot read {}: {error}", file.display()))
                .hint("--file names a file with one statement a line, or - for standard input")
        })?;
        statements.extend(
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    if statements.is_empty() {
        return Err(Failure::usage("there is nothing to check").hint("give --statement or --file"));
    }
    Ok(statements)
}
