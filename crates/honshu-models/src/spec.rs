//! What a user may write after `honshu model pull`, and the model's id that follows from it.
//!
//! | written | meaning | id |
//! |---|---|---|
//! | `smollm2-135m-instruct` or its id | a catalogue model | the catalogue's |
//! | `./x/My Model.gguf`, `/x/m.gguf`, `m.gguf` | a file on this machine | `local.my-model` |
//! | `https://host/x/m.gguf` | a download | `local.m` |
//! | `hf:Owner/Repo/file.gguf`, `hf:Owner/Repo@revision/dir/file.gguf` | a file of the hub | `owner.file` |
//!
//! Ids are `<vendor>.<name>` in lower case, as OCI names models, of letters, digits, `.`, `-` and `_`.

use std::fmt;
use std::path::{Path, PathBuf};

use http::Uri;

use crate::catalogue::{Catalogue, CatalogueModel};

/// Longest id in bytes: it becomes a file name with a suffix.
const ID_BYTES_MAX: usize = 128;

/// Where to pull a model from.
#[derive(Debug, Clone)]
pub enum ModelSpec {
    /// A model of the catalogue.
    Catalogue(Box<CatalogueModel>),
    /// A file on this machine.
    Path(PathBuf),
    /// A file on some web server.
    Url(Uri),
    /// A file on the hub.
    Hub(HubFile),
}

/// A file in a repository of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// The account.
    pub owner: String,
    /// The repository.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The path in the repository.
    pub path: String,
}

/// Text that names no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Neither a catalogue name, nor a path, nor a URL.
    #[error(
        "`{0}` is not in the catalogue and no such file exists; `honshu model list --available` shows the catalogue, and a path, an https URL or `hf:owner/repo/file.gguf` is taken too"
    )]
    Unknown(String),
    /// `hf:` with something else behind it.
    #[error(
        "`{0}` is not a file of the hub; write `hf:owner/repo/file.gguf` or `hf:owner/repo@revision/file.gguf`"
    )]
    Hub(String),
    /// An invalid URL.
    #[error("the model's URL cannot be used: {0}")]
    Url(#[from] honshu_egress::UrlError),
    /// Not a GGUF file by its name.
    #[error("`{0}` is not a GGUF file; only `.gguf` files can be loaded")]
    NotGguf(String),
    /// One part of a model in several files.
    #[error(
        "`{0}` is one part of a model that is split into several files, which is not supported; choose a model in one file"
    )]
    Split(String),
}

impl ModelSpec {
    /// Reads what a user wrote. Looks at the file system to tell a path without a slash from a misspelt name.
    ///
    /// # Errors
    /// See [`SpecError`].
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, SpecError> {
        let text = text.trim();
        if let Some(model) = catalogue.find(text) {
            return Ok(Self::Catalogue(Box::new(model.clone())));
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            let file = HubFile::parse(rest).ok_or_else(|| SpecError::Hub(text.to_owned()))?;
            check_name(&file.path)?;
            return Ok(Self::Hub(file));
        }
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("http://") || lower.starts_with("https://") {
            let uri = honshu_egress::parse_url(text)?;
            check_name(uri.path())?;
            return Ok(Self::Url(uri));
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        let looks_like_path = path.contains('/') || lower.ends_with(".gguf");
        if !text.is_empty() && (looks_like_path || Path::new(path).is_file()) {
            check_name_is_whole(path)?;
            return Ok(Self::Path(PathBuf::from(path)));
        }
        Err(SpecError::Unknown(text.to_owned()))
    }

    /// The id that the model gets.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Catalogue(model) => model.id.clone(),
            Self::Path(path) => {
                let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned());
                local_id("local", &stem.unwrap_or_default())
            }
            Self::Url(uri) => local_id("local", stem(uri.path())),
            Self::Hub(file) => local_id(&file.owner, stem(&file.path)),
        }
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalogue(model) => f.write_str(&model.name),
            Self::Path(path) => write!(f, "{}", path.display()),
            // The query may hold a signature, so it is left out.
            Self::Url(uri) => {
                write!(
                    f,
                    "{}://{}{}",
                    uri.scheme_str().unwrap_or("https"),
                    uri.host().unwrap_or_default(),
                    uri.path()
                )
            }
            Self::Hub(file) => file.fmt(f),
        }
    }
}

