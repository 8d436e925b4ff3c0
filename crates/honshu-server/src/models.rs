//! Keeps the catalogue true: rebuilt when a model is pulled or removed beside the server, and when the configuration
//! changes. A configuration that is not valid leaves the last good one in place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use honshu_domain::{Clock, Timestamp};
use honshu_models::ModelStore;

use crate::catalogue::{self, NodeCatalogue, Snapshot, Sources};
use crate::config::Config;
use crate::engine::Engine;
use crate::error::StartError;
use crate::providers::{self, Follower, Providers};

/// How often directories and files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the catalogue is made of.
pub(crate) struct Models {
    pub(crate) store: ModelStore,
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) current: Mutex<Current>,
}

/// The configuration in force.
pub(crate) struct Current {
    config: Config,
    providers: Providers,
    _credentials: Follower,
}

impl Current {
    /// Takes a configuration and its upstreams into force. Needs a runtime, for the credentials.
    pub(crate) fn new(config: Config, mut providers: Providers) -> Self {
        Self {
            _credentials: providers.follow_credentials(),
            config,
            providers,
        }
    }
}

impl Models {
    /// The snapshot of now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StartError> {
        let listing = self
            .store
            .list()
            .map_err(|error| StartError::Models(error.to_string()))?;
        for problem in &listing.problems {
            tracing::warn!(problem, "a pulled model cannot be used");
        }
        let engine: Vec<_> = listing
            .models
            .iter()
            .map(|model| self.engine.model(model, self.clock.now()))
            .collect();
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, warnings) = catalogue::build(&Sources {
            regions: &current.config.regions,
            models: &current.config.models,
            aliases: &current.config.aliases,
            providers: &current.providers.backends,
            engine: &engine,
            engine_file: &|id, path, embeds| self.engine.file(id, path, embeds),
            created: self.configured_at(),
        });
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(snapshot)
    }

    /// Looks for changes for ever. `hup` is notified to look at once and take the configuration again.
    pub(crate) async fn follow(
        self: Arc<Self>,
        catalogue: Arc<NodeCatalogue>,
        hup: Arc<tokio::sync::Notify>,
    ) {
        let mut models = self.store.generation().ok();
        let mut stamp = self.config_stamp();
        loop {
            let forced = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                () = hup.notified() => true,
            };
            let (models_now, stamp_now) = (self.store.generation().ok(), self.config_stamp());
            let config_changed = forced || stamp_now != stamp;
            if config_changed || models_now != models {
                // Files are read and the engine tries its code: nothing that requests should wait behind.
                let work = Arc::clone(&self);
                let made = tokio::task::spawn_blocking(move || {
                    if config_changed {
                        work.reload();
                    }
                    work.snapshot()
                });
                match made.await.map_err(|error| error.to_string()) {
                    Ok(Ok(snapshot)) => catalogue.replace(snapshot),
                    Ok(Err(error)) => tracing::error!(%error, "the catalogue stays as it was"),
                    Err(error) => tracing::error!(error, "the catalogue stays as it was"),
                }
            }
            models = models_now;
            stamp = stamp_now;
        }
    }

    fn config_stamp(&self) -> Option<(SystemTime, u64)> {
        let metadata = std::fs::metadata(self.config_path.as_ref()?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    /// When the configuration was last written: what its models were made at, on every node that has the file.
    fn configured_at(&self) -> Timestamp {
        self.config_stamp()
            .and_then(|(modified, _)| modified.duration_since(SystemTime::UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_micros()).ok())
            .map_or_else(|| self.clock.now(), Timestamp::from_micros)
    }

    /// Takes providers, models and aliases of a changed configuration. The rest is taken at the next start.
    fn reload(&self) {
        let Some(path) = &self.config_path else {
            return;
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let reloaded = Config::read(path, self.listen)
            .map_err(StartError::from)
            .and_then(|mut config| {
                let later = config.keep_until_restart(&current.config);
                self.engine.check_files(&config.models)?;
                let providers = providers::build(&config)?;
                Ok((config, providers, later))
            });
        match reloaded {
            Ok((config, providers, later)) => {
                if !later.is_empty() {
                    tracing::warn!(
                        changed = later.join(", "),
                        "these parts of the configuration changed; they are taken at the next start"
                    );
                }
                *current = Current::new(config, providers);
                tracing::info!(path = %path.display(), "configuration taken");
            }
            Err(error) => {
                tracing::error!(%error, "the changed configuration is not valid; the last good one stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use honshu_domain::{Catalogue as _, Region, SystemClock};

    use super::*;

    const SCRIPTED: &str = "[[provider]]\nname = \"s\"\nkind = \"scripted\"\n";

    fn model(id: &str) -> String {
        format!("[[model]]\nid = \"{id}\"\n[[model.deployment]]\nprovider = \"s\"\n")
    }

    fn names(catalogue: &NodeCatalogue) -> Vec<String> {
        catalogue
            .list(&Region::local())
            .iter()
            .map(|(name, _)| name.to_string())
            .collect()
    }

    fn follow(folder: &Path, config: &Path) -> (Arc<Models>, Arc<NodeCatalogue>) {
        let checked = Config::read(config, None).unwrap();
        let models = Arc::new(Models {
            store: ModelStore::open(folder.join("models")).unwrap(),
            engine: Engine::new(&checked.engine, None),
            clock: Arc::new(SystemClock),
            config_path: Some(config.to_owned()),
            listen: None,
            current: Mutex::new(Current::new(
                checked.clone(),
                providers::build(&checked).unwrap(),
            )),
        });
        let catalogue = Arc::new(NodeCatalogue::new(models.snapshot().unwrap()));
        (models, catalogue)
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_and_a_bad_one_leaves_the_last_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("honshu.toml");
        std::fs::write(&config, format!("{SCRIPTED}{}", model("a.one"))).unwrap();
        let (models, catalogue) = follow(folder.path(), &config);
        let hup = Arc::new(tokio::sync::Notify::new());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        let task =
            tokio::spawn(Arc::clone(&models).follow(Arc::clone(&catalogue), Arc::clone(&hup)));
        assert_eq!(names(&catalogue), ["a.one"]);
        let write = |text: String| {
            std::fs::write(&config, text).unwrap();
            hup.notify_one();
        };
        let until = async |wanted: &[&str]| {
            for _ in 0..200 {
                if names(&catalogue) == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("{:?} is not {wanted:?}", names(&catalogue));
        };
        write(format!("{SCRIPTED}{}{}", model("a.one"), model("b.two")));
        until(&["a.one", "b.two"]).await;
        for bad in [
            "nonsense",
            "[[model]]\nid = \"c.three\"\n[[model.deployment]]\nprovider = \"missing\"\n",
        ] {
            write(bad.to_owned());
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(names(&catalogue), ["a.one", "b.two"], "{bad}");
        }
        write(format!("{SCRIPTED}{}", model("c.three")));
        until(&["c.three"]).await;
        task.abort();
    }

    #[tokio::test]
    async fn when_a_model_was_made_does_not_change_with_each_look() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("honshu.toml");
        std::fs::write(&config, format!("{SCRIPTED}{}", model("a.one"))).unwrap();
        let (models, catalogue) = follow(folder.path(), &config);
        let created = || catalogue.list(&Region::local())[0].1.model.created;
        let first = created();
        tokio::time::sleep(Duration::from_millis(20)).await;
        catalogue.replace(models.snapshot().unwrap());
        assert_eq!(created(), first);
    }
}
