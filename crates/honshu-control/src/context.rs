//! Who asks, where and when: the first argument of every operation.

use honshu_domain::{Principal, Region, RequestId, Timestamp};

/// The context of one request. There is no operation without one, so that none runs without an actor.
#[derive(Debug, Clone)]
pub struct OpCtx {
    /// Who asks.
    pub principal: Principal,
    /// The region whose listener took the request.
    pub region: Region,
    /// The request, for the change log.
    pub request_id: RequestId,
    /// When the request came.
    pub now: Timestamp,
}

/// A resource with the version that `etag` and `if-match` carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The resource.
    pub value: T,
    /// Its version; opaque to callers.
    pub etag: String,
}

/// The etag of a version.
pub(crate) fn etag(version: i64) -> String {
    format!("{version:016x}")
}

/// Whether `if-match` names this version. `*` names every version; quotes do not count, since OCI's clients
/// send back what they got and others quote.
pub(crate) fn if_match_names(if_match: &str, version: i64) -> bool {
    let asked = if_match.trim().trim_start_matches("W/").trim_matches('"');
    asked == "*" || asked == etag(version)
}
