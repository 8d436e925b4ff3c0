//! Several models side by side within one budget of memory.
//!
//! A model is loaded by the first request that needs it, once however many wait for it, and unloaded when another
//! model needs the room or when nobody asked for it for a while. A model that is in use is never unloaded. Loading
//! goes on when the caller who began it leaves: the next one will want it too.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use honshu_domain::{Backend, Clock, Entropy, Error, ErrorKind, Retry, SystemClock, SystemEntropy};
use tokio::sync::watch;

use crate::backend::EngineBackend;
use crate::constraint::Grammars;
use crate::embed::Embedder;
use crate::error::LoadError;
use crate::job::Token;
use crate::markup::Markup;
use crate::model::{EngineStats, LoadOptions, LoadedModel};
use crate::template::{ChatTemplate, SpecialTokens, TemplateError};
use crate::workers::Workers;

/// How the pool as a whole behaves.
#[derive(Clone)]
pub struct PoolOptions {
    /// Bytes that all loaded models may take together. `None` takes three quarters of the machine's memory, or of
    /// what the control group of this process may use.
    pub memory_max_bytes: Option<u64>,
    /// How long a model may be idle before it is unloaded; `None` keeps it until another needs the room.
    pub idle_timeout: Option<Duration>,
    /// How long a load waits for models in use to become idle before it is refused.
    pub room_wait: Duration,
    /// What templates see as the time.
    pub clock: Arc<dyn Clock>,
    /// Where ids of items come from.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            memory_max_bytes: None,
            idle_timeout: None,
            room_wait: Duration::from_secs(30),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        }
    }
}

impl std::fmt::Debug for PoolOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolOptions")
            .field("memory_max_bytes", &self.memory_max_bytes)
            .field("idle_timeout", &self.idle_timeout)
            .field("room_wait", &self.room_wait)
            .finish_non_exhaustive()
    }
}

/// How one model is served.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// How it is loaded. Without a number of threads, the processor's are shared with the models already loaded.
    pub load: LoadOptions,
    /// A chat template instead of the file's own.
    pub chat_template: Option<Arc<str>>,
}

/// Where a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Not in memory.
    Unloaded,
    /// On its way into memory.
    Loading,
    /// In memory.
    Loaded,
}

/// One line of [`EnginePool::status`].
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// The id under which the model was added.
    pub id: Arc<str>,
    /// The file.
    pub path: PathBuf,
    /// Where it stands.
    pub state: ModelState,
    /// Bytes reserved for it; 0 when it is not in memory.
    pub memory_bytes: u64,
    /// Requests that use it or wait for it.
    pub users: usize,
    /// Why the last load failed, if it did.
    pub last_error: Option<String>,
    /// The engine's counters, when it is in memory.
    pub stats: Option<EngineStats>,
}

/// Everything that a request needs of a loaded model.
pub(crate) struct Ready {
    pub model: LoadedModel,
    pub template: Result<ChatTemplate, NoTemplate>,
    pub grammars: Grammars,
    pub embedder: Embedder,
    /// How it writes calls and reasoning.
    pub markup: Arc<Markup>,
    /// The token that the model wants before every prompt.
    pub first_token: Option<Token>,
}

/// Why a model cannot chat.
#[derive(Debug, Clone)]
pub(crate) enum NoTemplate {
    /// Its file has no template: a base model.
    Missing,
    Broken(TemplateError),
}

type Loaded = Result<Arc<Ready>, Error>;

enum Stage {
    Unloaded,
    Loading(watch::Receiver<Option<Loaded>>),
    Loaded(Arc<Ready>),
}

struct Entry {
    path: PathBuf,
    options: ModelOptions,
    stage: Stage,
    bytes: u64,
    users: usize,
    last_used: Instant,
    last_error: Option<String>,
    /// Tells an entry from another one under the same id, before or after it.
    generation: u64,
}

#[derive(Default)]
struct State {
    generation: u64,
    models: HashMap<Arc<str>, Entry>,
    reserved_bytes: u64,
    sweeping: bool,
}

pub(crate) struct Inner {
    state: Mutex<State>,
    /// A model became idle, or room was freed.
    changed: Condvar,
    budget_bytes: u64,
    options: PoolOptions,
    loads: AtomicU64,
    pub(crate) workers: Workers,
}

