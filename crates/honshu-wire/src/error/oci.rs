//! Errors on OCI's native and management paths: `{"code","message"}`.

use bytes::BytesMut;
use honshu_domain::{Error, ErrorKind};

use super::openai::status;
use super::{ErrorResponse, headers};
use crate::json::{put, put_str, put_uint};

/// Which of OCI's error vocabularies a path uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plane {
    /// `/20231130/actions/*`: the status as the code string, as the real inference host does.
    Inference,
    /// Everything else: symbolic codes.
    Management,
}

/// The answer on an OCI path.
pub fn oci_body(error: &Error, plane: Plane) -> ErrorResponse {
    // OCI's clients know 500, 503 and 429 and nothing between.
    let status = match error.kind() {
        ErrorKind::Upstream | ErrorKind::Timeout(_) if plane == Plane::Management => 503,
        kind => status(kind),
    };
    let mut body = BytesMut::with_capacity(128);
    let out = &mut body;
    put(out, "{\"code\":");
    match plane {
        Plane::Inference => {
            put(out, "\"");
            put_uint(out, u32::from(status));
            put(out, "\"");
        }
        Plane::Management => put_str(out, error.code().unwrap_or(symbolic(error.kind()))),
    }
    put(out, ",\"message\":");
    put_str(out, error.message());
    put(out, "}");
    ErrorResponse {
        status,
        body: body.freeze(),
        headers: headers(error, status),
    }
}

/// The symbolic code of each kind (OCI API reference, API errors).
const fn symbolic(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthenticated => "NotAuthenticated",
        ErrorKind::NotFound | ErrorKind::ModelNotFound => "NotAuthorizedOrNotFound",
        ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::ContextLength
        | ErrorKind::PreviousResponseNotFound
        | ErrorKind::Cancelled => "InvalidParameter",
        ErrorKind::MethodNotAllowed => "MethodNotAllowed",
        ErrorKind::RequestTimeout => "RequestTimeout",
        ErrorKind::Conflict => "Conflict",
        ErrorKind::PreconditionFailed => "NoEtagMatch",
        ErrorKind::TooLarge => "RequestEntityTooLarge",
        ErrorKind::UnsupportedMedia => "UnsupportedMediaType",
        ErrorKind::RateLimited => "TooManyRequests",
        ErrorKind::Internal => "InternalServerError",
        ErrorKind::NotImplemented => "MethodNotImplemented",
        ErrorKind::Upstream | ErrorKind::Unavailable | ErrorKind::Timeout(_) => {
            "ServiceUnavailable"
        }
    }
}
