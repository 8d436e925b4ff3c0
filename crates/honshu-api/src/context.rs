//! What is known of a request before anybody reads its body: ids, region, plane.

use std::sync::Arc;

use honshu_domain::{Region, RequestId};
use http::uri::PathAndQuery;

/// Which API a path belongs to; it decides the shape of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Plane {
    /// OpenAI-compatible paths.
    OpenAi,
    /// Anthropic Messages, beside the OpenAI-compatible paths.
    Messages,
    /// OCI native inference, `/20231130/actions/*`.
    NativeInference,
    /// OCI management and identity.
    Management,
    /// Health.
    Operations,
}

impl Plane {
    /// The plane of a path, by its prefix. Paths that nobody serves are answered in the shape of the plane
    /// that they look like.
    pub(crate) fn of(path: &str) -> Self {
        let below_a_base = OPENAI_BASES.iter().find_map(|base| {
            path.strip_prefix(base)
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if let Some(rest) = below_a_base {
            let first = rest.trim_start_matches('/').split('/').next();
            if first == Some("messages") {
                Self::Messages
            } else {
                Self::OpenAi
            }
        } else if path.starts_with("/20231130/actions") {
            Self::NativeInference
        } else if path.starts_with("/20231130") || path.starts_with("/20160918") {
            Self::Management
        } else if matches!(path, "/healthz" | "/readyz") {
            Self::Operations
        } else {
            Self::OpenAi
        }
    }
}

/// Where the OpenAI-compatible routes are mounted. The first is the article's, `/openai/v1` the current one.
pub(crate) const OPENAI_BASES: [&str; 4] = [
    "/20231130/actions/v1",
    "/openai/v1",
    "/20231130/openai/v1",
    "/v1",
];

/// What the head of a request told.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The id under which the log has this request.
    pub request_id: RequestId,
    /// `clientId/serverId`, as OCI's `opc-request-id`; only the server's part where the client sent none.
    pub opc_request_id: Arc<str>,
    /// The region that was addressed.
    pub region: Region,
    /// The API.
    pub plane: Plane,
    /// Path and query byte for byte as on the request line: what signatures cover. Routers strip prefixes
    /// from the URI that handlers see.
    pub target: PathAndQuery,
}
