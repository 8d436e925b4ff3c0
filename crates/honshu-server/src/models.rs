//! Keeps the catalogue true: rebuilt when a model is pulled or removed beside the server, and when the configuration
//! changes. A configuration that is not valid leaves the last good one in place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use honshu_domain::Clock;
use honshu_models::ModelStore;

use crate::catalogue::{self, NodeCatalogue, Snapshot, Sources};
use crate::config::Config;
use crate::engine::Engine;
use crate::error::StartError;
use crate::providers::{self, Providers};

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
    pub(crate) config: Config,
    pub(crate) providers: Providers,
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
            .map(|model| self.engine.model(model))
            .collect();
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, warnings) = catalogue::build(&Sources {
            regions: &current.config.regions,
            models: &current.config.models,
            aliases: &current.config.aliases,
            providers: &current.providers.backends,
            engine: &engine,
            engine_file: &|id, path| self.engine.file(id, path),
            clock: self.clock.as_ref(),
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

    /// Takes providers, models and aliases of a changed configuration. Listeners, limits and the engine are
    /// taken at the next start.
    fn reload(&self) {
        let Some(path) = &self.config_path else {
            return;
        };
        let reloaded = Config::read(path, self.listen)
            .map_err(StartError::from)
            .and_then(|config| {
                self.engine.check_files(&config.models)?;
                providers::build(&config).map(|providers| (config, providers))
            });
        match reloaded {
            Ok((config, mut providers)) => {
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                let same_ways_in = config
                    .regions
                    .iter()
                    .map(|r| (r.region.clone(), r.listen, &r.hosts))
                    .eq(current
                        .config
                        .regions
                        .iter()
                        .map(|r| (r.region.clone(), r.listen, &r.hosts)));
                if !same_ways_in {
                    tracing::warn!(
                        "regions and their addresses changed; that is taken at the next start"
                    );
                }
                let regions = current.config.regions.clone();
                tokio::spawn(Providers::follow_credentials(providers.take_credentials()));
                *current = Current {
                    config: Config { regions, ..config },
                    providers,
                };
                tracing::info!(path = %path.display(), "configuration taken");
            }
            Err(error) => {
                tracing::error!(%error, "the changed configuration is not valid; the last good one stays");
            }
        }
    }
}
