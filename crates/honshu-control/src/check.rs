//! What names, texts and tags must look like. Every problem of a request is gathered before it is refused.

use honshu_domain::{Error, Problem, Result};
use honshu_wire::oci::{DefinedTags, FreeformTags};

use crate::limits::{
    DESCRIPTION_CHARS_MAX, KEY_NAME_CHARS_MAX, NAME_CHARS_MAX, TAG_CHARS_MAX, TAGS_MAX,
};

/// Gathers problems.
#[derive(Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem {
            path: path.into(),
            message: message.into(),
        });
    }

    pub(crate) fn done(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::invalid(self.0))
        }
    }

    /// Name of a key or secret (OCI documentation: `^[A-Za-z_][A-Za-z0-9_-]{0,254}$`).
    pub(crate) fn key_name(&mut self, path: &str, name: &str) {
        let mut bytes = name.bytes();
        let good = bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            && name.len() <= KEY_NAME_CHARS_MAX;
        if !good {
            self.add(
                path,
                format!("must begin with a letter or `_` and have 1 to {KEY_NAME_CHARS_MAX} letters, digits, `_` or `-`"),
            );
        }
    }

    /// Name of a compartment or policy (OCI API reference).
    pub(crate) fn name(&mut self, path: &str, name: &str) {
        // Letters of any language: a compartment may well be called 生成AI.
        let good = !name.is_empty()
            && name.chars().count() <= NAME_CHARS_MAX
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | 'ー'));
        if !good {
            self.add(
                path,
                format!("must have 1 to {NAME_CHARS_MAX} letters, digits, `_`, `-` or `.`"),
            );
        }
    }

    pub(crate) fn description(&mut self, path: &str, text: &str) {
        if text.chars().count() > DESCRIPTION_CHARS_MAX {
            self.add(
                path,
                format!("must have at most {DESCRIPTION_CHARS_MAX} characters"),
            );
        }
    }

    pub(crate) fn tags(&mut self, freeform: Option<&FreeformTags>, defined: Option<&DefinedTags>) {
        let long = |text: &str| text.chars().count() > TAG_CHARS_MAX;
        if let Some(tags) = freeform
            && (tags.len() > TAGS_MAX
                || tags
                    .iter()
                    .any(|(key, value)| key.is_empty() || long(key) || long(value)))
        {
            self.add(
                "freeformTags",
                format!("at most {TAGS_MAX} tags of at most {TAG_CHARS_MAX} characters"),
            );
        }
        if let Some(spaces) = defined {
            let count: usize = spaces.values().map(std::collections::BTreeMap::len).sum();
            let bad = spaces.iter().any(|(space, tags)| {
                space.is_empty()
                    || long(space)
                    || tags.iter().any(|(key, value)| {
                        key.is_empty()
                            || long(key)
                            || match value {
                                serde_json::Value::String(text) => long(text),
                                serde_json::Value::Number(_) | serde_json::Value::Bool(_) => false,
                                _ => true,
                            }
                    })
            });
            if count > TAGS_MAX || bad {
                self.add(
                    "definedTags",
                    format!("at most {TAGS_MAX} tags of at most {TAG_CHARS_MAX} characters, each a text, number or boolean"),
                );
            }
        }
    }
}

/// Tags as they are stored.
pub(crate) fn tags_text(tags: Option<&impl serde::Serialize>) -> Result<String> {
    match tags {
        None => Ok("{}".to_owned()),
        Some(tags) => serde_json::to_string(tags).map_err(Error::internal),
    }
}

/// Tags as they were stored.
pub(crate) fn read_tags<T: serde::de::DeserializeOwned + Default>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| {
        tracing::error!(error = %error, "stored tags cannot be read and are shown as none");
        T::default()
    })
}
