//! A model ready to use: its options, its vocabulary, and the door to the thread that computes with it.
//!
//! Nothing here computes: [`LoadedModel::submit`] puts a job into the engine's inbox and returns, so async code may
//! call it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{EngineError, LoadError, SubmitError};
use crate::events::{self, EventSender, JobEvents, Wake};
use crate::job::{Job, Token};
use crate::scheduler::{self, Engine};
use crate::selftest::CpuMode;
use crate::sys;
use crate::{estimate, gguf};

/// Whether attention is computed by the fused kernel. It skips the cells of other sequences, which the plain one does
/// not; on processors with AMX the plain one is faster for single tokens while the KV cache is nearly empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlashAttention {
    /// What is faster once the KV cache has filled: fused.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How sequences divide the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvLayout {
    /// One pool: any sequence may grow to the whole context, and equal prefixes are stored once.
    #[default]
    Pool,
    /// Equal parts: each sequence has `n_ctx / n_seq_max` cells of its own. Faster for many unlike contexts, slower to
    /// share a prefix, and no sequence can be longer than its part.
    Parts,
}

/// How a model is loaded. [`Default`] suits a small machine.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Cells of the KV cache in all, in tokens; 0 takes the model's own context, at most 8,192. Default 8,192.
    pub n_ctx: u32,
    /// Jobs that decode at the same time, 1 to 64. Default 16.
    pub n_seq_max: u32,
    /// Most tokens computed in one step, 32 to 4,096. Default 512: larger is not faster on a CPU, and a job that
    /// arrives has to wait for the step to end.
    pub n_batch: u32,
    /// Threads that compute; `None` takes the processor's, at most 16. Default `None`.
    pub threads: Option<u32>,
    /// Jobs that may wait beyond those that run; more are refused. Default 64.
    pub queue_max: usize,
    /// How long a job may wait before it fails. Default 30 s.
    pub queue_deadline: Duration,
    /// How long a running stream should wait for its next token while prompts are computed beside it. Default 250 ms.
    pub token_gap_target: Duration,
    /// Which instructions may be used; see [`run_self_test_child`](crate::run_self_test_child). Default normal.
    pub cpu_mode: CpuMode,
    /// Default auto.
    pub flash_attention: FlashAttention,
    /// Default pool.
    pub kv_layout: KvLayout,
    /// Bound on the estimate of memory, in bytes; `None` takes what the system has free. Default `None`.
    pub memory_max_bytes: Option<u64>,
    /// Layers on a GPU where a GPU backend is compiled in; negative for all. Default -1.
    pub gpu_layers: i32,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            n_ctx: 8192,
            n_seq_max: 16,
            n_batch: 512,
            threads: None,
            queue_max: 64,
            queue_deadline: Duration::from_secs(30),
            token_gap_target: Duration::from_millis(250),
            cpu_mode: CpuMode::Normal,
            flash_attention: FlashAttention::Auto,
            kv_layout: KvLayout::Pool,
            memory_max_bytes: None,
            gpu_layers: -1,
        }
    }
}

impl LoadOptions {
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let range = |option: &'static str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(LoadError::Option {
                    option,
                    reason: format!("{value} is not within {low} to {high}"),
                })
            }
        };
        range("n_seq_max", self.n_seq_max.into(), 1, 64)?;
        range("n_batch", self.n_batch.into(), 32, 4096)?;
        range("threads", self.threads.unwrap_or(1).into(), 1, 512)?;
        if self.n_ctx != 0 {
            range("n_ctx", self.n_ctx.into(), 64, 16 << 20)?;
        }
        Ok(())
    }

    pub(crate) fn threads(&self) -> u32 {
        self.threads.unwrap_or_else(|| {
            let n = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            u32::try_from(n).unwrap_or(1).min(16)
        })
    }
}

