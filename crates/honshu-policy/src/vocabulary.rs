//! Everything that statements compare a request with, each thing once.
//!
//! A *key* is one thing that a request can have: a text or pattern that a variable's value equals,
//! a group, a service. An *atom* is one comparison, or one subject. Statements repeat both, and a
//! request has few of the keys however many there are. So the keys are found from the request's
//! values, never by going through the keys, and what atoms hold follows from the keys.

use std::collections::HashMap;

use crate::matcher::{KeyId, Matcher};
use crate::request::{DEFAULT_DOMAIN, Membership, Request, is_attribute, kind};
use crate::rule::{Check, ClauseTest, NameTest, Operand, SubjectTest};
use crate::value::{equals_folded, fold};
use crate::variable::Variable;

/// Comparisons and subjects, numbered.
pub(crate) type AtomId = u32;

type SlotId = u32;

/// One variable that statements compare.
#[derive(Debug)]
struct Slot {
    variable: Variable,
    matcher: Matcher,
    /// Whether an index files statements under one of its keys.
    filed: bool,
    present: Vec<AtomId>,
    absent: Vec<AtomId>,
    /// Atoms that hold unless one of their keys is there.
    negated: Vec<AtomId>,
    ordered: Vec<(AtomId, Order)>,
}

/// A comparison of a value that has an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    Before(i64),
    After(i64),
    Within(i64, i64),
    Outside(i64, i64),
}

impl Order {
    fn holds(self, value: i64) -> bool {
        match self {
            Order::Before(limit) => value < limit,
            Order::After(limit) => value > limit,
            Order::Within(from, to) => from <= value && value <= to,
            Order::Outside(to, from) => from <= value || value <= to,
        }
    }
}

/// Groups by folded name, then by folded domain.
type Names = HashMap<Box<str>, Vec<(Box<str>, KeyId)>>;
type Ids = HashMap<Box<str>, KeyId>;

/// Whom subjects name.
#[derive(Debug, Default)]
struct Subjects {
    groups: Names,
    group_ids: Ids,
    dynamic_groups: Names,
    dynamic_group_ids: Ids,
    services: Ids,
}

/// What a request has of the vocabulary.
#[derive(Debug, Default)]
struct Facts {
    keys: Vec<KeyId>,
    /// Variables that apply to it.
    applies: Vec<SlotId>,
}

#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    slots: Vec<Slot>,
    /// Slots whose values are in the request itself.
    own: Vec<SlotId>,
    attributes: HashMap<Variable, SlotId>,
    subjects: Subjects,
    any_group: Option<AtomId>,
    atoms: usize,
    keys: usize,
    /// Atoms of each key, from `starts[key]` to `starts[key + 1]`, with what they are if it is there.
    starts: Vec<u32>,
    touched: Vec<(AtomId, bool)>,
}

impl Vocabulary {
    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    /// The keys under which some statement is filed and that the request has.
    pub(crate) fn filed_keys(&self, request: &Request<'_>, compartment_name: &str) -> Vec<KeyId> {
        self.facts(request, compartment_name, true).keys
    }

    fn facts(&self, request: &Request<'_>, compartment_name: &str, only_filed: bool) -> Facts {
        let mut facts = Facts::default();
        facts.keys.reserve(16);
        self.subjects.find(request, &mut facts.keys);
        for id in &self.own {
            let slot = &self.slots[*id as usize];
            if only_filed && !slot.filed {
                continue;
            }
            let keys = &mut facts.keys;
            let applies = request.any_value(&slot.variable, compartment_name, |value| {
                slot.matcher.equal_to(value, |key| keys.push(key));
                false
            });
            if applies.is_some() {
                facts.applies.push(*id);
                let number = request.number(&slot.variable);
                facts
                    .keys
                    .extend(number.and_then(|number| slot.matcher.number(number)));
            }
        }
        if !self.attributes.is_empty() {
            for (variable, value) in request.attributes() {
                if let Some(id) = self.attributes.get(variable) {
                    let slot = &self.slots[*id as usize];
                    slot.matcher.equal_to(value, |key| facts.keys.push(key));
                    facts.applies.push(*id);
                }
            }
        }
        facts
    }

