//! Token counts and the one row that each run leaves behind.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::Ocid;
use crate::time::Timestamp;

/// Token counts of one run. `cached_input_tokens` and `cache_write_tokens` are part of `input_tokens`,
/// `reasoning_tokens` is part of `output_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input_tokens: u64,
    /// Tokens of the prompt that came from a cache.
    pub cached_input_tokens: u64,
    /// Tokens of the prompt that were written to a provider's cache.
    pub cache_write_tokens: u64,
    /// Tokens of the answer, reasoning included.
    pub output_tokens: u64,
    /// Tokens of the answer that were reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Input plus output.
    pub const fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// What a run leaves behind, whatever its end. Written once, keyed by `run_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageRow {
    /// The run's id: unique, the key that makes a second write harmless.
    pub run_id: Arc<str>,
    /// The HTTP request's id.
    pub request_id: Arc<str>,
    /// When the run was admitted.
    pub started: Timestamp,
    /// The key or user.
    pub principal: Ocid,
    /// Which secret of the key.
    pub secret_name: Option<Arc<str>>,
    /// The compartment that is charged.
    pub compartment: Ocid,
    /// The region's name.
    pub region: Arc<str>,
    /// The operation: `chat`, `responses`, `embeddings`, …
    pub operation: Arc<str>,
    /// The name the caller asked for.
    pub model_asked: Arc<str>,
    /// The catalogue id of the model that answered; empty when none did.
    pub model_served: Arc<str>,
    /// The provider or `engine`; empty when none was reached.
    pub deployment: Arc<str>,
    /// How many deployments were tried.
    pub attempts: u32,
    /// `completed`, `incomplete`, `failed` or `cancelled`.
    pub status: Arc<str>,
    /// Why, for the last three: a reason or error kind.
    pub reason: Option<Arc<str>>,
    /// Counts; for a run that broke off, what is known.
    pub usage: Usage,
    /// True when the counts were reported by upstream or engine, false when they are partial.
    pub usage_exact: bool,
    /// Microseconds from admission to the first event; absent when none came.
    pub first_event_us: Option<u64>,
    /// Microseconds from admission to the end.
    pub total_us: u64,
}
