//! The compiled set against an evaluator that is too simple to be wrong.
//!
//! The reference walks statements and compartments for every question and shares nothing with the
//! compiled set but the syntax tree and the table of permissions. `HONSHU_SOAK=1` runs a million
//! questions; the fast set runs twenty thousand. A failure prints the seed of its case.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed test is a panic, also in its helpers"
)]

mod support;

use std::sync::Arc;

use honshu_domain::Timestamp;
use honshu_policy::{
    AttachedPolicy, Clause, Compartment, CompileOptions, Condition, Effect, Grant, Location,
    Membership, Operation, PolicySet, QualifiedName, Request, Requester, Statement, Subject,
    Target, Tenancy, Test, Value, Variable, parse_statement,
};
use support::Dice;

const TENANCY: &str = "ocid1.tenancy.oc1..t";

/// The reference: about a hundred lines, read top to bottom.
mod reference {
    use super::*;

    pub(super) struct World<'a> {
        pub(super) compartments: &'a [Compartment],
        pub(super) policies: &'a [AttachedPolicy],
        pub(super) deny_enabled: bool,
    }

    impl World<'_> {
        pub(super) fn allows(&self, request: &Request<'_>) -> bool {
            let here = request.target.compartment_id;
            let known = here == TENANCY || self.compartments.iter().any(|c| &*c.id == here);
            if request.principal.tenancy_id != TENANCY || !known {
                return false;
            }
            let administrator = request.principal.kind == "user"
                && request
                    .principal
                    .groups
                    .iter()
                    .any(|g| g.name.to_lowercase() == "administrators" && g.domain.is_none());
            let (mut allowed, mut denied) = (false, false);
            for policy in self.policies {
                for text in &policy.statements {
                    let Ok(Statement::Grant(grant)) = parse_statement(text) else {
                        panic!("{text}")
                    };
                    if self.speaks_of(&policy.compartment_id, &grant, request) {
                        match grant.effect {
                            Effect::Allow => allowed = true,
                            Effect::Deny => denied |= self.deny_enabled && !administrator,
                        }
                    }
                }
            }
            allowed && !denied
        }

        fn parent(&self, id: &str) -> Option<&str> {
            self.compartments
                .iter()
                .find(|c| &*c.id == id)
                .map(|c| &*c.parent_id)
        }

        fn within(&self, id: &str, ancestor: &str) -> bool {
            id == ancestor
                || self
                    .parent(id)
                    .is_some_and(|parent| self.within(parent, ancestor))
        }

        fn speaks_of(&self, attached: &str, grant: &Grant, request: &Request<'_>) -> bool {
            let place = match &grant.location {
                Location::Tenancy => Some(TENANCY),
                Location::CompartmentId(id) => Some(id.as_str()),
                Location::Compartment(path) => {
                    let mut at = attached;
                    let mut found = true;
                    for (index, name) in path.iter().enumerate() {
                        let child = self.compartments.iter().find(|c| {
                            &*c.parent_id == at && c.name.to_lowercase() == name.to_lowercase()
                        });
                        let own = self.compartments.iter().find(|c| &*c.id == at);
                        match child {
                            Some(child) => at = &child.id,
                            None if index == 0
                                && own.is_some_and(|c| {
                                    c.name.to_lowercase() == name.to_lowercase()
                                }) => {}
                            None => found = false,
                        }
                    }
                    found.then_some(at)
                }
            };
            let Some(place) = place else { return false };
            self.within(place, attached)
                && self.within(request.target.compartment_id, place)
                && subject(&grant.subject, &request.principal)
                && grant
                    .action
                    .permissions()
                    .iter()
                    .any(|permission| permission == request.permission)
                && grant
                    .condition
                    .as_ref()
                    .is_none_or(|condition| self.holds(condition, request))
        }

        fn holds(&self, condition: &Condition, request: &Request<'_>) -> bool {
            match condition {
                Condition::Any(items) => items.iter().any(|item| self.holds(item, request)),
                Condition::All(items) => items.iter().all(|item| self.holds(item, request)),
                Condition::Clause(Clause { variable, test }) => {
                    let values = self.values(variable, request);
                    let Some(values) = values else {
                        return *test == Test::Absent;
                    };
                    let some = |wanted: &[Value]| {
                        values
                            .iter()
                            .any(|value| wanted.iter().any(|wanted| equal(variable, wanted, value)))
                    };
                    let key = |value: &Value| match value {
                        Value::Literal(text) => sortable(variable, text),
                        Value::Pattern(_) => panic!("patterns have no order"),
                    };
                    let now = values
                        .first()
                        .map(|value| sortable(variable, value))
                        .unwrap_or_default();
                    match test {
                        Test::Present => true,
                        Test::Absent => false,
                        Test::Equals(value) => some(std::slice::from_ref(value)),
                        Test::NotEquals(value) => !some(std::slice::from_ref(value)),
                        Test::In(wanted) => some(wanted),
                        Test::NotIn(wanted) => !some(wanted),
                        Test::Before(limit) => now < key(limit),
                        Test::After(limit) => now > key(limit),
                        Test::Between(from, to) => {
                            let (from, to) = (key(from), key(to));
                            let night = *variable == Variable::RequestTimeOfDay && from > to;
                            if night {
                                now >= from || now <= to
                            } else {
                                from <= now && now <= to
                            }
                        }
                    }
                }
            }
        }

        fn values(&self, variable: &Variable, request: &Request<'_>) -> Option<Vec<String>> {
            let principal = &request.principal;
            let user = principal.kind == "user";
            let time = request.time.to_rfc3339();
            let one = |value: &str| Some(vec![value.to_owned()]);
            match variable.name().as_str() {
                "request.principal.type" => one(&principal.kind),
                "request.principal.id" => one(principal.id),
                "request.principal.compartment.id" => one(principal.compartment_id?),
                "request.user.id" if user => one(principal.id),
                "request.user.name" if user => one(principal.name?),
                "request.groups.id" if user => {
                    Some(principal.groups.iter().map(|g| g.id.to_owned()).collect())
                }
                "request.permission" => one(request.permission.name()),
                "request.operation" => one(request.target.operation.unwrap().name()),
                "request.region" => one(request.region_key?),
                "request.networkSource.name" => Some(
                    request
                        .network_sources?
                        .iter()
                        .map(|n| (*n).to_owned())
                        .collect(),
                ),
                "request.utc-timestamp" => one(&format!("{}Z", &time[..19])),
                "request.utc-timestamp.month-of-year" => one(time[5..7].trim_start_matches('0')),
                "request.utc-timestamp.day-of-month" => one(time[8..10].trim_start_matches('0')),
                "request.utc-timestamp.day-of-week" => {
                    one(TIMES.iter().find(|(text, _)| text[..10] == time[..10])?.1)
                }
                "request.utc-timestamp.time-of-day" => one(&time[11..19]),
                "target.compartment.id" => one(request.target.compartment_id),
                "target.compartment.name" => {
                    let own = self
                        .compartments
                        .iter()
                        .find(|c| &*c.id == request.target.compartment_id);
                    one(own.map_or("root", |c| &c.name))
                }
                "target.model.id" => one(request.target.model_id?),
                _ => {
                    let given: Vec<String> = request
                        .target
                        .attributes
                        .iter()
                        .filter(|(v, _)| v == variable)
                        .map(|(_, t)| t.to_string())
                        .collect();
                    (!given.is_empty()).then_some(given)
                }
            }
        }
    }

    fn subject(subject: &Subject, principal: &Requester<'_>) -> bool {
        let named = |names: &[QualifiedName], groups: &[Membership<'_>]| {
            names.iter().any(|name| {
                groups.iter().any(|group| {
                    group.name.to_lowercase() == name.name.to_lowercase()
                        && group.domain.unwrap_or("default").to_lowercase()
                            == name.domain.as_deref().unwrap_or("default").to_lowercase()
                })
            })
        };
        match subject {
            Subject::AnyUser => true,
            Subject::AnyGroup => principal.kind != "service",
            Subject::Groups(names) => named(names, &principal.groups),
            Subject::GroupIds(ids) => principal
                .groups
                .iter()
                .any(|group| ids.iter().any(|id| id == group.id)),
            Subject::DynamicGroups(names) => named(names, &principal.dynamic_groups),
            Subject::DynamicGroupIds(ids) => principal
                .dynamic_groups
                .iter()
                .any(|group| ids.iter().any(|id| id == group.id)),
            Subject::Services(names) => {
                principal.kind == "service"
                    && names.iter().any(|name| name == principal.name.unwrap())
            }
        }
    }

    fn equal(variable: &Variable, wanted: &Value, value: &str) -> bool {
        match wanted {
            Value::Pattern(pattern) => glob(
                &pattern.to_lowercase().chars().collect::<Vec<_>>(),
                &value.to_lowercase().chars().collect::<Vec<_>>(),
            ),
            Value::Literal(text) => sortable(variable, text) == sortable(variable, value),
        }
    }

    fn glob(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
            Some((first, rest)) => text.first() == Some(first) && glob(rest, &text[1..]),
        }
    }

    /// Times written in full, numbers with leading zeros, all else in lower case: then texts sort.
    fn sortable(variable: &Variable, text: &str) -> String {
        let text = text.to_lowercase();
        let clock = |clock: &str| {
            if clock.len() == 5 {
                format!("{clock}:00")
            } else {
                clock.to_owned()
            }
        };
        match variable.name().as_str() {
            "request.utc-timestamp" => match text.trim_end_matches('z').split_once('t') {
                Some((date, time)) => format!("{date}t{}", clock(time)),
                None => format!("{}t00:00:00", text.trim_end_matches('z')),
            },
            "request.utc-timestamp.time-of-day" => clock(text.trim_end_matches('z')),
            "request.utc-timestamp.month-of-year" | "request.utc-timestamp.day-of-month" => {
                format!("{text:0>2}")
            }
            _ => text,
        }
    }
}

