//! The policy pages of the book say what the table says, in both languages.
//!
//! `HONSHU_UPDATE=1` writes the generated table into the pages.

#![allow(
    clippy::unwrap_used,
    reason = "a failed test is a panic, also in its helpers"
)]

use std::path::PathBuf;

use honshu_policy::{Operation, ResourceType, Variable, Verb, check};

const BEGIN: &str = "<!-- generated: types -->\n";
const END: &str = "<!-- end -->";

fn page(language: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/{language}/policies.md"))
}

fn table(header: &str) -> String {
    let mut table = format!("{header}\n|---|---|---|---|\n");
    for resource in ResourceType::all().filter(|resource| !resource.is_family()) {
        for verb in Verb::ALL {
            for permission in resource.added_by(verb).iter() {
                let operations: Vec<String> = Operation::ALL
                    .iter()
                    .filter(|operation| operation.permissions().contains(&permission))
                    .map(|operation| {
                        let others: Vec<String> = operation
                            .permissions()
                            .iter()
                            .filter(|other| **other != permission)
                            .map(|other| format!(" + `{other}`"))
                            .collect();
                        format!("{operation}{}", others.concat())
                    })
                    .collect();
                table.push_str(&format!(
                    "| `{resource}` | `{verb}` | `{permission}` | {} |\n",
                    operations.join(", ")
                ));
            }
        }
    }
    table
}

#[test]
fn the_pages_hold_the_table_of_permissions() {
    let headers = [
        (
            "en",
            "| Resource type | Verb that adds it | Permission | Operations |",
        ),
        ("ja", "| リソース・タイプ | 追加する動詞 | 権限 | 操作 |"),
    ];
    for (language, header) in headers {
        let path = page(language);
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (found, after) = rest.split_once(END).unwrap();
        let expected = table(header);
        if std::env::var_os("HONSHU_UPDATE").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        } else {
            assert_eq!(found, expected, "{language}: run with HONSHU_UPDATE=1");
        }
    }
}

#[test]
fn the_pages_name_every_variable_and_every_example_is_valid() {
    for language in ["en", "ja"] {
        let text = std::fs::read_to_string(page(language)).unwrap();
        for variable in Variable::NAMED {
            assert!(
                text.contains(&format!("`{variable}`")),
                "{language}: {variable}"
            );
        }
        let mut examples = 0;
        for block in text.split("```policy\n").skip(1) {
            let example = block.split("```").next().unwrap();
            let checked = check(example);
            assert!(
                checked.diagnostics.is_empty(),
                "{language}: {:?}",
                checked.diagnostics
            );
            examples += checked.statements.len();
        }
        assert!(examples >= 5, "{language}: {examples}");
    }
}
