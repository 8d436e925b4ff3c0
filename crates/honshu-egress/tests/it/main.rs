//! The client against real sockets.
#![allow(
    clippy::disallowed_methods,
    reason = "tests measure real time, and their tasks end with them"
)]
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

mod addresses;
mod connections;
mod encrypted;
mod redirects;
mod server;