const TIMES: [(&str, &str); 5] = [
    ("2026-01-23T09:30:00Z", "Friday"),
    ("2026-01-25T00:00:00Z", "Sunday"),
    ("2026-02-28T23:59:59Z", "Saturday"),
    ("2026-12-31T12:00:00Z", "Thursday"),
    ("2027-01-01T06:00:01Z", "Friday"),
];
const IDS: [&str; 7] = [
    "ocid1.compartment.oc1..a",
    "ocid1.compartment.oc1..b",
    "ocid1.compartment.oc1..c",
    "ocid1.compartment.oc1..d",
    "ocid1.compartment.oc1..e",
    "ocid1.compartment.oc1..f",
    "ocid1.compartment.oc1..g",
];
const NAMES: [&str; 6] = ["営業", "Dev", "Prod", "tokyo", "É", "Σίσυφος"];
const MODELS: [&str; 4] = [
    "xai.grok-4",
    "openai.gpt-oss-120b",
    "meta.llama",
    "xai.grok-3",
];
const KEYS: [&str; 3] = [
    "ocid1.generativeaiapikey.oc1..a",
    "ocid1.generativeaiapikey.oc1..b",
    "ocid1.generativeaiapikey.oc1..c",
];
const USERS: [&str; 2] = ["ocid1.user.oc1..a", "ocid1.user.oc1..b"];
const GROUPS: [(&str, &str); 4] = [
    ("ocid1.group.oc1..a", "Ops"),
    ("ocid1.group.oc1..b", "Dev"),
    ("ocid1.group.oc1..c", "Administrators"),
    ("ocid1.group.oc1..d", "営業部"),
];
const OPERATIONS: [Operation; 8] = [
    Operation::Chat,
    Operation::Chat,
    Operation::Chat,
    Operation::ListApiKeys,
    Operation::RenewApiKey,
    Operation::GetModel,
    Operation::CreatePolicy,
    Operation::ListPolicies,
];

