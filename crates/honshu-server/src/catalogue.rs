//! The models of this node: what the configuration names and what was pulled, as one snapshot in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use honshu_domain::{
    Backend, Catalogue, Deployment, Model, ModelCapability, ModelSource, Price, Region, Resolved,
    Timestamp,
};

use crate::config::{RawCapability, RawModel, RawPrice, RegionConfig};

/// Millionths of a dollar in a dollar.
const MICROS: f64 = 1e6;

/// The catalogue of a node. Reading is one atomic load; a change replaces the whole.
pub(crate) struct NodeCatalogue {
    snapshot: ArcSwap<Snapshot>,
}

/// For each region, each name that can be called.
#[derive(Default)]
pub(crate) struct Snapshot {
    regions: HashMap<Arc<str>, Names>,
}

#[derive(Default)]
struct Names {
    by_name: BTreeMap<Arc<str>, Resolved>,
    /// OCIDs stand for names.
    by_ocid: HashMap<String, Arc<str>>,
}

/// An engine model that is there to be served.
pub(crate) struct EngineModel {
    pub(crate) id: Arc<str>,
    pub(crate) vendor: Arc<str>,
    pub(crate) context_tokens_max: Option<u32>,
    /// When it was pulled.
    pub(crate) created: Timestamp,
    /// Whether it is for conversation, and for vectors.
    pub(crate) chats: bool,
    pub(crate) embeds: bool,
    pub(crate) backend: Arc<dyn Backend>,
    /// The same with vectors, for a configured model that asks for them.
    pub(crate) embedding_backend: Arc<dyn Backend>,
}

impl NodeCatalogue {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
        }
    }

    pub(crate) fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }
}

impl Catalogue for NodeCatalogue {
    fn resolve(&self, region: &Region, name: &str) -> Option<Resolved> {
        let snapshot = self.snapshot.load();
        let names = snapshot.regions.get(region.name())?;
        if name.starts_with("ocid1.") {
            let name = names.by_ocid.get(name)?;
            return names.by_name.get(name).cloned();
        }
        names.by_name.get(name).cloned()
    }

    fn list(&self, region: &Region) -> Vec<(Arc<str>, Resolved)> {
        let snapshot = self.snapshot.load();
        snapshot
            .regions
            .get(region.name())
            .map(|names| {
                names
                    .by_name
                    .iter()
                    .map(|(name, resolved)| (Arc::clone(name), resolved.clone()))
                    .collect()
            })
            .unwrap_or_default()
    }
}

/// From a model's id, a path and whether vectors are asked for to a backend.
pub(crate) type EngineFile<'a> = dyn Fn(&str, &str, bool) -> Option<Arc<dyn Backend>> + 'a;

/// What a snapshot is built from.
pub(crate) struct Sources<'a> {
    pub(crate) regions: &'a [RegionConfig],
    pub(crate) models: &'a [RawModel],
    pub(crate) aliases: &'a [crate::config::RawAlias],
    pub(crate) providers: &'a HashMap<String, Arc<dyn Backend>>,
    pub(crate) engine: &'a [EngineModel],
    /// Makes the backend of a GGUF that the configuration names by its path.
    pub(crate) engine_file: &'a EngineFile<'a>,
    /// When the configured models were written down.
    pub(crate) created: Timestamp,
}

/// Models by id, each with the regions that it is limited to.
type Scoped = HashMap<Arc<str>, (Arc<Model>, Vec<String>)>;

