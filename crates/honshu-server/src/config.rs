//! The configuration file: what may be written in it, and the checked form that the rest of the server uses.
//!
//! [`RawConfig`] is the file, word by word, with unknown keys refused. [`Config`] is made from it by
//! [`Config::check`], which collects every problem before it gives up.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use honshu_domain::{Region, known_region_key};
use serde::Deserialize;

/// The configuration file as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawConfig {
    /// Where and how to listen.
    pub server: RawServer,
    /// Certificates; absent means plain HTTP.
    pub tls: Option<RawTls>,
    /// Where state is kept.
    pub database: RawDatabase,
    /// Bounds.
    pub limits: RawLimits,
    /// The built-in engine.
    pub engine: RawEngine,
    /// Logs.
    pub telemetry: RawTelemetry,
    /// Regions; none means `local-1`.
    pub region: Vec<RawRegion>,
    /// Upstreams.
    pub provider: Vec<RawProvider>,
    /// Models beside those that were pulled.
    pub model: Vec<RawModel>,
    /// Other names for models.
    pub alias: Vec<RawAlias>,
}

/// `[server]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawServer {
    /// `ADDRESS:PORT` for a server of one region. Default `127.0.0.1:8080`.
    pub listen: Option<String>,
    /// Seconds that running answers get after SIGTERM. Default 30.
    pub drain_seconds: Option<u64>,
}

/// `[tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTls {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// `[database]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawDatabase {
    /// Only `sqlite:` (the default, in the data directory) in this version.
    pub url: Option<String>,
}

/// `[limits]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLimits {
    /// Open connections. Default 10,000, less where the process may open fewer files.
    pub connections_max: Option<usize>,
    /// Bytes of a JSON body. Default 10 MiB.
    pub body_bytes_max: Option<u64>,
    /// Runs at once, over all callers. Default 4,096.
    pub runs_max: Option<usize>,
    /// Runs at once of one key or user. Default 512.
    pub runs_per_principal_max: Option<usize>,
    /// Seconds until an upstream's connection stands. Default 5.
    pub connect_timeout_seconds: Option<u64>,
    /// Seconds until the first event. Default 300.
    pub first_event_timeout_seconds: Option<u64>,
    /// Seconds between two events. Default 120.
    pub idle_timeout_seconds: Option<u64>,
    /// Seconds for a whole run. Default 3,600.
    pub run_deadline_seconds: Option<u64>,
}

/// `[engine]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawEngine {
    /// Threads for inference. Default: what the engine measures best.
    pub threads: Option<u32>,
    /// Context cells of each loaded model, shared by its sequences. Default 8,192.
    pub context_tokens: Option<u32>,
    /// Sequences of one model at once. Default 16.
    pub sequences_max: Option<u32>,
    /// Requests that may wait for a model. Default 64.
    pub queue_max: Option<usize>,
    /// MiB that loaded models may take together. Default: three quarters of the machine's memory.
    pub memory_mib_max: Option<u64>,
    /// Seconds after which an unused model is unloaded. Default 0: never.
    pub idle_unload_seconds: Option<u64>,
}

/// `[telemetry]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTelemetry {
    /// A filter such as `info` or `honshu_gateway=debug,info`. Default `info`.
    pub log: Option<String>,
    /// `text` or `json`. Default `text` on a terminal, else `json`.
    pub log_format: Option<String>,
}

/// `[[region]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRegion {
    /// For example `ap-osaka-1`.
    pub name: String,
    /// Three letters, for example `KIX`; known for OCI's regions.
    pub key: Option<String>,
    /// `ADDRESS:PORT` of its own listener.
    pub listen: Option<String>,
    /// Host names that mean this region, on any listener.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// `[[provider]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawProvider {
    /// The name that deployments use.
    pub name: String,
    /// `openai` or `scripted`; `engine` is always there.
    pub kind: String,
    /// The URL up to and including `/v1`.
    pub base_url: Option<String>,
    /// `env:NAME` or `file:PATH`.
    pub credential: Option<String>,
    /// What it speaks: `chat`, `responses` or `both`. Default `both`.
    pub api: Option<String>,
}