/// Facts about a loaded model.
#[derive(Debug, Clone)]
pub struct ModelMeta {
    /// Context the model was trained for, in tokens.
    pub n_ctx_train: u32,
    /// Longest sequence that can be served, prompt and answer together, in tokens.
    pub n_ctx: u32,
    /// Tokens of the vocabulary.
    pub n_vocab: usize,
    /// The model's own chat template (Jinja).
    pub chat_template: Option<Arc<str>>,
    /// Text of the token that begins a text; empty if there is none.
    pub bos_text: String,
    /// Text of the token that ends a text; empty if there is none.
    pub eos_text: String,
    /// `general.architecture` of the file, for example `llama`.
    pub architecture: String,
    /// `general.name` of the file; empty if it has none.
    pub name: String,
    /// Number of weights.
    pub parameters: u64,
    /// Size of the weights in bytes.
    pub bytes: u64,
    /// Whether the fused attention kernel is used.
    pub flash_attention: bool,
}

/// A moment's view of a model's engine. Counters start at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Jobs that hold a place.
    pub running: u32,
    /// Jobs that wait.
    pub queued: u32,
    /// Cells of the KV cache in use, idle prefixes included.
    pub kv_cells_used: u32,
    /// Cells of the KV cache in all.
    pub kv_cells: u32,
    /// Sampled tokens.
    pub tokens_decoded: u64,
    /// Prompt tokens that were computed.
    pub prompt_tokens_computed: u64,
    /// Prompt tokens that were found computed.
    pub prompt_tokens_shared: u64,
    /// Jobs that found a part of their prompt computed.
    pub prefix_hits: u64,
    /// Steps of the engine.
    pub steps: u64,
    /// Jobs that lost their cells for a while because the KV cache was full.
    pub preempted: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub running: AtomicU64,
    pub kv_cells_used: AtomicU64,
    pub tokens_decoded: AtomicU64,
    pub prompt_tokens_computed: AtomicU64,
    pub prompt_tokens_shared: AtomicU64,
    pub prefix_hits: AtomicU64,
    pub steps: AtomicU64,
    pub preempted: AtomicU64,
    /// Mean time that a job holds its place, in milliseconds; 0 while unknown.
    pub job_ms_mean: AtomicU64,
}

/// A job on its way to the engine.
pub(crate) struct Submitted {
    pub job: Job,
    pub events: EventSender,
    pub at: Instant,
}

#[derive(Default)]
pub(crate) struct Inbox {
    pub jobs: Vec<Submitted>,
    /// Jobs that hold no place yet: those in `jobs` and those that the engine has taken into its queue.
    pub waiting: usize,
    pub stop: bool,
    pub stopped: bool,
    /// Something changed outside: a reader came back or left.
    pub nudged: bool,
}

/// What the handles and the engine's thread share.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    pub counters: Counters,
    /// Ends a running computation; set only to stop the engine or when no job of the step has a reader any more.
    pub abort: Arc<AtomicBool>,
    /// The cancellation flags of the jobs in the step that is being computed.
    pub step: Mutex<Vec<Arc<AtomicBool>>>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inbox> {
        // No code panics while it holds this lock, so a poisoned state is still a whole state.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until something changed outside, at most for `timeout`.
    pub(crate) fn sleep(&self, timeout: Option<Duration>) {
        let mut inbox = self.lock();
        let started = Instant::now();
        while inbox.jobs.is_empty() && !inbox.stop && !inbox.nudged {
            match timeout {
                None => {
                    inbox = self
                        .changed
                        .wait(inbox)
                        .unwrap_or_else(PoisonError::into_inner)
                }
                Some(timeout) => {
                    let Some(left) = timeout
                        .checked_sub(started.elapsed())
                        .filter(|d| !d.is_zero())
                    else {
                        break;
                    };
                    inbox = self
                        .changed
                        .wait_timeout(inbox, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            }
        }
        inbox.nudged = false;
    }
}

impl Shared {
    /// Notes whose work the next computation is, so that it can be cut short when all of them have left.
    pub(crate) fn begin_step(&self, flags: Vec<Arc<AtomicBool>>) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = flags;
    }

    /// The computation is over.
    pub(crate) fn end_step(&self) {
        self.step
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let stop = self.lock().stop;
        self.abort.store(stop, Ordering::Relaxed);
    }
}

impl Wake for Shared {
    fn reader_left(&self) {
        {
            let step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
            if !step.is_empty() && step.iter().all(|gone| gone.load(Ordering::Acquire)) {
                self.abort.store(true, Ordering::Relaxed);
            }
        }
        self.wake();
    }

    fn wake(&self) {
        self.lock().nudged = true;
        self.changed.notify_one();
    }
}

struct Inner {
    shared: Arc<Shared>,
    model: Arc<sys::Model>,
    vocabulary: Arc<Vocabulary>,
    meta: ModelMeta,
    kv_cells: u32,
    places: usize,
    queue_max: usize,
    /// False for an encoder, which has no engine.
    generates: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.abort.store(true, Ordering::Relaxed);
        self.shared.changed.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the engine's thread had panicked");
        }
    }
}

