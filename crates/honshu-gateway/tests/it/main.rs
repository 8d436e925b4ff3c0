//! The gateway seen from outside: calls in, steps and usage rows out.
#![allow(
    clippy::disallowed_methods,
    reason = "tests measure real time, and their tasks end with them"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed test is a panic; helpers outside of test functions are part of tests"
)]

mod common;
mod ends;
mod failover;
mod path;
mod simulation;
mod transcripts;
