//! `honshu policy`.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::args::{Global, PolicyCommand};
use crate::client::{Api, escape};
use crate::commands::policy_check::Stated;
use crate::commands::{compartment, policy_check, with_api};
use crate::fail::{Failure, Result};
use crate::output::{Output, field};

const POLICIES: &str = "/20160918/policies";

/// The largest file of statements that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs a command.
pub(crate) fn run(global: &Global, command: PolicyCommand, output: &Output) -> Result<ExitCode> {
    match command {
        PolicyCommand::Check {
            mut statements,
            bare,
            file,
        } => {
            statements.extend(bare);
            policy_check::check(&stated(statements, file.as_deref())?, output)
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
                    Failure::usage(("nothing to change", "変更する内容がありません")).hint((
                        "give --statement or --description",
                        "--statement または --description を指定してください",
                    )),
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
            output.done(
                &json!({"id": policy_id, "deleted": true}),
                "The policy is deleted.",
                "ポリシーを削除しました。",
            )
        }
        PolicyCommand::Settings { deny } => {
            let path = format!("/20160918/tenancies/{}", escape(&api.profile.tenancy));
            let tenancy: Value = match deny {
                Some(deny) => api
                    .put(&path, &json!({"isDenyEnabled": deny == "on"}))
                    .await?
                    .json()?,
                None => api.get(&path).await?,
            };
            let counts = tenancy["isDenyEnabled"] == true;
            output.value(&json!({"isDenyEnabled": counts}), |rows| {
                rows.push((
                    output.lang.pick("deny statements", "deny 文").to_owned(),
                    match counts {
                        true => output.lang.pick("on", "有効"),
                        false => output.lang.pick("off", "無効"),
                    }
                    .to_owned(),
                ));
            })
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
/// What is to be checked: statements of the command line, then those of the file.
fn stated(statements: Vec<String>, file: Option<&Path>) -> Result<Vec<Stated>> {
    let alone = statements.len() == 1;
    let mut stated: Vec<Stated> = statements
        .into_iter()
        .enumerate()
        .map(|(index, text)| Stated {
            name: if alone {
                "statement".to_owned()
            } else {
                format!("statement {}", index + 1)
            },
            line: 1,
            text,
        })
        .collect();
    if let Some(file) = file {
        let standard_input = file == Path::new("-");
        let mut text = String::new();
        let read = if standard_input {
            std::io::stdin()
                .lock()
                .take(FILE_BYTES_MAX)
                .read_to_string(&mut text)
        } else {
            std::fs::File::open(file)
                .and_then(|opened| opened.take(FILE_BYTES_MAX).read_to_string(&mut text))
        };
        read.map_err(|error| {
            Failure::new((
                format!("cannot read {}: {error}", file.display()),
                format!("{} を読めません: {error}", file.display()),
            ))
            .hint((
                "--file names a file with one statement a line, or - for standard input",
                "--file には1行に1文を書いたファイル、または標準入力を表す - を指定します",
            ))
        })?;
        let name = if standard_input {
            "standard input".to_owned()
        } else {
            file.display().to_string()
        };
        stated.extend(
            text.lines()
                .zip(1..)
                .filter(|(line, _)| !line.trim().is_empty() && !line.trim().starts_with('#'))
                .map(|(line, number)| Stated {
                    name: name.clone(),
                    line: number,
                    text: line.to_owned(),
                }),
        );
    }
    if stated.is_empty() {
        return Err(
            Failure::usage(("there is nothing to check", "確認する文がありません")).hint((
                "give a statement or --file",
                "文または --file を指定してください",
            )),
        );
    }
    Ok(stated)
}