/// `[[model]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawModel {
    /// `<vendor>.<model>`.
    pub id: String,
    /// The vendor; default the id's first word.
    pub vendor: Option<String>,
    /// Regions in which it is served; default all.
    #[serde(default)]
    pub regions: Vec<String>,
    /// The longest context in tokens, where known.
    pub context_tokens: Option<u32>,
    /// Prices, where known.
    pub price: Option<RawPrice>,
    /// Where it runs, in order of preference.
    #[serde(default)]
    pub deployment: Vec<RawDeployment>,
}

/// `[model.price]`, in US dollars for a million tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPrice {
    /// For input tokens.
    pub input: f64,
    /// For cached input tokens; default as `input`.
    pub cached_input: Option<f64>,
    /// For output tokens.
    pub output: f64,
}

/// `[[model.deployment]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDeployment {
    /// A provider's name, or `engine`.
    pub provider: String,
    /// The provider's name for the model; for `engine` the id of a pulled model or the path of a GGUF.
    pub upstream: Option<String>,
    /// The share of traffic; default 1.
    pub weight: Option<u32>,
}

/// `[[alias]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAlias {
    /// The name that callers use.
    pub name: String,
    /// The model's id.
    pub model: String,
    /// Regions in which it holds; default all.
    #[serde(default)]
    pub regions: Vec<String>,
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key that does not exist.
    #[error("the configuration `{path}` is not valid: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words with line and column.
        message: String,
    },
    /// It does not make sense.
    #[error("the configuration `{path}` has {} problem(s):\n  - {}", problems.len(), problems.join("\n  - "))]
    Problems {
        /// The file.
        path: PathBuf,
        /// All that was found.
        problems: Vec<String>,
    },
}

/// The configuration, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Regions with their listeners, at least one.
    pub regions: Vec<RegionConfig>,
    /// Certificates.
    pub tls: Option<RawTls>,
    /// How long running answers get after SIGTERM.
    pub drain: Duration,
    /// Bounds.
    pub limits: RawLimits,
    /// The engine.
    pub engine: RawEngine,
    /// Logs.
    pub telemetry: RawTelemetry,
    /// Upstreams.
    pub providers: Vec<ProviderConfig>,
    /// Models.
    pub models: Vec<RawModel>,
    /// Aliases.
    pub aliases: Vec<RawAlias>,
}

/// A region with its way in.
#[derive(Debug, Clone)]
pub(crate) struct RegionConfig {
    /// Name and key.
    pub region: Region,
    /// Its own listener.
    pub listen: Option<SocketAddr>,
    /// Host names, lower case.
    pub hosts: Vec<String>,
}

/// An upstream.
#[derive(Debug, Clone)]
pub(crate) struct ProviderConfig {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ProviderKind,
}

/// What an upstream is.
#[derive(Debug, Clone)]
pub(crate) enum ProviderKind {
    /// Speaks OpenAI's API.
    OpenAi {
        /// The URL up to and including `/v1`.
        base_url: String,
        /// Where its key is.
        credential: Option<CredentialSource>,
        /// Whether it speaks Chat Completions.
        chat: bool,
        /// Whether it speaks Responses.
        responses: bool,
    },
    /// The scripted model.
    Scripted,
}

/// Where a provider's key is.
#[derive(Debug, Clone)]
pub(crate) enum CredentialSource {
    /// An environment variable.
    Env(String),
    /// A file.
    File(PathBuf),
}