    /// Says of each atom whether it holds, and after them that what always holds does.
    pub(crate) fn truths(&self, request: &Request<'_>, compartment_name: &str) -> Vec<bool> {
        let mut truths = vec![false; self.atoms + 1];
        let mut set = |atoms: &[AtomId], to: bool| {
            for atom in atoms {
                truths[*atom as usize] = to;
            }
        };
        for slot in &self.slots {
            set(&slot.absent, true);
        }
        let facts = self.facts(request, compartment_name, false);
        for id in &facts.applies {
            let slot = &self.slots[*id as usize];
            set(&slot.present, true);
            set(&slot.absent, false);
            set(&slot.negated, true);
            if let Some(number) = request.number(&slot.variable) {
                for (atom, order) in &slot.ordered {
                    set(&[*atom], order.holds(number));
                }
            }
        }
        if let Some(atom) = self.any_group {
            set(&[atom], request.principal.kind != kind::SERVICE);
        }
        // After the variables, whose negated atoms these may make false.
        for key in &facts.keys {
            let key = *key as usize;
            let range = self.starts[key] as usize..self.starts[key + 1] as usize;
            for (atom, holds) in &self.touched[range] {
                set(&[*atom], *holds);
            }
        }
        truths[self.atoms] = true;
        truths
    }
}

impl Subjects {
    fn find(&self, request: &Request<'_>, keys: &mut Vec<KeyId>) {
        let principal = &request.principal;
        let mut members = |names: &Names, ids: &Ids, groups: &[Membership<'_>]| {
            if names.is_empty() && ids.is_empty() {
                return;
            }
            for group in groups {
                let domain = group.domain.unwrap_or(DEFAULT_DOMAIN);
                let named = names.get(&*fold(group.name)).into_iter().flatten();
                keys.extend(
                    named
                        .filter(|(wanted, _)| equals_folded(wanted, domain))
                        .map(|(_, key)| *key),
                );
                keys.extend(ids.get(&*fold(group.id)));
            }
        };
        members(&self.groups, &self.group_ids, &principal.groups);
        members(
            &self.dynamic_groups,
            &self.dynamic_group_ids,
            &principal.dynamic_groups,
        );
        if principal.kind == kind::SERVICE && !self.services.is_empty() {
            let name = principal.name.unwrap_or(principal.id);
            keys.extend(self.services.get(&*fold(name)));
        }
    }
}

/// An atom as it is told from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Atom {
    AnyGroup,
    Present(SlotId),
    Absent(SlotId),
    Ordered(SlotId, Order),
    /// One of the keys, or none of them if negated.
    Keys {
        slot: Option<SlotId>,
        keys: Vec<KeyId>,
        negated: bool,
    },
    Never,
}

#[derive(Debug)]
struct Key {
    slot: Option<SlotId>,
    /// How likely a request has it, as a rough weight; none if most requests do.
    weight: Option<u64>,
    /// How many comparisons of all statements want it.
    uses: u64,
}

/// Takes words in, until all statements are read.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    variables: HashMap<Variable, SlotId>,
    operands: HashMap<(SlotId, Operand), KeyId>,
    subjects: Subjects,
    keys: Vec<Key>,
    atoms: Vec<Atom>,
    known: HashMap<Atom, AtomId>,
}

