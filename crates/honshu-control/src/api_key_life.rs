//! The life of a secret, as a pure function of its row, the clock and what is asked.
//!
//! ACTIVE and INACTIVE turn into each other; REVOKED is final; EXPIRED follows from the time and is left by
//! renewal only (OCI documentation, API keys).

use honshu_domain::{Error, ErrorKind, Result, Timestamp};
use honshu_store::{SecretRow, SecretState};

use crate::limits::SECRET_LIFE_MONTHS;
use crate::secret::SecretDigest;

/// What a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ShownState {
    Active,
    Inactive,
    Revoked,
    Expired,
}

impl ShownState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// The state of a secret at `now`. Revoked stays revoked, also after its time.
pub(crate) fn shown_state(secret: &SecretRow, now: Timestamp) -> ShownState {
    match secret.state {
        SecretState::Revoked => ShownState::Revoked,
        _ if now >= secret.expires => ShownState::Expired,
        SecretState::Active => ShownState::Active,
        SecretState::Inactive => ShownState::Inactive,
    }
}

/// The end of a secret that names none: three calendar months from now.
pub(crate) fn default_expiry(now: Timestamp) -> Timestamp {
    let later = jiff::Timestamp::from_microsecond(now.as_micros())
        .ok()
        .and_then(|now| {
            let zoned = now.to_zoned(jiff::tz::TimeZone::UTC);
            zoned
                .checked_add(jiff::Span::new().months(SECRET_LIFE_MONTHS))
                .ok()
        });
    match later {
        Some(later) => Timestamp::from_micros(later.timestamp().as_microsecond()),
        // The end of the calendar: no real clock gets here.
        None => now,
    }
}

/// A new secret.
pub(crate) fn new_secret(
    name: &str,
    digest: SecretDigest,
    mask: String,
    expires: Timestamp,
    now: Timestamp,
) -> SecretRow {
    SecretRow {
        name: name.to_owned(),
        digest: *digest.as_bytes(),
        mask,
        state: SecretState::Active,
        created: now,
        expires,
        activated: Some(now),
        deactivated: None,
        revoked: None,
        last_used: None,
    }
}

/// Gives a secret a new value and a new end. An inactive one stays inactive: whoever put it out of use has to
/// put it back.
pub(crate) fn renew(
    secret: &mut SecretRow,
    digest: SecretDigest,
    mask: String,
    expires: Timestamp,
    now: Timestamp,
) -> Result<()> {
    if secret.state == SecretState::Revoked {
        return Err(conflict(
            "the secret is revoked, which is final; create another key",
        ));
    }
    secret.digest = *digest.as_bytes();
    secret.mask = mask;
    secret.created = now;
    secret.expires = expires;
    secret.last_used = None;
    if secret.state == SecretState::Active {
        secret.activated = Some(now);
    }
    Ok(())
}

/// Sets the state. Setting the one that is there changes nothing and is no error. Gives whether it changed.
pub(crate) fn set_state(
    secret: &mut SecretRow,
    asked: SecretState,
    now: Timestamp,
) -> Result<bool> {
    match (shown_state(secret, now), asked) {
        (ShownState::Active, SecretState::Active)
        | (ShownState::Inactive, SecretState::Inactive)
        | (ShownState::Revoked, SecretState::Revoked) => Ok(false),
        (ShownState::Revoked, _) => Err(conflict("the secret is revoked, which is final")),
        (_, SecretState::Revoked) => {
            secret.state = SecretState::Revoked;
            secret.revoked = Some(now);
            Ok(true)
        }
        (ShownState::Expired, _) => Err(conflict(
            "the secret has expired; renew it to give it a new value and a new end",
        )),
        (_, SecretState::Active) => {
            secret.state = SecretState::Active;
            secret.activated = Some(now);
            Ok(true)
        }
        (_, SecretState::Inactive) => {
            secret.state = SecretState::Inactive;
            secret.deactivated = Some(now);
            Ok(true)
        }
    }
}

fn conflict(message: &str) -> Error {
    Error::new(ErrorKind::Conflict, message)
}
