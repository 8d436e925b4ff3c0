//! What is written down about an installed model.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::gguf::ModelInfo;

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// Text that is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 64 hexadecimal digits")]
pub struct ParseDigestError;

impl Digest {
    pub(crate) fn of(context: aws_lc_rs::digest::Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let mut bytes = [0; 32];
        if hex.len() != 64 {
            return Err(ParseDigestError);
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |c: u8| (c as char).to_digit(16).ok_or(ParseDigestError);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Who vouches for the digest of an installed file. In every case the file was hashed here and matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestOrigin {
    /// Written in Honshu's catalogue.
    Catalogue,
    /// Given by the user with the command.
    Given,
    /// Announced by the hub in a header when the file was pulled, and pinned since.
    Hub,
    /// Nobody: computed here, and pinned since.
    Computed,
}

/// Where an installed model came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// A file on this machine.
    Path {
        /// Where it was.
        path: PathBuf,
    },
    /// A web server.
    Url {
        /// The URL without its query.
        url: String,
    },
    /// The hub.
    Hf {
        /// `hf:owner/repo/file.gguf`.
        file: String,
        /// The commit, where the hub said it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
    },
    /// A Python wheel.
    Pypi {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The path in the wheel.
        path: String,
    },
}

/// What is known of an installed model. Stored as `manifests/<id>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of this file; 1.
    pub version: u32,
    /// The model id that callers name.
    pub id: String,
    /// The short name, for catalogue models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The vendor, the part of the id before the first dot.
    pub vendor: String,
    /// For people.
    pub display_name: String,
    /// The licence, from the catalogue or from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Languages, from the catalogue or from the file.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Capabilities from the catalogue, else `chat` if the file has a chat template.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The digest of the file.
    pub sha256: Digest,
    /// Who vouches for it.
    pub digest_origin: DigestOrigin,
    /// The size of the file in bytes.
    pub size_bytes: u64,
    /// Where it came from.
    pub source: Source,
    /// When, in RFC 3339.
    pub pulled_at: String,
    /// What the file says of itself.
    pub gguf: ModelInfo,
}

/// A model that is installed, and its file.
#[derive(Debug, Clone)]
pub struct InstalledModel {
    /// What is known of it.
    pub manifest: Manifest,
    /// The model file.
    pub path: PathBuf,
}
