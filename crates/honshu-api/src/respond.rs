//! Answers: errors in the shape of their plane, JSON with the content type that each SDK takes.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use honshu_domain::{Entropy, Error, ErrorKind, Origin, Region, RequestId, SystemEntropy};
use honshu_wire::error::{self as wire_error, ErrorResponse};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::context::{Context, Plane};

/// The most characters of a path that an error message repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// The context that [`crate::app`] put into the request.
pub(crate) fn context_of(request: &Request) -> Context {
    request
        .extensions()
        .get::<Context>()
        .cloned()
        .unwrap_or_else(|| {
            // Only a request that did not come through the router has none.
            let request_id = RequestId::generate(&SystemEntropy as &dyn Entropy);
            Context {
                opc_request_id: request_id.as_str().into(),
                request_id,
                region: Region::local(),
                plane: Plane::of(request.uri().path()),
                target: crate::app::target_of(request),
            }
        })
}

/// What of a client's text is repeated to it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// An error, logged here and nowhere else, in the shape of its plane.
pub(crate) fn error(context: &Context, error: &Error) -> Response {
    log(context, error);
    let ErrorResponse {
        status,
        body,
        headers,
    } = match context.plane {
        Plane::OpenAi | Plane::Operations => {
            wire_error::openai_body(error, context.request_id.as_str())
        }
        Plane::Messages => wire_error::anthropic_body(error, context.request_id.as_str()),
        Plane::NativeInference => wire_error::oci_body(error, wire_error::Plane::Inference),
        Plane::Management => wire_error::oci_body(error, wire_error::Plane::Management),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let out = response.headers_mut();
    out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            out.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn log(context: &Context, error: &Error) {
    let request_id = context.request_id.as_str();
    match error.origin() {
        Origin::Internal => {
            tracing::error!(request_id, kind = ?error.kind(), error = %chain(error), "request failed");
        }
        Origin::Upstream => {
            tracing::warn!(request_id, kind = ?error.kind(), error = %chain(error), "upstream failed");
        }
        Origin::Client => {
            tracing::debug!(request_id, kind = ?error.kind(), error = %chain(error), "request refused");
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A whole JSON body that is ready.
pub(crate) fn json_bytes(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    // Without a charset: the OCI SDK compares the whole header and gives up on any other text.
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// A value as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Response, Error> {
    let body = serde_json::to_vec(value).map_err(Error::internal)?;
    Ok(json_bytes(StatusCode::OK, body.into()))
}

/// 204.
pub(crate) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Adds a header whose value we made.
pub(crate) fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
    }
    response
}

/// Turns a handler's result into an answer.
pub(crate) fn finish(context: &Context, result: Result<Response, Error>) -> Response {
    result.unwrap_or_else(|problem| error(context, &problem))
}

/// The error for an unauthenticated caller: one text for every reason.
pub(crate) fn unauthenticated() -> Error {
    Error::new(
        ErrorKind::Unauthenticated,
        "The required information to complete authentication was not provided or was incorrect.",
    )
}
