//! Statements of every form, for property tests.

use honshu_policy::{
    Action, Admit, Clause, Condition, Define, DefineKind, Effect, Endorse, EndorseAction,
    EndorseScope, Grant, Location, Operation, OtherTenancy, Permission, QualifiedName,
    ResourceType, Statement, Subject, TagSource, Test, Value, Variable, VariableKind, Verb,
};
use proptest::prelude::*;
use proptest::sample::select;

/// Names in several scripts, with spaces, quotes, backslashes and keywords.
pub fn name() -> BoxedStrategy<String> {
    prop_oneof![
        "[A-Za-z0-9][A-Za-z0-9._-]{0,8}",
        "[A-Za-z営業部カタ'\\\\/: ]{0,5}[A-Za-z営業部]",
        select(vec![
            "to", "in", "Where", "id", "of", "as", "any", "use", "allow", "deny", "group", "with",
            "not"
        ])
        .prop_map(str::to_owned),
    ]
    .boxed()
}

/// Names that every parser takes.
pub fn plain_name() -> BoxedStrategy<String> {
    "[A-Z][a-z]{2,6}(-[0-9]{1,2})?".boxed()
}

fn ocid(kind: &'static str) -> impl Strategy<Value = String> {
    "[a-z0-9]{3,8}".prop_map(move |unique| format!("ocid1.{kind}.oc1..{unique}"))
}

fn qualified(name: BoxedStrategy<String>) -> impl Strategy<Value = QualifiedName> {
    (prop::option::of(name.clone()), name).prop_map(|(domain, name)| QualifiedName { domain, name })
}

fn subject(name: BoxedStrategy<String>) -> impl Strategy<Value = Subject> {
    let names = || prop::collection::vec(qualified(name.clone()), 1..4);
    prop_oneof![
        Just(Subject::AnyUser),
        Just(Subject::AnyGroup),
        names().prop_map(Subject::Groups),
        prop::collection::vec(ocid("group"), 1..3).prop_map(Subject::GroupIds),
        names().prop_map(Subject::DynamicGroups),
        prop::collection::vec(ocid("dynamicgroup"), 1..3).prop_map(Subject::DynamicGroupIds),
        prop::collection::vec(name.clone(), 1..3).prop_map(Subject::Services),
    ]
}

fn resource() -> impl Strategy<Value = ResourceType> {
    select(ResourceType::all().collect::<Vec<_>>())
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (select(Verb::ALL.to_vec()), resource()).prop_map(|(verb, resource)| Action::Verb(verb, resource)),
        1 => prop::collection::vec(select(Permission::ALL.to_vec()), 1..4)
            .prop_map(|permissions| Action::Permissions(permissions, None)),
    ]
}

fn location(name: BoxedStrategy<String>) -> impl Strategy<Value = Location> {
    prop_oneof![
        Just(Location::Tenancy),
        prop::collection::vec(name, 1..4).prop_map(Location::Compartment),
        ocid("compartment").prop_map(Location::CompartmentId),
    ]
}

fn variable() -> impl Strategy<Value = Variable> {
    prop_oneof![
        8 => select(Variable::NAMED.to_vec()),
        1 => ("[a-z]{2,5}", "[a-z]{2,5}").prop_map(|(namespace, key)| Variable::Tag(TagSource::TargetResource, namespace, key)),
        1 => ("[a-z]{2,5}", "[a-z]{2,5}").prop_map(|(namespace, key)| Variable::Tag(TagSource::PrincipalGroup, namespace, key)),
    ]
}

fn literal(kind: VariableKind, text: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let of = |values: &[&str]| {
        select(
            values
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<String>>(),
        )
        .boxed()
    };
    match kind {
        VariableKind::Permission => select(Permission::ALL.to_vec())
            .prop_map(|p| p.name().to_owned())
            .boxed(),
        VariableKind::Operation => select(Operation::ALL.to_vec())
            .prop_map(|o| o.name().to_owned())
            .boxed(),
        VariableKind::Region => of(&["KIX", "ord", "LCL"]),
        VariableKind::Boolean => of(&["true", "False"]),
        VariableKind::Number { min, max } => {
            (min..=max).prop_map(|number| number.to_string()).boxed()
        }
        VariableKind::Weekday => of(&["Monday", "sunday"]),
        VariableKind::Instant => of(&["2026-01-01Z", "2026-06-01T12:30Z", "2027-01-01T00:00:01Z"]),
        VariableKind::TimeOfDay => of(&["09:00", "17:30:15Z", "00:00:00"]),
        _ => text,
    }
}

