//! OCI's native inference, `/20231130/actions/*`: not built yet, and said so in the right shape.

use axum::extract::Request;
use axum::response::Response;
use honshu_domain::{Error, ErrorKind};

use crate::respond;

/// 501, which the OCI SDK does not retry.
pub(crate) async fn not_implemented(request: Request) -> Response {
    respond::error(
        &respond::context_of(&request),
        &Error::new(
            ErrorKind::NotImplemented,
            "this operation is not available here; the OpenAI-compatible paths below /20231130/actions/v1 are",
        ),
    )
}
