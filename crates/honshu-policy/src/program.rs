//! A statement's subject and condition as a row of steps over atoms.
//!
//! The tree of a condition says why it fails; this says only whether it holds, thousands of times
//! in a decision, so it lies flat in memory and looks at nothing but the truths of the atoms.

use std::collections::HashMap;

use crate::index::RuleId;
use crate::matcher::KeyId;
use crate::permission_set::PermissionSet;
use crate::rule::{ConditionTest, Rule};
use crate::table::Permission;
use crate::vocabulary::{AtomId, Builder, number};

/// One step; a group is followed by the steps of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Atom(AtomId),
    /// All of the next so many steps.
    All(u32),
    /// Any of the next so many steps.
    Any(u32),
}

/// Where the steps of a rule are, and of which permissions it speaks.
#[derive(Debug, Clone, Copy)]
struct Row {
    start: u32,
    end: u32,
    permissions: u32,
}

/// The steps of every rule, in the order of the rules.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    steps: Vec<Step>,
    rows: Vec<Row>,
    /// The sets of permissions that rules speak of; there are few, so they stay near.
    sets: Vec<PermissionSet>,
    numbers: HashMap<PermissionSet, u32>,
}

impl Programs {
    /// Adds the next rule. Without a builder, one that is never asked.
    pub(crate) fn push(&mut self, rule: &Rule, builder: Option<&mut Builder>) {
        let start = number(self.steps.len());
        if let Some(builder) = builder {
            append(rule, builder, &mut self.steps);
        }
        let next = number(self.sets.len());
        let permissions = *self.numbers.entry(rule.permissions).or_insert(next);
        if permissions == next {
            self.sets.push(rule.permissions);
        }
        self.rows.push(Row {
            start,
            end: number(self.steps.len()),
            permissions,
        });
    }

    fn steps(&self, row: Row) -> &[Step] {
        &self.steps[row.start as usize..row.end as usize]
    }

    /// Whether the rule speaks of the request of which these are the truths, its location aside.
    pub(crate) fn matches(&self, id: RuleId, permission: Permission, truths: &[bool]) -> bool {
        let row = self.rows[id as usize];
        self.sets[row.permissions as usize].contains(permission) && all(self.steps(row), truths)
    }

    /// Keys of which a request must have one for the rule to speak of it, the cheapest such set.
    /// None if there is no such set.
    pub(crate) fn cover(&self, id: RuleId, builder: &Builder) -> Option<Vec<KeyId>> {
        cover_all(self.steps(self.rows[id as usize]), builder).map(|(_, keys)| keys)
    }

    /// The comparison that most likely keeps the rule from holding when a request has one of the
    /// keys under which it is filed.
    pub(crate) fn guard(&self, id: RuleId, cover: Option<&[KeyId]>, builder: &Builder) -> AtomId {
        let mut steps = self.steps(self.rows[id as usize]);
        let mut guard = builder.always();
        while let Some((head, _, rest)) = split(steps) {
            if let Step::Atom(atom) = head
                && (cover.is_none() || builder.keys_of(atom) != cover)
                && builder.doubt(atom) > builder.doubt(guard)
            {
                guard = atom;
            }
            steps = rest;
        }
        guard
    }
}

/// Appends the steps of a rule, every one of which must hold.
fn append(rule: &Rule, builder: &mut Builder, steps: &mut Vec<Step>) {
    steps.extend(builder.subject(&rule.subject).map(Step::Atom));
    match &rule.condition {
        Some(ConditionTest::All(items)) => {
            for item in items {
                append_condition(item, builder, steps);
            }
        }
        Some(condition) => append_condition(condition, builder, steps),
        None => {}
    }
}

fn append_condition(condition: &ConditionTest, builder: &mut Builder, steps: &mut Vec<Step>) {
    let (items, group): (_, fn(u32) -> Step) = match condition {
        ConditionTest::Clause(clause) => {
            steps.push(Step::Atom(builder.clause(clause)));
            return;
        }
        ConditionTest::All(items) => (items, Step::All),
        ConditionTest::Any(items) => (items, Step::Any),
    };
    let head = steps.len();
    steps.push(group(0));
    for item in items {
        append_condition(item, builder, steps);
    }
    steps[head] = group(number(steps.len() - head - 1));
}

/// The first item of a row and the items after it.
fn split(steps: &[Step]) -> Option<(Step, &[Step], &[Step])> {
    let (head, rest) = steps.split_first()?;
    let inner = match head {
        Step::Atom(_) => 0,
        Step::All(length) | Step::Any(length) => *length as usize,
    };
    let (inner, rest) = rest.split_at(inner);
    Some((*head, inner, rest))
}

fn holds(head: Step, inner: &[Step], truths: &[bool]) -> bool {
    match head {
        Step::Atom(atom) => truths[atom as usize],
        Step::All(_) => all(inner, truths),
        Step::Any(_) => any(inner, truths),
    }
}

/// Whether every item of the row holds.
fn all(mut steps: &[Step], truths: &[bool]) -> bool {
    while let Some((head, inner, rest)) = split(steps) {
        if !holds(head, inner, truths) {
            return false;
        }
        steps = rest;
    }
    true
}

fn any(mut steps: &[Step], truths: &[bool]) -> bool {
    while let Some((head, inner, rest)) = split(steps) {
        if holds(head, inner, truths) {
            return true;
        }
        steps = rest;
    }
    false
}

type Cover = (u64, Vec<KeyId>);

fn cover_all(mut steps: &[Step], builder: &Builder) -> Option<Cover> {
    let mut best: Option<Cover> = None;
    while let Some((head, inner, rest)) = split(steps) {
        if let Some(found) = cover_one(head, inner, builder)
            && best.as_ref().is_none_or(|best| found.0 < best.0)
        {
            best = Some(found);
        }
        steps = rest;
    }
    best
}

fn cover_one(head: Step, inner: &[Step], builder: &Builder) -> Option<Cover> {
    match head {
        Step::Atom(atom) => {
            let keys = builder.keys_of(atom)?;
            Some((builder.cost(keys)?, keys.to_vec()))
        }
        Step::All(_) => cover_all(inner, builder),
        Step::Any(_) => {
            let (mut cost, mut keys) = (0u64, Vec::new());
            let mut items = inner;
            while let Some((head, inner, rest)) = split(items) {
                let (more, mut found) = cover_one(head, inner, builder)?;
                cost = cost.saturating_add(more);
                keys.append(&mut found);
                items = rest;
            }
            keys.sort_unstable();
            keys.dedup();
            Some((cost, keys))
        }
    }
}
