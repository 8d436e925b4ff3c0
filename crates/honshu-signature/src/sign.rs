//! Signing, for our own command line, which is an OCI client like any other.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST};
use http::{HeaderName, HeaderValue, request};

use crate::body::sha256_base64;
use crate::canonical::CanonicalRequest;
use crate::error::SignError;
use crate::header::REQUEST_TARGET;
use crate::keys::PrivateKey;
use crate::verify::carries_body;

const X_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-content-sha256");

/// The covered names in the order in which Oracle's clients write them.
const COVERED: [&str; 3] = ["date", REQUEST_TARGET, "host"];
const COVERED_WITH_BODY: [&str; 6] = [
    "date",
    REQUEST_TARGET,
    "host",
    "content-length",
    "content-type",
    "x-content-sha256",
];

/// Signs a request whose headers are complete and gives the `Authorization`
/// value, marked sensitive.
///
/// # Errors
/// [`SignError`] if a header that must be covered is absent, or the key fails.
pub fn sign(
    request: &CanonicalRequest<'_>,
    key_id: &str,
    key: &PrivateKey,
) -> Result<HeaderValue, SignError> {
    let covered: &[&str] = if carries_body(request.method) {
        &COVERED_WITH_BODY
    } else {
        &COVERED
    };
    if key_id.is_empty()
        || !key_id
            .bytes()
            .all(|b| matches!(b, b'!'..=b'~') && b != b'"' && b != b'\\')
    {
        return Err(SignError::KeyId);
    }
    let text = request
        .signing_string(covered)
        .map_err(SignError::Request)?;
    let signature = STANDARD.encode(key.sign(&text)?);
    let mut value = HeaderValue::try_from(format!(
        r#"Signature algorithm="rsa-sha256",headers="{}",keyId="{key_id}",signature="{signature}",version="1""#,
        covered.join(" "),
    ))
    .map_err(|_| SignError::KeyId)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Completes the head of a request (`date`, `host`, and for methods with a body
/// `content-length`, `content-type` and `x-content-sha256`) and signs it. Headers
/// that are already set stay, except those that describe the body and the date.
///
/// `now` is in seconds since 1970-01-01 UTC.
///
/// # Errors
/// [`SignError`] if the request has no host, or as for [`sign`].
pub fn sign_request(
    parts: &mut request::Parts,
    body: &[u8],
    now: i64,
    key_id: &str,
    key: &PrivateKey,
) -> Result<(), SignError> {
    let time = u64::try_from(now)
        .ok()
        .map(Duration::from_secs)
        // 9999-12-31, the last day that the format can name.
        .filter(|since| since.as_secs() < 253_402_300_800)
        .ok_or(SignError::Time(now))?;
    let value = |text: String| HeaderValue::try_from(text).map_err(|_| SignError::NoHost);
    parts
        .headers
        .insert(DATE, value(httpdate::fmt_http_date(UNIX_EPOCH + time))?);
    if !parts.headers.contains_key(HOST) {
        let authority = parts.uri.authority().ok_or(SignError::NoHost)?;
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::try_from(host).map_err(|_| SignError::NoHost)?;
        parts.headers.insert(HOST, host);
    }
    if carries_body(&parts.method) {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        parts
            .headers
            .insert(X_CONTENT_SHA256, value(sha256_base64(body))?);
        parts
            .headers
            .entry(CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("application/json"));
    }
    let raw_target = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let authorization = sign(
        &CanonicalRequest {
            method: &parts.method,
            raw_target,
            headers: &parts.headers,
        },
        key_id,
        key,
    )?;
    parts.headers.insert(AUTHORIZATION, authorization);
    Ok(())
}
