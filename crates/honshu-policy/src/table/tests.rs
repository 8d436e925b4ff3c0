//! What must hold of every row of the table.

use super::*;

#[test]
fn every_permission_is_found_by_its_name_and_stands_in_one_row() {
    for permission in Permission::ALL {
        assert_eq!(Permission::find(permission.name()), Some(*permission));
        let rows = TYPES
            .iter()
            .filter(|row| row.adds.iter().any(|adds| adds.contains(permission)))
            .count();
        assert_eq!(rows, 1, "{permission}");
    }
}

#[test]
fn verbs_are_cumulative_on_every_type() {
    for resource in ResourceType::all() {
        for pair in Verb::ALL.windows(2) {
            let weaker = resource.granted_by(pair[0]);
            let stronger = resource.granted_by(pair[1]);
            assert!(
                weaker
                    .iter()
                    .all(|permission| stronger.contains(permission)),
                "{resource}"
            );
        }
    }
}

#[test]
fn manage_all_resources_grants_everything_and_the_family_only_its_members() {
    let all = ResourceType::ALL_RESOURCES.granted_by(Verb::Manage);
    assert!(
        Permission::ALL
            .iter()
            .all(|permission| all.contains(*permission))
    );
    let family = ResourceType::find("Generative-AI-Family").unwrap();
    let granted = family.granted_by(Verb::Manage);
    for permission in Permission::ALL {
        assert_eq!(
            granted.contains(*permission),
            permission.name().starts_with("GENERATIVE_AI_"),
            "{permission}"
        );
    }
}

#[test]
fn what_lists_gets_updates_creates_moves_and_deletes_takes_the_verb_of_its_kind() {
    let kinds = [
        ("List", Verb::Inspect),
        ("Get", Verb::Read),
        ("Update", Verb::Use),
        ("Create", Verb::Manage),
        ("Change", Verb::Manage),
        ("Delete", Verb::Manage),
    ];
    let mut seen = 0;
    for operation in Operation::ALL {
        let [permission] = operation.permissions() else {
            continue;
        };
        let kind = kinds
            .iter()
            .find(|(prefix, _)| operation.name().starts_with(prefix));
        if let (Some((_, verb)), Some("generative-ai-family")) =
            (kind, permission.resource_type().family())
        {
            assert_eq!(permission.weakest_verb(), *verb, "{operation}");
            seen += 1;
        }
    }
    assert!(seen > 70, "{seen}");
}

#[test]
fn every_operation_needs_a_permission_that_some_verb_grants() {
    for operation in Operation::ALL {
        assert!(!operation.permissions().is_empty());
        for permission in operation.permissions() {
            let granted = permission
                .resource_type()
                .granted_by(permission.weakest_verb());
            assert!(granted.contains(*permission), "{operation}");
        }
    }
    assert_eq!(
        Permission::GENERATIVE_AI_CHAT.primary_operation(),
        Some(Operation::Chat)
    );
}
