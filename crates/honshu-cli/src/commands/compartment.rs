//! `honshu compartment`, and finding compartments by name for the other commands.

use serde_json::{Value, json};

use crate::args::CompartmentCommand;
use crate::client::{Api, escape};
use crate::fail::{Failure, Result};
use crate::output::{Output, field};

/// Runs a command.
pub(crate) async fn run(api: &Api, command: CompartmentCommand, output: &Output) -> Result<()> {
    match command {
        CompartmentCommand::Create {
            name,
            parent,
            description,
        } => {
            let parent = resolve(api, &parent).await?;
            // OCI asks for a description; a name says enough here.
            let description = if description.is_empty() {
                name.clone()
            } else {
                description
            };
            let made: Value = api
                .post(
                    "/20160918/compartments",
                    &json!({"compartmentId": parent, "name": name, "description": description}),
                )
                .await?
                .json()?;
            show(&made, output)
        }
        CompartmentCommand::List => {
            let all = all(api).await?;
            output.list(&all, &["name", "id", "parent", "state"], |item| {
                vec![
                    field(item, "name"),
                    field(item, "id"),
                    field(item, "compartmentId"),
                    field(item, "lifecycleState"),
                ]
            })
        }
        CompartmentCommand::Get { compartment } => {
            let id = resolve(api, &compartment).await?;
            let found: Value = api
                .get(&format!("/20160918/compartments/{}", escape(&id)))
                .await?;
            show(&found, output)
        }
        CompartmentCommand::Delete { compartment } => {
            let id = resolve(api, &compartment).await?;
            api.delete(&format!("/20160918/compartments/{}", escape(&id)))
                .await?;
            output.done(
                &json!({"id": id, "deleted": true}),
                "The compartment is deleted.",
                "コンパートメントを削除しました。",
            )
        }
    }
}

fn show(compartment: &Value, output: &Output) -> Result<()> {
    output.value(compartment, |rows| {
        for (label, name) in [
            (output.lang.pick("name", "名前"), "name"),
            ("OCID", "id"),
            (output.lang.pick("parent", "親"), "compartmentId"),
            (output.lang.pick("description", "説明"), "description"),
            (output.lang.pick("state", "状態"), "lifecycleState"),
            (output.lang.pick("created", "作成日時"), "timeCreated"),
        ] {
            rows.push((label.to_owned(), field(compartment, name)));
        }
    })
}

/// Every compartment of the tenancy that the caller may see, the root first.
async fn all(api: &Api) -> Result<Vec<Value>> {
    let tenancy = escape(&api.profile.tenancy);
    let root: Value = api
        .get(&format!("/20160918/compartments/{tenancy}"))
        .await?;
    let mut all = vec![root];
    all.extend(
        api.list(&format!(
            "/20160918/compartments?compartmentId={tenancy}&compartmentIdInSubtree=true&accessLevel=ACCESSIBLE"
        ))
        .await?,
    );
    Ok(all)
}

/// The OCID of a compartment that is given as an OCID, as `root`, as a name, or as a path `A:B`.
pub(crate) async fn resolve(api: &Api, given: &str) -> Result<String> {
    if given.starts_with("ocid1.") {
        return Ok(given.to_owned());
    }
    if given.eq_ignore_ascii_case("root") {
        return Ok(api.profile.tenancy.clone());
    }
    let all = all(api).await?;
    let mut found: Vec<&Value> = Vec::new();
    let names: Vec<&str> = given.split(':').map(str::trim).collect();
    for candidate in &all {
        if matches_path(&all, candidate, &names) {
            found.push(candidate);
        }
    }
    match found.as_slice() {
        [one] => Ok(field(one, "id")),
        [] => Err(Failure::new((
            format!("there is no compartment `{given}`"),
            format!("コンパートメント `{given}` がありません"),
        ))
        .hint((
            "`honshu compartment list` shows those there are",
            "`honshu compartment list` で一覧できます",
        ))),
        _ => Err(Failure::new((
            format!("`{given}` names {} compartments", found.len()),
            format!(
                "`{given}` という名前のコンパートメントが {} 個あります",
                found.len()
            ),
        ))
        .hint((
            "give its path, such as `Parent:Child`, or its OCID",
            "`Parent:Child` のようなパスか OCID を指定してください",
        ))),
    }
}

/// Whether `candidate` and those above it are named as `names` says, innermost last.
fn matches_path(all: &[Value], candidate: &Value, names: &[&str]) -> bool {
    let Some((last, above)) = names.split_last() else {
        return true;
    };
    if field(candidate, "name").to_lowercase() != last.to_lowercase() {
        return false;
    }
    if above.is_empty() {
        return true;
    }
    let parent = field(candidate, "compartmentId");
    all.iter()
        .find(|other| field(other, "id") == parent)
        .is_some_and(|parent| matches_path(all, parent, above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_matched_from_its_end_without_regard_to_case() {
        let all = [
            json!({"id": "r", "name": "tenancy"}),
            json!({"id": "a", "name": "Prod", "compartmentId": "r"}),
            json!({"id": "b", "name": "生成AI", "compartmentId": "a"}),
            json!({"id": "c", "name": "生成AI", "compartmentId": "r"}),
        ];
        let hits = |path: &str| -> Vec<String> {
            let names: Vec<&str> = path.split(':').collect();
            all.iter()
                .filter(|candidate| matches_path(&all, candidate, &names))
                .map(|candidate| field(candidate, "id"))
                .collect()
        };
        assert_eq!(hits("prod"), ["a"]);
        assert_eq!(hits("生成AI"), ["b", "c"]);
        assert_eq!(hits("PROD:生成AI"), ["b"]);
        assert!(hits("other:生成AI").is_empty());
    }
}
