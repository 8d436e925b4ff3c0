//! Tenancies, policies and questions made by chance from a seed.
//!
//! Some worlds are wide: a hundred statements most of which fail at a condition. There the compiled
//! set stops trying rules one by one and looks at all comparisons at once.

use std::sync::Arc;

use honshu_domain::Timestamp;
use honshu_policy::{
    AttachedPolicy, Compartment, Membership, Operation, Request, Requester, Target, Tenancy,
    Variable,
};

/// OCID of the tenancy.
pub const TENANCY: &str = "ocid1.tenancy.oc1..t";

/// The moments of requests, with their days of the week.
pub const TIMES: [(&str, &str); 5] = [
    ("2026-01-23T09:30:00Z", "Friday"),
    ("2026-01-25T00:00:00Z", "Sunday"),
    ("2026-02-28T23:59:59Z", "Saturday"),
    ("2026-12-31T12:00:00Z", "Thursday"),
    ("2027-01-01T06:00:01Z", "Friday"),
];

/// A small deterministic generator (SplitMix64), so that a seed names a case.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

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

pub fn compartments(dice: &mut Dice) -> Vec<Compartment> {
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
        (
            "target.model.id",
            &MODELS,
            &[
                "/xai.*/",
                "/*4/",
                "/*/",
                "/*GROK*/",
                "/*-*s*-*b/",
                "/xai.grok-4/",
            ],
        ),
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

pub fn statement(dice: &mut Dice, effect: &str) -> String {
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

/// A statement that speaks of almost everything and fails, most often, at one comparison.
fn narrow_statement(dice: &mut Dice, effect: &str) -> String {
    let subject = dice.pick(&["any-user", "any-user", "any-group", "group Ops, Dev"]);
    let tag = dice.below(60);
    let mut items: Vec<String> = (0..dice.below(3))
        .map(|_| match dice.below(5) {
            0 => "request.region = 'kix'".to_owned(),
            1 => "request.principal.type not in ('service', /x*/)".to_owned(),
            2 => format!("request.utc-timestamp after '2025-01-{:02}Z'", 1 + tag % 28),
            3 => format!("target.model.id != /*{tag}x*/"),
            _ => condition(dice, 2),
        })
        .collect();
    let at = dice.below(items.len() + 1);
    let hard = match dice.below(12) {
        0..=2 => format!(
            "request.utc-timestamp before '2025-02-{:02}Z'",
            1 + tag % 28
        ),
        3..=5 => format!("target.model.id in (/*q{tag}*/, 'q{tag}', /q*{tag}/)"),
        6 | 7 => format!(
            "request.utc-timestamp.time-of-day between '03:00' and '03:{:02}'",
            tag % 60
        ),
        8 => "not request.operation".to_owned(),
        9 => format!(
            "any {{request.region = 'x{tag}', all {{request.user.id, request.region != /*/}}}}"
        ),
        _ => clause(dice),
    };
    items.insert(at, hard);
    let place = dice.pick(&["tenancy", "tenancy", "compartment dev"]);
    format!(
        "{effect} {subject} to manage generative-ai-family in {place} where all {{{}}}",
        items.join(", ")
    )
}

pub fn policies(dice: &mut Dice, compartments: &[Compartment]) -> Vec<AttachedPolicy> {
    let wide = dice.one_in(12).then(|| AttachedPolicy {
        id: "ocid1.policy.oc1..wide".into(),
        name: "wide".into(),
        compartment_id: TENANCY.into(),
        statements: (0..50 + dice.below(100))
            .map(|_| {
                let effect = if dice.one_in(3) { "deny" } else { "allow" };
                Arc::from(narrow_statement(dice, effect))
            })
            .collect(),
    });
    if wide.is_some() && dice.one_in(2) {
        return wide.into_iter().collect();
    }
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
        .chain(wide)
        .collect()
}

const SOURCES: [&[&str]; 3] = [&["corp"], &["vpn", "Corp"], &[]];

pub fn ask<'a>(dice: &mut Dice, compartments: &'a [Compartment]) -> Request<'a> {
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

pub fn tenancy() -> Tenancy {
    Tenancy {
        id: TENANCY.into(),
        name: "root".into(),
    }
}