fn compartments(dice: &mut Dice) -> Vec<Compartment> {
    let mut made: Vec<Compartment> = Vec::new();
    for id in &IDS[..1 + dice.below(IDS.len())] {
        let parent = if dice.one_in(3) || made.is_empty() {
            TENANCY.into()
        } else {
            dice.choose(&made).id.clone()
        };
        // Names are unique among the children of a compartment, as the service sees to.
        let free: Vec<&str> = NAMES
            .into_iter()
            .filter(|name| {
                !made
                    .iter()
                    .any(|c| c.parent_id == parent && &*c.name == *name)
            })
            .collect();
        if let Some(name) = (!free.is_empty()).then(|| dice.pick(&free)) {
            made.push(Compartment {
                id: (*id).into(),
                parent_id: parent,
                name: name.into(),
            });
        }
    }
    made
}

fn swap_case(dice: &mut Dice, text: &str) -> String {
    match dice.below(4) {
        0 => text.to_uppercase(),
        1 => text.to_lowercase(),
        _ => text.to_owned(),
    }
}

fn subject(dice: &mut Dice) -> String {
    let (id, name) = dice.pick(&GROUPS);
    let (other_id, other) = dice.pick(&GROUPS);
    match dice.below(12) {
        0..=4 => "any-user".to_owned(),
        5 => "any-group".to_owned(),
        6 => format!("group {}, {other}", swap_case(dice, name)),
        7 => format!("group '{}'/'{name}'", dice.pick(&["Default", "Other"])),
        8 => format!("group id {id}, group id {other_id}"),
        9 => "dynamic-group Workers".to_owned(),
        10 => "dynamic-group id ocid1.dynamicgroup.oc1..a".to_owned(),
        _ => "service batch, other".to_owned(),
    }
}

