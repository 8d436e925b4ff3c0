//! Upstreams: everything that generates and is not the embedded engine.
//!
//! An adapter is a codec over the one outbound client: it turns an attempt into a request and the answer into
//! events, and translates nothing that `honshu-wire` does not. It never retries, never fails over and keeps no clock
//! but the connection's: the run's owner does. Dropping an attempt's stream closes the upstream's connection.

mod credential;
mod openai;
mod scripted;
mod sse;

pub use credential::Credential;
pub use openai::{OpenAiOptions, OpenAiProvider};
pub use scripted::ScriptedProvider;
