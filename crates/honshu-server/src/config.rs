//! The configuration file: what may be written in it, and the checked form that the rest of the server uses.
//!
//! [`RawConfig`] is the file, word by word, with unknown keys refused. [`Config`] is made from it by
//! [`Config::check`], which collects every problem before it gives up.

mod check;
mod raw;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use honshu_domain::{Region, Timeouts};

use check::{
    check_aliases, check_database, check_limits, check_models, check_providers, check_regions,
};
use raw::RawConfig;
pub(crate) use raw::{
    RawAlias, RawCapability, RawEngine, RawLimits, RawModel, RawPrice, RawTelemetry, RawTls,
};

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

    /// The clocks of a run.
    pub(crate) fn timeouts(&self) -> Timeouts {
        let limits = &self.limits;
        let or = |seconds: Option<u64>, default| seconds.map_or(default, Duration::from_secs);
        let default = Timeouts::default();
        Timeouts {
            connect_timeout: or(limits.connect_timeout_seconds, default.connect_timeout),
            first_event_timeout: or(
                limits.first_event_timeout_seconds,
                default.first_event_timeout,
            ),
            idle_timeout: or(limits.idle_timeout_seconds, default.idle_timeout),
            run_deadline: or(limits.run_deadline_seconds, default.run_deadline),
        }
    }

    /// Takes over from `running` what a running server cannot change, and names what would have changed.
    pub(crate) fn keep_until_restart(&mut self, running: &Self) -> Vec<&'static str> {
        let ways_in = |config: &Self| -> Vec<_> {
            let regions = config.regions.iter();
            regions
                .map(|r| (r.region.clone(), r.listen, r.hosts.clone()))
                .collect()
        };
        let mut changed = Vec::new();
        for (name, differs) in [
            ("[[region]]", ways_in(self) != ways_in(running)),
            ("[server]", self.drain != running.drain),
            ("[tls]", self.tls != running.tls),
            ("[limits]", self.limits != running.limits),
            ("[engine]", self.engine != running.engine),
            ("[telemetry]", self.telemetry != running.telemetry),
        ] {
            if differs {
                changed.push(name);
            }
        }
        self.regions.clone_from(&running.regions);
        self.drain = running.drain;
        self.tls.clone_from(&running.tls);
        self.limits.clone_from(&running.limits);
        self.engine.clone_from(&running.engine);
        self.telemetry.clone_from(&running.telemetry);
        changed
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

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        match Config::parse(text, Path::new("folder/honshu.toml"), None) {
            Ok(_) => Vec::new(),
            Err(ConfigError::Problems { problems, .. }) => problems,
            Err(other) => vec![other.to_string()],
        }
    }

    #[test]
    fn without_a_file_there_is_one_region_on_loopback_with_the_documented_defaults() {
        let config = Config::without_file(None).unwrap();
        assert_eq!(config.regions.len(), 1);
        assert_eq!(config.regions[0].region.name(), "local-1");
        assert_eq!(config.regions[0].listen, DEFAULT_LISTEN.parse().ok());
        assert_eq!(config.drain, Duration::from_secs(30));
        let timeouts = config.timeouts();
        assert_eq!(timeouts.connect_timeout, Duration::from_secs(5));
        assert_eq!(timeouts.first_event_timeout, Duration::from_secs(300));
        assert_eq!(timeouts.idle_timeout, Duration::from_secs(120));
        assert_eq!(timeouts.run_deadline, Duration::from_secs(3_600));
        let other = Config::without_file("127.0.0.1:0".parse().ok()).unwrap();
        assert_eq!(other.regions[0].listen, "127.0.0.1:0".parse().ok());
    }

    #[test]
    fn the_example_is_valid() {
        let path = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../examples/osaka-chicago.toml"
        ));
        let config = Config::read(path, None).unwrap();
        let regions: Vec<(&str, &str)> = config
            .regions
            .iter()
            .map(|r| (r.region.name(), r.region.key()))
            .collect();
        assert_eq!(regions, [("ap-osaka-1", "KIX"), ("us-chicago-1", "ORD")]);
    }

    #[test]
    fn the_guides_examples_are_valid() {
        let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"));
        let mut examples = 0;
        for page in ["configuration.md", "models.md"] {
            for language in ["en", "ja"] {
                let path = docs.join(language).join(page);
                let text = std::fs::read_to_string(&path).unwrap();
                for block in text.split("```toml\n").skip(1) {
                    let block = block.split("```").next().unwrap();
                    if let Err(error) = Config::parse(block, &path, None) {
                        panic!("{}: {error}", path.display());
                    }
                    examples += 1;
                }
            }
        }
        assert_eq!(examples, 6);
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_place() {
        let region = "[[region]]\nname = \"ap-osaka-1\"\n";
        let provider = "[[provider]]\nname = \"p\"\nkind = \"openai\"\n";
        for (text, expected) in [
            (
                "[server]\nlisten = \"nowhere\"",
                "`server.listen` is `nowhere`",
            ),
            ("[server]\nlsten = \"x\"", "unknown field `lsten`"),
            ("[limits]\nruns_max = 0", "`limits.runs_max` is 0"),
            ("[limits]\nidle_timeout_seconds = -1", "invalid value"),
            (
                "[engine]\nsequences_max = 65",
                "`engine.sequences_max` is above 64",
            ),
            (
                "[telemetry]\nlog_format = \"xml\"",
                "`telemetry.log_format` is `xml`",
            ),
            (
                "[database]\nurl = \"postgres://me:canary@db/x\"",
                "`database.url` starts with `postgres:`",
            ),
            (region, "`region[0]` has neither `listen` nor `hosts`"),
            (
                "[[region]]\nname = \"moon-1\"\nlisten = \"127.0.0.1:1\"",
                "`region[0].key` is missing",
            ),
            (
                "[[region]]\nname = \"ap-osaka-1\"\nhosts = [\"https://a\"]",
                "`region[0].hosts`: `https://a` is no host name",
            ),
            (
                "[[region]]\nname = \"ap-osaka-1\"\nhosts = [\"a:80\"]",
                "`region[0].hosts`: `a:80` is no host name",
            ),
            (
                "[[region]]\nname = \"ap-osaka-1\"\nlisten = \"127.0.0.1:1\"\n[[region]]\nname = \"us-chicago-1\"\nlisten = \"127.0.0.1:1\"",
                "two regions listen on 127.0.0.1:1",
            ),
            (provider, "`provider[0].base_url` is missing"),
            (
                "[[provider]]\nname = \"engine\"\nkind = \"scripted\"",
                "the name `engine` is taken",
            ),
            (
                "[[provider]]\nname = \"p\"\nkind = \"openai\"\nbase_url = \"https://a/v1\"\ncredential = \"sk-canary\"",
                "`provider[0].credential` is not `env:NAME` or `file:PATH`",
            ),
            ("[[model]]\nid = \"a b\"", "`model[0].id` is `a b`"),
            (
                "[[model]]\nid = \"a\"",
                "`model[0]` has no `[[model.deployment]]`",
            ),
            (
                "[[model]]\nid = \"a\"\nregions = [\"mars\"]\n[[model.deployment]]\nprovider = \"x\"",
                "`model[0].regions`: there is no region `mars`",
            ),
            (
                "[[model]]\nid = \"a\"\n[[model.deployment]]\nprovider = \"x\"",
                "`model[0].deployment[0].provider`: there is no provider `x`",
            ),
            (
                "[[model]]\nid = \"a\"\nprice = { input = nan, output = 1.0 }\n[[model.deployment]]\nprovider = \"engine\"\nupstream = \"a\"",
                "`model[0].price.input` is not a price",
            ),
            (
                "[[alias]]\nname = \"a\"\nmodel = \"a\"",
                "`alias[0]`: `a` is an alias of itself",
            ),
        ] {
            let found = problems(text);
            assert!(
                found.iter().any(|problem| problem.contains(expected)),
                "{text}\n{found:#?}"
            );
            assert!(!found.concat().contains("canary"), "{found:#?}");
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = "[limits]\nruns_max = 0\n[telemetry]\nlog_format = \"xml\"\n[[alias]]\nname = \"a\"\nmodel = \"a\"";
        assert_eq!(problems(text).len(), 3);
    }

    #[test]
    fn a_running_server_keeps_what_needs_a_restart_and_names_it() {
        let parse = |text: &str| Config::parse(text, Path::new("t"), None).unwrap();
        let running = parse("[limits]\nruns_max = 5");
        let mut new = parse(
            "[limits]\nruns_max = 6\n[engine]\nthreads = 2\n[[provider]]\nname = \"s\"\nkind = \"scripted\"",
        );
        assert_eq!(new.keep_until_restart(&running), ["[limits]", "[engine]"]);
        assert_eq!(new.limits.runs_max, Some(5));
        assert_eq!(new.providers.len(), 1, "providers are taken at once");
        assert!(new.keep_until_restart(&running).is_empty());
    }
}
