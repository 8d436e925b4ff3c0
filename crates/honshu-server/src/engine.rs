//! The embedded engine as the configuration wants it, and which code it may run on this processor.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use honshu_domain::{Backend, Timestamp};
use honshu_engine::{
    CpuMode, EnginePool, LoadOptions, LoadedModel, ModelOptions, PoolOptions, run_self_test_child,
    self_test,
};
use honshu_models::InstalledModel;

use crate::catalogue::EngineModel;
use crate::config::{RawEngine, RawModel};
use crate::error::StartError;

const MIB: u64 = 1024 * 1024;

/// The engine of a server. Loads nothing until a request needs it.
pub(crate) struct Engine {
    pool: EnginePool,
    load: LoadOptions,
    /// The program that knows the command of the self-test.
    executable: Option<PathBuf>,
    cpu_mode: OnceLock<CpuMode>,
}

impl Engine {
    pub(crate) fn new(config: &RawEngine, executable: Option<PathBuf>) -> Self {
        let mut load = LoadOptions {
            threads: config.threads,
            ..LoadOptions::default()
        };
        if let Some(tokens) = config.context_tokens {
            load.n_ctx = tokens;
        }
        if let Some(sequences) = config.sequences_max {
            load.n_seq_max = sequences;
        }
        if let Some(queue) = config.queue_max {
            load.queue_max = queue;
        }
        Self {
            pool: EnginePool::new(PoolOptions {
                memory_max_bytes: config.memory_mib_max.map(|mib| mib.saturating_mul(MIB)),
                idle_timeout: config
                    .idle_unload_seconds
                    .filter(|seconds| *seconds > 0)
                    .map(Duration::from_secs),
                ..PoolOptions::default()
            }),
            load,
            executable,
            cpu_mode: OnceLock::new(),
        }
    }

    /// A pulled model; `now` stands where its manifest does not say when that was.
    pub(crate) fn model(&self, model: &InstalledModel, now: Timestamp) -> EngineModel {
        let manifest = &model.manifest;
        let says = |word: &str| manifest.capabilities.iter().any(|own| own == word);
        let embeds = says("embed") || LoadedModel::is_for_embeddings(&model.path);
        EngineModel {
            chats: says("chat") || !embeds,
            embeds,
            id: manifest.id.as_str().into(),
            vendor: manifest.vendor.as_str().into(),
            context_tokens_max: None,
            created: Timestamp::parse_rfc3339(&manifest.pulled_at).unwrap_or(now),
            backend: self.backend(&model.path, &manifest.id, embeds),
            embedding_backend: self.backend(&model.path, &manifest.id, true),
        }
    }

    /// A GGUF that the configuration names by its path, as the model `id`; `embeds` says whether it is to make vectors
    /// whatever the file says.
    pub(crate) fn file(&self, id: &str, path: &str, embeds: bool) -> Option<Arc<dyn Backend>> {
        let path = Path::new(path);
        path.is_file().then(|| {
            let embeds = embeds || LoadedModel::is_for_embeddings(path);
            self.backend(path, id, embeds)
        })
    }

    /// Looks at the heads of the GGUF files that the configuration names, so that one which can never be served
    /// is found before anybody asks for it. Pulled models were looked at when they were pulled.
    ///
    /// # Errors
    /// [`StartError::Model`] for the first that is damaged or larger than the memory for models.
    pub(crate) fn check_files(&self, models: &[RawModel]) -> Result<(), StartError> {
        let files = models.iter().flat_map(|model| {
            model
                .deployment
                .iter()
                .filter(|deployment| deployment.provider == "engine")
                .filter_map(move |deployment| Some((model, deployment.upstream.as_deref()?)))
        });
        for (model, path) in files.filter(|(_, path)| Path::new(path).is_file()) {
            let fail = |reason, hint| StartError::Model {
                model: model.id.clone(),
                reason,
                hint,
            };
            let needed =
                LoadedModel::estimate_bytes(Path::new(path), &self.load).map_err(|error| {
                    fail(
                        error.to_string(),
                        ("fetch the file again", "ファイルを取得し直してください"),
                    )
                })?;
            let budget = self.pool.budget_bytes();
            if needed > budget {
                return Err(fail(
                    format!(
                        "`{path}` needs about {} MiB of memory and models may take {} MiB",
                        needed.div_ceil(MIB),
                        budget / MIB
                    ),
                    (
                        "choose a smaller model or `engine.context_tokens`, or raise `engine.memory_mib_max`",
                        "より小さいモデルか `engine.context_tokens` を選ぶか、`engine.memory_mib_max` を増やしてください",
                    ),
                ));
            }
        }
        Ok(())
    }

    fn backend(&self, path: &Path, id: &str, embeds: bool) -> Arc<dyn Backend> {
        let options = ModelOptions {
            load: LoadOptions {
                cpu_mode: self.cpu_mode(),
                ..self.load.clone()
            },
            chat_template: None,
        };
        if embeds {
            self.pool.embedding_backend_for(path, id, options)
        } else {
            self.pool.backend_for(path, id, options)
        }
    }

    /// Which code may run: found out once, in a child process, because the wrong code ends the process.
    fn cpu_mode(&self) -> CpuMode {
        *self.cpu_mode.get_or_init(|| {
            let Some(executable) = &self.executable else {
                return CpuMode::Normal;
            };
            match run_self_test_child(executable, &["engine-self-test".into()]) {
                Ok(mode) => {
                    tracing::info!(?mode, "the engine's self-test passed");
                    mode
                }
                Err(error) => {
                    tracing::error!(%error, "the engine's self-test failed; it runs with its safest code");
                    CpuMode::Safe
                }
            }
        })
    }
}

/// Runs the engine's self-test in this process, which may not survive it.
///
/// # Errors
/// What was wrong, in words.
pub fn engine_self_test(safe: bool) -> Result<(), String> {
    let mode = if safe { CpuMode::Safe } else { CpuMode::Normal };
    self_test(mode).map_err(|error| error.to_string())
}
