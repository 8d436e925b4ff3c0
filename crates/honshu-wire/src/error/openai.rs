//! Errors on OpenAI paths: OpenAI's `error` object and OCI's flat members side by side, since both clients ask.

use bytes::BytesMut;
use honshu_domain::{Error, ErrorKind, TimeoutKind};

use super::{ErrorResponse, headers};
use crate::json::{put, put_str, put_uint};

/// The answer on an OpenAI path. The request id goes into the headers, which the caller of this sets, and into
/// the message of our own faults, so that a screenshot is enough to find the log line.
pub fn openai_body(error: &Error, request_id: &str) -> ErrorResponse {
    let status = status(error.kind());
    let mut body = BytesMut::with_capacity(256);
    let out = &mut body;
    let owned;
    let message = if error.kind() == ErrorKind::Internal {
        owned = format!("{} (request id {request_id})", error.message());
        owned.as_str()
    } else {
        error.message()
    };
    put(out, "{\"error\":");
    write_object(error, message, out);
    put(out, ",\"code\":\"");
    put_uint(out, u32::from(status));
    put(out, "\",\"message\":");
    put_str(out, message);
    put(out, "}");
    ErrorResponse {
        status,
        body: body.freeze(),
        headers: headers(error, status),
    }
}

/// The object `{"message","type","param","code"}`, all four keys.
pub(crate) fn write_error(error: &Error, out: &mut BytesMut) {
    write_object(error, error.message(), out);
}

fn write_object(error: &Error, message: &str, out: &mut BytesMut) {
    put(out, "{\"message\":");
    put_str(out, message);
    put(out, ",\"type\":\"");
    put(out, error_type(error.kind()));
    put(out, "\",\"param\":");
    match error.param() {
        Some(param) => put_str(out, param),
        None => put(out, "null"),
    }
    put(out, ",\"code\":");
    match code(error) {
        Some(code) => put_str(out, code),
        None => put(out, "null"),
    }
    put(out, "}");
}

/// The status of each kind.
pub(super) const fn status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Unauthenticated => 401,
        ErrorKind::NotFound | ErrorKind::ModelNotFound => 404,
        ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::ContextLength
        | ErrorKind::PreviousResponseNotFound => 400,
        ErrorKind::MethodNotAllowed => 405,
        ErrorKind::RequestTimeout => 408,
        ErrorKind::Conflict => 409,
        ErrorKind::PreconditionFailed => 412,
        ErrorKind::TooLarge => 413,
        ErrorKind::UnsupportedMedia => 415,
        ErrorKind::RateLimited => 429,
        ErrorKind::Internal => 500,
        ErrorKind::NotImplemented => 501,
        ErrorKind::Upstream => 502,
        ErrorKind::Unavailable => 503,
        ErrorKind::Timeout(
            TimeoutKind::Connect
            | TimeoutKind::FirstEvent
            | TimeoutKind::Idle
            | TimeoutKind::Deadline,
        ) => 504,
        // Nobody reads it; the number is nginx's for a client that left, which logs know.
        ErrorKind::Cancelled => 499,
    }
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
        | ErrorKind::TooLarge
        | ErrorKind::UnsupportedMedia
        | ErrorKind::Cancelled => "invalid_request_error",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::Internal
        | ErrorKind::NotImplemented
        | ErrorKind::Upstream
        | ErrorKind::Unavailable
        | ErrorKind::Timeout(_) => "server_error",
    }
}

/// The `code`: the error's own, else the kind's, where programs are known to branch on it.
pub(crate) fn code(error: &Error) -> Option<&str> {
    error.code().or(match error.kind() {
        ErrorKind::Unauthenticated => Some("invalid_api_key"),
        ErrorKind::ModelNotFound => Some("model_not_found"),
        ErrorKind::Unsupported => Some("unsupported_value"),
        ErrorKind::ContextLength => Some("context_length_exceeded"),
        ErrorKind::PreviousResponseNotFound => Some("previous_response_not_found"),
        ErrorKind::RateLimited => Some("rate_limit_exceeded"),
        ErrorKind::Internal => Some("server_error"),
        ErrorKind::Upstream => Some("upstream_error"),
        ErrorKind::Unavailable => Some("service_unavailable"),
        ErrorKind::Timeout(TimeoutKind::Connect) => Some("connect_timeout"),
        ErrorKind::Timeout(TimeoutKind::FirstEvent) => Some("first_event_timeout"),
        ErrorKind::Timeout(TimeoutKind::Idle) => Some("idle_timeout"),
        ErrorKind::Timeout(TimeoutKind::Deadline) => Some("run_deadline"),
        ErrorKind::NotFound
        | ErrorKind::Invalid
        | ErrorKind::MethodNotAllowed
        | ErrorKind::RequestTimeout
        | ErrorKind::Conflict
        | ErrorKind::PreconditionFailed
        | ErrorKind::TooLarge
        | ErrorKind::UnsupportedMedia
        | ErrorKind::NotImplemented
        | ErrorKind::Cancelled => None,
    })
}
