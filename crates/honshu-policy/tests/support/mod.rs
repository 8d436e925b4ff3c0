//! Shared by the integration tests of this crate.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test binary uses a part of this module, and a failed test is a panic"
)]

pub mod reference;
pub mod strategy;
pub mod world;

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
