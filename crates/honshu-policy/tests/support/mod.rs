//! Shared by the integration tests of this crate.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part of this module, and a failed test is a panic"
)]

pub mod strategy;

use std::path::PathBuf;

use honshu_policy::check;

/// The table of valid statements: text and canonical spelling.
pub fn valid_statements() -> Vec<(String, String)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/policies/valid.txt");
    let table = std::fs::read_to_string(path).unwrap();
    let mut statements: Vec<(String, String)> = Vec::new();
    for line in table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match (line.strip_prefix("=> "), statements.last_mut()) {
            (Some(canonical), Some(last)) => last.1 = canonical.to_owned(),
            _ => statements.push((line.to_owned(), line.to_owned())),
        }
    }
    statements
}

/// Reads the text and checks what must hold of every report.
pub fn inspect(text: &str) {
    let checked = check(text);
    for diagnostic in &checked.diagnostics {
        assert!(diagnostic.span.start <= diagnostic.span.end && diagnostic.span.end <= text.len());
        assert!(
            text.is_char_boundary(diagnostic.span.start)
                && text.is_char_boundary(diagnostic.span.end)
        );
        assert!(!diagnostic.render(text, "text").is_empty());
        if let Some(fix) = &diagnostic.fix {
            assert!(text.get(fix.start..fix.end).is_some());
        }
    }
    if checked.is_valid() {
        for statement in &checked.statements {
            assert_eq!(
                honshu_policy::parse_statement(&statement.to_string()).as_ref(),
                Ok(statement)
            );
        }
    }
}

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
