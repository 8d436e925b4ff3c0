//! The backends seen from outside: an attempt in, events out.
#![allow(
    clippy::disallowed_methods,
    reason = "tests measure real time, and their tasks end with them"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a failed test is a panic; helpers outside of test functions are part of tests"
)]

mod common;
mod openai;
mod scripted;
mod split;
