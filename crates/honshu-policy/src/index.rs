//! Finds the few rules that can matter for a request among thousands.
//!
//! A rule is filed under its compartment and one *pin*: something that the request must have for
//! the rule to hold, such as the key's OCID or a group. Rules without a pin are filed under each
//! permission that they speak of. The index only leaves out; the rule itself decides.

use std::collections::HashMap;

use crate::compartments::Node;
use crate::request::Request;
use crate::rule::{Check, ConditionTest, Operand, Rule, SubjectTest};
use crate::table::Permission;
use crate::value::fold;
use crate::variable::Variable;

pub(crate) type RuleId = u32;

/// What a rule can be pinned to, most selective first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Pin {
    PrincipalId,
    UserId,
    UserName,
    PrincipalCompartmentId,
    GroupName,
    GroupId,
    DynamicGroupName,
    DynamicGroupId,
    ServiceName,
    ModelId,
}

impl Pin {
    fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// Variables whose equality with a text pins a rule.
const PINNED_VARIABLES: [(Variable, Pin); 5] = [
    (Variable::RequestPrincipalId, Pin::PrincipalId),
    (Variable::RequestUserId, Pin::UserId),
    (Variable::RequestUserName, Pin::UserName),
    (
        Variable::RequestPrincipalCompartmentId,
        Pin::PrincipalCompartmentId,
    ),
    (Variable::TargetModelId, Pin::ModelId),
];

type Symbol = u32;

#[derive(Debug, Default)]
pub(crate) struct Index {
    symbols: HashMap<Box<str>, Symbol>,
    pinned: HashMap<(Node, Pin, Symbol), Vec<RuleId>>,
    unpinned: HashMap<(Node, Permission), Vec<RuleId>>,
    /// Pins in use, by compartment.
    pins_at: HashMap<Node, u16>,
    pins: u16,
}

impl Index {
    pub(crate) fn insert(&mut self, node: Node, id: RuleId, rule: &Rule) {
        match pin(rule) {
            Some((pin, values)) => {
                for value in values {
                    let fresh = Symbol::try_from(self.symbols.len()).unwrap_or(Symbol::MAX);
                    let symbol = *self.symbols.entry(value.into()).or_insert(fresh);
                    let rules = self.pinned.entry((node, pin, symbol)).or_default();
                    if rules.last() != Some(&id) {
                        rules.push(id);
                    }
                }
                *self.pins_at.entry(node).or_default() |= pin.bit();
                self.pins |= pin.bit();
            }
            None => {
                for permission in rule.permissions.iter() {
                    self.unpinned
                        .entry((node, permission))
                        .or_default()
                        .push(id);
                }
            }
        }
    }

    /// The first rule in the chain of compartments that `matches` says yes to.
    pub(crate) fn find(
        &self,
        request: &Request<'_>,
        chain: impl Iterator<Item = Node>,
        matches: impl Fn(RuleId) -> bool,
    ) -> Option<RuleId> {
        let mut keys: Vec<(Pin, Symbol)> = Vec::new();
        let mut keyed = false;
        for node in chain {
            let unpinned = self
                .unpinned
                .get(&(node, request.permission))
                .into_iter()
                .flatten();
            for id in unpinned {
                if matches(*id) {
                    return Some(*id);
                }
            }
            let pins = self.pins_at.get(&node).copied().unwrap_or(0);
            if pins == 0 {
                continue;
            }
            if !keyed {
                keys = self.keys(request);
                keyed = true;
            }
            for (pin, symbol) in &keys {
                if pins & pin.bit() == 0 {
                    continue;
                }
                let pinned = self
                    .pinned
                    .get(&(node, *pin, *symbol))
                    .into_iter()
                    .flatten();
                for id in pinned {
                    if matches(*id) {
                        return Some(*id);
                    }
                }
            }
        }
        None
    }

    /// What the request has that some rule is pinned to.
    fn keys(&self, request: &Request<'_>) -> Vec<(Pin, Symbol)> {
        let mut keys = Vec::with_capacity(8);
        let mut add = |pin: Pin, value: &str| {
            if self.pins & pin.bit() != 0
                && let Some(symbol) = self.symbols.get(&*fold(value))
            {
                keys.push((pin, *symbol));
            }
        };
        let principal = &request.principal;
        for (variable, pin) in &PINNED_VARIABLES {
            // None of these reads the name of the compartment.
            request.any_value(variable, "", |value| {
                add(*pin, value);
                false
            });
        }
        for group in &principal.groups {
            add(Pin::GroupName, group.name);
            add(Pin::GroupId, group.id);
        }
        for group in &principal.dynamic_groups {
            add(Pin::DynamicGroupName, group.name);
            add(Pin::DynamicGroupId, group.id);
        }
        add(Pin::ServiceName, principal.name.unwrap_or(principal.id));
        keys
    }
}

/// What the rule is pinned to, with the values of which the request must have one.
fn pin(rule: &Rule) -> Option<(Pin, Vec<&str>)> {
    let mut best = subject_pin(&rule.subject);
    let necessary = rule
        .condition
        .as_ref()
        .map(ConditionTest::necessary)
        .unwrap_or_default();
    for clause in necessary {
        let Some((_, pin)) = PINNED_VARIABLES
            .iter()
            .find(|(variable, _)| variable == clause.variable())
        else {
            continue;
        };
        let Check::OneOf {
            operands,
            negated: false,
        } = &clause.check
        else {
            continue;
        };
        let texts: Option<Vec<&str>> = operands
            .iter()
            .map(|operand| match operand {
                Operand::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if let Some(texts) = texts
            && best
                .as_ref()
                .is_none_or(|(found, _)| (*pin as u8) < *found as u8)
        {
            best = Some((*pin, texts));
        }
    }
    best
}

fn subject_pin(subject: &SubjectTest) -> Option<(Pin, Vec<&str>)> {
    fn texts(texts: &[String]) -> Vec<&str> {
        texts.iter().map(String::as_str).collect()
    }
    match subject {
        SubjectTest::AnyUser | SubjectTest::AnyGroup => None,
        // The domain is left to the rule.
        SubjectTest::Groups(names) => Some((
            Pin::GroupName,
            names.iter().map(|test| test.name.as_str()).collect(),
        )),
        SubjectTest::DynamicGroups(names) => Some((
            Pin::DynamicGroupName,
            names.iter().map(|test| test.name.as_str()).collect(),
        )),
        SubjectTest::GroupIds(ids) => Some((Pin::GroupId, texts(ids))),
        SubjectTest::DynamicGroupIds(ids) => Some((Pin::DynamicGroupId, texts(ids))),
        SubjectTest::Services(names) => Some((Pin::ServiceName, texts(names))),
    }
}