/// The models of this process. Cheap to clone; dropping the last clone and the last backend unloads everything.
#[derive(Clone)]
pub struct EnginePool {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for EnginePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnginePool")
            .field("budget_bytes", &self.inner.budget_bytes)
            .finish_non_exhaustive()
    }
}

impl EnginePool {
    /// An empty pool.
    #[must_use]
    pub fn new(options: PoolOptions) -> Self {
        let budget_bytes = options
            .memory_max_bytes
            .unwrap_or_else(|| default_budget_bytes(machine_memory_bytes()));
        Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                changed: Condvar::new(),
                budget_bytes,
                options,
                loads: AtomicU64::new(0),
                workers: Workers::start(),
            }),
        }
    }

    /// A backend for the model in `path` under the name `id`. Reads nothing yet: the first request loads the model.
    /// Adding an id again with another path or other options replaces it; requests that run finish on the old one.
    #[must_use]
    pub fn backend_for(&self, path: &Path, id: &str, options: ModelOptions) -> Arc<dyn Backend> {
        self.backend(path, id, options, false)
    }

    /// [`Self::backend_for`], which makes vectors of texts as well. A model may have backends of both kinds.
    #[must_use]
    pub fn embedding_backend_for(
        &self,
        path: &Path,
        id: &str,
        options: ModelOptions,
    ) -> Arc<dyn Backend> {
        self.backend(path, id, options, true)
    }

    fn backend(
        &self,
        path: &Path,
        id: &str,
        options: ModelOptions,
        embeds: bool,
    ) -> Arc<dyn Backend> {
        let id: Arc<str> = id.into();
        let mut state = self.inner.lock();
        let same = state.models.get(&id).is_some_and(|entry| {
            entry.path == path && format!("{:?}", entry.options) == format!("{options:?}")
        });
        if !same {
            state.generation += 1;
            let entry = Entry {
                generation: state.generation,
                path: path.to_owned(),
                options,
                stage: Stage::Unloaded,
                bytes: 0,
                users: 0,
                last_used: Instant::now(),
                last_error: None,
            };
            let old = state.models.insert(Arc::clone(&id), entry);
            state.reserved_bytes -= old.as_ref().map_or(0, |old| old.bytes);
            drop(state);
            drop(old);
        }
        Arc::new(EngineBackend::new(Arc::clone(&self.inner), id, embeds))
    }

    /// Takes a model out of the pool; requests that run finish.
    pub fn remove(&self, id: &str) {
        let mut state = self.inner.lock();
        let old = state.models.remove(id);
        state.reserved_bytes -= old.as_ref().map_or(0, |old| old.bytes);
        drop(state);
        drop(old);
        self.inner.changed.notify_all();
    }

    /// Bytes that all loaded models may take together.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.inner.budget_bytes
    }

    /// How often a model was loaded since the start.
    #[must_use]
    pub fn loads(&self) -> u64 {
        self.inner.loads.load(Ordering::Relaxed)
    }

    /// Every model and where it stands, sorted by id.
    #[must_use]
    pub fn status(&self) -> Vec<ModelStatus> {
        let state = self.inner.lock();
        let mut list: Vec<ModelStatus> = state
            .models
            .iter()
            .map(|(id, entry)| ModelStatus {
                id: Arc::clone(id),
                path: entry.path.clone(),
                state: match entry.stage {
                    Stage::Unloaded => ModelState::Unloaded,
                    Stage::Loading(_) => ModelState::Loading,
                    Stage::Loaded(_) => ModelState::Loaded,
                },
                memory_bytes: entry.bytes,
                users: entry.users,
                last_error: entry.last_error.clone(),
                stats: match &entry.stage {
                    Stage::Loaded(ready) => Some(ready.model.stats()),
                    _ => None,
                },
            })
            .collect();
        drop(state);
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }
}

/// A request's hold on a model: while it lives, the model stays in memory.
pub(crate) struct Lease {
    pub ready: Arc<Ready>,
    _user: User,
}

/// Counts as a user of a model until dropped.
struct User {
    pool: Arc<Inner>,
    id: Arc<str>,
    generation: u64,
}

