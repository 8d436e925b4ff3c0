//! The gateway seen from outside: calls in, steps and usage rows out.

mod common;
mod ends;
mod failover;
mod path;
mod simulation;
