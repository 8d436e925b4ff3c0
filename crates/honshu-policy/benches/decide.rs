//! How long a decision takes with 10,000 statements in 1,000 compartments.
//!
//! Prints p50 and p99 of single decisions, which criterion's means would hide, then runs criterion.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench is a program for developers"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use honshu_domain::Timestamp;
use honshu_policy::{
    AttachedPolicy, Compartment, CompileOptions, Membership, Permission, PolicySet, Request,
    Requester, Target, Tenancy,
};

const TENANCY: &str =
    "ocid1.tenancy.oc1..aaaaaaaaba3pv6wkcr4jqae5f44n2b2m2yt2j6rx32uzr4h25vqstifsfdsq";
const COMPARTMENTS: usize = 1_000;
const STATEMENTS: usize = 10_000;

fn compartment(index: usize) -> String {
    format!("ocid1.compartment.oc1..aaaaaaaaxs7ukgrp6fs4rbiq2lkqyxl3rjqtw3o5bqyr{index:08}")
}

fn key(index: usize) -> String {
    format!("ocid1.generativeaiapikey.oc1.ap-osaka-1.amaaaaaask7dceyaqmd4y3qbs6xk5wd{index:08}")
}

/// Ten children a compartment, so three levels.
fn compartments() -> Vec<Compartment> {
    (0..COMPARTMENTS)
        .map(|index| Compartment {
            id: compartment(index).into(),
            parent_id: if index < 10 {
                TENANCY.into()
            } else {
                compartment(index / 10 - 1).into()
            },
            name: format!("c{index}").into(),
        })
        .collect()
}

/// What a big tenancy has: a policy for the tenancy, one for each group and key, some denials.
fn mixed(index: usize) -> String {
    let place = compartment(index % COMPARTMENTS);
    match index % 10 {
        0 => format!(
            "allow any-user to use generative-ai-chat in compartment id {place} where request.principal.type = 'generativeaiapikey'"
        ),
        1..=3 => format!(
            "allow group g{} to manage generative-ai-family in compartment id {place}",
            index % 300
        ),
        4..=6 => format!(
            "allow any-user to use generative-ai-chat in compartment id {place} where all {{request.principal.type = 'generativeaiapikey', request.principal.id = '{}'}}",
            key(index)
        ),
        7 => format!(
            "allow any-user to use generative-ai-chat in compartment id {place} where target.model.id in ('xai.grok-{index}', 'meta.llama-{index}')"
        ),
        8 => format!(
            "allow group g{} to read all-resources in tenancy where request.region = 'KIX'",
            index % 300
        ),
        _ => format!(
            "deny group g{} to use generative-ai-chat in compartment id {place} where target.model.id = /xai.*/",
            index % 300
        ),
    }
}

/// A statement for each key, all at the root: the index must find one of ten thousand.
fn one_for_each_key(index: usize) -> String {
    format!(
        "allow any-user to use generative-ai-chat in tenancy where all {{request.principal.type = 'generativeaiapikey', request.principal.id = '{}'}}",
        key(index)
    )
}

/// The worst: nothing to file by, every statement must be tried and fails at a pattern.
fn patterns(index: usize) -> String {
    format!(
        "allow any-user to use generative-ai-chat in tenancy where target.model.id = /vendor{index}.*/"
    )
}

fn compile(statement: impl Fn(usize) -> String) -> (PolicySet, Duration) {
    let policies: Vec<AttachedPolicy> = (0..STATEMENTS / 10)
        .map(|policy| AttachedPolicy {
            id: format!("ocid1.policy.oc1..{policy}").into(),
            name: format!("p{policy}").into(),
            compartment_id: TENANCY.into(),
            statements: (0..10)
                .map(|index| Arc::from(statement(policy * 10 + index)))
                .collect(),
        })
        .collect();
    let tenancy = Tenancy {
        id: TENANCY.into(),
        name: "root".into(),
    };
    let compartments = compartments();
    let begin = Instant::now();
    let set = PolicySet::compile(
        &tenancy,
        &compartments,
        &policies,
        CompileOptions { deny_enabled: true },
    );
    let took = begin.elapsed();
    assert_eq!(
        (set.effective_statements(), set.compartments()),
        (STATEMENTS, COMPARTMENTS + 1)
    );
    (set, took)
}