impl Drop for User {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if let Some(entry) = state
            .models
            .get_mut(&self.id)
            .filter(|entry| entry.generation == self.generation)
        {
            entry.users -= 1;
            entry.last_used = Instant::now();
        }
        drop(state);
        self.pool.changed.notify_all();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock, so a poisoned state is still a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.options.clock
    }

    pub(crate) fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.options.entropy
    }

    /// The model, loaded now if it has to be. Dropping the future leaves a load that has begun alone.
    pub(crate) async fn acquire(self: Arc<Self>, id: Arc<str>) -> Result<Lease, Error> {
        let (user, mut loading) = {
            let mut state = self.lock();
            let Some(entry) = state.models.get_mut(&id) else {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the model `{id}` was removed from this server"),
                ));
            };
            entry.users += 1;
            entry.last_used = Instant::now();
            let user = User {
                pool: Arc::clone(&self),
                id: Arc::clone(&id),
                generation: entry.generation,
            };
            let receiver = match &entry.stage {
                Stage::Loaded(ready) => {
                    let ready = Arc::clone(ready);
                    drop(state);
                    return Ok(Lease { ready, _user: user });
                }
                Stage::Loading(receiver) => receiver.clone(),
                Stage::Unloaded => {
                    let (sender, receiver) = watch::channel(None);
                    let (path, options) = (entry.path.clone(), entry.options.clone());
                    let pool = Arc::clone(&self);
                    let name = Arc::clone(&id);
                    std::thread::Builder::new()
                        .name("honshu-load".to_owned())
                        .spawn(move || pool.load(&name, &path, &options, &sender))
                        .map_err(|error| {
                            unavailable(&id, "no thread could be started").with_cause(error)
                        })?;
                    entry.stage = Stage::Loading(receiver.clone());
                    receiver
                }
            };
            drop(state);
            (user, receiver)
        };
        let loaded = match loading.wait_for(Option::is_some).await {
            Ok(value) => value.clone(),
            Err(_) => None,
        };
        match loaded {
            Some(Ok(ready)) => Ok(Lease { ready, _user: user }),
            Some(Err(error)) => Err(error),
            None => Err(unavailable(&id, "its loading broke off")),
        }
    }

    /// Loads on a thread of its own and tells everybody who waits.
    fn load(
        self: Arc<Self>,
        id: &Arc<str>,
        path: &Path,
        options: &ModelOptions,
        sender: &watch::Sender<Option<Loaded>>,
    ) {
        let began = Instant::now();
        tracing::info!(model = %id, path = %path.display(), "loading model");
        let mut reserved = 0;
        // Whatever happens in there, those who wait must hear of it.
        let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.make_room(id, path, options, &mut reserved)
                .and_then(|threads| {
                    let mut load = options.load.clone();
                    load.threads = load.threads.or(Some(threads));
                    start(path, options, &load)
                        .map_err(|error| load_error(id, error))
                        .inspect(|ready| log_loaded(id, ready, began))
                })
        }))
        .unwrap_or_else(|_| Err(unavailable(id, "its loading failed unexpectedly")));
        self.loads.fetch_add(1, Ordering::Relaxed);

        let mut state = self.lock();
        // The entry may have been replaced meanwhile: then this model serves those who wait and nobody else.
        let current = state.models.get_mut(id).filter(|entry| {
            matches!(&entry.stage, Stage::Loading(receiver) if sender.subscribe().same_channel(receiver))
        });
        match (current, &loaded) {
            (Some(entry), Ok(ready)) => {
                entry.stage = Stage::Loaded(Arc::clone(ready));
                entry.bytes = reserved;
                entry.last_error = None;
                entry.last_used = Instant::now();
            }
            (current, _) => {
                if let (Some(entry), Err(error)) = (current, &loaded) {
                    entry.stage = Stage::Unloaded;
                    entry.last_error = Some(error.message().to_owned());
                }
                state.reserved_bytes -= reserved;
            }
        }
        drop(state);
        if let Err(error) = &loaded {
            tracing::error!(model = %id, %error, cause = ?std::error::Error::source(error), "model cannot be loaded");
        }
        let grammars = loaded.as_ref().ok().map(|ready| ready.grammars.clone());
        sender.send_replace(Some(loaded));
        self.changed.notify_all();
        self.start_sweeper();
        // After everybody has been told: the first constrained answer should not have to wait for it.
        if let Some(grammars) = grammars {
            grammars.warm();
        }
    }

    /// Reserves the memory for a model, unloading idle ones, the longest unused first. Returns the threads for it.
    fn make_room(
        &self,
        id: &Arc<str>,
        path: &Path,
        options: &ModelOptions,
        reserved: &mut u64,
    ) -> Result<u32, Error> {
        let needed = LoadedModel::estimate_bytes(path, &options.load)
            .map_err(|error| load_error(id, error))?;
        if needed > self.budget_bytes {
            let error = LoadError::DoesNotFit {
                needed_bytes: needed,
                available_bytes: self.budget_bytes,
            };
            return Err(load_error(id, error));
        }
        let began = Instant::now();
        let mut state = self.lock();
        loop {
            if state.reserved_bytes + needed <= self.budget_bytes {
                state.reserved_bytes += needed;
                *reserved = needed;
                let loaded = state
                    .models
                    .values()
                    .filter(|entry| matches!(entry.stage, Stage::Loaded(_)))
                    .count();
                return Ok(share_of_threads(loaded));
            }
            let victim = state
                .models
                .iter()
                .filter(|(_, entry)| entry.users == 0 && matches!(entry.stage, Stage::Loaded(_)))
                .min_by_key(|(_, entry)| entry.last_used)
                .map(|(id, _)| Arc::clone(id));
            if let Some(victim) = victim {
                state = self.unload(state, &victim, "room for another model");
                continue;
            }
            let Some(left) = self
                .options
                .room_wait
                .checked_sub(began.elapsed())
                .filter(|left| !left.is_zero())
            else {
                let free = self.budget_bytes.saturating_sub(state.reserved_bytes);
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the model `{id}` needs {needed} bytes of memory and {free} of {} are free while other \
                         models are in use; try again",
                        self.budget_bytes
                    ),
                )
                .with_retry(Retry::After(Duration::from_secs(10))));
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Unloads an idle model. Its memory counts as taken until it is really free.
    fn unload<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        id: &Arc<str>,
        why: &str,
    ) -> MutexGuard<'a, State> {
        let Some(entry) = state.models.get_mut(id) else {
            return state;
        };
        let stage = std::mem::replace(&mut entry.stage, Stage::Unloaded);
        let bytes = std::mem::take(&mut entry.bytes);
        drop(state);
        tracing::info!(model = %id, why, "unloading model");
        drop(stage);
        let mut state = self.lock();
        state.reserved_bytes -= bytes;
        state
    }

    /// Starts the thread that unloads models after the idle timeout; it ends with the pool.
    fn start_sweeper(self: &Arc<Self>) {
        let Some(timeout) = self.options.idle_timeout else {
            return;
        };
        if std::mem::replace(&mut self.lock().sweeping, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        let spawned = std::thread::Builder::new()
            .name("honshu-sweep".to_owned())
            .spawn(move || sweep(&pool, timeout));
        if let Err(error) = spawned {
            tracing::warn!(%error, "idle models will stay loaded: no thread could be started");
        }
    }
}