impl Builder {
    /// The atom of a subject; none for `any-user`, which asks nothing.
    pub(crate) fn subject(&mut self, subject: &SubjectTest) -> Option<AtomId> {
        let keys = &mut self.keys;
        let mut fresh = || {
            keys.push(Key {
                slot: None,
                weight: Some(1),
                uses: 0,
            });
            number(keys.len() - 1)
        };
        let mut named = |names: &mut Names, tests: &[NameTest]| -> Vec<KeyId> {
            let mut find = |test: &NameTest| {
                let domains = names.entry(test.name.as_str().into()).or_default();
                if let Some((_, key)) = domains.iter().find(|(domain, _)| **domain == *test.domain)
                {
                    return *key;
                }
                let key = fresh();
                domains.push((test.domain.as_str().into(), key));
                key
            };
            tests.iter().map(&mut find).collect()
        };
        let subjects = &mut self.subjects;
        let keys = match subject {
            SubjectTest::AnyUser => return None,
            SubjectTest::AnyGroup => return Some(self.intern(Atom::AnyGroup)),
            SubjectTest::Groups(tests) => named(&mut subjects.groups, tests),
            SubjectTest::DynamicGroups(tests) => named(&mut subjects.dynamic_groups, tests),
            SubjectTest::GroupIds(texts)
            | SubjectTest::DynamicGroupIds(texts)
            | SubjectTest::Services(texts) => {
                let ids = match subject {
                    SubjectTest::GroupIds(_) => &mut subjects.group_ids,
                    SubjectTest::Services(_) => &mut subjects.services,
                    _ => &mut subjects.dynamic_group_ids,
                };
                let mut find =
                    |text: &String| *ids.entry(text.as_str().into()).or_insert_with(&mut fresh);
                texts.iter().map(&mut find).collect()
            }
        };
        Some(self.one_of(None, keys, false))
    }

    /// The atom of a comparison.
    pub(crate) fn clause(&mut self, clause: &ClauseTest) -> AtomId {
        let next = number(self.variables.len());
        let variable = clause.variable();
        let slot = match self.variables.get(variable) {
            Some(slot) => *slot,
            None => *self.variables.entry(variable.clone()).or_insert(next),
        };
        match &clause.check {
            Check::Present => self.intern(Atom::Present(slot)),
            Check::Absent => self.intern(Atom::Absent(slot)),
            Check::Before(limit) => self.intern(Atom::Ordered(slot, Order::Before(*limit))),
            Check::After(limit) => self.intern(Atom::Ordered(slot, Order::After(*limit))),
            Check::Between { from, to, wraps } => {
                let order = if *wraps {
                    Order::Outside(*to, *from)
                } else {
                    Order::Within(*from, *to)
                };
                self.intern(Atom::Ordered(slot, order))
            }
            Check::OneOf { operands, negated } => {
                let keys = operands
                    .iter()
                    .map(|operand| self.operand(slot, operand))
                    .collect();
                self.one_of(Some(slot), keys, *negated)
            }
            Check::Never => self.intern(Atom::Never),
        }
    }

    fn operand(&mut self, slot: SlotId, operand: &Operand) -> KeyId {
        let next = number(self.keys.len());
        let key = *self.operands.entry((slot, operand.clone())).or_insert(next);
        if key == next {
            let weight = match operand {
                Operand::Text(_) => Some(1),
                Operand::Number(_) => Some(8),
                Operand::Pattern(glob) => match glob.parts().iter().map(String::len).sum() {
                    0 => None,
                    1..=3 => Some(64),
                    _ => Some(2),
                },
            };
            self.keys.push(Key {
                slot: Some(slot),
                weight,
                uses: 0,
            });
        }
        key
    }

    fn one_of(&mut self, slot: Option<SlotId>, mut keys: Vec<KeyId>, negated: bool) -> AtomId {
        keys.sort_unstable();
        keys.dedup();
        for key in &keys {
            self.keys[*key as usize].uses += u64::from(!negated);
        }
        self.intern(Atom::Keys {
            slot,
            keys,
            negated,
        })
    }

    fn intern(&mut self, atom: Atom) -> AtomId {
        if let Some(id) = self.known.get(&atom) {
            return *id;
        }
        let id = number(self.atoms.len());
        self.atoms.push(atom.clone());
        self.known.insert(atom, id);
        id
    }

    /// Keys of which a request has one if the atom holds, if there are any.
    pub(crate) fn keys_of(&self, atom: AtomId) -> Option<&[KeyId]> {
        match &self.atoms[atom as usize] {
            Atom::Keys {
                keys,
                negated: false,
                ..
            } => Some(keys),
            Atom::Never => Some(&[]),
            _ => None,
        }
    }