/// The address of a server without configuration.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to the file.
    ///
    /// # Errors
    /// [`ConfigError`], with every problem found.
    pub(crate) fn read(path: &Path, listen: Option<SocketAddr>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path, listen)
    }

    /// What holds without a file.
    ///
    /// # Errors
    /// Never in practice: the defaults are valid.
    pub(crate) fn without_file(listen: Option<SocketAddr>) -> Result<Self, ConfigError> {
        Self::check(RawConfig::default(), Path::new("defaults"), listen)
    }

    /// Parses and checks a text; `path` is for messages and relative paths.
    ///
    /// # Errors
    /// [`ConfigError`], with every problem found.
    pub(crate) fn parse(
        text: &str,
        path: &Path,
        listen: Option<SocketAddr>,
    ) -> Result<Self, ConfigError> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        Self::check(raw, path, listen)
    }

    fn check(raw: RawConfig, path: &Path, listen: Option<SocketAddr>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let base = path.parent().unwrap_or_else(|| Path::new("."));
        let regions = check_regions(&raw, listen, &mut problems);
        let region_names: HashSet<&str> = regions.iter().map(|r| r.region.name()).collect();
        let providers = check_providers(&raw.provider, base, &mut problems);
        let provider_names: HashSet<&str> = providers.iter().map(|p| p.name.as_str()).collect();
        let mut models = raw.model;
        check_models(
            &mut models,
            base,
            &region_names,
            &provider_names,
            &mut problems,
        );
        check_aliases(&raw.alias, &models, &region_names, &mut problems);
        check_database(raw.database.url.as_deref(), &mut problems);
        let tls = raw.tls.map(|tls| RawTls {
            certificate: base.join(tls.certificate),
            key: base.join(tls.key),
        });
        if let Some(format) = raw.telemetry.log_format.as_deref()
            && !matches!(format, "text" | "json")
        {
            problems.push(format!(
                "`telemetry.log_format` is `{format}`; write `text` or `json`"
            ));
        }
        check_limits(&raw.limits, &raw.engine, &mut problems);
        if problems.is_empty() {
            Ok(Self {
                regions,
                tls,
                drain: Duration::from_secs(raw.server.drain_seconds.unwrap_or(30)),
                limits: raw.limits,
                engine: raw.engine,
                telemetry: raw.telemetry,
                providers,
                models,
                aliases: raw.alias,
            })
        } else {
            Err(ConfigError::Problems {
                path: path.to_owned(),
                problems,
            })
        }
    }
}

fn check_regions(
    raw: &RawConfig,
    listen: Option<SocketAddr>,
    problems: &mut Vec<String>,
) -> Vec<RegionConfig> {
    if raw.region.is_empty() {
        let address = match (listen, raw.server.listen.as_deref()) {
            (Some(address), _) => Some(address),
            (None, text) => {
                parse_address("server.listen", text.unwrap_or(DEFAULT_LISTEN), problems)
            }
        };
        return vec![RegionConfig {
            region: Region::local(),
            listen: address,
            hosts: Vec::new(),
        }];
    }
    if raw.server.listen.is_some() && raw.region.iter().any(|region| region.listen.is_some()) {
        problems.push(
            "`server.listen` and `region.listen` are both set; with regions, give each its own `listen`"
                .to_owned(),
        );
    }
    let mut seen_names = HashSet::new();
    let mut seen_addresses = HashSet::new();
    let mut seen_hosts = HashSet::new();
    let mut regions: Vec<RegionConfig> = Vec::new();
    for (index, region) in raw.region.iter().enumerate() {
        let at = format!("region[{index}]");
        if !is_region_name(&region.name) {
            problems.push(format!(
                "`{at}.name` is `{}`; write a name such as `ap-osaka-1`",
                region.name
            ));
        }
        if !seen_names.insert(region.name.clone()) {
            problems.push(format!(
                "`{at}.name`: the region `{}` is there twice",
                region.name
            ));
        }
        let key = region
            .key
            .clone()
            .or_else(|| known_region_key(&region.name).map(str::to_owned));
        let key = match key {
            Some(key) if key.len() == 3 && key.bytes().all(|b| b.is_ascii_alphabetic()) => key,
            Some(key) => {
                problems.push(format!(
                    "`{at}.key` is `{key}`; write three letters such as `KIX`"
                ));
                key
            }
            None => {
                problems.push(format!(
                    "`{at}.key` is missing: the key of `{}` is not known; write three letters such as `KIX`",
                    region.name
                ));
                String::new()
            }
        };
        let address = region
            .listen
            .as_deref()
            .and_then(|text| parse_address(&format!("{at}.listen"), text, problems));
        if let Some(address) = address
            && address.port() != 0
            && !seen_addresses.insert(address)
        {
            problems.push(format!("`{at}.listen`: two regions listen on {address}; give each its own port, or use `hosts`"));
        }
        let hosts: Vec<String> = region
            .hosts
            .iter()
            .map(|host| host.to_ascii_lowercase())
            .collect();
        for host in &hosts {
            if !seen_hosts.insert(host.clone()) {
                problems.push(format!("`{at}.hosts`: `{host}` means two regions"));
            }
        }
        if address.is_none() && hosts.is_empty() {
            problems.push(format!(
                "`{at}` has neither `listen` nor `hosts`: nothing leads to it"
            ));
        }
        regions.push(RegionConfig {
            region: Region::new(&region.name, &key),
            listen: address,
            hosts,
        });
    }
    if let Some(address) = listen {
        if regions.len() > 1 && regions.iter().filter(|r| r.listen.is_some()).count() > 1 {
            problems.push(
                "`--listen` names one address and the configuration has several regions with their own; leave `--listen` out"
                    .to_owned(),
            );
        } else if let Some(first) = regions.first_mut() {
            first.listen = Some(address);
        }
    } else if regions.iter().all(|region| region.listen.is_none())
        && let Some(first) = regions.first_mut()
    {
        first.listen = parse_address(
            "server.listen",
            raw.server.listen.as_deref().unwrap_or(DEFAULT_LISTEN),
            problems,
        );
    }
    regions
}