fn sweep(pool: &Weak<Inner>, timeout: Duration) {
    let pause = (timeout / 4).clamp(Duration::from_millis(20), Duration::from_secs(15));
    loop {
        std::thread::sleep(pause);
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.lock();
        let idle: Vec<Arc<str>> = state
            .models
            .iter()
            .filter(|(_, entry)| {
                entry.users == 0
                    && matches!(entry.stage, Stage::Loaded(_))
                    && entry.last_used.elapsed() >= timeout
            })
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for id in idle {
            // A request may have come while another model was being unloaded.
            if state.models.get(&id).is_some_and(|entry| entry.users == 0) {
                state = pool.unload(state, &id, "idle");
            }
        }
        drop(state);
        pool.changed.notify_all();
    }
}

fn start(path: &Path, options: &ModelOptions, load: &LoadOptions) -> Result<Arc<Ready>, LoadError> {
    let model = LoadedModel::load(path, load)?;
    let meta = model.meta();
    let source = options
        .chat_template
        .clone()
        .or_else(|| meta.chat_template.clone());
    let tokens = || SpecialTokens {
        bos: meta.bos_text.clone(),
        eos: meta.eos_text.clone(),
        control: (0..)
            .take(meta.n_vocab)
            .filter(|token| model.is_control(*token))
            .map(|token| String::from_utf8_lossy(model.token_bytes(token)).into_owned())
            .collect(),
    };
    let template = match source {
        None => Err(NoTemplate::Missing),
        Some(source) => ChatTemplate::compile(&source, &tokens()).map_err(NoTemplate::Broken),
    };
    let (words, knows_tools) = template.as_ref().map_or(("", false), |template| {
        (template.source(), template.knows_tools())
    });
    let markup = Markup::detect(words, knows_tools, |name| {
        match model.tokenize(name, false, true).as_deref() {
            Ok([token]) => Some((*token, model.is_control(*token))),
            _ => None,
        }
    });
    let first_token = model
        .tokenize("", true, true)
        .ok()
        .and_then(|tokens| tokens.first().copied());
    let grammars = Grammars::new(&model);
    let embedder = Embedder::new(model.tokenizer(), meta.n_ctx, load.threads());
    Ok(Arc::new(Ready {
        embedder,
        model,
        template,
        markup: Arc::new(markup),
        grammars,
        first_token,
    }))
}

