//! Authentication, from memory. A failed credential never tells which of the reasons it was: the caller
//! reads one sentence, and the reason goes to the log only.

use std::sync::Arc;

use honshu_domain::{Error, ErrorKind, Ocid, Principal, PrincipalKind, Region};
use honshu_signature::{
    BodyDigest, BodyRule, CanonicalRequest, KeyId, SignatureError, SignatureHeader,
};

use crate::control::Control;
use crate::secret::{digest_of, is_well_formed};

/// A credential that is not good. Its text is the same for every reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the required information to complete authentication was not provided or was incorrect")]
pub struct Unauthenticated {
    reason: Reason,
}

/// Why, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("not a bearer credential")]
    Scheme,
    #[error("secret has not the form of one")]
    Form,
    #[error("secret is unknown")]
    Unknown,
    #[error("secret is expired, inactive or revoked")]
    State,
    #[error("key belongs to another region")]
    Region,
    #[error("signature refused: {0}")]
    Signature(#[from] SignatureError),
    #[error("user or signing key is unknown or inactive")]
    User,
    #[error("session tokens are not accepted")]
    Session,
}

impl Unauthenticated {
    /// The reason, for the log and never for the caller.
    pub fn reason_for_log(&self) -> String {
        self.reason.to_string()
    }
}

impl From<Reason> for Unauthenticated {
    fn from(reason: Reason) -> Self {
        Self { reason }
    }
}

impl From<Unauthenticated> for Error {
    fn from(error: Unauthenticated) -> Self {
        Error::new(ErrorKind::Unauthenticated, error.to_string()).with_cause(error.reason)
    }
}

/// The caller of a signed request, and what has to be checked of its body before anything is done.
pub struct SignedCaller {
    /// Who signed.
    pub principal: Principal,
    /// What was signed of the body.
    pub body_rule: BodyRule,
}

impl SignedCaller {
    /// Starts the check of the body while it arrives: `update` for each chunk, then `finish`, which must
    /// say yes before the request is carried out.
    pub fn body_digest(&self) -> BodyDigest {
        self.body_rule.digest()
    }
}

impl Control {
    /// Authenticates the value of an `Authorization: Bearer …` header at the listener of `region`. Answers
    /// from memory and notes the use.
    ///
    /// # Errors
    /// [`Unauthenticated`], alike for every reason.
    pub fn authenticate_bearer(
        &self,
        header_value: &str,
        region: &Region,
    ) -> Result<Principal, Unauthenticated> {
        let (scheme, secret) = header_value.trim().split_once(' ').ok_or(Reason::Scheme)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Reason::Scheme.into());
        }
        self.authenticate_secret(secret.trim_start(), region)
    }

    /// Authenticates a secret by itself, as `x-api-key` carries it.
    ///
    /// # Errors
    /// [`Unauthenticated`], alike for every reason.
    pub fn authenticate_secret(
        &self,
        secret: &str,
        region: &Region,
    ) -> Result<Principal, Unauthenticated> {
        if !is_well_formed(secret) {
            return Err(Reason::Form.into());
        }
        let digest = digest_of(secret, &self.pepper);
        let snapshot = self.state.load();
        let (entry, place) = snapshot
            .keys
            .find(digest.as_bytes())
            .ok_or(Reason::Unknown)?;
        let now = self.clock.now();
        let stored = entry.row.secrets.get(place).ok_or(Reason::Unknown)?;
        if !digest.matches(&stored.digest) {
            return Err(Reason::Unknown.into());
        }
        if entry.row.region != region.name() {
            return Err(Reason::Region.into());
        }
        if !entry.is_good(place, now) {
            return Err(Reason::State.into());
        }
        entry
            .principal_at(place, now)
            .ok_or_else(|| Reason::Unknown.into())
    }

    /// Finds a caller again who was authenticated at the listener of `region` before, for work that it asked for and
    /// that runs later. `None` when its credential would not be taken now.
    pub fn principal_again(
        &self,
        region: &str,
        kind: PrincipalKind,
        id: &Ocid,
        secret_name: Option<&str>,
    ) -> Option<Principal> {
        let snapshot = self.state.load();
        let now = self.clock.now();
        match kind {
            PrincipalKind::ApiKey => {
                let entry = snapshot.keys.by_id.get(id)?;
                let place = entry
                    .row
                    .secrets
                    .iter()
                    .position(|secret| Some(secret.name.as_str()) == secret_name)?;
                (entry.row.region == region && entry.is_good(place, now))
                    .then(|| entry.principal_at(place, now))
                    .flatten()
            }
            PrincipalKind::User => snapshot.identity.user_principal(id),
        }
    }

    /// Authenticates a request signed by a user's key (OCI API reference, "Request Signatures"). The body
    /// has still to pass [`SignedCaller::body_digest`].
    ///
    /// # Errors
    /// [`Unauthenticated`], alike for every reason.
    pub fn authenticate_signature(
        &self,
        authorization: &[u8],
        request: &CanonicalRequest<'_>,
    ) -> Result<SignedCaller, Unauthenticated> {
        let header = SignatureHeader::parse(authorization).map_err(Reason::from)?;
        let KeyId::User {
            tenancy,
            user,
            fingerprint,
            ..
        } = header.key_id()
        else {
            return Err(Reason::Session.into());
        };
        let snapshot = Arc::clone(&self.state.load().identity);
        let known = snapshot.root().is_some_and(|root| root.as_str() == tenancy);
        let user = honshu_domain::Ocid::parse(user)
            .ok()
            .filter(|_| known)
            .ok_or(Reason::User)?;
        let key = snapshot
            .find_signing_key(&user, *fingerprint)
            .ok_or(Reason::User)?;
        let body_rule = header
            .verify(request, key, self.clock.now().as_seconds())
            .map_err(Reason::from)?;
        let principal = snapshot.user_principal(&user).ok_or(Reason::User)?;
        Ok(SignedCaller {
            principal,
            body_rule,
        })
    }
}