/// The bytes and kinds of all tokens, read once.
pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    control: Vec<bool>,
    end_of_generation: Vec<bool>,
}

impl Vocabulary {
    fn read(model: &sys::Model) -> Self {
        let n = model.n_vocab();
        let mut bytes = Vec::with_capacity(n * 8);
        let mut ends = Vec::with_capacity(n);
        let (mut control, mut end_of_generation) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for token in (0..).take(n) {
            model.piece(token, &mut bytes);
            ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            control.push(model.is_control(token));
            end_of_generation.push(model.is_end_of_generation(token));
        }
        Self {
            bytes,
            ends,
            control,
            end_of_generation,
        }
    }

    pub(crate) fn bytes(&self, token: Token) -> &[u8] {
        let Ok(t) = usize::try_from(token) else {
            return &[];
        };
        let Some(end) = self.ends.get(t) else {
            return &[];
        };
        let start = t.checked_sub(1).map_or(0, |t| self.ends[t]);
        self.bytes
            .get(start as usize..*end as usize)
            .unwrap_or_default()
    }

    /// Every token with its bytes.
    pub(crate) fn words(&self) -> impl Iterator<Item = (Token, &[u8])> {
        (0..)
            .take(self.ends.len())
            .map(|token: Token| (token, self.bytes(token)))
    }

    pub(crate) fn is_control(&self, token: Token) -> bool {
        usize::try_from(token)
            .ok()
            .and_then(|t| self.control.get(t))
            .copied()
            .unwrap_or(false)
    }

    pub(crate) fn is_end_of_generation(&self, token: Token) -> bool {
        usize::try_from(token)
            .ok()
            .and_then(|t| self.end_of_generation.get(t))
            .copied()
            .unwrap_or(false)
    }
}

/// A model in memory with its engine. Cheap to clone; when the last clone is dropped, the engine stops, running jobs
/// fail with [`EngineError::Stopped`] and the memory is freed before the drop returns (it may take one decode step).
#[derive(Clone)]
pub struct LoadedModel {
    inner: Arc<Inner>,
}