struct Case {
    principal: String,
    groups: Vec<(String, String)>,
    compartment: String,
}

fn cases() -> Vec<Case> {
    (0..1_000usize)
        .map(|index| {
            let index = index * 7_919 % STATEMENTS;
            let user = index.is_multiple_of(3);
            Case {
                principal: if user {
                    format!("ocid1.user.oc1..aaaaaaaa{index:08}")
                } else {
                    key(index)
                },
                groups: if user {
                    (0..3)
                        .map(|group| {
                            (
                                format!("ocid1.group.oc1..{group}"),
                                format!("g{}", (index + group) % 300),
                            )
                        })
                        .collect()
                } else {
                    Vec::new()
                },
                compartment: compartment(index % COMPARTMENTS),
            }
        })
        .collect()
}

fn request(case: &Case) -> Request<'_> {
    let kind = if case.groups.is_empty() {
        "generativeaiapikey"
    } else {
        "user"
    };
    let mut principal = Requester::new(kind, &case.principal, TENANCY);
    principal.groups = case
        .groups
        .iter()
        .map(|(id, name)| Membership {
            id,
            domain: None,
            name,
        })
        .collect();
    Request {
        principal,
        permission: Permission::GENERATIVE_AI_CHAT,
        target: Target::new(&case.compartment).model("openai.gpt-oss-120b"),
        region_key: Some("KIX"),
        time: Timestamp::from_seconds(1_769_299_200),
        network_sources: None,
    }
}

fn percentiles(name: &str, set: &PolicySet, compiled: Duration, cases: &[Case]) {
    let mut times: Vec<Duration> = Vec::with_capacity(cases.len() * 20);
    let mut allowed = 0;
    for _ in 0..20 {
        for case in cases {
            let request = request(case);
            let begin = Instant::now();
            let decision = black_box(set.decide(black_box(&request)));
            times.push(begin.elapsed());
            allowed += usize::from(decision.is_allowed());
        }
    }
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 1_000];
    println!(
        "{name}: compile {compiled:?}, decide p50 {:?} p99 {:?} p99.9 {:?}, allowed {}%",
        at(500),
        at(990),
        at(999),
        100 * allowed / times.len()
    );
}

fn bench(criterion: &mut Criterion) {
    let cases = cases();
    let (mixed, took) = compile(mixed);
    percentiles("mixed", &mixed, took, &cases);
    let (keys, took) = compile(one_for_each_key);
    percentiles("a statement for each key", &keys, took, &cases);
    let (patterns, took) = compile(patterns);
    percentiles("ten thousand patterns", &patterns, took, &cases);
    let any = compile(|index| {
        if index == 0 {
            "allow any-user to use generative-ai-chat in tenancy where request.principal.type = 'generativeaiapikey'".to_owned()
        } else {
            one_for_each_key(index)
        }
    });
    percentiles("any-user", &any.0, any.1, &cases);

    let mut turn = 0;
    criterion.bench_function("decide/mixed", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % cases.len();
            mixed.decide(&request(&cases[turn]))
        });
    });
    let article = Case {
        principal: key(3),
        groups: Vec::new(),
        compartment: compartment(5),
    };
    criterion.bench_function("decide/any-user", |bencher| {
        bencher.iter(|| any.0.decide(&request(&article)))
    });
    criterion.bench_function("authorize/any-user", |bencher| {
        bencher.iter(|| any.0.authorize(&request(&article)).is_ok())
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = bench
}
criterion_main!(benches);
