//! What a failure on the way to an upstream means for the run.
//!
//! Callers read fixed words. Host names, addresses and the upstream's own words about our account go to the log
//! as the cause.

use honshu_domain::{Error, ErrorKind, Origin, Retry, TimeoutKind};
use honshu_egress::EgressError;

use crate::credential::Credential;

/// No answer came.
pub(super) fn of_egress(error: EgressError) -> Error {
    match &error {
        EgressError::ConnectTimeout { after, .. } => Error::new(
            ErrorKind::Timeout(TimeoutKind::Connect),
            format!(
                "no connection to the provider within {} s",
                after.as_secs_f64()
            ),
        ),
        EgressError::Connect { .. } | EgressError::Tls { .. } => Error::new(
            ErrorKind::Upstream,
            "the provider of this model cannot be reached",
        ),
        EgressError::Refused { .. } | EgressError::Url(_) | EgressError::Redirect { .. } => {
            Error::new(
                ErrorKind::Upstream,
                "the provider of this model is configured with an address that may not be called",
            )
            .with_retry(Retry::Never)
        }
        EgressError::TooLarge { .. } => too_large().with_retry(Retry::Never),
        _ => Error::new(
            ErrorKind::Upstream,
            "the connection to the provider broke before its answer was complete",
        ),
    }
    .with_origin(Origin::Upstream)
    .with_cause(error)
}

/// The answer had another status than 2xx.
pub(super) fn of_status(
    status: u16,
    retry_after: Option<&str>,
    body: &[u8],
    credential: &Credential,
) -> Error {
    if matches!(status, 401 | 403) {
        // Nothing of the body: upstreams quote the key that they refuse.
        return Error::new(
            ErrorKind::Upstream,
            "the provider of this model refused Honshu's own credential; whoever runs this server has to check it",
        )
        .with_origin(Origin::Upstream)
        .with_retry(Retry::Never)
        .with_upstream_status(status);
    }
    let clean = credential.redact(body);
    let error =
        honshu_wire::error::from_upstream(status, retry_after, clean.as_deref().unwrap_or(body));
    if status == 404 {
        // The path or the model's name in our configuration is wrong, and stays so.
        error.with_retry(Retry::Never)
    } else {
        error
    }
}

/// An error of a stream, without our key where the upstream quoted it.
pub(super) fn redacted(error: Error, credential: &Credential) -> Error {
    match credential.redact(error.message().as_bytes()) {
        Some(clean) => error.with_message(String::from_utf8_lossy(&clean).into_owned()),
        None => error,
    }
}

/// The upstream sent more than we take.
pub(super) fn too_large() -> Error {
    Error::new(
        ErrorKind::Upstream,
        "the provider's answer is larger than Honshu takes",
    )
    .with_origin(Origin::Upstream)
}

/// The upstream does not speak the dialect it is configured with.
pub(super) fn nonsense(what: &'static str) -> Error {
    Error::new(
        ErrorKind::Upstream,
        "the provider gave an answer that makes no sense",
    )
    .with_origin(Origin::Upstream)
    .with_cause(what)
}