fn quoted(dice: &mut Dice, values: &[&str]) -> String {
    let value = dice.pick(values);
    let value = swap_case(dice, value);
    format!("'{value}'")
}

fn clause(dice: &mut Dice) -> String {
    let texts: [(&str, &[&str], &[&str]); 14] = [
        (
            "request.principal.type",
            &["generativeaiapikey", "user", "service"],
            &["/*key/"],
        ),
        (
            "request.principal.id",
            &[KEYS[0], KEYS[1], USERS[0]],
            &["/*apikey*a/"],
        ),
        ("request.principal.compartment.id", &IDS, &["/*..a/"]),
        ("request.user.id", &USERS, &["/*b/"]),
        ("request.user.name", &["Aiko", "Ben"], &["/a*/"]),
        (
            "request.groups.id",
            &[GROUPS[0].0, GROUPS[1].0],
            &["/*..a/"],
        ),
        (
            "request.permission",
            &["GENERATIVE_AI_CHAT", "POLICY_READ"],
            &["/GENERATIVE_AI_APIKEY*/"],
        ),
        ("request.operation", &["Chat", "ListApiKeys"], &["/List*/"]),
        ("request.region", &["KIX", "ORD"], &["/k*/"]),
        ("request.networkSource.name", &["corp", "vpn"], &["/*o*/"]),
        ("target.compartment.name", &NAMES, &["/*o*/", "/営*/"]),
        ("target.compartment.id", &IDS, &["/*..b/"]),
        ("target.model.id", &MODELS, &["/xai.*/", "/*4/", "/*/"]),
        ("target.resource.tag.Ops.Stage", &["prod", "dev"], &["/p*/"]),
    ];
    let times: [(&str, &[&str]); 4] = [
        (
            "request.utc-timestamp",
            &[
                "2026-01-23T09:30Z",
                "2026-02-28T23:59:59Z",
                "2027-01-01Z",
                "2026-06-01Z",
            ],
        ),
        (
            "request.utc-timestamp.time-of-day",
            &["09:30", "00:00:00Z", "12:00:00", "22:15Z"],
        ),
        ("request.utc-timestamp.month-of-year", &["1", "2", "12"]),
        ("request.utc-timestamp.day-of-month", &["1", "23", "31"]),
    ];
    if dice.one_in(4) {
        let (variable, values) = dice.pick(&times);
        let (first, second) = (quoted(dice, values), quoted(dice, values));
        return match dice.below(6) {
            0 => format!("{variable} before {first}"),
            1 => format!("{variable} after {first}"),
            2 => format!("{variable} between {first} and {second}"),
            3 => format!("{variable} = {first}"),
            4 => format!("{variable} not in ({first}, {second})"),
            _ => format!(
                "request.utc-timestamp.day-of-week in ({}, {})",
                quoted(dice, &["Friday", "Sunday"]),
                quoted(dice, &["Monday", "Thursday"])
            ),
        };
    }
    let (variable, values, patterns) = dice.pick(&texts);
    let value = |dice: &mut Dice| {
        if dice.one_in(4) {
            (dice.pick(patterns)).to_owned()
        } else {
            quoted(dice, values)
        }
    };
    let (first, second) = (value(dice), value(dice));
    match dice.below(10) {
        0..=3 => format!("{variable} = {first}"),
        4 => format!("{variable} != {first}"),
        5 | 6 => format!("{variable} in ({first}, {second})"),
        7 => format!("{variable} not in ({first}, {second})"),
        8 => variable.to_owned(),
        _ => format!("not {variable}"),
    }
}

