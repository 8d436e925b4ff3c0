//! The answers that the edge gives itself, before any route is known.
//!
//! Which dialect is meant follows from the path, and the path may be what is wrong. So they are short JSON in
//! the shapes of both: OCI's flat members and OpenAI's `error` object, which each kind of client reads without
//! minding the other. They never repeat what the client sent, and carry the id under which the log has them.

use bytes::Bytes;
use honshu_domain::{Entropy, RequestId, SystemEntropy};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

/// Why the edge refused a request. The text is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    status: u16,
    code: &'static str,
    message: &'static str,
}

impl Refusal {
    pub(super) const fn bad(message: &'static str) -> Self {
        Self {
            status: 400,
            code: "InvalidParameter",
            message,
        }
    }

    pub(super) const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
        }
    }

    pub(super) const NO_HOST: Self = Self::bad("the `Host` header is missing");
    pub(super) const TWO_HOSTS: Self = Self::bad("there is more than one `Host` header");
    pub(super) const BAD_HOST: Self = Self::bad("the `Host` header is not valid");
    pub(super) const HOST_DIFFERS: Self =
        Self::bad("the `Host` header differs from the request target");
    pub(super) const FIELD_NAME: Self =
        Self::bad("a header name has a character that is not allowed");
    pub(super) const CONNECT: Self = Self::new(
        501,
        "NotImplemented",
        "CONNECT is not supported, this is not a proxy",
    );
    pub(super) const HEAD_TIMEOUT: Self =
        Self::new(408, "RequestTimeout", "the request head took too long");
    pub(super) const URI_TOO_LONG: Self =
        Self::new(414, "InvalidParameter", "the request target is too long");
    pub(super) const ENCODED_BODY: Self = Self::new(
        415,
        "UnsupportedMediaType",
        "compressed request bodies are not accepted, send the body without `content-encoding`",
    );
    pub(super) const HEAD_TOO_LARGE: Self = Self::new(
        431,
        "RequestHeaderFieldsTooLarge",
        "the request head is too large",
    );
    pub(super) const PANICKED: Self = Self::new(
        500,
        "InternalServerError",
        "the server made a mistake; the request was not completed",
    );
    pub(super) const OVERLOADED: Self = Self::new(
        503,
        "TooManyConnections",
        "the server has too many connections, try again later",
    );

    pub(super) const DRAINING: Self = Self::new(
        503,
        "ServiceUnavailable",
        "the server is going away, try again",
    );

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST)
    }

    /// The machine-readable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &'static str {
        self.message
    }

    fn json(&self) -> String {
        let kind = if self.status >= 500 {
            "server_error"
        } else {
            "invalid_request_error"
        };
        // Codes and messages are constants without quotes or backslashes.
        format!(
            r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":null}},"code":"{}","message":"{message}"}}"#,
            self.code,
            message = self.message,
        )
    }

    /// A fresh id, under which the log has the refusal from here on.
    fn logged(&self) -> RequestId {
        let id = RequestId::generate(&SystemEntropy as &dyn Entropy);
        tracing::debug!(
            request_id = id.as_str(),
            status = self.status,
            reason = self.message,
            "request refused by the edge"
        );
        id
    }

    /// The whole answer as bytes of HTTP/1.1, for when no parser is there to
    /// write it. The connection closes after it.
    pub(super) fn http1(&self) -> Vec<u8> {
        let body = self.json();
        let id = self.logged();
        let retry = if self.status == 503 {
            "retry-after: 1\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: {id}\r\nopc-request-id: {id}\r\n{retry}connection: close\r\n\r\n{body}",
            self.status,
            self.status().canonical_reason().unwrap_or("Refused"),
            body.len(),
        )
        .into_bytes()
    }

    /// The answer as a response. Over HTTP/1.1 it asks to close the connection
    /// where the request's body was not read.
    pub(super) fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.json()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Ok(id) = HeaderValue::from_str(self.logged().as_str()) {
            headers.insert(HeaderName::from_static("x-request-id"), id.clone());
            headers.insert(HeaderName::from_static("opc-request-id"), id);
        }
        response
    }
}
