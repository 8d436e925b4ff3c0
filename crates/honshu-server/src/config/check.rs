//! What a configuration has to hold to. Every check notes its problems and goes on, so that one look at the
//! answer is enough to mend the file.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use honshu_domain::{Region, known_region_key};

use super::raw::{RawAlias, RawConfig, RawEngine, RawLimits, RawModel, RawProvider};
use super::{CredentialSource, DEFAULT_LISTEN, ProviderConfig, ProviderKind, RegionConfig};

pub(super) fn check_regions(
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
            let is_name = !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            if !is_name {
                problems.push(format!(
                    "`{at}.hosts`: `{host}` is no host name; write it without scheme, port and path, such as `osaka.example.com`"
                ));
            }
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

pub(super) fn check_providers(
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

pub(super) fn check_models(
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
        if model.capabilities.as_ref().is_some_and(Vec::is_empty) {
            problems.push(format!(
                "`{at}.capabilities` is empty; leave it out, or write `chat`, `embeddings` or both"
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

pub(super) fn check_aliases(
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
        if alias.name != alias.model && aliases.iter().any(|other| other.name == alias.model) {
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

pub(super) fn check_database(url: Option<&str>, problems: &mut Vec<String>) {
    if let Some(url) = url
        && url != "sqlite:"
    {
        // A database URL may hold a password, so only its scheme is shown.
        let scheme = url.split(':').next().unwrap_or_default();
        problems.push(format!("`database.url` starts with `{scheme}:`; this version keeps its state in SQLite (`sqlite:`) in the data directory"));
    }
}

pub(super) fn check_limits(limits: &RawLimits, engine: &RawEngine, problems: &mut Vec<String>) {
    let mut at_least_one = |name: &str, value: Option<u64>| {
        if value == Some(0) {
            problems.push(format!("`{name}` is 0; write at least 1, or leave it out"));
        }
    };
    let widen = |value: Option<usize>| value.map(|value| value as u64);
    at_least_one("limits.connections_max", widen(limits.connections_max));
    at_least_one("limits.body_bytes_max", limits.body_bytes_max);
    at_least_one("limits.upload_bytes_max", limits.upload_bytes_max);
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
    at_least_one(
        "limits.background_runs_max",
        widen(limits.background_runs_max),
    );
    at_least_one(
        "limits.response_retention_hours",
        limits.response_retention_hours,
    );
    at_least_one(
        "limits.conversation_retention_hours",
        limits.conversation_retention_hours,
    );
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
