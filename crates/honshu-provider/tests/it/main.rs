//! The backends seen from outside: an attempt in, events out.
#![expect(
    clippy::unwrap_used,
    reason = "a failed test is a panic; helpers outside of test functions are part of tests"
)]

mod common;
mod openai;
mod scripted;
mod split;
