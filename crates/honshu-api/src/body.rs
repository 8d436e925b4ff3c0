//! Reads request bodies, whole or in pieces, under the edge's limits, hashing signed ones while they arrive.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use honshu_domain::{Error, ErrorKind, Result};
use honshu_signature::BodyRule;
use http_body_util::BodyExt;

use crate::edge::EdgeBodyError;
use crate::respond;

/// A body of up to so many bytes is copied out of the connection's read buffer. A slice would hold the whole
/// buffer, 8 KiB, as long as the run lasts, and the connection would have to make another one.
const COPIED_BYTES_MAX: usize = 4 * 1024;

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
        // Most bodies come in one piece; a large one is kept without a copy.
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
    Ok(match first {
        Some(whole) if rest.is_empty() && whole.len() <= COPIED_BYTES_MAX => {
            Bytes::copy_from_slice(&whole)
        }
        Some(whole) if rest.is_empty() => whole,
        _ => rest.freeze(),
    })
}

/// The same, piece by piece as they arrive. The last item of a body that is not the signed one is an error.
pub(crate) fn pieces(
    body: Body,
    rule: Option<&BodyRule>,
) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
    let digest = rule.map(BodyRule::digest);
    stream::try_unfold((body, digest), |(mut body, mut digest)| async move {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(body_error)?.into_data() else {
                continue;
            };
            if let Some(digest) = digest.as_mut() {
                digest.update(&data).map_err(signature_error)?;
            }
            return Ok(Some((data, (body, digest))));
        }
        if let Some(digest) = digest {
            digest.finish().map_err(signature_error)?;
        }
        Ok(None)
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
