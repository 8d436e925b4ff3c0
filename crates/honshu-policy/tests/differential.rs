//! Our parser against the Python package `oci-lexer-parser` 0.5.0, for syntax.
//!
//! Needs Python and its package index, so it runs only with `HONSHU_TEST_PYTHON=1`. The environment
//! is kept in `.cache/venv-policy`.
//!
//! Where the two differ by intention, [`INTENDED`] says so with the reason; any other difference
//! fails.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed test is a panic, also in its helpers"
)]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use honshu_policy::{
    Action, Clause, Condition, DefineKind, Effect, EndorseAction, EndorseScope, Location,
    OtherTenancy, QualifiedName, Statement, Subject, Test, Value as Literal, parse_statement,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use support::strategy;

const PACKAGE: &str = "oci-lexer-parser==0.5.0";
const GENERATED: usize = 2_000;

/// Text, whether we take it, whether the package does, and why they differ.
const INTENDED: [(&str, bool, bool, &str); 17] = [
    (
        "allow any-user to fly groups in tenancy",
        false,
        true,
        "it takes any word for a verb",
    ),
    (
        "allow any-user to use grups in tenancy",
        false,
        true,
        "it knows no resource types",
    ),
    (
        "allow any-user to {NO_SUCH} in tenancy",
        false,
        true,
        "it knows no permissions",
    ),
    (
        "allow any-user to use groups in tenancy where nothing = 'x'",
        false,
        true,
        "it knows no variables",
    ),
    (
        "allow any-user to use groups in tenancy where request.region = \"KIX\"",
        false,
        true,
        "it skips characters that it does not know",
    ),
    (
        "allow any-user to use groups in tenancy;",
        false,
        true,
        "it skips characters that it does not know",
    ),
    (
        "allow any-user to use groups in tenancy where request.utc-timestamp before 'noon'",
        false,
        true,
        "it does not look into values",
    ),
    (
        "allow any-user to use groups in tenancy where target.model.id before '2026-01-01Z'",
        false,
        true,
        "it does not look at the kind of a variable",
    ),
    (
        "allow any-user to use in tenancy",
        false,
        true,
        "it lets a verb stand without a resource type",
    ),
    (
        "allow group id ocid1.x to use groups in tenancy",
        false,
        true,
        "it takes any text after `ocid1.`",
    ),
    (
        "allow group Manage to use groups in tenancy",
        true,
        false,
        "it reserves every keyword in every place",
    ),
    (
        "allow group A to use groups in compartment use",
        true,
        false,
        "it reserves every keyword in every place",
    ),
    (
        "allow group id ocid1.group.oc1..a, group id ocid1.group.oc1..b to use groups in tenancy",
        true,
        false,
        "documented for Private Cloud Appliance",
    ),
    (
        "allow group 営業部 to use groups in compartment コンパートメント",
        true,
        false,
        "it takes ASCII only",
    ),
    (
        "allow group A to use groups in compartment _a",
        true,
        true,
        "it skips the underscore and reads another name",
    ),
    (
        "allow group A to {GROUP_INSPECT} groups in tenancy where request.region",
        true,
        true,
        "",
    ),
    (
        "endorse any-user to {USER_READ} in tenancy T",
        true,
        false,
        "it wants no `to` before a list of permissions",
    ),
];

/// Texts that both refuse.
const REFUSED: [&str; 20] = [
    "allow any-user to use groups",
    "allow any-user use groups in tenancy",
    "allow user alice to use groups in tenancy",
    "allow any-user to use groups in tenancy where {request.region = 'KIX'}",
    "allow any-user to use groups in tenancy where request.region = 'KIX' and request.user.id = 'x'",
    "allow any-user to use groups in tenancy where all {}",
    "allow any-user to use groups in tenancy where all {request.region = 'KIX',}",
    "allow any-user to use groups users in tenancy",
    "allow any-user to use groups in tenancy where request.region == 'KIX'",
    "allow any-user to use groups in tenancy where any {request.region = 'KIX'",
    "allow any-user to use groups in tenancy where request.region in 'KIX'",
    "allow any-user to use groups in tenancy where request.region in ()",
    "allow any-user to use groups in tenancy where request.region =",
    "allow any-user to use groups in tenancy where",
    "allow any-user to use groups in compartment",
    "allow any-user to {} in tenancy",
    "allow group to use groups in tenancy",
    "allow group A, to use groups in tenancy",
    "define tenancy X ocid1.tenancy.oc1..a",
    "admit group A of any-tenancy to use groups in tenancy",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn ask(texts: &[String]) -> Vec<Value> {
    let environment = root().join(".cache/venv-policy");
    let python = environment.join("bin/python");
    let mark = environment.join(PACKAGE);
    if !mark.exists() {
        std::fs::create_dir_all(root().join(".cache")).unwrap();
        run(Command::new("python3")
            .args(["-m", "venv"])
            .arg(&environment));
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            PACKAGE,
        ]));
        std::fs::write(&mark, "").unwrap();
    }
    let mut child = Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oci_lexer_parser_oracle.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input: String = texts
        .iter()
        .map(|text| format!("{}\n", json!(text)))
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), texts.len());
    answers
}