fn condition(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 || dice.one_in(2) {
        return clause(dice);
    }
    let items: Vec<String> = (0..1 + dice.below(3))
        .map(|_| condition(dice, depth - 1))
        .collect();
    format!(
        "{} {{{}}}",
        dice.pick(&["any", "all", "ALL"]),
        items.join(", ")
    )
}

fn statement(dice: &mut Dice, effect: &str) -> String {
    let subject = subject(dice);
    let action = match dice.below(8) {
        0 => "{GENERATIVE_AI_CHAT, POLICY_CREATE}".to_owned(),
        _ => format!(
            "{} {}",
            dice.pick(&["read", "use", "use", "manage", "manage"]),
            dice.pick(&[
                "generative-ai-chat",
                "generative-ai-chat",
                "generative-ai-apikey",
                "generative-ai-family",
                "generative-ai-family",
                "policies",
                "all-resources"
            ])
        ),
    };
    let location = match dice.below(8) {
        0..=3 => "tenancy".to_owned(),
        4 => format!("compartment id {}", dice.pick(&IDS)),
        5 => format!("compartment {}:{}", dice.pick(&NAMES), dice.pick(&NAMES)),
        _ => {
            let name = dice.pick(&NAMES);
            format!("compartment {}", swap_case(dice, name))
        }
    };
    let condition = if dice.one_in(2) {
        String::new()
    } else {
        format!(" where {}", condition(dice, 2))
    };
    format!("{effect} {subject} to {action} in {location}{condition}")
}

fn policies(dice: &mut Dice, compartments: &[Compartment]) -> Vec<AttachedPolicy> {
    (0..1 + dice.below(4))
        .map(|index| AttachedPolicy {
            id: format!("ocid1.policy.oc1..{index}").into(),
            name: format!("p{index}").into(),
            compartment_id: if dice.one_in(2) || compartments.is_empty() {
                TENANCY.into()
            } else {
                dice.choose(compartments).id.clone()
            },
            statements: (0..1 + dice.below(4))
                .map(|_| {
                    let effect = if dice.one_in(4) { "deny" } else { "allow" };
                    Arc::from(statement(dice, effect))
                })
                .collect(),
        })
        .collect()
}

const SOURCES: [&[&str]; 3] = [&["corp"], &["vpn", "Corp"], &[]];

fn ask<'a>(dice: &mut Dice, compartments: &'a [Compartment]) -> Request<'a> {
    let mut principal = match dice.below(4) {
        0 | 1 => Requester::new("generativeaiapikey", dice.pick(&KEYS), TENANCY),
        2 => {
            let mut user = Requester::new("user", dice.pick(&USERS), TENANCY);
            for (id, name) in GROUPS {
                if dice.one_in(3) {
                    user.groups.push(Membership {
                        id,
                        domain: dice.one_in(4).then_some("Other"),
                        name,
                    });
                }
            }
            user
        }
        _ if dice.one_in(2) => Requester::new("service", "s", TENANCY),
        _ => {
            let mut instance = Requester::new("instance", "ocid1.instance.oc1..a", TENANCY);
            instance.dynamic_groups.push(Membership {
                id: "ocid1.dynamicgroup.oc1..a",
                domain: None,
                name: "workers",
            });
            instance
        }
    };
    principal.name = Some(if principal.kind == "service" {
        "batch"
    } else {
        dice.pick(&["Aiko", "BEN"])
    });
    principal.compartment_id = (!dice.one_in(4)).then(|| dice.pick(&IDS));
    if dice.one_in(30) {
        principal.tenancy_id = "ocid1.tenancy.oc1..other";
    }
    let operation = dice.pick(&OPERATIONS);
    let place = match dice.below(8) {
        0 | 1 => TENANCY,
        2 => dice.pick(&IDS),
        _ if compartments.is_empty() => TENANCY,
        _ => &dice.choose(compartments).id,
    };
    let mut target = Target::new(place).operation(operation);
    target.model_id = (!dice.one_in(4)).then(|| dice.pick(&MODELS));
    if dice.one_in(2) {
        target = target.with(
            Variable::find("target.resource.tag.ops.stage").unwrap(),
            dice.pick(&["Prod", "dev"]),
        );
    }
    Request {
        principal,
        permission: operation.permissions()[0],
        target,
        region_key: (!dice.one_in(5)).then(|| dice.pick(&["KIX", "ORD"])),
        time: Timestamp::parse_rfc3339(dice.pick(&TIMES).0).unwrap(),
        network_sources: (!dice.one_in(3)).then(|| dice.pick(&SOURCES)),
    }
}