fn clause(text: BoxedStrategy<String>) -> impl Strategy<Value = Clause> {
    variable().prop_flat_map(move |variable| {
        let literal = literal(variable.kind(), text.clone());
        let pattern = "[a-z]{0,3}\\*[a-z.]{0,3}(\\\\/)?".prop_map(Value::Pattern);
        let value =
            prop_oneof![3 => literal.clone().prop_map(Value::Literal), 1 => pattern].boxed();
        let values = prop::collection::vec(value.clone(), 1..4);
        let ordered = matches!(
            variable.kind(),
            VariableKind::Instant | VariableKind::TimeOfDay | VariableKind::Number { .. }
        );
        let bound = literal.prop_map(Value::Literal).boxed();
        let mut tests = vec![
            Just(Test::Present).boxed(),
            Just(Test::Absent).boxed(),
            value.clone().prop_map(Test::Equals).boxed(),
            value.prop_map(Test::NotEquals).boxed(),
            values.clone().prop_map(Test::In).boxed(),
            values.prop_map(Test::NotIn).boxed(),
        ];
        if ordered {
            tests.push(bound.clone().prop_map(Test::Before).boxed());
            tests.push(bound.clone().prop_map(Test::After).boxed());
            tests.push(
                (bound.clone(), bound)
                    .prop_map(|(from, to)| Test::Between(from, to))
                    .boxed(),
            );
        }
        prop::strategy::Union::new(tests).prop_map(move |test| Clause {
            variable: variable.clone(),
            test,
        })
    })
}

fn condition(text: BoxedStrategy<String>) -> impl Strategy<Value = Condition> {
    clause(text)
        .prop_map(Condition::Clause)
        .prop_recursive(3, 12, 4, |inner| {
            let items = prop::collection::vec(inner, 1..4);
            prop_oneof![
                items.clone().prop_map(Condition::Any),
                items.prop_map(Condition::All)
            ]
        })
}

fn effect() -> impl Strategy<Value = Effect> {
    select(vec![Effect::Allow, Effect::Deny])
}

/// Any statement, with names from the given source.
pub fn statement(name: BoxedStrategy<String>) -> BoxedStrategy<Statement> {
    let condition = || prop::option::of(condition(name.clone()));
    let grant = (
        effect(),
        subject(name.clone()),
        action(),
        location(name.clone()),
        condition(),
    )
        .prop_map(|(effect, subject, action, location, condition)| {
            Statement::Grant(Grant {
                effect,
                subject,
                action,
                location,
                condition,
            })
        });
    let define = (
        select(vec![
            DefineKind::Tenancy,
            DefineKind::Group,
            DefineKind::DynamicGroup,
            DefineKind::Compartment,
        ]),
        qualified(name.clone()),
        ocid("tenancy"),
    )
        .prop_map(|(kind, mut name, ocid)| {
            if matches!(kind, DefineKind::Tenancy | DefineKind::Compartment) {
                name.domain = None;
            }
            Statement::Define(Define { kind, name, ocid })
        });
    let tenancy = || {
        prop_oneof![
            Just(OtherTenancy::Any),
            name.clone().prop_map(OtherTenancy::Named)
        ]
    };
    let admit = (
        effect(),
        subject(name.clone()),
        prop::option::of(tenancy()),
        action(),
        location(name.clone()),
        condition(),
    )
        .prop_map(
            |(effect, subject, mut tenancy, action, location, condition)| {
                if tenancy == Some(OtherTenancy::Any)
                    && !matches!(subject, Subject::AnyUser | Subject::AnyGroup)
                {
                    tenancy = None;
                }
                Statement::Admit(Admit {
                    effect,
                    subject,
                    tenancy,
                    action,
                    location,
                    condition,
                })
            },
        );
    let endorse_action = prop_oneof![
        3 => action().prop_map(EndorseAction::Action),
        1 => resource().prop_map(EndorseAction::Associate),
    ];
    let scope = prop_oneof![
        tenancy().prop_map(EndorseScope::Tenancy),
        (prop::collection::vec(name.clone(), 1..3), name.clone())
            .prop_map(|(path, tenancy)| EndorseScope::Compartment(path, tenancy)),
    ];
    let endorse = (
        effect(),
        subject(name.clone()),
        endorse_action,
        scope,
        condition(),
    )
        .prop_map(|(effect, subject, action, scope, condition)| {
            Statement::Endorse(Endorse {
                effect,
                subject,
                action,
                scope,
                condition,
            })
        });
    prop_oneof![8 => grant, 1 => define, 1 => admit, 1 => endorse].boxed()
}