/// Builds a snapshot. What does not hold together (an alias of a model that is not there, a deployment on a
/// model that was not pulled) is left out and named in the second part of the result.
pub(crate) fn build(sources: &Sources<'_>) -> (Snapshot, Vec<String>) {
    let mut warnings = Vec::new();
    let created = sources.created;
    let mut models: Scoped = HashMap::new();
    for engine in sources.engine {
        let model = Model {
            id: Arc::clone(&engine.id),
            vendor: Arc::clone(&engine.vendor),
            capabilities: capabilities(engine.chats, engine.embeds),
            context_tokens_max: engine.context_tokens_max,
            price: None,
            source: ModelSource::Pulled,
            created: engine.created,
            deployments: vec![Deployment {
                backend: Arc::clone(&engine.backend),
                upstream: Arc::clone(&engine.id),
                weight: 1,
            }],
        };
        models.insert(Arc::clone(&engine.id), (Arc::new(model), Vec::new()));
    }
    for raw in sources.models {
        let deployments = deployments(sources, raw, &mut warnings);
        if deployments.is_empty() {
            warnings.push(format!(
                "the model `{}` has nothing to run on and is not served",
                raw.id
            ));
            continue;
        }
        let id: Arc<str> = raw.id.as_str().into();
        let model = Model {
            id: Arc::clone(&id),
            vendor: vendor(raw).into(),
            capabilities: configured_capabilities(raw),
            context_tokens_max: raw.context_tokens,
            price: raw.price.as_ref().map(price),
            source: ModelSource::Configured,
            created,
            deployments,
        };
        models.insert(id, (Arc::new(model), raw.regions.clone()));
    }
    let mut snapshot = Snapshot::default();
    for region in sources.regions {
        let name = region.region.name();
        let here = |scope: &[String]| scope.is_empty() || scope.iter().any(|scope| scope == name);
        let mut names = Names::default();
        for (id, (model, scope)) in &models {
            if here(scope) {
                names.add(
                    name,
                    id,
                    Resolved {
                        model: Arc::clone(model),
                        alias: false,
                    },
                );
            }
        }
        for alias in sources.aliases.iter().filter(|alias| here(&alias.regions)) {
            match models.get(alias.model.as_str()) {
                Some((model, scope)) if here(scope) => {
                    if names.by_name.contains_key(alias.name.as_str()) {
                        warnings.push(format!(
                            "the alias `{}` hides the pulled model of that name in {name}",
                            alias.name
                        ));
                    }
                    let resolved = Resolved {
                        model: Arc::clone(model),
                        alias: true,
                    };
                    names.add(name, &alias.name.as_str().into(), resolved);
                }
                _ => warnings.push(format!(
                    "the alias `{}` stands for `{}`, which is not there in {name}",
                    alias.name, alias.model
                )),
            }
        }
        snapshot.regions.insert(region.region.name_arc(), names);
    }
    (snapshot, warnings)
}

impl Names {
    fn add(&mut self, region: &str, name: &Arc<str>, resolved: Resolved) {
        let ocid = honshu_api::model_ocid_of(region, name).as_str().to_owned();
        self.by_ocid.insert(ocid, Arc::clone(name));
        self.by_name.insert(Arc::clone(name), resolved);
    }
}

fn deployments(
    sources: &Sources<'_>,
    raw: &RawModel,
    warnings: &mut Vec<String>,
) -> Vec<Deployment> {
    let mut deployments = Vec::new();
    for deployment in &raw.deployment {
        let upstream = deployment
            .upstream
            .clone()
            .unwrap_or_else(|| raw.id.clone());
        let backend = if deployment.provider == "engine" {
            sources
                .engine
                .iter()
                .find(|model| *model.id == *upstream)
                .map(|model| {
                    Arc::clone(if raw.embeds() {
                        &model.embedding_backend
                    } else {
                        &model.backend
                    })
                })
                .or_else(|| (sources.engine_file)(&raw.id, &upstream, raw.embeds()))
        } else {
            sources.providers.get(&deployment.provider).map(Arc::clone)
        };
        match backend {
            Some(backend) => deployments.push(Deployment {
                backend,
                upstream: upstream.as_str().into(),
                weight: deployment.weight.unwrap_or(1),
            }),
            None => warnings.push(format!(
                "the model `{}` names `{upstream}` on `{}`, which is not there; pull it with `honshu model pull {upstream}`",
                raw.id, deployment.provider
            )),
        }
    }
    deployments
}