fn is_region_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn parse_address(at: &str, text: &str, problems: &mut Vec<String>) -> Option<SocketAddr> {
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            problems.push(format!(
                "`{at}` is `{text}`; write an address and port such as `127.0.0.1:8080`"
            ));
            None
        }
    }
}

fn check_providers(
    raw: &[RawProvider],
    base: &Path,
    problems: &mut Vec<String>,
) -> Vec<ProviderConfig> {
    let mut names = HashSet::from(["engine".to_owned()]);
    let mut providers = Vec::new();
    for (index, provider) in raw.iter().enumerate() {
        let at = format!("provider[{index}]");
        if !names.insert(provider.name.clone()) {
            problems.push(format!(
                "`{at}.name`: the name `{}` is taken",
                provider.name
            ));
        }
        let kind = match provider.kind.as_str() {
            "scripted" => ProviderKind::Scripted,
            "openai" => {
                let Some(base_url) = provider.base_url.clone() else {
                    problems.push(format!(
                        "`{at}.base_url` is missing; write a URL such as `https://host/v1`"
                    ));
                    continue;
                };
                let (chat, responses) = match provider.api.as_deref() {
                    None | Some("both") => (true, true),
                    Some("chat") => (true, false),
                    Some("responses") => (false, true),
                    Some(other) => {
                        problems.push(format!(
                            "`{at}.api` is `{other}`; write `chat`, `responses` or `both`"
                        ));
                        (true, true)
                    }
                };
                ProviderKind::OpenAi {
                    base_url: base_url.trim_end_matches('/').to_owned(),
                    credential: check_credential(
                        &at,
                        provider.credential.as_deref(),
                        base,
                        problems,
                    ),
                    chat,
                    responses,
                }
            }
            other => {
                problems.push(format!(
                    "`{at}.kind` is `{other}`; this version knows `openai` and `scripted`"
                ));
                continue;
            }
        };
        providers.push(ProviderConfig {
            name: provider.name.clone(),
            kind,
        });
    }
    providers
}

