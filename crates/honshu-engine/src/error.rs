//! What can go wrong in the engine, as types: a variant exists because a caller branches on it.
//!
//! Nothing in this crate may abort the process for a reason that a caller or a file can bring about, so whatever
//! llama.cpp would answer with an assertion is found in Rust first and becomes one of these.

use std::path::PathBuf;
use std::time::Duration;

/// A model could not be loaded. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is missing or cannot be read.
    #[error("cannot read model file `{path}`")]
    Unreadable {
        /// The file that was asked for.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a GGUF file, is cut short or contradicts itself. Fetch it again.
    #[error("model file `{path}` is corrupt: {reason}; fetch it again")]
    Corrupt {
        /// The file that was asked for.
        path: PathBuf,
        /// The first contradiction that was found.
        reason: String,
    },
    /// The file is sound, but this engine cannot generate text with it.
    #[error("model file `{path}` cannot be used: {reason}")]
    Unsupported {
        /// The file that was asked for.
        path: PathBuf,
        /// Which property is not supported.
        reason: String,
    },
    /// Weights, KV cache and buffers need more memory than there is. Choose a smaller model or context.
    #[error(
        "model needs about {needed_bytes} bytes of memory and {available_bytes} are available; \
         choose a smaller model or a smaller context"
    )]
    DoesNotFit {
        /// Estimate for weights, KV cache and work buffers, in bytes.
        needed_bytes: u64,
        /// What the system or the configured limit leaves, in bytes.
        available_bytes: u64,
    },
    /// llama.cpp refused the model or the context; the reason is its last message.
    #[error("model could not be started: {reason}")]
    Refused {
        /// The last error line of llama.cpp, or our own words if it said nothing.
        reason: String,
    },
    /// An option is outside its documented range.
    #[error("load option `{option}` is out of range: {reason}")]
    Option {
        /// Field of [`LoadOptions`](crate::LoadOptions).
        option: &'static str,
        /// What the range is.
        reason: String,
    },
}

/// A job that had been accepted failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The job waited longer than the queue deadline. Nothing was computed for it.
    #[error("no capacity within {waited_ms} ms")]
    QueueDeadline {
        /// How long it waited, in milliseconds.
        waited_ms: u64,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The constraint (a grammar) failed or allowed no token.
    #[error("constraint failed: {0}")]
    Constraint(String),
    /// Text cannot be tokenized.
    #[error("text cannot be tokenized: {0}")]
    Tokenize(String),
    /// A precondition of the tensor library would have been broken; this is a defect of the engine.
    #[error("engine invariant broken: {0}")]
    Invariant(&'static str),
    /// The tensor library failed; only the jobs of that step are affected.
    #[error("decoding failed with code {code}")]
    Decode {
        /// The code of `llama_decode`.
        code: i32,
    },
    /// The model was unloaded while the job ran or waited.
    #[error("model was unloaded")]
    Stopped,
}

/// A job was not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// All places and the whole queue are taken.
    #[error("the model is busy and its queue is full; try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// Estimate of when a place is free, between 1 and 60 s.
        retry_after: Duration,
    },
    /// Prompt and output do not fit into the context of one sequence.
    #[error(
        "the prompt has {prompt_tokens} tokens and the model's context holds {limit}, \
         at least one of them for the answer; shorten the prompt"
    )]
    ContextLength {
        /// Length of the prompt.
        prompt_tokens: u32,
        /// Output asked for; 0 when no number was given.
        max_output: u32,
        /// Tokens that one sequence can hold, prompt and output together.
        limit: u32,
    },
    /// A value of the job is outside its range.
    #[error("invalid job: {0}")]
    Invalid(String),
    /// The model was unloaded.
    #[error("model was unloaded")]
    Stopped,
}
