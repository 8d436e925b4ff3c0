//! How long a decision takes with 10,000 statements in 1,000 compartments: as a big tenancy has
//! them, and in the shapes that are worst for an index.
//!
//! Prints p50 and p99 of single decisions, which criterion's means would hide, then runs criterion. On a busy machine the
//! time on the clock has other programs in it, so the processor time is told too; reading that takes 0.2 µs and more.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
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

/// A shape of ten thousand statements, every one of which holds at the root, speaks of the
/// permission asked for and fails at its condition.
struct Shape {
    name: &'static str,
    /// Who, in place of `any-user`.
    subject: &'static str,
    condition: fn(usize) -> String,
}

const SHAPES: [Shape; 9] = [
    Shape {
        name: "patterns by their beginning",
        subject: "any-user",
        condition: |index| format!("target.model.id = /vendor{index}.*/"),
    },
    Shape {
        name: "patterns by their end",
        subject: "any-user",
        condition: |index| format!("target.model.id = /*-{index}q/"),
    },
    Shape {
        name: "patterns that share their beginning and end",
        subject: "any-user",
        condition: |index| format!("target.model.id = /openai.*-{index}q-*b/"),
    },
    Shape {
        name: "patterns for one group",
        subject: "group everyone, g0",
        condition: |index| format!("target.model.id in (/vendor{index}.*/, 'model-{index}')"),
    },
    Shape {
        name: "either a key or a pattern",
        subject: "any-user",
        condition: |index| {
            format!(
                "any {{request.principal.id = '{}x', all {{target.model.id = /*vendor{index}*/, request.region}}}}",
                key(index)
            )
        },
    },
    Shape {
        name: "negations that fail together",
        subject: "any-user",
        condition: |index| {
            format!(
                "all {{target.model.id != 'model-{index}', request.principal.type not in ('user', 'generativeaiapikey')}}"
            )
        },
    },
    Shape {
        name: "negations that fail one by one",
        subject: "any-user",
        condition: |index| {
            format!(
                "all {{target.model.id != 'model-{index}', request.region != /K*{index}/, request.principal.type not in ('user', 'generativeaiapikey', 'x{index}')}}"
            )
        },
    },
    Shape {
        name: "times that are over",
        subject: "any-user",
        condition: |index| {
            format!(
                "request.utc-timestamp between '2020-{:02}-{:02}T{:02}:00Z' and '2021-{:02}-{:02}T{:02}:{:02}Z'",
                1 + index % 12,
                1 + index / 12 % 28,
                index / 336 % 24,
                1 + index % 12,
                1 + index / 12 % 28,
                index / 336 % 24,
                index / 8_064,
            )
        },
    },
    Shape {
        name: "a common key and a time that is over",
        subject: "any-group",
        condition: |index| {
            format!(
                "all {{request.region = 'KIX', request.utc-timestamp before '2021-{:02}-{:02}T{:02}:{:02}Z'}}",
                1 + index % 12,
                1 + index / 12 % 28,
                index / 336 % 24,
                index / 8_064,
            )
        },
    },
];

fn compile(statement: impl Fn(usize) -> String) -> (PolicySet, Duration, usize) {
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
    let resident = resident_kib();
    let begin = Instant::now();
    let set = PolicySet::compile(
        &tenancy,
        &compartments,
        &policies,
        CompileOptions { deny_enabled: true },
    );
    let took = begin.elapsed();
    let resident = resident_kib().saturating_sub(resident);
    assert_eq!(
        (set.effective_statements(), set.compartments()),
        (STATEMENTS, COMPARTMENTS + 1)
    );
    (set, took, resident)
}

/// Memory of this process that is resident, in KiB; 0 where the system does not tell.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

struct Case {
    principal: String,
    groups: Vec<(String, String)>,
    compartment: String,
    model: &'static str,
}

const MODELS: [&str; 4] = [
    "openai.gpt-oss-120b",
    "xai.grok-4-1-fast-reasoning",
    "meta.llama-3.3-70b-instruct",
    "vendor.x",
];

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
                    (0..3usize)
                        .map(|group| {
                            (
                                format!("ocid1.group.oc1..{group}"),
                                if group == 0 {
                                    "Everyone".to_owned()
                                } else {
                                    format!("g{}", (index + group) % 300)
                                },
                            )
                        })
                        .collect()
                } else {
                    Vec::new()
                },
                compartment: compartment(index % COMPARTMENTS),
                model: MODELS[index % MODELS.len()],
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
        target: Target::new(&case.compartment).model(case.model),
        region_key: Some("KIX"),
        time: Timestamp::from_seconds(1_769_299_200),
        network_sources: None,
    }
}

/// What this thread has used of the processor.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

fn percentiles(
    name: &str,
    (set, compiled, resident_kib): &(PolicySet, Duration, usize),
    cases: &[Case],
) {
    let mut times: Vec<Duration> = Vec::with_capacity(cases.len() * 20);
    let mut processor_times = Vec::with_capacity(times.capacity());
    let mut allowed = 0;
    for _ in 0..20 {
        for case in cases {
            let request = request(case);
            let begin = Instant::now();
            let decision = black_box(set.decide(black_box(&request)));
            times.push(begin.elapsed());
            let begin = processor_time();
            black_box(set.decide(black_box(&request)));
            processor_times.push(processor_time() - begin);
            allowed += usize::from(decision.is_allowed());
        }
    }
    let at = |times: &mut [Duration], share: usize| {
        times.sort();
        times[(times.len() - 1) * share / 1_000]
    };
    println!(
        "{name}: compile {compiled:.0?} {resident_kib} KiB, decide p50 {:?} p99 {:?}, processor time p99 {:?}, allowed {}%",
        at(&mut times, 500),
        at(&mut times, 990),
        at(&mut processor_times, 990),
        100 * allowed / times.len()
    );
}

fn bench(criterion: &mut Criterion) {
    let cases = cases();
    let mixed = compile(mixed);
    percentiles("mixed", &mixed, &cases);
    percentiles(
        "a statement for each key",
        &compile(one_for_each_key),
        &cases,
    );
    for shape in SHAPES {
        let statement = |index| {
            let condition = (shape.condition)(index);
            format!(
                "allow {} to use generative-ai-chat in tenancy where {condition}",
                shape.subject
            )
        };
        percentiles(shape.name, &compile(statement), &cases);
    }
    let any = compile(|index| {
        if index == 0 {
            "allow any-user to use generative-ai-chat in tenancy where request.principal.type = 'generativeaiapikey'".to_owned()
        } else {
            one_for_each_key(index)
        }
    });
    percentiles("any-user", &any, &cases);

    let mut turn = 0;
    criterion.bench_function("decide/mixed", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % cases.len();
            mixed.0.decide(&request(&cases[turn]))
        });
    });
    let article = Case {
        principal: key(3),
        groups: Vec::new(),
        compartment: compartment(5),
        model: MODELS[0],
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
