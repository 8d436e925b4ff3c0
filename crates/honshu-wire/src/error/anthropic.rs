//! Errors on the Messages paths: `{"type":"error","error":{"type","message"},"request_id"}`.
//!
//! The types are those of the Python package `anthropic`, version 2.14 (its `*_error_object.py`); which status
//! the package makes which exception of is in its `_client.py`.

use bytes::BytesMut;
use honshu_domain::{Error, ErrorKind};

use super::openai::status;
use super::{ErrorResponse, headers};
use crate::json::{put, put_str};

/// The answer on a Messages path.
pub fn anthropic_body(error: &Error, request_id: &str) -> ErrorResponse {
    let status = status(error.kind());
    let mut body = BytesMut::with_capacity(256);
    write_anthropic_error(error, Some(request_id), &mut body);
    ErrorResponse {
        status,
        body: body.freeze(),
        headers: headers(error, status),
    }
}

/// The whole error object, which is also the data of a stream's `error` event.
pub(crate) fn write_anthropic_error(error: &Error, request_id: Option<&str>, out: &mut BytesMut) {
    put(out, "{\"type\":\"error\",\"error\":{\"type\":\"");
    put(out, error_type(error.kind()));
    put(out, "\",\"message\":");
    match error.kind() {
        // Agents find out by these words that they have to shorten their history.
        ErrorKind::ContextLength => {
            put_str(out, &format!("prompt is too long: {}", error.message()));
        }
        _ => put_str(out, error.message()),
    }
    put(out, "}");
    if let Some(id) = request_id {
        put(out, ",\"request_id\":");
        put_str(out, id);
    }
    put(out, "}");
}

/// The `type` of each kind.
const fn error_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthenticated => "authentication_error",
        ErrorKind::NotFound | ErrorKind::ModelNotFound => "not_found_error",
        ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::ContextLength
        | ErrorKind::PreviousResponseNotFound
        | ErrorKind::MethodNotAllowed
        | ErrorKind::RequestTimeout
        | ErrorKind::Conflict
        | ErrorKind::PreconditionFailed
        | ErrorKind::UnsupportedMedia
        | ErrorKind::Cancelled => "invalid_request_error",
        ErrorKind::TooLarge => "request_too_large",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::Internal | ErrorKind::NotImplemented | ErrorKind::Upstream => "api_error",
        ErrorKind::Unavailable => "overloaded_error",
        ErrorKind::Timeout(_) => "timeout_error",
    }
}
