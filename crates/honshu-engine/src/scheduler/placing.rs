//! Who gets a place, and with which computed beginning.
//!
//! Prefixes are found by comparing with every sequence in the cache: there are at most a few dozen, so this costs less
//! than keeping a tree would.

use std::sync::atomic::Ordering;

use super::active::Active;
use super::queue::Verdict;
use super::{Engine, OUTPUT_RESERVED, PREFIX_AWAITED_MIN, PREFIX_MIN, Slot, seq};
use crate::job::Token;
use crate::model::Submitted;

impl Engine {
    /// Gives free places to those whose turn it is.
    pub(super) fn admit(&mut self) {
        while self.admit_one() || self.set_aside() {}
    }

    /// Gives a place to whose turn it is; false if there is nobody, or no room.
    fn admit_one(&mut self) -> bool {
        let running = self.running().count();
        if running >= self.places {
            return false;
        }
        if let Some(at) = self.returning() {
            let active = &self.preempted[at];
            if running > 0 && !self.fits(active.length() + active.reserve()) {
                return false;
            }
            let active = self.preempted.remove(at);
            self.place(active);
            return true;
        }
        let mut queue = std::mem::take(&mut self.queue);
        let taken = queue.pop(|job| {
            if job.events.is_cancelled() {
                return Verdict::Later;
            }
            let (_, found) = self.best_prefix(&job.job.prompt, job.job.salt);
            if self.promised_prefix(job) >= found + PREFIX_AWAITED_MIN {
                return Verdict::Later;
            }
            let prompt = u32::try_from(job.job.prompt.len()).unwrap_or(u32::MAX);
            let output = job
                .job
                .max_tokens
                .unwrap_or(OUTPUT_RESERVED)
                .min(OUTPUT_RESERVED);
            // A found prefix of a running job is shared; one of an idle job counts as new, for it may be evicted.
            let shared = self.best_running_prefix(&job.job.prompt, job.job.salt);
            if running > 0 && !self.fits(prompt - shared.min(prompt) + output) {
                Verdict::Stop
            } else {
                Verdict::Take
            }
        });
        self.queue = queue;
        let Some(taken) = taken else { return false };
        self.left_queue(1);
        self.clock += 1;
        let active = Box::new(Active::new(taken, self.clock, self.limit));
        self.place(active);
        true
    }

    /// The first of those without cells whose reader is there.
    fn returning(&self) -> Option<usize> {
        self.preempted
            .iter()
            .position(|active| !active.events.must_pause())
    }

    /// If somebody waits, takes the place of a job whose reader lags: readers that stopped reading must not hold
    /// every place and all cells. It comes back when the reader has caught up, and finds its tokens computed unless
    /// their cells were needed.
    fn set_aside(&mut self) -> bool {
        if self.queue.is_empty() && self.returning().is_none() {
            return false;
        }
        let lags = |(_, active): &(usize, &Active)| active.events.must_pause();
        let Some((index, _)) = self.running().find(lags) else {
            return false;
        };
        self.park(index);
        true
    }

    /// Whether a new job finds so many cells beside those that run, when all idle prefixes are evicted.
    fn fits(&self, needed: u32) -> bool {
        if !self.pool {
            return true;
        }
        let held = self.cells.used_by(self.running().map(|(index, _)| index));
        let promised: u32 = self
            .running()
            .map(|(index, active)| {
                active.length() - self.context.length(seq(index)).min(active.length())
                    + active.reserve()
            })
            .sum();
        held.saturating_add(promised).saturating_add(needed) <= self.context.n_ctx()
    }

    fn computed(&self, index: usize) -> Option<(&[Token], u64)> {
        match &self.slots[index] {
            Slot::Empty => None,
            Slot::Idle { tokens, salt, .. } => Some((tokens, *salt)),
            Slot::Running(active) => {
                let length = (self.context.length(seq(index)) as usize).min(active.tokens.len());
                Some((&active.tokens[..length], active.salt))
            }
        }
    }

