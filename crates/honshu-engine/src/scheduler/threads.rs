//! How many threads compute.
//!
//! The threads of a step meet at hundreds of barriers, where they wait by spinning. On a machine that has other work,
//! each meeting waits for whoever lost its processor, and two threads can be ten times slower than one. So the engine
//! does not trust a fixed number: it tries half or double now and then, for a few steps, and keeps what is faster.

use std::time::{Duration, Instant};

/// Steps of a trial.
const TRIAL_STEPS: u32 = 3;
/// Pause between trials while they change nothing.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// A trial must be this much faster to be believed.
const BETTER: f64 = 0.85;

struct Trial {
    threads: u32,
    steps: u32,
    ms: f64,
}

/// Steers the number of threads by the duration of steps that only decode.
pub(crate) struct Threads {
    most: u32,
    current: u32,
    /// Rows of the steps behind the mean; steps of other sizes cannot be compared with it.
    rows: u32,
    mean_ms: f64,
    known: u32,
    trial: Option<Trial>,
    next_trial: Instant,
    pause: Duration,
    try_more: bool,
}

impl Threads {
    pub(crate) fn new(most: u32, now: Instant) -> Self {
        Self {
            most,
            current: most,
            rows: 0,
            mean_ms: 0.0,
            known: 0,
            trial: None,
            next_trial: now + PAUSE_MIN,
            pause: PAUSE_MIN,
            try_more: false,
        }
    }

    /// Threads for the next step.
    pub(crate) fn count(&self) -> u32 {
        self.trial
            .as_ref()
            .map_or(self.current, |trial| trial.threads)
    }

    /// Takes note of a step that only decoded.
    pub(crate) fn learn(&mut self, rows: u32, took: Duration, now: Instant) {
        let ms = took.as_secs_f64() * 1e3;
        if rows != self.rows {
            // A trial in this moment compares nothing.
            *self = Self {
                rows,
                mean_ms: ms,
                known: u32::from(self.trial.is_none()),
                trial: None,
                ..*self
            };
            return;
        }
        if let Some(trial) = &mut self.trial {
            trial.steps += 1;
            trial.ms += ms;
            let (threads, mean) = (trial.threads, trial.ms / f64::from(trial.steps));
            let worse = mean > self.mean_ms * 2.0;
            if trial.steps >= TRIAL_STEPS || worse {
                self.trial = None;
                if mean < self.mean_ms * BETTER {
                    tracing::debug!(
                        from = self.current,
                        to = threads,
                        "the engine changes its threads"
                    );
                    self.current = threads;
                    self.mean_ms = mean;
                    self.pause = PAUSE_MIN;
                } else {
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                    self.try_more = !self.try_more;
                }
                self.next_trial = now + self.pause;
            }
            return;
        }
        // Suddenly slow: somebody else wants the processors, and fewer threads may be better at once.
        let sudden = self.known >= 4 && ms > self.mean_ms * 3.0 && self.current > 1;
        self.known += 1;
        self.mean_ms = if self.known <= 1 {
            ms
        } else {
            self.mean_ms + (ms - self.mean_ms) * 0.25
        };
        if sudden {
            self.try_more = false;
        }
        if self.known >= 3 && (sudden || now >= self.next_trial) {
            let threads = if self.try_more && self.current < self.most || self.current == 1 {
                (self.current * 2).min(self.most)
            } else {
                self.current / 2
            };
            if threads != self.current && threads > 0 {
                self.trial = Some(Trial {
                    threads,
                    steps: 0,
                    ms: 0.0,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs steps on a machine that needs `ms(threads)` for one; returns how often each number of threads was used.
    fn run(
        threads: &mut Threads,
        now: &mut Instant,
        steps: usize,
        ms: impl Fn(u32) -> f64,
    ) -> Vec<u32> {
        (0..steps)
            .map(|_| {
                let count = threads.count();
                let took = Duration::from_secs_f64(ms(count) / 1e3);
                *now += took;
                threads.learn(4, took, *now);
                count
            })
            .collect()
    }

    #[test]
    fn a_quiet_machine_keeps_all_threads_and_pays_little_for_trials() {
        let mut now = Instant::now();
        let mut threads = Threads::new(4, now);
        let used = run(&mut threads, &mut now, 2000, |n| 40.0 / f64::from(n));
        assert!(used.iter().filter(|n| **n == 4).count() > 1900);
    }

    #[test]
    fn contention_leads_to_fewer_threads_and_quiet_back_to_all() {
        let mut now = Instant::now();
        let mut threads = Threads::new(4, now);
        run(&mut threads, &mut now, 50, |n| 40.0 / f64::from(n));
        let busy = |n: u32| if n == 1 { 60.0 } else { 300.0 * f64::from(n) };
        run(&mut threads, &mut now, 60, busy);
        assert_eq!(threads.current, 1);
        run(&mut threads, &mut now, 2000, |n| 40.0 / f64::from(n));
        assert_eq!(threads.current, 4);
    }

    #[test]
    fn one_thread_stays_one() {
        let mut now = Instant::now();
        let mut threads = Threads::new(1, now);
        assert!(
            run(&mut threads, &mut now, 500, |_| 10.0)
                .iter()
                .all(|n| *n == 1)
        );
    }
}
