//! The model store against real files, a real HTTP server and hostile GGUF.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test is a panic"
)]

mod hostile;
mod pulling;
mod support;
mod wheels;
