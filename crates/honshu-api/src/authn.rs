//! Takes the credential out of a request and asks the control plane whose it is. One extractor for all paths.

use honshu_domain::{Error, ErrorKind, Ocid, Principal, PrincipalKind, Result};
use honshu_signature::{BodyRule, CanonicalRequest, is_signature_scheme};
use http::request::Parts;
use http::{HeaderMap, header};

use crate::app::App;
use crate::context::{Context, Plane};
use crate::respond;

/// An authenticated caller, and what is still to be checked about the body.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Who.
    pub(crate) principal: Principal,
    /// For a signed request: what the body must be.
    pub(crate) body_rule: Option<BodyRule>,
}

/// Authenticates a caller of the data plane: an API key or a signature.
pub(crate) fn data_plane(app: &App, context: &Context, parts: &Parts) -> Result<Caller> {
    let api_key = if context.plane == Plane::Messages {
        x_api_key(&parts.headers)?
    } else {
        None
    };
    match (authorization(&parts.headers)?, &api_key) {
        (None, None) => Err(respond::unauthenticated()),
        // Anthropic's clients send either header or both; two that differ are two credentials.
        (Some(value), Some(bearer)) if value != bearer.as_bytes() => Err(Error::invalid_at(
            "",
            "the headers `authorization` and `x-api-key` hold different credentials; send one",
        )),
        (Some(value), _) if is_signature_scheme(value) => signed(app, context, parts, value),
        (Some(value), _) => bearer(app, context, value),
        (None, Some(value)) => bearer(app, context, value.as_bytes()),
    }
}

/// The key of the header that Anthropic's clients use, as the bearer credential that it is.
fn x_api_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all("x-api-key").iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Error::invalid_at(
            "",
            "there is more than one `x-api-key` header; send one credential",
        ));
    }
    let key = first.to_str().map_err(|_| respond::unauthenticated())?;
    Ok(Some(format!("Bearer {}", key.trim())))
}

fn bearer(app: &App, context: &Context, value: &[u8]) -> Result<Caller> {
    let value = std::str::from_utf8(value).map_err(|_| respond::unauthenticated())?;
    let principal = app
        .control
        .authenticate_bearer(value, &context.region)
        .map_err(|reason| refused(&reason))?;
    Ok(Caller {
        principal,
        body_rule: None,
    })
}

/// Authenticates a caller of the management and identity planes: a signature, nothing else.
pub(crate) fn management_plane(app: &App, context: &Context, parts: &Parts) -> Result<Caller> {
    match authorization(&parts.headers)? {
        Some(value) if is_signature_scheme(value) => signed(app, context, parts, value),
        _ => Err(respond::unauthenticated()),
    }
}

/// The same answer for every reason; the reason is for the log.
fn refused(reason: &honshu_control::Unauthenticated) -> Error {
    respond::unauthenticated().with_cause(reason.reason_for_log())
}

fn authorization(headers: &HeaderMap) -> Result<Option<&[u8]>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Error::invalid_at(
            "",
            "there is more than one `authorization` header; send one credential",
        ));
    }
    Ok(first.map(http::HeaderValue::as_bytes))
}

fn signed(app: &App, context: &Context, parts: &Parts, value: &[u8]) -> Result<Caller> {
    let request = CanonicalRequest {
        method: &parts.method,
        raw_target: context.target.as_str(),
        headers: &parts.headers,
    };
    let signed = app
        .control
        .authenticate_signature(value, &request)
        .map_err(|reason| refused(&reason))?;
    Ok(Caller {
        principal: signed.principal,
        body_rule: Some(signed.body_rule),
    })
}

/// The compartment that a data-plane call is charged to: the header's, else the key's own.
///
/// # Errors
/// A signed call without the header is a 400 that names it; a malformed OCID is a 400.
pub(crate) fn compartment(headers: &HeaderMap, principal: &Principal) -> Result<Ocid> {
    const NAMES: [&str; 2] = ["opc-compartment-id", "compartmentid"];
    let named = NAMES.iter().find_map(|name| headers.get(*name));
    match named {
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| Ocid::parse(text.trim()).ok())
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    "the header `opc-compartment-id` is not an OCID such as `ocid1.compartment.oc1..aaaa…`",
                )
            }),
        None if principal.kind == PrincipalKind::ApiKey => Ok(principal.compartment.clone()),
        None => Err(Error::new(
            ErrorKind::Invalid,
            "a signed request names no compartment: send the header `opc-compartment-id`",
        )),
    }
}
