//! Which of many texts, patterns and numbers a value equals, found in one pass over the value.
//!
//! A request is held against what ten thousand statements compare a variable with; trying them one
//! by one costs more than everything else in a decision. Texts and numbers are looked up. Of each
//! pattern the rarest text between its stars is searched for, all at once, and only patterns
//! whose text occurs are tried.

use std::cmp::Reverse;
use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::rule::Operand;
use crate::value::{Glob, fold};

/// What statements compare values with, numbered over all variables.
pub(crate) type KeyId = u32;

#[derive(Debug, Default)]
pub(crate) struct Matcher {
    texts: HashMap<Box<str>, KeyId>,
    numbers: HashMap<i64, KeyId>,
    patterns: Option<Needles>,
    /// Patterns that have no text to search for.
    unsearched: Vec<(Glob, KeyId)>,
}

#[derive(Debug)]
struct Needles {
    search: AhoCorasick,
    /// The patterns of each needle.
    patterns: Vec<Vec<(Glob, KeyId)>>,
}

impl Matcher {
    pub(crate) fn new(keys: impl IntoIterator<Item = (Operand, KeyId)>) -> Matcher {
        let mut matcher = Matcher::default();
        let mut patterns = Vec::new();
        for (operand, key) in keys {
            match operand {
                Operand::Text(text) => {
                    matcher.texts.insert(text.into(), key);
                }
                Operand::Number(number) => {
                    matcher.numbers.insert(number, key);
                }
                Operand::Pattern(glob) => patterns.push((glob, key)),
            }
        }
        matcher.search_for(patterns);
        matcher
    }

    fn search_for(&mut self, patterns: Vec<(Glob, KeyId)>) {
        let mut uses: HashMap<String, usize> = HashMap::new();
        for (glob, _) in &patterns {
            for part in glob.parts().iter().filter(|part| !part.is_empty()) {
                *uses.entry(part.clone()).or_default() += 1;
            }
        }
        let mut by_needle: HashMap<String, Vec<(Glob, KeyId)>> = HashMap::new();
        for (glob, key) in patterns {
            let rarest = glob
                .parts()
                .iter()
                .filter(|part| !part.is_empty())
                .min_by_key(|part| (uses.get(*part), Reverse(part.len())))
                .cloned();
            match rarest {
                Some(needle) => by_needle.entry(needle).or_default().push((glob, key)),
                None => self.unsearched.push((glob, key)),
            }
        }
        if by_needle.is_empty() {
            return;
        }
        let (needles, patterns): (Vec<String>, Vec<_>) = by_needle.into_iter().unzip();
        // The automaton that stays small with many needles; it is built in a time linear in them.
        let search = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&needles);
        match search {
            Ok(search) => self.patterns = Some(Needles { search, patterns }),
            // Beyond what an automaton can number, which is no reason to forget a pattern.
            Err(_) => self.unsearched.extend(patterns.into_iter().flatten()),
        }
    }

    /// Calls `found` with each text and pattern that the value equals.
    pub(crate) fn equal_to(&self, value: &str, mut found: impl FnMut(KeyId)) {
        let value = fold(value);
        if let Some(key) = self.texts.get(&*value) {
            found(*key);
        }
        let mut attempt = |patterns: &[(Glob, KeyId)]| {
            for (glob, key) in patterns {
                if glob.matches_folded(&value) {
                    found(*key);
                }
            }
        };
        attempt(&self.unsearched);
        if let Some(needles) = &self.patterns {
            let mut hits: Vec<usize> = needles
                .search
                .find_overlapping_iter(&*value)
                .map(|hit| hit.pattern().as_usize())
                .collect();
            hits.sort_unstable();
            hits.dedup();
            for hit in hits {
                attempt(&needles.patterns[hit]);
            }
        }
    }

    /// The number's key, if a statement names it.
    pub(crate) fn number(&self, number: i64) -> Option<KeyId> {
        self.numbers.get(&number).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn operand(text: &str, pattern: bool) -> Operand {
        if pattern {
            Operand::Pattern(Glob::new(text))
        } else {
            Operand::Text(fold(text).into_owned())
        }
    }

    proptest! {
        #[test]
        fn the_matcher_finds_what_one_by_one_finds(
            operands in prop::collection::hash_set(("[aAbÉ*]{0,5}", any::<bool>()), 0..40),
            values in prop::collection::vec("[abBé*]{0,8}", 1..10),
        ) {
            let keys: Vec<(Operand, KeyId)> =
                operands.iter().map(|(text, pattern)| operand(text, *pattern)).zip(0..).collect();
            // Two spellings of one operand are one key.
            let mut unique: HashMap<Operand, KeyId> = HashMap::new();
            for (operand, key) in &keys {
                unique.entry(operand.clone()).or_insert(*key);
            }
            let matcher = Matcher::new(unique.clone());
            for value in &values {
                let mut found = Vec::new();
                matcher.equal_to(value, |key| found.push(key));
                found.sort_unstable();
                let mut expected: Vec<KeyId> = unique
                    .iter()
                    .filter(|(operand, _)| match operand {
                        Operand::Text(text) => *text == fold(value),
                        Operand::Pattern(glob) => glob.matches(value),
                        Operand::Number(_) => false,
                    })
                    .map(|(_, key)| *key)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(&found, &expected, "{}", value);
            }
        }
    }
}
