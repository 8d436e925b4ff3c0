//! The model store against real files, a real HTTP server and hostile GGUF.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

mod hostile;
mod pulling;
mod support;
mod wheels;
