//! Skeleton: the bodies follow within the hour, the signatures are stable.
use bytes::Bytes;
use honshu_domain::Timestamp;

/// One entry of `GET /models`.
#[derive(Debug, Clone, Copy)]
pub struct ModelEntry<'a> {
    /// The name that callers use.
    pub id: &'a str,
    /// When it came into the catalogue.
    pub created: Timestamp,
    /// The vendor.
    pub owned_by: &'a str,
}
/// `GET /models`.
pub fn list<'a>(models: impl IntoIterator<Item = ModelEntry<'a>>) -> Bytes {
    let _ = models.into_iter();
    todo!()
}
/// `GET /models/{id}`.
pub fn object(model: ModelEntry<'_>) -> Bytes {
    let _ = model;
    todo!()
}
