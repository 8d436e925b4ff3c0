//! What a server must check before it believes a signature.

use http::Method;

use crate::body::BodyRule;
use crate::canonical::CanonicalRequest;
use crate::error::SignatureError;
use crate::header::{REQUEST_TARGET, SignatureHeader};
use crate::keys::PublicKey;

/// How far the signed date may lie from the server's clock, in seconds, either
/// way (OCI API reference, "Request Signatures": five minutes).
pub const SKEW_SECONDS_MAX: i64 = 300;

/// Names that must be covered, beside `date` or `x-date`, for a request of this
/// method (OCI API reference, "Request Signatures"). Methods that OCI does not
/// use are held to the stricter rule.
#[must_use]
pub fn covered_headers(method: &Method) -> &'static [&'static str] {
    if carries_body(method) {
        &[
            REQUEST_TARGET,
            "host",
            "content-length",
            "content-type",
            "x-content-sha256",
        ]
    } else {
        &[REQUEST_TARGET, "host"]
    }
}

pub(crate) fn carries_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE)
}

impl SignatureHeader {
    /// Checks covered names, date and signature, cheapest first, and says which
    /// body was signed. The caller still has to run the body through
    /// [`BodyRule::digest`] and to decide whether user and key are active.
    ///
    /// `now` is the server's time in seconds since 1970-01-01 UTC.
    ///
    /// There is no nonce in this scheme: a captured request can be sent again
    /// within the window. That is the contract; TLS keeps requests from capture.
    ///
    /// # Errors
    /// A [`SignatureError`], for logs only.
    pub fn verify(
        &self,
        request: &CanonicalRequest<'_>,
        key: &PublicKey,
        now: i64,
    ) -> Result<BodyRule, SignatureError> {
        let rule = self.check_claims(request, now)?;
        let text = request.signing_string(self.covered())?;
        if key.is_signature_of(&text, self.signature()) {
            Ok(rule)
        } else {
            Err(SignatureError::Mismatch)
        }
    }

    /// The part of [`SignatureHeader::verify`] that needs no key, so that a
    /// caller can refuse hopeless requests before it looks one up.
    ///
    /// # Errors
    /// A [`SignatureError`], for logs only.
    pub fn check_claims(
        &self,
        request: &CanonicalRequest<'_>,
        now: i64,
    ) -> Result<BodyRule, SignatureError> {
        for name in covered_headers(request.method) {
            if !self.covers(name) {
                return Err(SignatureError::NotCovered(name));
            }
        }
        self.check_date(request, now)?;
        let length = request.single("content-length")?;
        let sha256 = request.single("x-content-sha256")?;
        if self.covers("x-content-sha256") && self.covers("content-length") {
            let missing = |name: &str| SignatureError::MissingHeader(name.to_owned());
            return BodyRule::from_headers(
                length.ok_or_else(|| missing("content-length"))?,
                sha256.ok_or_else(|| missing("x-content-sha256"))?,
            );
        }
        Ok(BodyRule::Empty)
    }

    fn check_date(&self, request: &CanonicalRequest<'_>, now: i64) -> Result<(), SignatureError> {
        // Browsers may not set `date`, so `x-date` wins where both stand. A date
        // that is not covered counts for nothing.
        let name = if self.covers("x-date") {
            "x-date"
        } else if self.covers("date") {
            "date"
        } else {
            return Err(SignatureError::NotCovered("date"));
        };
        let value = request
            .single(name)?
            .ok_or_else(|| SignatureError::MissingHeader(name.to_owned()))?;
        let date = std::str::from_utf8(value)
            .ok()
            .and_then(|text| httpdate::parse_http_date(text).ok())
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_secs()).ok())
            .ok_or(SignatureError::DateFormat(name))?;
        let skew_seconds = date.saturating_sub(now);
        if (-SKEW_SECONDS_MAX..=SKEW_SECONDS_MAX).contains(&skew_seconds) {
            Ok(())
        } else {
            Err(SignatureError::Skew { skew_seconds })
        }
    }

    fn covers(&self, name: &str) -> bool {
        self.covered().iter().any(|covered| covered == name)
    }
}
