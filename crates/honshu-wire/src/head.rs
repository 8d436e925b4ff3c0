//! What every answer carries whatever is in it.

use std::sync::Arc;

use honshu_domain::Timestamp;

/// The fixed part of an answer, decided before its first byte.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// `resp_…` for Responses, `chatcmpl-…` for Chat Completions.
    pub id: Arc<str>,
    /// When the run was admitted.
    pub created: Timestamp,
    /// The catalogue id of the model that answers.
    pub model: Arc<str>,
    /// The tier that serves; absent means `default`.
    pub service_tier: Option<Arc<str>>,
}