    /// The atom that holds of every request: the first after those of statements.
    pub(crate) fn always(&self) -> AtomId {
        number(self.atoms.len())
    }

    /// How likely the atom does not hold, as a rough rank.
    pub(crate) fn doubt(&self, atom: AtomId) -> usize {
        match self.atoms.get(atom as usize) {
            Some(Atom::Never) => usize::MAX,
            Some(Atom::Keys { negated: false, .. }) => usize::MAX - 1,
            Some(Atom::Ordered(..)) => usize::MAX - 2,
            // Each key is one more way to fail.
            Some(Atom::Keys { keys, .. }) => 2 + keys.len(),
            Some(Atom::AnyGroup | Atom::Present(_) | Atom::Absent(_)) => 1,
            None => 0,
        }
    }

    /// What it costs to file a statement under these keys: how many others one of them would turn
    /// up, and how likely. None if most requests have one of the keys.
    pub(crate) fn cost(&self, keys: &[KeyId]) -> Option<u64> {
        keys.iter()
            .map(|key| {
                let key = &self.keys[*key as usize];
                key.weight.map(|weight| weight.saturating_mul(key.uses))
            })
            .sum()
    }

    /// The vocabulary, with the keys under which statements are filed.
    pub(crate) fn finish(self, filed: impl Iterator<Item = KeyId>) -> Vocabulary {
        let mut operands: Vec<Vec<(Operand, KeyId)>> = vec![Vec::new(); self.variables.len()];
        for ((slot, operand), key) in self.operands {
            operands[slot as usize].push((operand, key));
        }
        let mut variables: Vec<(SlotId, Variable)> = self
            .variables
            .into_iter()
            .map(|(variable, slot)| (slot, variable))
            .collect();
        variables.sort_unstable_by_key(|(slot, _)| *slot);
        let mut vocabulary = Vocabulary {
            subjects: self.subjects,
            atoms: self.atoms.len(),
            keys: self.keys.len(),
            ..Vocabulary::default()
        };
        for ((id, variable), operands) in variables.into_iter().zip(operands) {
            if is_attribute(&variable) {
                vocabulary.attributes.insert(variable.clone(), id);
            } else {
                vocabulary.own.push(id);
            }
            vocabulary.slots.push(Slot {
                variable,
                matcher: Matcher::new(operands),
                filed: false,
                present: Vec::new(),
                absent: Vec::new(),
                negated: Vec::new(),
                ordered: Vec::new(),
            });
        }
        for key in filed {
            if let Some(slot) = self.keys[key as usize].slot {
                vocabulary.slots[slot as usize].filed = true;
            }
        }
        vocabulary.take_in(&self.atoms);
        vocabulary
    }
}

impl Vocabulary {
    fn take_in(&mut self, atoms: &[Atom]) {
        let mut touched: Vec<(KeyId, AtomId, bool)> = Vec::new();
        for (id, atom) in (0..).zip(atoms) {
            match atom {
                Atom::AnyGroup => self.any_group = Some(id),
                Atom::Present(slot) => self.slots[*slot as usize].present.push(id),
                Atom::Absent(slot) => self.slots[*slot as usize].absent.push(id),
                Atom::Ordered(slot, order) => {
                    self.slots[*slot as usize].ordered.push((id, *order));
                }
                Atom::Keys {
                    slot,
                    keys,
                    negated,
                } => {
                    touched.extend(keys.iter().map(|key| (*key, id, !negated)));
                    if let (Some(slot), true) = (slot, negated) {
                        self.slots[*slot as usize].negated.push(id);
                    }
                }
                Atom::Never => {}
            }
        }
        touched.sort_unstable();
        self.starts = (0..=self.keys)
            .map(|key| number(touched.partition_point(|(of, ..)| (*of as usize) < key)))
            .collect();
        self.touched = touched
            .into_iter()
            .map(|(_, atom, holds)| (atom, holds))
            .collect();
    }
}

/// Numbers fit: a set with four thousand million comparisons does not fit into memory.
pub(crate) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
