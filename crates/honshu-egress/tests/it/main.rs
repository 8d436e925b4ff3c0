//! The client against real sockets.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

mod addresses;
mod connections;
mod encrypted;
mod redirects;
mod server;