fn capabilities(chats: bool, embeds: bool) -> Vec<ModelCapability> {
    let chat = chats.then_some(ModelCapability::Chat);
    let vectors = embeds.then_some(ModelCapability::TextEmbeddings);
    chat.into_iter().chain(vectors).collect()
}

fn configured_capabilities(raw: &RawModel) -> Vec<ModelCapability> {
    match &raw.capabilities {
        None => capabilities(true, false),
        Some(list) => capabilities(list.contains(&RawCapability::Chat), raw.embeds()),
    }
}

fn vendor(raw: &RawModel) -> String {
    raw.vendor.clone().unwrap_or_else(|| {
        raw.id
            .split_once('.')
            .map_or(raw.id.as_str(), |(vendor, _)| vendor)
            .to_owned()
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "prices were checked to be between 0 and a thousand million dollars"
)]
fn price(raw: &RawPrice) -> Price {
    let micros = |dollars: f64| (dollars * MICROS).round() as u64;
    Price {
        input_micros_usd_per_million: micros(raw.input),
        cached_input_micros_usd_per_million: micros(raw.cached_input.unwrap_or(raw.input)),
        output_micros_usd_per_million: micros(raw.output),
    }
}

#[cfg(test)]
mod tests {
    use honshu_provider::ScriptedProvider;

    use super::*;
    use crate::config::Config;

    const TWO_REGIONS: &str = r#"
        [[region]]
        name = "ap-osaka-1"
        listen = "127.0.0.1:0"
        [[region]]
        name = "us-chicago-1"
        listen = "127.0.0.1:0"
        [[provider]]
        name = "s"
        kind = "scripted"
        [[model]]
        id = "openai.gpt-oss-120b"
        regions = ["ap-osaka-1"]
        price = { input = 0.15, output = 0.6 }
        [[model.deployment]]
        provider = "s"
        upstream = "up"
        weight = 3
        [[model]]
        id = "not.pulled"
        [[model.deployment]]
        provider = "engine"
        upstream = "not.pulled"
        [[alias]]
        name = "everywhere"
        model = "pulled.model"
        [[alias]]
        name = "pulled.other"
        model = "pulled.model"
        [[alias]]
        name = "gpt"
        model = "openai.gpt-oss-120b"
    "#;

    fn pulled(id: &str, created: i64) -> EngineModel {
        EngineModel {
            id: id.into(),
            vendor: "pulled".into(),
            context_tokens_max: None,
            created: Timestamp::from_seconds(created),
            chats: true,
            embeds: false,
            backend: Arc::new(ScriptedProvider::new("engine")),
            embedding_backend: Arc::new(ScriptedProvider::new("engine with vectors")),
        }
    }

    #[test]
    fn a_configured_model_says_what_it_is_for_and_gets_the_backend_for_it() {
        let text = r#"
            [[model]]
            id = "a.both"
            capabilities = ["chat", "embeddings"]
            [[model.deployment]]
            provider = "engine"
            upstream = "pulled.model"
            [[model]]
            id = "b.vectors"
            capabilities = ["embeddings"]
            [[model.deployment]]
            provider = "engine"
            upstream = "models/x.gguf"
            [[model]]
            id = "c.chat"
            [[model.deployment]]
            provider = "engine"
            upstream = "pulled.model"
        "#;
        let config = Config::parse(text, std::path::Path::new("t"), None).unwrap();
        let asked = std::sync::Mutex::new(Vec::new());
        let (snapshot, warnings) = build(&Sources {
            regions: &config.regions,
            models: &config.models,
            aliases: &config.aliases,
            providers: &HashMap::new(),
            engine: &[pulled("pulled.model", 1)],
            engine_file: &|id, _, embeds| {
                asked.lock().unwrap().push((id.to_owned(), embeds));
                Some(Arc::new(ScriptedProvider::new("file")))
            },
            created: Timestamp::from_seconds(9),
        });
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            asked.into_inner().unwrap(),
            [("b.vectors".to_owned(), true)]
        );
        let catalogue = NodeCatalogue::new(snapshot);
        let region = &config.regions[0].region;
        let shown = |id: &str| {
            let model = catalogue.resolve(region, id).unwrap().model;
            let words: Vec<&str> = model.capabilities.iter().map(|c| c.as_str()).collect();
            (
                words.join(" "),
                model.deployments[0].backend.name().to_owned(),
            )
        };
        let pair = |words: &str, name: &str| (words.to_owned(), name.to_owned());
        assert_eq!(
            shown("a.both"),
            pair("CHAT TEXT_EMBEDDINGS", "engine with vectors")
        );
        assert_eq!(shown("b.vectors"), pair("TEXT_EMBEDDINGS", "file"));
        assert_eq!(shown("c.chat"), pair("CHAT", "engine"));

        let empty = text.replace("[\"embeddings\"]", "[]");
        let error = Config::parse(&empty, std::path::Path::new("t"), None).unwrap_err();
        assert!(
            format!("{error:?}").contains("model[1].capabilities"),
            "{error:?}"
        );
        let unknown = text.replace("[\"embeddings\"]", "[\"poems\"]");
        assert!(Config::parse(&unknown, std::path::Path::new("t"), None).is_err());
    }

    #[test]
    fn names_hold_in_their_regions_and_what_does_not_fit_is_told() {
        let config = Config::parse(TWO_REGIONS, std::path::Path::new("t"), None).unwrap();
        let scripted: Arc<dyn Backend> = Arc::new(ScriptedProvider::new("s"));
        let (snapshot, warnings) = build(&Sources {
            regions: &config.regions,
            models: &config.models,
            aliases: &config.aliases,
            providers: &HashMap::from([("s".to_owned(), scripted)]),
            engine: &[pulled("pulled.model", 1), pulled("pulled.other", 2)],
            engine_file: &|_, _, _| None,
            created: Timestamp::from_seconds(9),
        });
        let catalogue = NodeCatalogue::new(snapshot);
        let region = |index: usize| &config.regions[index].region;
        let names = |index: usize| -> Vec<String> {
            catalogue
                .list(region(index))
                .iter()
                .map(|(name, _)| name.to_string())
                .collect()
        };
        assert_eq!(
            names(0),
            [
                "everywhere",
                "gpt",
                "openai.gpt-oss-120b",
                "pulled.model",
                "pulled.other"
            ]
        );
        assert_eq!(names(1), ["everywhere", "pulled.model", "pulled.other"]);
        assert!(catalogue.resolve(&Region::local(), "everywhere").is_none());

        let gpt = catalogue.resolve(region(0), "gpt").unwrap();
        assert!(gpt.alias);
        assert_eq!(&*gpt.model.id, "openai.gpt-oss-120b");
        assert_eq!(&*gpt.model.vendor, "openai");
        assert_eq!(gpt.model.created.as_seconds(), 9);
        assert_eq!(&*gpt.model.deployments[0].upstream, "up");
        assert_eq!(gpt.model.deployments[0].weight, 3);
        let price = gpt.model.price.unwrap();
        assert_eq!(price.input_micros_usd_per_million, 150_000);
        assert_eq!(price.cached_input_micros_usd_per_million, 150_000);
        let pulled = catalogue.resolve(region(1), "pulled.model").unwrap();
        assert_eq!(pulled.model.created.as_seconds(), 1);

        let ocid = honshu_api::model_ocid_of("ap-osaka-1", "gpt");
        assert_eq!(
            &*catalogue
                .resolve(region(0), ocid.as_str())
                .unwrap()
                .model
                .id,
            "openai.gpt-oss-120b"
        );
        assert!(catalogue.resolve(region(1), ocid.as_str()).is_none());

        for part in [
            "the model `not.pulled` names `not.pulled` on `engine`",
            "the model `not.pulled` has nothing to run on",
            "the alias `gpt` stands for `openai.gpt-oss-120b`, which is not there in us-chicago-1",
            "the alias `pulled.other` hides the pulled model of that name in ap-osaka-1",
        ] {
            assert!(
                warnings.iter().any(|warning| warning.contains(part)),
                "{part} in {warnings:#?}"
            );
        }
    }
}
