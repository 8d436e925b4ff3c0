//! An upstream's key: settable while requests run, never printable.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

/// A bearer key of ours towards an upstream. Clones share it, so that a new one takes effect everywhere.
#[derive(Clone, Default)]
pub struct Credential(Arc<ArcSwapOption<HeaderValue>>);

impl Credential {
    /// No key: requests go without `authorization`.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes a key, replacing the one before. White space around it is dropped.
    ///
    /// # Errors
    /// When it is empty or has characters that a header cannot carry. The message does not repeat it.
    pub fn set(&self, secret: &str) -> Result<(), &'static str> {
        let secret = secret.trim();
        if secret.is_empty() {
            return Err("the credential is empty");
        }
        let mut value = HeaderValue::try_from(format!("Bearer {secret}"))
            .map_err(|_| "the credential has characters that a header cannot carry")?;
        value.set_sensitive(true);
        self.0.store(Some(Arc::new(value)));
        Ok(())
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.0.load().as_deref().cloned()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}
