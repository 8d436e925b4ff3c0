//! Models of the Generative AI service (OCI API reference, `Model` and `ModelSummary`).

use honshu_domain::{Ocid, Timestamp};
use serde::{Deserialize, Serialize};

use super::tags::{DefinedTags, FreeformTags};

/// A model in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSummary {
    /// OCID.
    pub id: Ocid,
    /// The compartment; null for base models, as the service answers it.
    pub compartment_id: Option<Ocid>,
    /// What it is for: `CHAT`, `TEXT_EMBEDDINGS`, `TEXT_RERANK`.
    pub capabilities: Vec<String>,
    /// `ACTIVE`.
    pub lifecycle_state: String,
    /// More about the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle_details: Option<String>,
    /// When it came into the catalogue.
    pub time_created: Timestamp,
    /// `BASE` or `CUSTOM`.
    #[serde(rename = "type")]
    pub model_type: String,
    /// The name that callers use, such as `openai.gpt-oss-120b`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The model it was tuned from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model_id: Option<Ocid>,
    /// Whether it has long-term support.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_long_term_supported: Option<bool>,
    /// When it was deprecated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_deprecated: Option<Timestamp>,
    /// When on-demand use ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_on_demand_retired: Option<Timestamp>,
    /// When dedicated use ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_dedicated_retired: Option<Timestamp>,
    /// Tags.
    #[serde(default)]
    pub freeform_tags: FreeformTags,
    /// Tags.
    #[serde(default)]
    pub defined_tags: DefinedTags,
    /// Tags that the service itself hangs on.
    #[serde(default)]
    pub system_tags: DefinedTags,
}

/// A model as get answers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// What a list shows.
    #[serde(flatten)]
    pub summary: ModelSummary,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_updated: Option<Timestamp>,
}

/// Answer of ListModels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCollection {
    /// One page of models.
    pub items: Vec<ModelSummary>,
}
