//! The engine's thread: who runs, what a step computes, what stays in the KV cache.
//!
//! Each turn of the loop takes new jobs, admits those that fit, computes one batch (a token for every running answer,
//! then chunks of prompts) and samples. It sleeps when there is nothing to compute.

mod active;
mod budget;
mod cells;
mod machine;
mod placing;
mod queue;
mod threads;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use active::{Active, End};
use budget::Budget;
use cells::Cells;
use machine::Machine;
use queue::Queue;
use threads::{Kind, Threads};

use crate::error::EngineError;
use crate::job::{FinishReason, JobEvent, Token, TokenMask};
use crate::model::{FlashAttention, KvLayout, LoadOptions, Shared, Vocabulary, retry_after};
use crate::sampler::Scratch;
use crate::sys::{self, DecodeError};

/// Cells that are kept free for the answer of a job that is admitted, in tokens.
const OUTPUT_RESERVED: u32 = 64;
/// Shorter prefixes are computed again, in tokens.
const PREFIX_MIN: u32 = 16;
/// A job waits for another's prompt if that saves at least so many tokens.
const PREFIX_AWAITED_MIN: u32 = 32;
/// Below this many rows of a prompt fused attention has too little to share, so chunks should not be smaller.
const FLASH_ROWS_MIN: u32 = 64;
/// The smallest chunk of a prompt, however slow the machine is, so that prompts come to an end.
const CHUNK_MIN: u32 = 16;

/// A context that is ready for the engine.
pub(crate) struct Started {
    pub context: sys::Context,
    pub flash_attention: bool,
}

/// Makes the context.
///
/// The automatic choice is fused attention. The plain kernel multiplies every row with every used cell of the pool and
/// throws away what belongs to other sequences, so it becomes slower with every idle prefix that is kept; the fused one
/// (`native/attention.cpp` on x86-64) skips them.
pub(crate) fn start_context(
    model: &Arc<sys::Model>,
    opts: &LoadOptions,
    n_ctx: u32,
    abort: &Arc<AtomicBool>,
) -> Result<Started, String> {
    let flash_attention = opts.flash_attention != FlashAttention::Off;
    let params = sys::ContextParams {
        n_ctx,
        n_seq_max: sequences(opts),
        n_batch: opts.n_batch.min(n_ctx),
        threads: opts.threads(),
        flash_attention,
        unified: opts.kv_layout == KvLayout::Pool,
    };
    let context = sys::Context::new(Arc::clone(model), params, Arc::clone(abort))?;
    Ok(Started {
        context,
        flash_attention,
    })
}

/// Sequences of the context. In a pool they cost little, so idle prefixes get some of their own.
fn sequences(opts: &LoadOptions) -> u32 {
    if opts.kv_layout == KvLayout::Pool {
        opts.n_seq_max * 2
    } else {
        opts.n_seq_max
    }
}

enum Slot {
    Empty,
    /// Computed tokens that a later job may begin with.
    Idle {
        tokens: Vec<Token>,
        salt: u64,
        used: u64,
    },
    Running(Box<Active>),
}

/// A job's share of a batch.
struct Share {
    slot: usize,
    tokens: u32,
    /// Row with logits, if the batch holds all tokens of the job.
    output: Option<usize>,
}

/// Everything the engine's thread owns.
pub(crate) struct Engine {
    context: sys::Context,
    vocabulary: Arc<Vocabulary>,
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    cells: Cells,
    queue: Queue,
    /// Answers that lost their place; they come back before anybody new.
    #[expect(
        clippy::vec_box,
        reason = "a running answer moves between slots and this list without being copied"
    )]
    preempted: Vec<Box<Active>>,
    budget: Budget,
    decode_threads: Threads,
    prompt_threads: Threads,
    machine: Machine,
    batch: sys::Batch,
    scratch: Scratch,
    mask: TokenMask,
    places: usize,
    limit: u32,
    queue_deadline: Duration,
    /// Whether a sequence can be cut and shared at any position.
    shares_prefixes: bool,
    pool: bool,
    clock: u64,
}

