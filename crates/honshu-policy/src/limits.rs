//! Every bound of this crate in one place, each with its unit and its reason.
//!
//! A policy text comes from a caller, so nothing that it controls may grow without a bound.

/// Longest text that [`crate::parse`] reads, in bytes. A policy of OCI has at most 50 statements,
/// so 256 KiB is far above any real one and still parses in milliseconds.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Deepest nesting of `any {…}` and `all {…}`. The parser and the evaluator recurse once a level,
/// so this bounds the stack.
pub const CONDITION_DEPTH_MAX: usize = 32;

/// Most problems reported for one text. After that many, the reader fixes and asks again.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Deepest compartment tree. OCI allows six levels below the root; ours may be deeper, but a
/// cycle in the input must end the walk.
pub const COMPARTMENT_DEPTH_MAX: usize = 32;

/// Most statements that one explanation lists, nearest first. Ten thousand lines help nobody.
pub const EXPLAINED_STATEMENTS_MAX: usize = 100;

/// Width of the source line that the terminal renderer shows around the caret, in columns.
pub const RENDER_COLUMNS_MAX: usize = 120;

/// Rules that a decision tries one by one. Most decisions try fewer; after that many in vain, it
/// costs less to find out once which of all comparisons hold.
pub(crate) const SINGLE_TRIES_MAX: usize = 32;