#[test]
fn external_parser_reads_the_same_but_for_the_intended_differences() {
    if std::env::var_os("HONSHU_TEST_PYTHON").is_none() {
        println!("skipped: set HONSHU_TEST_PYTHON=1 to compare with {PACKAGE}");
        return;
    }
    let mut runner = TestRunner::deterministic();
    let generator = strategy::statement(strategy::plain_name());
    let mut texts: Vec<String> = INTENDED
        .iter()
        .map(|(text, ..)| (*text).to_owned())
        .collect();
    texts.extend(REFUSED.iter().map(|text| (*text).to_owned()));
    let valid = support::valid_statements();
    texts.extend(
        valid
            .iter()
            .filter(|(text, _)| text.is_ascii())
            .map(|(text, _)| text.clone()),
    );
    texts.extend((0..GENERATED).map(|_| {
        generator
            .new_tree(&mut runner)
            .unwrap()
            .current()
            .to_string()
    }));

    let answers = ask(&texts);
    let mut compared = 0;
    let mut differences = Vec::new();
    for (index, (text, answer)) in texts.iter().zip(&answers).enumerate() {
        let ours = parse_statement(text);
        let theirs = answer["ok"] == true;
        if let Some((_, we, they, reason)) = INTENDED.get(index) {
            assert_eq!(
                (ours.is_ok(), theirs),
                (*we, *they),
                "no longer true: {text}: {reason}: {answer}"
            );
            continue;
        }
        // See the entries of INTENDED for lists of OCIDs and for `endorse … to {…}`.
        let intended =
            text.contains(", group id ") || text.contains("to {") && text.starts_with("endorse");
        if intended && !theirs {
            continue;
        }
        match &ours {
            _ if ours.is_ok() != theirs => {
                differences.push(format!("{text}\n  {answer}\n  {ours:?}"))
            }
            // It keeps the backslashes of quoted names; we read them.
            Ok(_) if text.contains(r"\'") => {}
            Ok(statement) if shape(statement) != lower(&answer["statement"]) => {
                differences.push(format!(
                    "{text}\n  {}\n  {}",
                    lower(&answer["statement"]),
                    shape(statement)
                ));
            }
            _ => compared += usize::from(theirs),
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences[..differences.len().min(10)].join("\n")
    );
    assert!(compared > GENERATED, "{compared}");
}

/// Their keywords, permissions and types keep the case of the text; ours are resolved.
fn lower(value: &Value) -> Value {
    let mut value = value.clone();
    for field in ["/actions/values", "/resources/values"] {
        for item in value
            .pointer_mut(field)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            *item = json!(item.as_str().unwrap().to_lowercase());
        }
    }
    if let Some(conditions) = value.get_mut("conditions") {
        lower_variables(conditions);
    }
    value
}

fn lower_variables(node: &mut Value) {
    if let Some(variable) = node.pointer_mut("/node/lhs") {
        *variable = json!(variable.as_str().unwrap().to_lowercase());
    }
    for item in node
        .get_mut("items")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        lower_variables(item);
    }
}

/// Our statement in the shape of theirs.
fn shape(statement: &Statement) -> Value {
    match statement {
        Statement::Grant(grant) => {
            let mut shape = json!({
                "kind": grant.effect.to_string(),
                "subject": subject(&grant.subject),
                "location": location(&grant.location),
            });
            action(&mut shape, &grant.action);
            condition(&mut shape, grant.condition.as_ref());
            shape
        }
        Statement::Define(define) => {
            let kind = match define.kind {
                DefineKind::Tenancy => "tenancy",
                DefineKind::Group => "group",
                DefineKind::DynamicGroup => "dynamic-group",
                DefineKind::Compartment => "compartment",
            };
            let name = match &define.name.domain {
                Some(domain) => format!("{domain}/{}", define.name.name),
                None => define.name.name.clone(),
            };
            json!({"kind": "define", "symbol": {"type": kind, "name": name}, "def": {"type": "ocid", "value": define.ocid}})
        }
        Statement::Admit(admit) => {
            let mut shape = json!({
                "kind": kind(admit.effect, "admit"),
                "subject": subject(&admit.subject),
                "location": location(&admit.location),
            });
            if let Some(tenancy) = &admit.tenancy {
                shape["source"] = other(tenancy);
            }
            action(&mut shape, &admit.action);
            condition(&mut shape, admit.condition.as_ref());
            shape
        }
        Statement::Endorse(endorse) => {
            let mut shape = json!({"kind": kind(endorse.effect, "endorse"), "subject": subject(&endorse.subject)});
            match &endorse.action {
                EndorseAction::Action(it) => action(&mut shape, it),
                EndorseAction::Associate(resource) => {
                    shape["actions"] = json!({"type": "verbs", "values": ["associate"]});
                    shape["resources"] = resources(resource.name());
                }
            }
            shape["target"] = match &endorse.scope {
                EndorseScope::Tenancy(tenancy) => other(tenancy),
                EndorseScope::Compartment(path, tenancy) => {
                    let mut target = location(&Location::Compartment(path.clone()));
                    target["tenancy"] = json!(tenancy);
                    target
                }
            };
            condition(&mut shape, endorse.condition.as_ref());
            shape
        }
    }
}