fn check_credential(
    at: &str,
    text: Option<&str>,
    base: &Path,
    problems: &mut Vec<String>,
) -> Option<CredentialSource> {
    let text = text?;
    match text.split_once(':') {
        Some(("env", name)) if !name.is_empty() => Some(CredentialSource::Env(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => Some(CredentialSource::File(base.join(path))),
        _ => {
            // The text is not repeated: it may be the secret itself.
            problems.push(format!("`{at}.credential` is not `env:NAME` or `file:PATH`; secrets themselves do not belong in the file"));
            None
        }
    }
}

fn check_models(
    models: &mut [RawModel],
    base: &Path,
    regions: &HashSet<&str>,
    providers: &HashSet<&str>,
    problems: &mut Vec<String>,
) {
    let mut ids = HashSet::new();
    for (index, model) in models.iter_mut().enumerate() {
        let at = format!("model[{index}]");
        if model.id.is_empty() || model.id.len() > 200 || model.id.chars().any(char::is_whitespace)
        {
            problems.push(format!(
                "`{at}.id` is `{}`; write an id such as `openai.gpt-oss-120b`",
                model.id
            ));
        }
        if !ids.insert(model.id.clone()) {
            problems.push(format!(
                "`{at}.id`: the model `{}` is there twice",
                model.id
            ));
        }
        check_region_list(&at, &model.regions, regions, problems);
        if let Some(price) = &model.price {
            for (name, value) in [
                ("input", Some(price.input)),
                ("cached_input", price.cached_input),
                ("output", Some(price.output)),
            ] {
                if value.is_some_and(|value| !(0.0..=1e9).contains(&value)) {
                    problems.push(format!(
                        "`{at}.price.{name}` is not a price in dollars for a million tokens"
                    ));
                }
            }
        }
        if model.deployment.is_empty() {
            problems.push(format!(
                "`{at}` has no `[[model.deployment]]`: nothing could answer for it"
            ));
        }
        for (place, deployment) in model.deployment.iter_mut().enumerate() {
            let at = format!("{at}.deployment[{place}]");
            if deployment.provider == "engine" {
                match deployment.upstream.as_deref() {
                    None => problems.push(format!("`{at}.upstream` is missing; for the engine, write the id of a pulled model or the path of a GGUF file")),
                    Some(path) if path.ends_with(".gguf") => {
                        deployment.upstream = Some(base.join(path).to_string_lossy().into_owned());
                    }
                    Some(_) => {}
                }
            } else if !providers.contains(deployment.provider.as_str()) {
                problems.push(format!(
                    "`{at}.provider`: there is no provider `{}`",
                    deployment.provider
                ));
            }
        }
    }
}

fn check_aliases(
    aliases: &[RawAlias],
    models: &[RawModel],
    regions: &HashSet<&str>,
    problems: &mut Vec<String>,
) {
    let mut names: HashSet<(String, String)> = HashSet::new();
    for (index, alias) in aliases.iter().enumerate() {
        let at = format!("alias[{index}]");
        check_region_list(&at, &alias.regions, regions, problems);
        if alias.name == alias.model {
            problems.push(format!("`{at}`: `{}` is an alias of itself", alias.name));
        }
        if models.iter().any(|model| model.id == alias.name) {
            problems.push(format!("`{at}.name`: `{}` is a model already", alias.name));
        }
        if aliases.iter().any(|other| other.name == alias.model) {
            problems.push(format!(
                "`{at}.model`: `{}` is an alias itself; name the model",
                alias.model
            ));
        }
        let scopes = if alias.regions.is_empty() {
            regions.iter().map(|region| (*region).to_owned()).collect()
        } else {
            alias.regions.clone()
        };
        for region in scopes {
            if !names.insert((alias.name.clone(), region.clone())) {
                problems.push(format!(
                    "`{at}.name`: `{}` is there twice in {region}",
                    alias.name
                ));
            }
        }
    }
}

fn check_region_list(
    at: &str,
    listed: &[String],
    regions: &HashSet<&str>,
    problems: &mut Vec<String>,
) {
    for name in listed {
        if !regions.contains(name.as_str()) {
            problems.push(format!("`{at}.regions`: there is no region `{name}`"));
        }
    }
}

fn check_database(url: Option<&str>, problems: &mut Vec<String>) {
    if let Some(url) = url
        && url != "sqlite:"
    {
        // A database URL may hold a password, so only its scheme is shown.
        let scheme = url.split(':').next().unwrap_or_default();
        problems.push(format!("`database.url` starts with `{scheme}:`; this version keeps its state in SQLite (`sqlite:`) in the data directory"));
    }
}

fn check_limits(limits: &RawLimits, engine: &RawEngine, problems: &mut Vec<String>) {
    let mut at_least_one = |name: &str, value: Option<u64>| {
        if value == Some(0) {
            problems.push(format!("`{name}` is 0; write at least 1, or leave it out"));
        }
    };
    let widen = |value: Option<usize>| value.map(|value| value as u64);
    at_least_one("limits.connections_max", widen(limits.connections_max));
    at_least_one("limits.body_bytes_max", limits.body_bytes_max);
    at_least_one("limits.runs_max", widen(limits.runs_max));
    at_least_one(
        "limits.runs_per_principal_max",
        widen(limits.runs_per_principal_max),
    );
    at_least_one(
        "limits.connect_timeout_seconds",
        limits.connect_timeout_seconds,
    );
    at_least_one(
        "limits.first_event_timeout_seconds",
        limits.first_event_timeout_seconds,
    );
    at_least_one("limits.idle_timeout_seconds", limits.idle_timeout_seconds);
    at_least_one("limits.run_deadline_seconds", limits.run_deadline_seconds);
    at_least_one("engine.threads", engine.threads.map(u64::from));
    at_least_one(
        "engine.context_tokens",
        engine.context_tokens.map(u64::from),
    );
    at_least_one("engine.sequences_max", engine.sequences_max.map(u64::from));
    at_least_one("engine.memory_mib_max", engine.memory_mib_max);
    if engine.sequences_max.is_some_and(|sequences| sequences > 64) {
        problems.push(
            "`engine.sequences_max` is above 64, the most the engine can run at once".to_owned(),
        );
    }
}
