//! Fields of a request that are checked and say nothing to a model.

use crate::json::{Node, Path};
use crate::problems::{Findings, WRONG_VALUE};

/// Metadata limits (OpenAI API reference).
const METADATA_PAIRS_MAX: usize = 16;
const METADATA_KEY_CHARS_MAX: usize = 64;
const METADATA_VALUE_CHARS_MAX: usize = 512;

/// The smallest threshold of a compaction, in tokens (OpenAI API reference).
const COMPACT_THRESHOLD_MIN: i64 = 1_000;

pub(crate) fn metadata(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
    let pairs = findings.object(node, path).unwrap_or_default();
    if pairs.len() > METADATA_PAIRS_MAX {
        findings.problem(
            path,
            WRONG_VALUE,
            format!("at most {METADATA_PAIRS_MAX} pairs, got {}", pairs.len()),
        );
    }
    for (key, value) in pairs.iter().take(METADATA_PAIRS_MAX) {
        let at = path.key(key);
        if key.chars().nth(METADATA_KEY_CHARS_MAX).is_some() {
            let what = format!("keys have at most {METADATA_KEY_CHARS_MAX} characters");
            findings.problem(&at, WRONG_VALUE, what);
        }
        match value.as_str() {
            Some(text) if text.chars().nth(METADATA_VALUE_CHARS_MAX).is_some() => {
                let what = format!("values have at most {METADATA_VALUE_CHARS_MAX} characters");
                findings.problem(&at, WRONG_VALUE, what);
            }
            Some(_) => {}
            None => findings.expected(value, &at, "a string"),
        }
    }
}

/// Checks `context_management`. The runtime acts upon it, or leaves it to an upstream of this dialect.
pub(super) fn context_management(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
    let entries = findings.array(node, path).unwrap_or_default();
    if entries.len() > 1 {
        findings.problem(path, WRONG_VALUE, "at most one entry");
    }
    for (index, entry) in entries.iter().enumerate() {
        let at = path.index(index);
        if entry.as_object().is_none() {
            findings.expected(entry, &at, "an object");
            continue;
        }
        match findings.required_string(entry, "type", &at) {
            Some("compaction") => {}
            Some(_) => {
                findings.problem(&at.key("type"), WRONG_VALUE, "expected `compaction`");
            }
            None => continue,
        }
        let threshold = at.key("compact_threshold");
        match entry.find("compact_threshold") {
            Some(value) => {
                findings.integer(
                    value,
                    &threshold,
                    COMPACT_THRESHOLD_MIN,
                    i64::from(i32::MAX),
                );
            }
            // When a provider would compact without one is its secret, and no other number would be right.
            None => findings.missing(&threshold),
        }
    }
}
