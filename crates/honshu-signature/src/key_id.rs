//! The forms of `keyId`: whom a signature claims to come from.
//!
//! Only the form is decided here. Whether the tenancy, user or token exists is
//! for the caller, who must answer all of those alike.

use crate::error::SignatureError;
use crate::keys::Fingerprint;

/// Longest tenancy or user part, in bytes. An OCID has at most 255 characters.
const PART_BYTES_MAX: usize = 255;

/// Whom a signature claims to come from.
#[derive(Clone)]
#[non_exhaustive]
pub enum KeyId {
    /// `<tenancy>/<user>/<fingerprint>`: a user's API signing key.
    User {
        /// The key id as sent.
        text: String,
        /// The tenancy part, as sent.
        tenancy: String,
        /// The user part, as sent.
        user: String,
        /// Names one of the user's keys.
        fingerprint: Fingerprint,
    },
    /// `ST$<jwt>`: a session token, whose own key signed the request.
    SessionToken(SessionToken),
}

impl KeyId {
    /// Reads a key id.
    ///
    /// # Errors
    /// [`SignatureError::KeyId`] for any other form, among them
    /// `<tenancy>/fed-x509/<fingerprint>`, which only OCI's own token service takes.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        if let Some(token) = text.strip_prefix("ST$") {
            return SessionToken::parse(token).map(Self::SessionToken);
        }
        let mut parts = text.split('/');
        let (Some(tenancy), Some(user), Some(fingerprint), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SignatureError::KeyId);
        };
        if !is_part(tenancy) || !is_part(user) || user == "fed-x509" {
            return Err(SignatureError::KeyId);
        }
        Ok(Self::User {
            text: text.to_owned(),
            tenancy: tenancy.to_owned(),
            user: user.to_owned(),
            fingerprint: fingerprint.parse().map_err(|_| SignatureError::KeyId)?,
        })
    }

    /// The key id as it stands in the header. For a session token this is `ST$`
    /// only: the token itself must not reach a log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::User { text, .. } => text,
            Self::SessionToken(_) => "ST$",
        }
    }
}

fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= PART_BYTES_MAX
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
}

/// A session token (JWT) whose form was checked and nothing else. It has no
/// `Debug`: whoever reads a log must not learn it.
#[derive(Clone)]
pub struct SessionToken(String);

impl SessionToken {
    fn parse(token: &str) -> Result<Self, SignatureError> {
        let is_segment = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b))
        };
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        if parts.len() == 3 && parts.into_iter().all(is_segment) {
            Ok(Self(token.to_owned()))
        } else {
            Err(SignatureError::KeyId)
        }
    }

    /// The compact JWT, for the code that checks it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_key_id() {
        let fingerprint = "e3:3a:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:49";
        let user = |text: &str| matches!(KeyId::parse(text), Ok(KeyId::User { .. }));
        assert!(user(&format!(
            "ocid1.tenancy.oc1..t/ocid1.user.oc1..u/{fingerprint}"
        )));
        assert!(user(&format!("t/u/{}", fingerprint.to_uppercase())));
        for refused in [
            String::new(),
            "t/u".into(),
            format!("/u/{fingerprint}"),
            format!("t//{fingerprint}"),
            format!("t/u/{fingerprint}/"),
            format!("t/fed-x509/{fingerprint}"),
            format!("t/u/{}", &fingerprint[1..]),
            format!("t/u/{fingerprint}:00"),
            format!("t/u u/{fingerprint}"),
            format!("{}/u/{fingerprint}", "t".repeat(256)),
            "ST$".into(),
            "ST$a.b".into(),
            "ST$a.b.c.d".into(),
            "ST$a..c".into(),
            "ST$a.b.c/".into(),
        ] {
            assert!(KeyId::parse(&refused).is_err(), "{refused}");
        }
        let Ok(KeyId::SessionToken(token)) = KeyId::parse("ST$eyJh.eyJz.c2ln") else {
            panic!("a session token")
        };
        assert_eq!(token.expose(), "eyJh.eyJz.c2ln");
    }
}
