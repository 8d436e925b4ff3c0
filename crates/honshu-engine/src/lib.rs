//! Embedded inference: load a GGUF model, batch many sequences, share prefixes, sample, stop.
//!
//! A loaded model has one operating-system thread that owns its context and is the only one that computes with it;
//! everything else talks to it through [`LoadedModel::submit`] and reads events. The engine knows tokens and text,
//! not HTTP, keys or tenants (a job carries a fairness key and a salt instead). It must never abort the process for a
//! reason that a caller or a model file can bring about.

mod backend;
mod constraint;
mod embed;
mod error;
mod estimate;
mod events;
mod gguf;
mod job;
mod lazy;
mod markup;
mod model;
mod pool;
mod quoted;
mod sampler;
mod scheduler;
mod selftest;
mod sys;
mod template;
mod text;
mod workers;

pub use backend::EngineBackend;
pub use constraint::{
    Composition, GRAMMAR_BYTES_MAX, Grammar, GrammarError, Grammars, MadeConstraint, Part,
};
pub use error::{EngineError, LoadError, SubmitError};
pub use events::JobEvents;
pub use job::{
    Constraint, FinishReason, Job, JobEvent, JobUsage, LOGPROBS_MAX, Sampling, Token, TokenLogprob,
    TokenMask, TopLogprob,
};
pub use model::{EngineStats, FlashAttention, KvLayout, LoadOptions, LoadedModel, ModelMeta};
pub use pool::{EnginePool, ModelOptions, ModelState, ModelStatus, PoolOptions};
pub use selftest::{CpuMode, SelfTestError, run_self_test_child, self_test};
pub use template::{Chat, ChatTemplate, Prompt, Segment, SpecialTokens, TemplateError};
