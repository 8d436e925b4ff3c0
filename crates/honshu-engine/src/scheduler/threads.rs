//! How many threads compute.
//!
//! The threads of a step meet at hundreds of barriers, where they wait by spinning. On a machine that has other work,
//! each meeting waits for whoever lost its processor, and two threads can be ten times slower than one. So the engine
//! does not trust a fixed number: it tries half or double now and then, for a few steps, and keeps what is faster.

use std::time::{Duration, Instant};

use super::machine::Load;

/// Which steps are steered; those of prompts are long, so few of them tell enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Decode,
    Prompt,
}

impl Kind {
    /// Steps that must be known before a trial.
    fn known_min(self) -> u32 {
        if self == Self::Decode { 3 } else { 1 }
    }

    /// Steps of a trial with fewer threads.
    fn steps_less(self) -> u32 {
        if self == Self::Decode { 3 } else { 1 }
    }

    /// Steps of a trial with more threads: on a busy machine most steps are quick and a few terribly slow, so a few
    /// quick ones prove nothing.
    fn steps_more(self) -> u32 {
        if self == Self::Decode { 16 } else { 3 }
    }
}

/// Pause between trials with fewer threads.
const PAUSE_LESS_MIN: Duration = Duration::from_millis(250);
const PAUSE_LESS_MAX: Duration = Duration::from_secs(8);
/// How long a look at the machine's load that found others holds; looks are this far apart at most.
const SHARED_FOR: Duration = Duration::from_secs(2);
/// Pause before more threads are tried; doubled each time that turned out wrong.
const PAUSE_MORE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MORE_MAX: Duration = Duration::from_secs(60);
/// Part of a processor that must be idle for each additional thread.
const IDLE_ENOUGH: f64 = 0.7;
/// Others who take less than this part of a processor cannot make fewer threads faster.
const OTHERS_FEW: f64 = 0.4;
/// A trial must be this much faster to be believed.
const BETTER: f64 = 0.85;

struct Trial {
    threads: u32,
    steps: u32,
    ms: f64,
}

/// Steers the number of threads by the duration of steps of one kind.
pub(crate) struct Threads {
    kind: Kind,
    most: u32,
    current: u32,
    /// Rows of the steps behind the mean; steps of other sizes cannot be compared with it.
    rows: u32,
    mean_ms: f64,
    known: u32,
    trial: Option<Trial>,
    next_less: Instant,
    pause_less: Duration,
    next_more: Instant,
    pause_more: Duration,
    /// Until when others are known to use the machine; `None` where nobody tells.
    shared_until: Option<Instant>,
    /// When more threads were last tried in vain.
    failed_more: Option<Instant>,
}

impl Threads {
    pub(crate) fn new(kind: Kind, most: u32, now: Instant) -> Self {
        Self {
            kind,
            most,
            current: most,
            rows: 0,
            mean_ms: 0.0,
            known: 0,
            trial: None,
            next_less: now + PAUSE_LESS_MIN,
            pause_less: PAUSE_LESS_MIN,
            next_more: now,
            pause_more: PAUSE_MORE_MIN,
            shared_until: None,
            failed_more: None,
        }
    }

    /// Threads for the next step.
    pub(crate) fn count(&self) -> u32 {
        self.trial
            .as_ref()
            .map_or(self.current, |trial| trial.threads)
    }

    /// Takes note of the machine's load while the engine computes. Where others do next to nothing, fewer threads are
    /// not tried. Where enough processors are idle for more, that trial need not wait for its turn; what fails all the
    /// same is not repeated for a second.
    pub(crate) fn load(&mut self, load: Load, now: Instant) {
        self.shared_until = Some(if load.others < OTHERS_FEW {
            now
        } else {
            now + SHARED_FOR
        });
        let more = (self.current * 2).min(self.most) - self.current;
        if self.trial.is_none() && more > 0 && load.idle >= f64::from(more) * IDLE_ENOUGH {
            let soonest = self.failed_more.map_or(now, |at| at + PAUSE_MORE_MIN);
            self.next_more = self.next_more.min(soonest);
        }
    }

    /// Takes note of a step of this kind: for decoding its duration, for prompts the duration for a fixed number of
    /// tokens.
    pub(crate) fn learn(&mut self, rows: u32, took: Duration, now: Instant) {
        let ms = took.as_secs_f64() * 1e3;
        if rows != self.rows {
            // A trial in this moment compares nothing.
            self.known = u32::from(self.trial.is_none());
            (self.rows, self.mean_ms, self.trial) = (rows, ms, None);
            return;
        }
        if let Some(trial) = &mut self.trial {
            trial.steps += 1;
            trial.ms += ms;
            let more = trial.threads > self.current;
            let needed = if more {
                self.kind.steps_more()
            } else {
                self.kind.steps_less()
            };
            // A trial ends early once it has spent more time than it could win.
            let lost = trial.ms > self.mean_ms * BETTER * f64::from(needed);
            if lost || trial.steps >= needed {
                let (threads, mean) = (trial.threads, trial.ms / f64::from(trial.steps));
                self.trial = None;
                self.conclude(threads, mean, !lost, now);
            }
            return;
        }
        // Suddenly slow: somebody else wants the processors, and fewer threads may be better at once.
        let sudden = self.known >= 4 && ms > self.mean_ms * 3.0;
        self.known += 1;
        self.mean_ms = if self.known <= 1 {
            ms
        } else {
            self.mean_ms + (ms - self.mean_ms) * 0.25
        };
        if self.known < self.kind.known_min() {
            return;
        }
        let shared = self.shared_until.is_none_or(|until| now < until);
        let threads = if self.current > 1 && (sudden || shared && now >= self.next_less) {
            self.current / 2
        } else if self.current < self.most && now >= self.next_more {
            (self.current * 2).min(self.most)
        } else {
            return;
        };
        self.trial = Some(Trial {
            threads,
            steps: 0,
            ms: 0.0,
        });
    }