impl Engine {
    pub(crate) fn new(
        started: Started,
        model: Arc<sys::Model>,
        vocabulary: Arc<Vocabulary>,
        shared: Arc<Shared>,
        opts: &LoadOptions,
        limit: u32,
    ) -> Self {
        let context = started.context;
        let pool = opts.kv_layout == KvLayout::Pool;
        let sequences = context.sequences();
        let least = if started.flash_attention {
            FLASH_ROWS_MIN
        } else {
            CHUNK_MIN
        };
        Self {
            slots: (0..sequences).map(|_| Slot::Empty).collect(),
            cells: Cells::new(sequences as usize),
            queue: Queue::default(),
            preempted: Vec::new(),
            budget: Budget::new(opts.token_gap_target, least, context.n_batch()),
            decode_threads: Threads::new(Kind::Decode, opts.threads(), Instant::now()),
            prompt_threads: Threads::new(Kind::Prompt, opts.threads(), Instant::now()),
            machine: Machine::default(),
            batch: sys::Batch::default(),
            scratch: Scratch::default(),
            mask: TokenMask::new(model.n_vocab()),
            places: opts.n_seq_max as usize,
            limit,
            queue_deadline: opts.queue_deadline,
            shares_prefixes: model.has_position_memory(),
            pool,
            clock: 0,
            context,
            vocabulary,
            shared,
        }
    }

    /// Runs until the last handle is dropped.
    pub(crate) fn run(mut self) {
        // A panic here would be a defect; readers must learn of the end all the same.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.serve()));
        {
            let mut inbox = self.shared.lock();
            inbox.stopped = true;
            let late = std::mem::take(&mut inbox.jobs);
            inbox.waiting = 0;
            drop(inbox);
            late.into_iter().for_each(|job| self.queue.push(job));
        }
        for job in self.queue.drain() {
            job.events.send(JobEvent::Failed(EngineError::Stopped));
        }
        for slot in &mut self.slots {
            if let Slot::Running(active) = std::mem::replace(slot, Slot::Empty) {
                active.end(End::Failed(EngineError::Stopped));
            }
        }
        for active in self.preempted.drain(..) {
            active.end(End::Failed(EngineError::Stopped));
        }
        self.shared.counters.running.store(0, Ordering::Relaxed);
    }