impl HubFile {
    /// Reads `owner/repo[@revision]/path/to/file.gguf`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (owner, repo, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (repo, revision) = repo.split_once('@').unwrap_or((repo, "main"));
        let plain = |s: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            !s.is_empty() && s.len() <= 200 && s.bytes().all(allowed) && s != "." && s != ".."
        };
        let valid = plain(owner) && plain(repo) && plain(revision) && path.split('/').all(plain);
        valid.then(|| Self {
            owner: owner.to_owned(),
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            path: path.to_owned(),
        })
    }

    /// The path of the download below the hub's endpoint.
    pub(crate) fn url_path(&self) -> String {
        format!(
            "/{}/{}/resolve/{}/{}",
            self.owner, self.repo, self.revision, self.path
        )
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = if self.revision == "main" {
            String::new()
        } else {
            format!("@{}", self.revision)
        };
        write!(f, "hf:{}/{}{revision}/{}", self.owner, self.repo, self.path)
    }
}

fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn check_name(path: &str) -> Result<(), SpecError> {
    if !path.to_ascii_lowercase().ends_with(".gguf") {
        return Err(SpecError::NotGguf(path.to_owned()));
    }
    check_name_is_whole(path)
}

/// Refuses `-00001-of-00003` before the extension.
fn check_name_is_whole(path: &str) -> Result<(), SpecError> {
    let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    let is_part = stem(path).rsplit_once("-of-").is_some_and(|(head, total)| {
        digits(total) && total != "00001" && head.rsplit_once('-').is_some_and(|(_, n)| digits(n))
    });
    if is_part {
        Err(SpecError::Split(path.to_owned()))
    } else {
        Ok(())
    }
}

fn local_id(vendor: &str, name: &str) -> String {
    let mut id = clean(&vendor.replace('.', "-"));
    id.push('.');
    id.push_str(&clean(name));
    id.truncate(ID_BYTES_MAX);
    id
}

/// Lower case; runs of anything else than letters, digits, `.` and `_` become one `-`.
fn clean(text: &str) -> String {
    let mut cleaned = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() || c == '_' || c == '.' {
            cleaned.push(c);
        } else if !cleaned.ends_with('-') {
            cleaned.push('-');
        }
    }
    let cleaned = cleaned.trim_matches(['-', '.']);
    if cleaned.is_empty() {
        "model".to_owned()
    } else {
        cleaned.to_owned()
    }
}

/// Whether `id` may be a file name below the models directory.
pub(crate) fn is_safe_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= ID_BYTES_MAX
        && !id.starts_with('.')
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_becomes_an_id() {
        let catalogue = Catalogue::embedded();
        for (text, id) in [
            (
                "smollm2-135m-instruct",
                "huggingfacetb.smollm2-135m-instruct",
            ),
            (
                "huggingfacetb.smollm2-135m-instruct",
                "huggingfacetb.smollm2-135m-instruct",
            ),
            (
                "/models/My Model (v2).Q4_K_M.gguf",
                "local.my-model-v2-.q4_k_m",
            ),
            ("./a.GGUF", "local.a"),
            ("日本語.gguf", "local.model"),
            (
                "https://example.com/x/Some-Model.gguf?sig=1",
                "local.some-model",
            ),
            (
                "hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf",
                "qwen.qwen3-0.6b-q8_0",
            ),
            ("hf:a.b/r@v1.0/dir/f.gguf", "a-b.f"),
        ] {
            let spec = ModelSpec::parse(text, catalogue).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(spec.id(), id, "{text}");
            assert!(is_safe_id(&spec.id()));
        }
    }

    #[test]
    fn what_names_no_model_is_refused() {
        let catalogue = Catalogue::embedded();
        for text in [
            "",
            "no-such-model",
            "hf:owner/repo",
            "hf:owner/repo/../x.gguf",
            "hf:owner/repo/file.bin",
            "hf:/a/b.gguf",
            "hf:o/r/a b.gguf",
            "https://user:p@h/x.gguf",
            "https://h/x.bin",
            "http://0x7f.1/x.gguf",
            "hf:o/r/m-00001-of-00003.gguf",
            "/x/m-00002-of-00003.gguf",
            "hf:o/r@/x.gguf",
            "hf:o/r/x.gguf?y",
        ] {
            assert!(ModelSpec::parse(text, catalogue).is_err(), "{text}");
        }
        assert!(ModelSpec::parse("/x/m-00001-of-00001.gguf", catalogue).is_ok());
    }

    #[test]
    fn a_url_is_shown_without_its_query() {
        let spec =
            ModelSpec::parse("https://h.test/m.gguf?token=s", Catalogue::embedded()).unwrap();
        assert_eq!(spec.to_string(), "https://h.test/m.gguf");
    }
}