fn log_loaded(id: &str, ready: &Ready, began: Instant) {
    let meta = ready.model.meta();
    tracing::info!(
        model = %id,
        load_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        architecture = %meta.architecture,
        context_tokens = meta.n_ctx,
        parameters = meta.parameters,
        calls = ready.markup.form.name,
        reasons = ready.markup.reasons,
        "model loaded"
    );
    match &ready.template {
        Ok(_) => {}
        Err(NoTemplate::Missing) => {
            tracing::warn!(model = %id, "the model has no chat template and cannot chat")
        }
        Err(NoTemplate::Broken(error)) => {
            tracing::warn!(model = %id, %error, "the model cannot chat")
        }
    }
}

fn unavailable(id: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the model `{id}` cannot be loaded: {why}"),
    )
}

/// What a caller reads of a load that failed: the next step, and no path of this machine.
fn load_error(id: &str, error: LoadError) -> Error {
    let why = match &error {
        LoadError::Unreadable { .. } => {
            "its file cannot be read; pull it again with `honshu model pull`".to_owned()
        }
        LoadError::Corrupt { reason, .. } => {
            format!(
                "its file is corrupt ({reason}); remove it and pull it again with `honshu model pull`"
            )
        }
        LoadError::Unsupported { reason, .. } => format!("{reason}; choose another model"),
        LoadError::DoesNotFit {
            needed_bytes,
            available_bytes,
        } => format!(
            "it needs about {needed_bytes} bytes of memory and {available_bytes} are available; choose a smaller model \
             or a smaller context"
        ),
        LoadError::Refused { reason } => format!("the engine refused it ({reason})"),
        LoadError::Option { option, reason } => {
            format!("its option `{option}` is out of range: {reason}")
        }
    };
    unavailable(id, &why).with_cause(error)
}

/// With `loaded` models in memory already: the processor's threads divided, at least one.
fn share_of_threads(loaded: usize) -> u32 {
    let cores = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(16);
    u32::try_from((cores / (loaded + 1)).max(1)).unwrap_or(1)
}

fn default_budget_bytes(machine: Option<u64>) -> u64 {
    // Where the size of the machine is unknown, the check at each load against what is free has to do.
    machine.map_or(u64::MAX / 2, |bytes| bytes / 4 * 3)
}

/// The machine's memory, or what the control group of this process may use of it, in bytes.
fn machine_memory_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?
                .to_owned();
            line.split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
                .map(|kib| kib * 1024)
        });
    let group = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|own| {
            let path = own
                .lines()
                .find_map(|line| line.strip_prefix("0::"))?
                .trim_start_matches('/')
                .to_owned();
            let limit =
                std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(path).join("memory.max"))
                    .ok()?;
            limit.trim().parse::<u64>().ok()
        });
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_budget_is_three_quarters_of_the_machine() {
        assert_eq!(default_budget_bytes(Some(16 << 30)), 12 << 30);
        assert!(machine_memory_bytes().is_none_or(|bytes| bytes > 64 << 20));
    }

    #[test]
    fn threads_are_shared_and_never_none() {
        assert!(share_of_threads(0) >= share_of_threads(1));
        assert_eq!(share_of_threads(10_000), 1);
    }
}
