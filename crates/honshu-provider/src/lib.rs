//! The backends beside the embedded engine: upstreams that speak an OpenAI dialect, and the scripted model.
//!
//! An adapter turns one attempt into one stream of events. It must never retry, never fail over, never keep a
//! clock of a run, and never write a credential, a prompt or an answer anywhere: the first three belong to the
//! run's owner.

mod credential;
mod openai;
mod scripted;

use honshu_domain::Dialect;

/// Whether a hint's path is that of the reasoning effort, as the dialect spells it.
pub(crate) fn is_reasoning_effort(dialect: Dialect, path: &str) -> bool {
    match dialect {
        Dialect::ChatCompletions | Dialect::Responses => {
            matches!(path, "reasoning.effort" | "reasoning_effort")
        }
        Dialect::Completions | Dialect::Embeddings => false,
        Dialect::Messages => matches!(path, "thinking" | "output_config.effort"),
    }
}

pub use credential::Credential;
pub use openai::{OpenAiOptions, OpenAiProvider, Splitter, TooLong};
pub use scripted::ScriptedProvider;