    /// The slot with the longest computed beginning of a prompt. The prompt's last token is always computed again,
    /// because its logits are needed.
    fn best_prefix(&self, prompt: &[Token], salt: u64) -> (usize, u32) {
        let mut best = (0, 0);
        if !self.shares_prefixes {
            return best;
        }
        for index in 0..self.slots.len() {
            let Some((tokens, of)) = self.computed(index) else {
                continue;
            };
            let length = common(tokens, prompt)
                .min(u32::try_from(prompt.len()).unwrap_or(0).saturating_sub(1));
            if of == salt && length >= PREFIX_MIN && length > best.1 {
                best = (index, length);
            }
        }
        best
    }

    fn best_running_prefix(&self, prompt: &[Token], salt: u64) -> u32 {
        let of = |(index, active): (usize, &Active)| {
            let length = (self.context.length(seq(index)) as usize).min(active.tokens.len());
            if active.salt == salt {
                common(&active.tokens[..length], prompt)
            } else {
                0
            }
        };
        if self.shares_prefixes {
            self.running().map(of).max().unwrap_or(0)
        } else {
            0
        }
    }

    /// How much of a job's prompt running jobs are about to compute.
    fn promised_prefix(&self, job: &Submitted) -> u32 {
        if !self.shares_prefixes {
            return 0;
        }
        self.running()
            .filter(|(index, active)| {
                active.salt == job.job.salt
                    && self.context.length(seq(*index)) + 1 < active.length()
            })
            .map(|(_, active)| common(&active.tokens, &job.job.prompt))
            .max()
            .unwrap_or(0)
            .min(
                u32::try_from(job.job.prompt.len())
                    .unwrap_or(0)
                    .saturating_sub(1),
            )
    }

    /// Gives a job a slot that begins with as much of its prompt as is computed.
    pub(super) fn place(&mut self, mut active: Box<Active>) {
        let (source, length) = self.best_prefix(&active.tokens, active.salt);
        let idle_whole = matches!(&self.slots[source], Slot::Idle { tokens, .. } if tokens.len() == length as usize);
        let index = if length > 0 && idle_whole {
            // The prompt goes on where an idle sequence ended.
            source
        } else {
            let keep = (length > 0).then_some(source);
            let free = self.free_slot(keep);
            let index = free.unwrap_or(source);
            if free.is_some() && length > 0 && self.context.share(seq(source), seq(index), length) {
                self.cells.share(source, index, length);
            }
            index
        };
        if let Slot::Idle { used, .. } = &mut self.slots[source] {
            self.clock += 1;
            *used = self.clock;
        }
        if self.context.length(seq(index)) > length {
            self.context.truncate(seq(index), length);
        }
        let length = self.context.length(seq(index));
        self.cells.set_length(index, length);
        let counters = &self.shared.counters;
        if length > 0 && !active.announced {
            counters.prefix_hits.fetch_add(1, Ordering::Relaxed);
            counters
                .prompt_tokens_shared
                .fetch_add(length.into(), Ordering::Relaxed);
        }
        active.announce(length);
        self.slots[index] = Slot::Running(active);
    }

    /// An empty slot; if there is none, the least recently used idle one, emptied, but not `keep`. `None` only if
    /// `keep` is the last that is not running.
    pub(super) fn free_slot(&mut self, keep: Option<usize>) -> Option<usize> {
        if let Some(index) = self
            .slots
            .iter()
            .position(|slot| matches!(slot, Slot::Empty))
        {
            return Some(index);
        }
        let index = self.oldest_idle(keep)?;
        self.empty(index);
        Some(index)
    }

    pub(super) fn oldest_idle(&self, keep: Option<usize>) -> Option<usize> {
        let idle = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| match slot {
                Slot::Idle { used, .. } if Some(index) != keep => Some((*used, index)),
                _ => None,
            });
        idle.min().map(|(_, index)| index)
    }
}

/// Length of the common beginning.
fn common(a: &[Token], b: &[Token]) -> u32 {
    // Blocks first: comparing them is one call of memcmp.
    const BLOCK: usize = 64;
    let blocks = a
        .chunks_exact(BLOCK)
        .zip(b.chunks_exact(BLOCK))
        .take_while(|(x, y)| x == y)
        .count()
        * BLOCK;
    let rest = a[blocks..]
        .iter()
        .zip(&b[blocks..])
        .take_while(|(x, y)| x == y)
        .count();
    u32::try_from(blocks + rest).unwrap_or(u32::MAX)
}
