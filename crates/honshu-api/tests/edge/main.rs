//! The HTTP edge over real sockets: raw bytes in, raw bytes out.
#![allow(
    clippy::disallowed_methods,
    reason = "tests measure real time, and their tasks end with them"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed test is a panic, in helpers too"
)]

mod drain;
mod http2;
mod limits;
mod smuggling;
mod streaming;
mod support;
mod tls;
