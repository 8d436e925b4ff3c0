//! The backends beside the embedded engine: upstreams that speak an OpenAI dialect, and the scripted model.
//!
//! An adapter turns one attempt into one stream of events. It must never retry, never fail over, never keep a
//! clock of a run, and never write a credential, a prompt or an answer anywhere: the first three belong to the
//! run's owner.

mod credential;
mod openai;
mod scripted;

/// Whether a hint's path is that of the reasoning effort, in either dialect.
pub(crate) fn is_reasoning_effort(path: &str) -> bool {
    matches!(path, "reasoning.effort" | "reasoning_effort")
}

pub use credential::Credential;
pub use openai::{OpenAiOptions, OpenAiProvider, Splitter, TooLong};
pub use scripted::ScriptedProvider;