fn kind(effect: Effect, word: &str) -> String {
    match effect {
        Effect::Allow => word.to_owned(),
        Effect::Deny => format!("deny_{word}"),
    }
}

fn subject(subject: &Subject) -> Value {
    let named = |kind: &str, names: &[QualifiedName]| {
        let values: Vec<Value> = names
            .iter()
            .map(|name| match &name.domain {
                Some(domain) => json!({"label": name.name, "identity_domain": domain}),
                None => json!({"label": name.name}),
            })
            .collect();
        json!({"type": kind, "values": values})
    };
    let texts = |kind: &str, texts: &[String]| {
        let values: Vec<Value> = texts.iter().map(|text| json!({"label": text})).collect();
        json!({"type": kind, "values": values})
    };
    match subject {
        Subject::AnyUser => json!({"type": "any-user", "values": []}),
        Subject::AnyGroup => json!({"type": "any-group", "values": []}),
        Subject::Groups(names) => named("group", names),
        Subject::GroupIds(ids) => texts("group-id", ids),
        Subject::DynamicGroups(names) => named("dynamic-group", names),
        Subject::DynamicGroupIds(ids) => texts("dynamic-group-id", ids),
        Subject::Services(names) => texts("service", names),
    }
}

fn action(shape: &mut Value, action: &Action) {
    match action {
        Action::Verb(verb, resource) => {
            shape["actions"] = json!({"type": "verbs", "values": [verb.name()]});
            shape["resources"] = resources(resource.name());
        }
        Action::Permissions(permissions, resource) => {
            let values: Vec<String> = permissions
                .iter()
                .map(|permission| permission.name().to_lowercase())
                .collect();
            shape["actions"] = json!({"type": "permissions", "values": values});
            shape["resources"] = match resource {
                Some(resource) => resources(resource.name()),
                None => json!({"type": "unknown", "values": []}),
            };
        }
    }
}

fn resources(name: &str) -> Value {
    match name {
        "all-resources" => json!({"type": "all-resources", "values": []}),
        name => json!({"type": "specific", "values": [name]}),
    }
}

fn location(location: &Location) -> Value {
    match location {
        Location::Tenancy => json!({"type": "tenancy", "values": []}),
        Location::Compartment(path) if path.len() == 1 => {
            json!({"type": "compartment_name", "values": path})
        }
        Location::Compartment(path) => json!({"type": "compartment-path", "values": path}),
        Location::CompartmentId(id) => json!({"type": "compartment-id", "values": [id]}),
    }
}

fn other(tenancy: &OtherTenancy) -> Value {
    match tenancy {
        OtherTenancy::Any => json!({"type": "any-tenancy", "values": []}),
        OtherTenancy::Named(name) => json!({"type": "tenancy", "values": [name]}),
    }
}

fn condition(shape: &mut Value, condition: Option<&Condition>) {
    let Some(condition) = condition else { return };
    let node = node(condition);
    shape["conditions"] = if node["type"] == "group" {
        node
    } else {
        json!({"type": "group", "mode": "all", "items": [node]})
    };
}

fn node(condition: &Condition) -> Value {
    let group = |mode: &str, items: &[Condition]| {
        let items: Vec<Value> = items.iter().map(node).collect();
        json!({"type": "group", "mode": mode, "items": items})
    };
    match condition {
        Condition::Any(items) => group("any", items),
        Condition::All(items) => group("all", items),
        Condition::Clause(it) => clause(it),
    }
}

fn clause(clause: &Clause) -> Value {
    let value = |value: &Literal| match value {
        Literal::Literal(text) if text.starts_with("ocid1.") => {
            json!({"type": "ocid", "value": text})
        }
        Literal::Literal(text) => json!({"type": "literal", "value": text}),
        Literal::Pattern(pattern) => {
            json!({"type": "regex", "value": format!("/{pattern}/"), "pattern": pattern})
        }
    };
    let list = |values: &[Literal]| json!({"type": "list", "values": values.iter().map(value).collect::<Vec<_>>()});
    let (op, rhs) = match &clause.test {
        Test::Present => ("exists", None),
        Test::Absent => ("not_exists", None),
        Test::Equals(it) => ("eq", Some(value(it))),
        Test::NotEquals(it) => ("neq", Some(value(it))),
        Test::In(values) => ("in", Some(list(values))),
        Test::NotIn(values) => ("not_in", Some(list(values))),
        Test::Before(it) => ("before", Some(value(it))),
        Test::After(it) => ("after", Some(value(it))),
        Test::Between(from, to) => (
            "between",
            Some(json!({"type": "range", "from": value(from), "to": value(to)})),
        ),
    };
    let mut node = json!({"lhs": clause.variable.name().to_lowercase(), "op": op});
    if let Some(rhs) = rhs {
        node["rhs"] = rhs;
    }
    json!({"type": "clause", "node": node})
}