impl LoadedModel {
    /// Loads a model and starts its engine. Takes from a tenth of a second to minutes, and blocks the thread.
    ///
    /// # Errors
    /// See [`LoadError`]; nothing stays allocated.
    pub fn load(path: &Path, opts: &LoadOptions) -> Result<Self, LoadError> {
        opts.check()?;
        let file = gguf::read(path)?;
        let n_ctx = estimate::n_ctx(&file, opts);
        let needed_bytes = estimate::bytes(&file, opts);
        let available_bytes = opts
            .memory_max_bytes
            .unwrap_or_else(estimate::available_bytes);
        if needed_bytes > available_bytes {
            return Err(LoadError::DoesNotFit {
                needed_bytes,
                available_bytes,
            });
        }
        sys::init(opts.cpu_mode);
        let params = sys::ModelParams {
            gpu_layers: opts.gpu_layers,
            repack: opts.cpu_mode == CpuMode::Normal,
        };
        let model =
            sys::Model::load(path, &params).map_err(|reason| LoadError::Refused { reason })?;
        if !model.is_decoder() {
            let reason = "it is not a text generation model".to_owned();
            return Err(LoadError::Unsupported {
                path: path.to_owned(),
                reason,
            });
        }
        let model = Arc::new(model);
        let vocabulary = Arc::new(Vocabulary::read(&model));
        let abort = Arc::new(AtomicBool::new(false));
        let started = match scheduler::start_context(&model, opts, n_ctx, &abort) {
            Ok(started) => Some(started),
            // An encoder: it makes vectors, on a context of its own.
            Err(reason) if reason == sys::NO_STATE => None,
            Err(reason) => return Err(LoadError::Refused { reason }),
        };
        let n_ctx_sequence = started
            .as_ref()
            .map_or(n_ctx, |started| started.context.n_ctx_sequence());
        let limit = match model.n_ctx_train() {
            0 => n_ctx_sequence,
            trained => trained.min(n_ctx_sequence),
        };
        let text_of = |token: Option<Token>| {
            token
                .map(|t| String::from_utf8_lossy(vocabulary.bytes(t)).into_owned())
                .unwrap_or_default()
        };
        let meta = ModelMeta {
            n_ctx_train: model.n_ctx_train(),
            n_ctx: limit,
            n_vocab: model.n_vocab(),
            chat_template: model.chat_template().map(Arc::from),
            bos_text: text_of(model.bos()),
            eos_text: text_of(model.eos()),
            architecture: model.metadata("general.architecture").unwrap_or_default(),
            name: model.metadata("general.name").unwrap_or_default(),
            parameters: model.parameters(),
            bytes: model.bytes(),
            flash_attention: started
                .as_ref()
                .is_some_and(|started| started.flash_attention),
        };
        let kv_cells = started
            .as_ref()
            .map_or(0, |started| started.context.n_ctx());
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            changed: Condvar::new(),
            counters: Counters::default(),
            abort,
            step: Mutex::default(),
        });
        let thread = match started {
            None => None,
            Some(started) => {
                let engine = Engine::new(
                    started,
                    Arc::clone(&model),
                    Arc::clone(&vocabulary),
                    Arc::clone(&shared),
                    opts,
                    limit,
                );
                let thread = std::thread::Builder::new()
                    .name("honshu-engine".to_owned())
                    .spawn(move || engine.run())
                    .map_err(|source| LoadError::Refused {
                        reason: format!("cannot start a thread: {source}"),
                    })?;
                Some(thread)
            }
        };
        let inner = Inner {
            shared,
            model,
            vocabulary,
            meta,
            kv_cells,
            places: opts.n_seq_max as usize,
            queue_max: opts.queue_max,
            generates: thread.is_some(),
            thread: Mutex::new(thread),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Estimates the memory that [`Self::load`] would need, in bytes: weights, KV cache and work buffers. Reads only
    /// the head of the file.
    ///
    /// # Errors
    /// As [`Self::load`], for an unreadable or corrupt file.
    pub fn estimate_bytes(path: &Path, opts: &LoadOptions) -> Result<u64, LoadError> {
        opts.check()?;
        Ok(estimate::bytes(&gguf::read(path)?, opts))
    }

    /// Whether the file says that it is made for vectors: it names how those of tokens become one. Reads only the head
    /// of the file; one that cannot be read says nothing.
    #[must_use]
    pub fn is_for_embeddings(path: &Path) -> bool {
        gguf::read(path)
            .ok()
            .and_then(|file| file.number("pooling_type"))
            .is_some_and(|number| sys::Pooling::of(number).is_some())
    }

    /// Facts about the model.
    #[must_use]
    pub fn meta(&self) -> &ModelMeta {
        &self.inner.meta
    }

    /// The tokens of a text. `add_special` adds what the model wants around a text (a beginning token); leave it off
    /// for a rendered chat template that has it already. `parse_special` reads the names of special tokens as those
    /// tokens; leave it off for text that a user wrote. Runs on the caller's thread, about 1 µs for each byte.
    ///
    /// # Errors
    /// [`EngineError::Tokenize`].
    pub fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, EngineError> {
        self.inner
            .model
            .tokenize(text, add_special, parse_special)
            .map_err(EngineError::Tokenize)
    }

    /// The tokenizer alone: unlike a clone of `self`, whoever holds it may be dropped on the engine's own thread.
    pub(crate) fn tokenizer(&self) -> Arc<sys::Model> {
        Arc::clone(&self.inner.model)
    }

    /// The bytes and kinds of all tokens.
    pub(crate) fn vocabulary(&self) -> Arc<Vocabulary> {
        Arc::clone(&self.inner.vocabulary)
    }

    /// The bytes of a token, of a special token its name; may be part of a character. Empty outside the vocabulary.
    #[must_use]
    pub fn token_bytes(&self, token: Token) -> &[u8] {
        self.inner.vocabulary.bytes(token)
    }

    /// Whether the token steers the model and is never shown.
    #[must_use]
    pub fn is_control(&self, token: Token) -> bool {
        self.inner.vocabulary.is_control(token)
    }

    /// Whether the token ends an answer.
    #[must_use]
    pub fn is_end_of_generation(&self, token: Token) -> bool {
        self.inner.vocabulary.is_end_of_generation(token)
    }

    /// The token that ends a text; 0 if the model has none.
    #[must_use]
    pub fn eos(&self) -> Token {
        self.inner.model.eos().unwrap_or(0)
    }

    /// Accepts a job. Never blocks and may be called from async code; the events tell the rest.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was computed.
    pub fn submit(&self, job: Job) -> Result<JobEvents, SubmitError> {
        let inner = &*self.inner;
        if !inner.generates {
            let what = "this model makes vectors of texts and generates none";
            return Err(SubmitError::Invalid(what.to_owned()));
        }
        job.check(inner.meta.n_vocab)?;
        let prompt_tokens = u32::try_from(job.prompt.len()).unwrap_or(u32::MAX);
        if prompt_tokens >= inner.meta.n_ctx {
            let max_output = job.max_tokens.unwrap_or(0);
            return Err(SubmitError::ContextLength {
                prompt_tokens,
                max_output,
                limit: inner.meta.n_ctx,
            });
        }
        let shared = Arc::clone(&inner.shared);
        let (sender, events) = events::channel(shared);
        let mut inbox = inner.shared.lock();
        if inbox.stop || inbox.stopped {
            return Err(SubmitError::Stopped);
        }
        let running =
            usize::try_from(inner.shared.counters.running.load(Ordering::Relaxed)).unwrap_or(0);
        if inbox.waiting + running >= inner.places + inner.queue_max {
            return Err(SubmitError::QueueFull {
                retry_after: inner.retry_after(inbox.waiting),
            });
        }
        inbox.waiting += 1;
        inbox.jobs.push(Submitted {
            job,
            events: sender,
            at: Instant::now(),
        });
        drop(inbox);
        inner.shared.changed.notify_one();
        Ok(events)
    }

    /// A moment's view of the engine.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let counters = &self.inner.shared.counters;
        let narrow =
            |value: &AtomicU64| u32::try_from(value.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        EngineStats {
            running: narrow(&counters.running),
            queued: u32::try_from(self.inner.shared.lock().waiting).unwrap_or(u32::MAX),
            kv_cells_used: narrow(&counters.kv_cells_used),
            kv_cells: self.inner.kv_cells,
            tokens_decoded: counters.tokens_decoded.load(Ordering::Relaxed),
            prompt_tokens_computed: counters.prompt_tokens_computed.load(Ordering::Relaxed),
            prompt_tokens_shared: counters.prompt_tokens_shared.load(Ordering::Relaxed),
            prefix_hits: counters.prefix_hits.load(Ordering::Relaxed),
            steps: counters.steps.load(Ordering::Relaxed),
            preempted: counters.preempted.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    fn retry_after(&self, waiting: usize) -> Duration {
        retry_after(&self.shared.counters, waiting, self.places)
    }
}

/// When a place should be free for one more job, between 1 and 60 s.
pub(crate) fn retry_after(counters: &Counters, waiting: usize, places: usize) -> Duration {
    let mean = counters.job_ms_mean.load(Ordering::Relaxed);
    let rounds = (waiting / places.max(1) + 1) as u64;
    Duration::from_millis((mean * rounds).clamp(1_000, 60_000))
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel")
            .field("meta", &self.inner.meta)
            .finish_non_exhaustive()
    }
}
