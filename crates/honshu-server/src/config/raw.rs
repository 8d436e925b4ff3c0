//! The configuration file, word by word. Unknown keys are refused.

use std::path::PathBuf;

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
#[derive(Debug, Clone, Deserialize, PartialEq)]
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
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLimits {
    /// Open connections. Default 10,000, less where the process may open fewer files.
    pub connections_max: Option<usize>,
    /// Bytes of a JSON body. Default 10 MiB.
    pub body_bytes_max: Option<u64>,
    /// Bytes of the body of a file's upload. Default 64 MiB.
    pub upload_bytes_max: Option<u64>,
    /// Runs at once, over all callers. Default 4,096.
    pub runs_max: Option<usize>,
    /// Runs at once of one key or user. Default 1,024.
    pub runs_per_principal_max: Option<usize>,
    /// Seconds until an upstream's connection stands. Default 5.
    pub connect_timeout_seconds: Option<u64>,
    /// Seconds until the first event. Default 300.
    pub first_event_timeout_seconds: Option<u64>,
    /// Seconds between two events. Default 120.
    pub idle_timeout_seconds: Option<u64>,
    /// Seconds for a whole run. Default 3,600.
    pub run_deadline_seconds: Option<u64>,
    /// Background responses that run at once. Default 64.
    pub background_runs_max: Option<usize>,
    /// Hours that a stored response is kept after it was made. Default 720.
    pub response_retention_hours: Option<u64>,
    /// Hours that a conversation is kept after its last change. Default 720.
    pub conversation_retention_hours: Option<u64>,
}

/// `[engine]`.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
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
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
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
    /// What it is for: `chat`, `embeddings`. Default `chat`; a GGUF that is made for vectors has them without a word.
    pub capabilities: Option<Vec<RawCapability>>,
    /// Prices, where known.
    pub price: Option<RawPrice>,
    /// Where it runs, in order of preference.
    #[serde(default)]
    pub deployment: Vec<RawDeployment>,
}

/// A word of `model.capabilities`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawCapability {
    /// Conversation.
    Chat,
    /// Texts to vectors.
    Embeddings,
}

impl RawModel {
    /// Whether the file says that it makes vectors.
    pub(crate) fn embeds(&self) -> bool {
        self.capabilities
            .as_ref()
            .is_some_and(|list| list.contains(&RawCapability::Embeddings))
    }
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
