//! The service by its HTTP: real control plane, real policies, real gateway, the scripted model behind it, over
//! the real edge on loopback ports.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure real time, and their tasks end with them"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod access;
mod bodies;
mod completions;
mod custom_tools;
mod judge;
mod kept;
mod management;
mod matrix;
mod matrix_engine;
mod openapi;
mod options;
mod runs;
mod shapes;
mod support;
mod uploads;