    fn conclude(&mut self, threads: u32, mean_ms: f64, better: bool, now: Instant) {
        let more = threads > self.current;
        if more {
            self.failed_more = (!better).then_some(now);
        }
        if better {
            tracing::debug!(
                from = self.current,
                to = threads,
                "the engine changes its threads"
            );
            (self.current, self.mean_ms) = (threads, mean_ms);
            self.pause_less = PAUSE_LESS_MIN;
        } else if !more {
            self.pause_less = (self.pause_less * 2).min(PAUSE_LESS_MAX);
        }
        if more == better {
            // More threads were right, or fewer were wrong: the machine has room.
            self.pause_more = (self.pause_more / 2).max(PAUSE_MORE_MIN);
        } else {
            self.pause_more = (self.pause_more * 2).min(PAUSE_MORE_MAX);
        }
        self.next_less = now + self.pause_less;
        self.next_more = now + self.pause_more;
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

    /// A machine with so many idle processors and a neighbour.
    fn idle(idle: f64) -> Load {
        Load { idle, others: 1.0 }
    }

    #[test]
    fn fewer_threads_are_tried_only_where_others_are_seen() {
        let alone = Load {
            idle: 0.0,
            others: 0.02,
        };
        let mut now = Instant::now();
        let mut threads = Threads::new(Kind::Decode, 4, now);
        for _ in 0..500 {
            threads.load(alone, now);
            let used = run(&mut threads, &mut now, 10, |n| 40.0 / f64::from(n));
            assert!(used.iter().all(|n| *n == 4));
            // The engine had nothing to do for a while, and nobody looked.
            now += Duration::from_secs(10);
        }
        threads.load(idle(0.0), now);
        let used = run(&mut threads, &mut now, 10, |n| 40.0 / f64::from(n));
        assert!(used.contains(&2));
    }

    #[test]
    fn a_quiet_machine_keeps_all_threads_and_pays_little_for_trials() {
        let mut now = Instant::now();
        let mut threads = Threads::new(Kind::Decode, 4, now);
        let used = run(&mut threads, &mut now, 2000, |n| 40.0 / f64::from(n));
        assert!(used.iter().filter(|n| **n == 4).count() > 1900);
    }

    #[test]
    fn contention_leads_to_fewer_threads_and_quiet_back_to_all() {
        let mut now = Instant::now();
        let mut threads = Threads::new(Kind::Decode, 4, now);
        run(&mut threads, &mut now, 50, |n| 40.0 / f64::from(n));
        let busy = |n: u32| if n == 1 { 60.0 } else { 300.0 * f64::from(n) };
        run(&mut threads, &mut now, 60, busy);
        assert_eq!(threads.current, 1);
        run(&mut threads, &mut now, 8000, |n| 40.0 / f64::from(n));
        assert_eq!(threads.current, 4);
    }

    #[test]
    fn rare_but_terrible_steps_do_not_fool_it() {
        // Two threads are mostly quicker, but one step in eight waits for a lost processor.
        let step = std::cell::Cell::new(0_u32);
        let mut now = Instant::now();
        let mut threads = Threads::new(Kind::Decode, 2, now);
        let used = run(&mut threads, &mut now, 3000, |n| {
            step.set(step.get() + 1);
            if n == 1 {
                14.0
            } else if step.get() % 8 == 3 {
                500.0
            } else {
                9.0
            }
        });
        let two = used.iter().filter(|n| **n == 2).count();
        assert!(two < 200, "{two} of 3000 steps with two threads");
    }

    #[test]
    fn an_idle_machine_is_noticed_without_waiting_for_the_pause() {
        let mut now = Instant::now();
        let mut threads = Threads::new(Kind::Decode, 2, now);
        run(&mut threads, &mut now, 20, |n| 20.0 / f64::from(n));
        // A neighbour for so long that trials have become rare.
        let busy = |n: u32| if n == 1 { 20.0 } else { 400.0 };
        run(&mut threads, &mut now, 4000, busy);
        assert_eq!(threads.current, 1);
        let quiet = |n: u32| 20.0 / f64::from(n);
        let slept = run(&mut threads, &mut now, 50, quiet);
        assert!(slept.iter().all(|n| *n == 1), "the pause is over by chance");
        threads.load(idle(0.4), now);
        run(&mut threads, &mut now, 50, quiet);
        assert_eq!(threads.current, 1);
        threads.load(idle(0.9), now);
        run(&mut threads, &mut now, 50, quiet);
        assert_eq!(threads.current, 2);
    }

    #[test]
    fn an_idle_machine_on_which_more_threads_lose_is_not_tried_all_the_time() {
        let mut now = Instant::now();
        let mut threads = Threads::new(Kind::Decode, 2, now);
        let used: usize = (0..2000)
            .map(|_| {
                threads.load(idle(1.0), now);
                let worse = |n: u32| if n == 1 { 10.0 } else { 30.0 };
                usize::from(run(&mut threads, &mut now, 1, worse)[0] == 2)
            })
            .sum();
        assert!(used < 200, "{used} of 2000 steps with two threads");
    }

    #[test]
    fn one_thread_stays_one() {
        let mut now = Instant::now();
        let mut threads = Threads::new(Kind::Decode, 1, now);
        assert!(
            run(&mut threads, &mut now, 500, |_| 10.0)
                .iter()
                .all(|n| *n == 1)
        );
    }
}
