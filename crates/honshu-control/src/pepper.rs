//! The key under which secrets are digested. Whoever steals the database alone can test no guess.
//!
//! It is a 0600 file in the data directory, or comes from an environment variable or another file, the same
//! on all nodes. It belongs into a backup: without it no secret works any more.

use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use honshu_domain::Entropy;
use honshu_store::write_private;
use zeroize::Zeroizing;

use crate::limits::PEPPER_BYTES_MIN;

/// Name of the pepper's file in the data directory.
pub const PEPPER_FILE: &str = "pepper";

/// Why there is no pepper.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// The file cannot be read or made.
    #[error("cannot use the pepper file `{path}`: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The variable is not set.
    #[error("environment variable `{0}` holds no pepper; set it to at least 32 random characters")]
    Variable(String),
    /// Too short to protect anything.
    #[error("the pepper has {bytes} bytes, at least {min} are needed; make one with `openssl rand -hex 32`", min = PEPPER_BYTES_MIN)]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// Neither `env:` nor `file:`.
    #[error("pepper source `{0}` is not understood; write `env:NAME` or `file:PATH`")]
    Source(String),
}

/// The HMAC key for secrets. It cannot be printed.
#[derive(Clone)]
pub struct Pepper(hmac::Key);

impl Pepper {
    /// Takes the text of a pepper; white space around it does not count.
    ///
    /// # Errors
    /// [`PepperError::TooShort`].
    pub fn from_text(text: &str) -> Result<Self, PepperError> {
        let bytes = text.trim().as_bytes();
        if bytes.len() < PEPPER_BYTES_MIN {
            return Err(PepperError::TooShort { bytes: bytes.len() });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// Reads `env:NAME` or `file:PATH`.
    ///
    /// # Errors
    /// A [`PepperError`].
    pub fn from_source(source: &str) -> Result<Self, PepperError> {
        if let Some(name) = source.strip_prefix("env:") {
            let text = std::env::var(name).map_err(|_| PepperError::Variable(name.to_owned()))?;
            return Self::from_text(&Zeroizing::new(text));
        }
        match source.strip_prefix("file:") {
            Some(path) => Self::from_file(Path::new(path)),
            None => Err(PepperError::Source(source.chars().take(80).collect())),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A [`PepperError`].
    pub fn from_file(path: &Path) -> Result<Self, PepperError> {
        let text = std::fs::read_to_string(path).map_err(|source| PepperError::File {
            path: path.to_owned(),
            source,
        })?;
        Self::from_text(&Zeroizing::new(text))
    }

    /// Reads the pepper of a data directory, making it (64 hexadecimal digits, mode 0600) if there is none.
    ///
    /// # Errors
    /// A [`PepperError`].
    pub fn load_or_create(directory: &Path, entropy: &dyn Entropy) -> Result<Self, PepperError> {
        let path = directory.join(PEPPER_FILE);
        if !path.exists() {
            let mut random = Zeroizing::new([0_u8; 32]);
            entropy.fill(&mut random[..]);
            let mut text = Zeroizing::new(String::with_capacity(65));
            for byte in random.iter() {
                for digit in [byte >> 4, byte & 15] {
                    text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
                }
            }
            text.push('\n');
            write_private(&path, text.as_bytes()).map_err(|source| PepperError::File {
                path: path.clone(),
                source,
            })?;
        }
        Self::from_file(&path)
    }

    /// A text that tells peppers apart and gives none away: kept in the database, so that a node with
    /// another pepper refuses to start instead of refusing every key.
    pub(crate) fn check_value(&self) -> String {
        let tag = hmac::sign(&self.0, b"honshu pepper check");
        tag.as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// A key of 256 bits for `purpose`, which tells nothing about the pepper or about keys for other purposes.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let tag = hmac::sign(&self.0, format!("honshu key for {purpose}").as_bytes());
        let mut key = Zeroizing::new([0_u8; 32]);
        key.copy_from_slice(&tag.as_ref()[..32]);
        key
    }

    pub(crate) fn key(&self) -> &hmac::Key {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use honshu_domain::SystemEntropy;

    use super::*;

    #[test]
    fn a_pepper_is_made_once_and_is_private() {
        let home = tempfile::tempdir().unwrap();
        let first = Pepper::load_or_create(home.path(), &SystemEntropy).unwrap();
        let second = Pepper::load_or_create(home.path(), &SystemEntropy).unwrap();
        assert_eq!(first.check_value(), second.check_value());
        let mode = std::fs::metadata(home.path().join(PEPPER_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let source = format!("file:{}", home.path().join(PEPPER_FILE).display());
        assert_eq!(
            Pepper::from_source(&source).unwrap().check_value(),
            first.check_value()
        );
    }

    #[test]
    fn short_missing_and_strange_sources_are_refused_in_words() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(PEPPER_FILE), "short\n").unwrap();
        let words = |result: Result<Pepper, PepperError>| result.map(drop).unwrap_err().to_string();
        assert!(words(Pepper::load_or_create(home.path(), &SystemEntropy)).contains("5 bytes"));
        assert!(
            words(Pepper::from_source("env:HONSHU_NO_SUCH_PEPPER"))
                .contains("HONSHU_NO_SUCH_PEPPER")
        );
        assert!(words(Pepper::from_source("vault:x")).contains("env:NAME"));
        assert!(
            words(Pepper::from_source("file:/nonexistent/pepper")).contains("/nonexistent/pepper")
        );
    }
}
