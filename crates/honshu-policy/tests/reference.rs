//! The compiled set against an evaluator that is too simple to be wrong.
//!
//! The reference walks statements and compartments for every question and shares nothing with the
//! compiled set but the syntax tree and the table of permissions. `HONSHU_SOAK=1` runs a million
//! questions; the fast set runs twenty thousand. A failure prints the seed of its case.

mod support;

use std::sync::Arc;

use honshu_policy::{AttachedPolicy, CompileOptions, PolicySet};
use support::reference::World;
use support::world::{Dice, ask, compartments, policies, statement, tenancy};

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
        let world = World::new(&compartments, &policies, deny_enabled);
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
