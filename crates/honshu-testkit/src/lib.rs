//! What tests of several crates share: simulated clock and entropy, seams that live in memory, a backend that
//! plays any script, an upstream on a free port that answers byte for byte as told, and golden transcripts.
//!
//! For development only: no crate may depend on it outside of `[dev-dependencies]`. It panics where a test
//! would.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed test is a panic, and this crate is only ever part of tests"
)]

mod backend;
mod fixtures;
mod seams;
mod transcript;
mod upstream;

pub use backend::{Act, FakeBackend};
pub use fixtures::{chat_request, compartment, model, model_with, principal, request};
pub use seams::{AllowAll, DenyAll, MemoryCatalogue, MemoryUsageLog, SimClock, SimEntropy};
pub use transcript::{Transcript, frames_of, transcripts_in};
pub use upstream::{MockUpstream, Received, Reply};
