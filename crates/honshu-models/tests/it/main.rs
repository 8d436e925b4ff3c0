//! The model store against real files, a real HTTP server and hostile GGUF.
#![allow(
    clippy::disallowed_methods,
    reason = "tests measure real time, and their tasks end with them"
)]
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

mod hostile;
mod pulling;
mod support;
mod wheels;
