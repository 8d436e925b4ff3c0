//! Models as callers name them, and the deployments behind each.

use std::sync::Arc;

use crate::backend::Backend;
use crate::region::Region;
use crate::time::Timestamp;

/// What a model can be used for (OCI API reference, `Model.capabilities`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelCapability {
    /// Conversation.
    Chat,
    /// Text to vectors.
    TextEmbeddings,
    /// Ordering texts by relevance.
    TextRerank,
}

impl ModelCapability {
    /// The wire word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "CHAT",
            Self::TextEmbeddings => "TEXT_EMBEDDINGS",
            Self::TextRerank => "TEXT_RERANK",
        }
    }
}

/// Where a catalogue entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelSource {
    /// Written in the configuration.
    Configured,
    /// A GGUF that was pulled.
    Pulled,
}

/// Prices in millionths of a US dollar for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// For input tokens.
    pub input_micros_usd_per_million: u64,
    /// For input tokens that came from the provider's cache.
    pub cached_input_micros_usd_per_million: u64,
    /// For output tokens.
    pub output_micros_usd_per_million: u64,
}

/// A model that callers can name.
#[derive(Debug, Clone)]
pub struct Model {
    /// The catalogue id, `<vendor>.<model>`; also what answers carry as `model`.
    pub id: Arc<str>,
    /// The vendor's word.
    pub vendor: Arc<str>,
    /// What it is for.
    pub capabilities: Vec<ModelCapability>,
    /// The longest context in tokens, where known.
    pub context_tokens_max: Option<u32>,
    /// The price, where known: unknown is never zero.
    pub price: Option<Price>,
    /// Where it comes from.
    pub source: ModelSource,
    /// When it came into the catalogue.
    pub created: Timestamp,
    /// Where it runs, in order of preference.
    pub deployments: Vec<Deployment>,
}

/// A model on a backend.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// The backend's own name for the model.
    pub upstream: Arc<str>,
    /// The share of traffic among deployments of the same priority; 0 takes none.
    pub weight: u32,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The model.
    pub model: Arc<Model>,
    /// True when the name was an alias.
    pub alias: bool,
}

/// The models of this node. Answers from memory; never blocks.
pub trait Catalogue: Send + Sync {
    /// What `name` (an id, an alias or an OCID) stands for in `region`.
    fn resolve(&self, region: &Region, name: &str) -> Option<Resolved>;

    /// Every name that can be called in `region` with its model, ids and aliases alike, sorted by name.
    fn list(&self, region: &Region) -> Vec<(Arc<str>, Resolved)>;
}
