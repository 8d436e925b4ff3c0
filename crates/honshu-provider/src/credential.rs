//! An upstream's key: it can be replaced while requests run, and it cannot be printed.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderValue;

/// The key of an upstream. Clones share it, so that a new value reaches every request that begins after it.
#[derive(Clone)]
pub struct Credential {
    bearer: Arc<RwLock<Option<HeaderValue>>>,
}

const SCHEME: &str = "Bearer ";

impl Credential {
    /// No key: requests carry no `authorization` header until one is set.
    #[must_use]
    pub fn none() -> Self {
        Self {
            bearer: Arc::default(),
        }
    }

    /// Replaces the key. White space around it, such as a file's last line break, is not part of it.
    ///
    /// # Errors
    /// When the key is empty or holds characters that no header can carry; the old key stays.
    pub fn set(&self, secret: &str) -> Result<(), &'static str> {
        let secret = secret.trim();
        if secret.is_empty() {
            return Err("the credential is empty");
        }
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the credential holds characters that are not printable ASCII");
        }
        let mut bearer = HeaderValue::from_str(&format!("{SCHEME}{secret}"))
            .map_err(|_| "the credential cannot be sent in a header")?;
        // hyper and its logs show sensitive values as a placeholder.
        bearer.set_sensitive(true);
        *self.bearer.write().unwrap_or_else(PoisonError::into_inner) = Some(bearer);
        Ok(())
    }

    /// The `authorization` header.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.bearer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes the key out of what an upstream sent: some quote it in their errors.
    pub(crate) fn redact(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        const INSTEAD: &[u8] = b"[credential]";
        let header = self.header()?;
        let secret = header.as_bytes().get(SCHEME.len()..)?;
        let finder = memchr::memmem::Finder::new(secret);
        let mut clean = Vec::new();
        let mut from = 0;
        for at in finder.find_iter(bytes) {
            clean.extend_from_slice(&bytes[from..at]);
            clean.extend_from_slice(INSTEAD);
            from = at + secret.len();
        }
        if from == 0 {
            return None;
        }
        clean.extend_from_slice(&bytes[from..]);
        Some(clean)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.header().is_some() {
            "Credential(set)"
        } else {
            "Credential(none)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_trimmed_checked_replaced_and_never_shown() {
        let credential = Credential::none();
        assert!(credential.header().is_none());
        let shared = credential.clone();
        shared.set(" sk-canary-1\n").unwrap();
        assert_eq!(
            credential.header().unwrap().as_bytes(),
            b"Bearer sk-canary-1"
        );
        assert!(shared.set("").is_err());
        assert!(shared.set("two\nlines").is_err());
        assert!(shared.set("schlüssel").is_err());
        assert_eq!(
            credential.header().unwrap().as_bytes(),
            b"Bearer sk-canary-1"
        );
        let shown = format!("{credential:?} {:?}", credential.header().unwrap());
        assert!(!shown.contains("canary"), "{shown}");
        let clean = credential
            .redact(b"bad key sk-canary-1, yes sk-canary-1")
            .unwrap();
        assert_eq!(clean, b"bad key [credential], yes [credential]");
        assert!(credential.redact(b"bad key").is_none());
    }
}
