//! Errors as callers read them, one file per dialect, and upstreams' errors as we read them.
//!
//! Only [`honshu_domain::Error::message`], `param`, `code` and the ids leave here; the cause never does.

mod anthropic;
mod oci;
mod openai;
mod upstream;

use bytes::Bytes;
use honshu_domain::{Error, Retry};

pub use anthropic::anthropic_body;
pub(crate) use anthropic::write_anthropic_error;
pub use oci::{Plane, oci_body};
pub use openai::openai_body;
pub(crate) use openai::{code, write_error};
pub(crate) use upstream::from_frame;
pub use upstream::from_upstream;

/// An error as HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: Bytes,
    /// Headers beside content type and request ids.
    pub headers: Vec<(&'static str, String)>,
}

/// The headers that every dialect shares.
fn headers(error: &Error, status: u16) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    // Official SDKs give up at once when told to wait longer than two minutes, and a fraction is cut off by
    // clients that read whole seconds: round up.
    let wait = match error.retry() {
        Retry::After(wait) => Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        Retry::Now if status == 503 => Some(1),
        _ => None,
    };
    if let Some(seconds) = wait {
        headers.push(("retry-after", seconds.max(1).to_string()));
    }
    // The SDKs retry 408, 409, 429 and 5xx by themselves; we know better which of them can succeed.
    if matches!(status, 408 | 409 | 429) || status >= 500 {
        let retry = !matches!(error.retry(), Retry::Never);
        headers.push(("x-should-retry", retry.to_string()));
    }
    if status == 401 {
        headers.push(("www-authenticate", "Bearer".to_owned()));
    }
    if let Some(id) = error.decision_id() {
        headers.push(("opc-decision-id", id.to_owned()));
    }
    headers
}

#[cfg(test)]
mod tests;
