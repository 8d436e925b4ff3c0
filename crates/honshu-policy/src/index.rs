//! Finds the few rules that can matter for a request among thousands.
//!
//! A rule is filed under its compartment and *keys* of which the request must have one for the rule
//! to hold, such as the API key's OCID, a group or a pattern of models. Rules without keys are filed
//! under each permission that they speak of. The index only leaves out; the rule itself decides.

use std::collections::HashMap;

use crate::compartments::Node;
use crate::matcher::KeyId;
use crate::table::Permission;
use crate::vocabulary::{AtomId, number};

pub(crate) type RuleId = u32;

/// A rule as it is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Filed {
    pub(crate) id: RuleId,
    /// The comparison that most likely keeps the rule from holding, so that a long row of rules is
    /// gone through without looking at the rules.
    pub(crate) guard: AtomId,
}

/// Entries of one key that are looked through; among more of them, compartments are searched for.
const SCANNED_ENTRIES_MAX: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Entries of each key, from `starts[key]` to `starts[key + 1]`.
    starts: Vec<u32>,
    /// In the order of keys, then of compartments.
    entries: Vec<(Node, Filed)>,
    unkeyed: HashMap<(Node, Permission), Vec<Filed>>,
}

/// Takes rules in, until all are known.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    entries: Vec<(KeyId, Node, Filed)>,
    unkeyed: HashMap<(Node, Permission), Vec<Filed>>,
}

impl Builder {
    pub(crate) fn under_keys(&mut self, keys: &[KeyId], node: Node, rule: Filed) {
        self.entries
            .extend(keys.iter().map(|key| (*key, node, rule)));
    }

    pub(crate) fn under_permissions(
        &mut self,
        permissions: impl Iterator<Item = Permission>,
        node: Node,
        rule: Filed,
    ) {
        for permission in permissions {
            self.unkeyed
                .entry((node, permission))
                .or_default()
                .push(rule);
        }
    }

    /// The keys in use.
    pub(crate) fn keys(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.entries.iter().map(|(key, ..)| *key)
    }

    pub(crate) fn finish(mut self, keys: usize) -> Index {
        self.entries.sort_unstable();
        Index {
            starts: (0..=keys)
                .map(|key| {
                    number(
                        self.entries
                            .partition_point(|(of, ..)| (*of as usize) < key),
                    )
                })
                .collect(),
            entries: self
                .entries
                .into_iter()
                .map(|(_, node, rule)| (node, rule))
                .collect(),
            unkeyed: self.unkeyed,
        }
    }
}

impl Index {
    /// Whether nothing is filed.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.unkeyed.is_empty()
    }

    /// The first rule filed for the chain of compartments that `matches` says yes to.
    pub(crate) fn find(
        &self,
        chain: &[Node],
        keys: &[KeyId],
        permission: Permission,
        mut matches: impl FnMut(Filed) -> bool,
    ) -> Option<RuleId> {
        if !self.entries.is_empty() {
            for key in keys {
                let key = *key as usize;
                let range = self.starts[key] as usize..self.starts[key + 1] as usize;
                let found = find_in(&self.entries[range], chain, &mut matches);
                if found.is_some() {
                    return found;
                }
            }
        }
        chain
            .iter()
            .filter_map(|node| self.unkeyed.get(&(*node, permission)))
            .flatten()
            .copied()
            .find(|rule| matches(*rule))
            .map(|rule| rule.id)
    }
}

fn find_in(
    entries: &[(Node, Filed)],
    chain: &[Node],
    matches: &mut impl FnMut(Filed) -> bool,
) -> Option<RuleId> {
    if entries.len() <= SCANNED_ENTRIES_MAX {
        return entries
            .iter()
            .filter(|(node, _)| chain.contains(node))
            .map(|(_, rule)| *rule)
            .find(|rule| matches(*rule))
            .map(|rule| rule.id);
    }
    chain
        .iter()
        .flat_map(|node| {
            let first = entries.partition_point(|(of, _)| of < node);
            entries[first..]
                .iter()
                .take_while(move |(of, _)| of == node)
        })
        .map(|(_, rule)| *rule)
        .find(|rule| matches(*rule))
        .map(|rule| rule.id)
}
