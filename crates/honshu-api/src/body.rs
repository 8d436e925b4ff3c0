//! Reads request bodies whole, under the edge's limits, hashing signed ones while they arrive.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use honshu_domain::{Error, ErrorKind, Result};
use honshu_signature::BodyRule;
use http_body_util::BodyExt;

use crate::edge::EdgeBodyError;
use crate::respond;

/// Reads `body` to its end. With `rule`, the bytes must be those that were signed.
///
/// # Errors
/// `TooLarge`, `RequestTimeout`, `Invalid` for a body that broke off, `Unauthenticated` when the bytes are
/// not the signed ones.
pub(crate) async fn read(mut body: Body, rule: Option<&BodyRule>) -> Result<Bytes> {
    let mut digest = rule.map(BodyRule::digest);
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(body_error)?.into_data() else {
            continue;
        };
        if let Some(digest) = digest.as_mut() {
            digest.update(&data).map_err(signature_error)?;
        }
        // Most bodies come in one piece, which is kept without a copy.
        match &first {
            None => first = Some(data),
            Some(start) => {
                if rest.is_empty() {
                    rest.extend_from_slice(start);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    if let Some(digest) = digest {
        digest.finish().map_err(signature_error)?;
    }
    Ok(if rest.is_empty() {
        first.unwrap_or_default()
    } else {
        rest.freeze()
    })
}

fn signature_error(error: honshu_signature::BodyError) -> Error {
    respond::unauthenticated().with_cause(error)
}

fn body_error(error: axum::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(edge) = cause.downcast_ref::<EdgeBodyError>() {
            return match edge {
                EdgeBodyError::TooLarge { limit } => Error::new(
                    ErrorKind::TooLarge,
                    format!("the body is larger than {limit} bytes"),
                ),
                EdgeBodyError::TooSlow => {
                    Error::new(ErrorKind::RequestTimeout, "the body arrived too slowly")
                }
                _ => Error::invalid_at("", "the body broke off before its end"),
            };
        }
        source = cause.source();
    }
    Error::invalid_at("", "the body broke off before its end").with_cause(error)
}