    fn serve(&mut self) {
        loop {
            let (jobs, stop) = {
                let mut inbox = self.shared.lock();
                inbox.nudged = false;
                (std::mem::take(&mut inbox.jobs), inbox.stop)
            };
            if stop {
                jobs.into_iter().for_each(|job| self.queue.push(job));
                return;
            }
            jobs.into_iter().for_each(|job| self.queue.push(job));
            self.sweep();
            self.admit();
            self.publish();
            let shares = self.compose();
            if shares.is_empty() {
                let now = Instant::now();
                let timeout = self
                    .queue
                    .next_deadline(self.queue_deadline)
                    .map(|at| at.duration_since(now));
                self.shared
                    .sleep(timeout.map(|t| t.max(Duration::from_millis(1))));
            } else {
                self.compute(shares);
            }
        }
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Active)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| match slot {
                Slot::Running(active) => Some((index, &**active)),
                _ => None,
            })
    }

    fn publish(&self) {
        let counters = &self.shared.counters;
        let running = self.running().count() + self.preempted.len();
        counters.running.store(running as u64, Ordering::Relaxed);
        counters
            .kv_cells_used
            .store(self.cells.used().into(), Ordering::Relaxed);
    }

    fn left_queue(&self, jobs: usize) {
        let mut inbox = self.shared.lock();
        inbox.waiting = inbox.waiting.saturating_sub(jobs);
    }

    /// Lets go of jobs without a reader and of jobs that waited too long.
    fn sweep(&mut self) {
        for index in 0..self.slots.len() {
            if matches!(&self.slots[index], Slot::Running(active) if active.events.is_cancelled()) {
                self.release(index);
            }
        }
        self.preempted
            .retain(|active| !active.events.is_cancelled());
        let now = Instant::now();
        let gone = self.queue.sweep(now, self.queue_deadline);
        if gone.is_empty() {
            return;
        }
        self.left_queue(gone.len());
        for job in gone {
            let waited_ms =
                u64::try_from(now.duration_since(job.at).as_millis()).unwrap_or(u64::MAX);
            let retry_after = retry_after(&self.shared.counters, 1, self.places);
            job.events
                .send(JobEvent::Failed(EngineError::QueueDeadline {
                    waited_ms,
                    retry_after,
                }));
        }
    }

    /// Ends a running job's hold on its slot and keeps what it computed for others.
    fn release(&mut self, index: usize) -> Option<Box<Active>> {
        let Slot::Running(mut active) = std::mem::replace(&mut self.slots[index], Slot::Empty)
        else {
            return None;
        };
        let length = self.context.length(seq(index));
        self.cells.set_length(index, length);
        if self.shares_prefixes && length >= PREFIX_MIN {
            let mut tokens = std::mem::take(&mut active.tokens);
            tokens.truncate(length as usize);
            self.clock += 1;
            self.slots[index] = Slot::Idle {
                tokens,
                salt: active.salt,
                used: self.clock,
            };
        } else {
            self.empty(index);
        }
        Some(active)
    }

    fn empty(&mut self, index: usize) {
        self.context.truncate(seq(index), 0);
        self.cells.set_length(index, 0);
        self.slots[index] = Slot::Empty;
    }

    fn finish(&mut self, index: usize, end: End) {
        let keep = !matches!(end, End::Failed(EngineError::Decode { .. }));
        let Some(active) = self.release(index) else {
            return;
        };
        if !keep {
            self.empty(index);
        }
        let took = u64::try_from(active.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mean = &self.shared.counters.job_ms_mean;
        let old = mean.load(Ordering::Relaxed);
        mean.store(
            if old == 0 { took } else { (old * 7 + took) / 8 },
            Ordering::Relaxed,
        );
        // Whoever reads the last event must find the place free.
        self.publish();
        active.end(end);
    }

    /// Fills the batch: one token for each running answer, then prompts, the shortest rest first but the oldest
    /// always with at least half of the budget.
    fn compose(&mut self) -> Vec<Share> {
        loop {
            self.batch.clear();
            let mut shares = Vec::new();
            let mut prompts = Vec::new();
            for (index, active) in self.running() {
                let rest = active
                    .length()
                    .saturating_sub(self.context.length(seq(index)));
                if rest == 1 {
                    if !active.events.must_pause() {
                        shares.push(Share {
                            slot: index,
                            tokens: 1,
                            output: None,
                        });
                    }
                } else if rest > 1 {
                    prompts.push((rest, active.order, index));
                }
            }
            let most = self.context.n_batch()
                - u32::try_from(shares.len())
                    .unwrap_or(0)
                    .min(self.context.n_batch() - 1);
            let mut left = self.budget.tokens(!shares.is_empty()).min(most);
            let oldest = prompts.iter().map(|(_, order, _)| *order).min();
            let mut reserved = prompts
                .iter()
                .find(|(_, order, _)| Some(*order) == oldest)
                .map_or(0, |(rest, _, _)| (*rest).min(left.div_ceil(2)));
            prompts.sort_unstable();
            for (rest, order, index) in prompts {
                if Some(order) == oldest {
                    reserved = 0;
                }
                let tokens = rest.min(left.saturating_sub(reserved));
                if tokens > 0 {
                    shares.push(Share {
                        slot: index,
                        tokens,
                        output: None,
                    });
                    left -= tokens;
                }
            }
            let needed: u32 = shares.iter().map(|share| share.tokens).sum();
            if self.make_room(needed) {
                for share in &mut shares {
                    Self::fill(
                        &mut self.batch,
                        &self.slots[share.slot],
                        share,
                        self.context.length(seq(share.slot)),
                    );
                }
                return shares;
            }
            if shares.is_empty() {
                return shares;
            }
        }
    }

    fn fill(batch: &mut sys::Batch, slot: &Slot, share: &mut Share, from: u32) {
        let Slot::Running(active) = slot else { return };
        for position in from..from + share.tokens {
            let last = position + 1 == active.length();
            let row = batch.push(
                seq(share.slot),
                position,
                active.tokens[position as usize],
                last,
            );
            if last {
                share.output = Some(row);
            }
        }
    }

    /// Evicts idle prefixes until so many cells are free, and if that is not enough one running job, which comes back
    /// later; false then, as the batch must be composed anew.
    fn make_room(&mut self, needed: u32) -> bool {
        if !self.pool {
            return true;
        }
        while self.cells.used() + needed > self.context.n_ctx() {
            if let Some(index) = self.oldest_idle(None) {
                self.empty(index);
            } else {
                return !self.preempt();
            }
        }
        true
    }

    /// Takes the cells of a running job: one whose reader lags, else the youngest. A lone job is never preempted: it
    /// fits, as submit has checked.
    fn preempt(&mut self) -> bool {
        if self.running().count() < 2 {
            return false;
        }
        let last = self
            .running()
            .map(|(index, active)| (active.events.must_pause(), active.order, index))
            .max();
        let Some((_, _, index)) = last else {
            return false;
        };
        self.park(index);
        self.empty(index);
        self.shared
            .counters
            .preempted
            .fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Takes a running job's place; what it computed stays for as long as nobody needs the cells.
    fn park(&mut self, index: usize) {
        let Slot::Running(active) = &self.slots[index] else {
            return;
        };
        let tokens = active.tokens.clone();
        if let Some(mut active) = self.release(index) {
            active.tokens = tokens;
            self.preempted.push(active);
            self.preempted.sort_by_key(|active| active.order);
        }
    }

    fn compute(&mut self, shares: Vec<Share>) {
        let flags = shares
            .iter()
            .filter_map(|share| match &self.slots[share.slot] {
                Slot::Running(active) => Some(active.events.cancelled()),
                _ => None,
            });
        self.shared.begin_step(flags.collect());
        let has_prompt = shares.iter().any(|share| share.tokens > 1);
        let threads = if has_prompt {
            self.prompt_threads.count()
        } else {
            self.decode_threads.count()
        };
        self.context.set_threads(threads);
        let started = Instant::now();
        let result = self.context.decode(&mut self.batch);
        self.shared.end_step();
        for share in &shares {
            self.cells
                .set_length(share.slot, self.context.length(seq(share.slot)));
        }
        let counters = &self.shared.counters;
        counters.steps.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(()) => {}
            // Either the engine stops or nobody waits for these jobs; the next turn finds out.
            Err(DecodeError::Aborted) => return,
            Err(DecodeError::NoRoom) => {
                // The count of cells was wrong, or the cache cannot use its holes: make room and try again.
                if let Some(index) = self.oldest_idle(None) {
                    self.empty(index);
                } else if !self.preempt() {
                    self.fail(&shares, &EngineError::Decode { code: 1 });
                }
                return;
            }
            Err(DecodeError::Invalid(what)) => {
                tracing::error!(what, "a batch was refused");
                return self.fail(&shares, &EngineError::Invariant(what));
            }
            Err(DecodeError::Failed(code)) => {
                tracing::error!(code, "llama_decode failed");
                return self.fail(&shares, &EngineError::Decode { code });
            }
        }
        let now = Instant::now();
        if let Some(load) = self.machine.sample(now) {
            self.decode_threads.load(load, now);
            self.prompt_threads.load(load, now);
        }
        let is_decode = |share: &&Share| share.tokens == 1 && share.output.is_some();
        let decoded = u32::try_from(shares.iter().filter(is_decode).count()).unwrap_or(0);
        let prompt_tokens = shares.iter().map(|s| s.tokens).sum::<u32>() - decoded;
        let took = started.elapsed();
        tracing::trace!(
            prompt_tokens,
            decoded,
            threads,
            ms = took.as_secs_f64() * 1e3,
            "a step"
        );
        self.budget.learn(took, prompt_tokens, decoded);
        if prompt_tokens == 0 {
            self.decode_threads.learn(decoded, took, now);
        } else if prompt_tokens >= 32 {
            self.prompt_threads.learn(1, took * 64 / prompt_tokens, now);
        }
        counters
            .prompt_tokens_computed
            .fetch_add(prompt_tokens.into(), Ordering::Relaxed);
        let mut sampled = 0;
        for share in shares {
            let Some(row) = share.output else { continue };
            let Slot::Running(active) = &mut self.slots[share.slot] else {
                continue;
            };
            let end = match self.context.logits(row) {
                Some(logits) => {
                    active.step(logits, &self.vocabulary, &mut self.mask, &mut self.scratch)
                }
                None => Some(End::Failed(EngineError::Invariant("no logits for a row"))),
            };
            sampled += 1;
            let full = active.length() >= self.limit;
            if let Some(end) = end.or(full.then_some(End::Done(FinishReason::Length))) {
                self.finish(share.slot, end);
            }
        }
        self.shared
            .counters
            .tokens_decoded
            .fetch_add(sampled, Ordering::Relaxed);
    }

    fn fail(&mut self, shares: &[Share], error: &EngineError) {
        for share in shares {
            self.finish(share.slot, End::Failed(error.clone()));
            self.empty(share.slot);
        }
    }
}

/// A slot's index is its sequence id; there are at most 256.
fn seq(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
