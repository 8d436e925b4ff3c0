//! Skeleton: the bodies follow within the hour, the signatures are stable.
use bytes::Bytes;
use honshu_domain::Error;

/// An error as HTTP: what the caller gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: Bytes,
    /// Headers beside the content type: `retry-after`, `x-should-retry`, `opc-decision-id`, `www-authenticate`, `allow`-less.
    pub headers: Vec<(&'static str, String)>,
}

/// Which of OCI's error vocabularies a path uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plane {
    /// `/20231130/actions/*`: the status as the code string.
    Inference,
    /// Everything else: symbolic codes.
    Management,
}

/// The body of OpenAI paths.
pub fn openai_body(error: &Error, request_id: &str) -> ErrorResponse {
    let _ = (error, request_id);
    todo!()
}
/// The body of OCI's native and management paths.
pub fn oci_body(error: &Error, plane: Plane) -> ErrorResponse {
    let _ = (error, plane);
    todo!()
}
/// The error that an upstream's answer other than 2xx stands for.
pub fn from_upstream(status: u16, retry_after: Option<&str>, body: &[u8]) -> Error {
    let _ = (status, retry_after, body);
    todo!()
}