fn tenancy() -> Tenancy {
    Tenancy {
        id: TENANCY.into(),
        name: "root".into(),
    }
}

const QUESTIONS: u64 = 20;

fn cases() -> u64 {
    let questions = if std::env::var_os("HONSHU_SOAK").is_some() {
        1_000_000
    } else {
        20_000
    };
    questions / QUESTIONS
}

#[test]
fn the_compiled_set_decides_as_the_reference_does() {
    let mut allowed = 0u64;
    for seed in 0..cases() {
        let mut dice = Dice(seed);
        let compartments = compartments(&mut dice);
        let policies = policies(&mut dice, &compartments);
        let deny_enabled = dice.one_in(2);
        let set = PolicySet::compile(
            &tenancy(),
            &compartments,
            &policies,
            CompileOptions { deny_enabled },
        );
        let world = reference::World {
            compartments: &compartments,
            policies: &policies,
            deny_enabled,
        };
        for _ in 0..QUESTIONS {
            let request = ask(&mut dice, &compartments);
            let decision = set.decide(&request);
            let expected = world.allows(&request);
            assert_eq!(
                decision.is_allowed(),
                expected,
                "seed {seed}\n{request:#?}\n{policies:#?}\n{compartments:#?}"
            );
            allowed += u64::from(expected);
            // The explanation agrees with the decision, and every allowed request has a ground.
            if dice.one_in(8) {
                let explanation = set.explain(&request);
                assert_eq!(explanation.decision.effect, decision.effect, "seed {seed}");
                assert_eq!(
                    explanation.decision.is_allowed(),
                    !decision.because.is_empty() && expected
                );
            }
        }
    }
    // A comparison of two evaluators that always refuse would prove nothing.
    let share = allowed as f64 / (cases() * QUESTIONS) as f64;
    assert!((0.1..0.9).contains(&share), "{share}");
}

#[test]
fn adding_an_allow_removes_nothing_adding_a_deny_adds_nothing_and_order_means_nothing() {
    for seed in 0..cases() / 4 {
        let mut dice = Dice(seed ^ 0xdead_beef);
        let compartments = compartments(&mut dice);
        let before = policies(&mut dice, &compartments);
        let options = CompileOptions {
            deny_enabled: dice.one_in(2),
        };
        let compile = |policies: &[AttachedPolicy]| {
            PolicySet::compile(&tenancy(), &compartments, policies, options)
        };
        let with = |dice: &mut Dice, effect: &str| {
            let mut more = before.clone();
            let at = dice.below(more.len());
            let position = dice.below(more[at].statements.len() + 1);
            more[at]
                .statements
                .insert(position, Arc::from(statement(dice, effect)));
            more
        };
        let allow = compile(&with(&mut dice, "allow"));
        let deny = compile(&with(&mut dice, "deny"));
        let mut shuffled = before.clone();
        for policy in &mut shuffled {
            let by = dice.below(policy.statements.len());
            policy.statements.rotate_left(by);
            policy.statements.reverse();
        }
        shuffled.reverse();
        let (plain, shuffled) = (compile(&before), compile(&shuffled));
        for _ in 0..QUESTIONS {
            let request = ask(&mut dice, &compartments);
            let decided = plain.decide(&request).is_allowed();
            assert!(
                !decided || allow.decide(&request).is_allowed(),
                "seed {seed}: an allow removed something"
            );
            assert!(
                decided || !deny.decide(&request).is_allowed(),
                "seed {seed}: a deny added something"
            );
            assert_eq!(
                decided,
                shuffled.decide(&request).is_allowed(),
                "seed {seed}: order changed something"
            );
        }
    }
}
