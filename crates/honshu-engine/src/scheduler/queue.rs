//! Jobs that wait: the keys take turns by the tokens they ask for, and within a key the oldest goes first.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::Submitted;

/// Output that is charged for a job that names no bound, in tokens.
const OUTPUT_ASSUMED: u32 = 256;

#[derive(Default)]
struct Lane {
    /// Tokens charged to this key so far.
    charged: u64,
    jobs: VecDeque<Submitted>,
}

/// What the caller thinks of a candidate.
pub(crate) enum Verdict {
    Take,
    /// Its turn comes later, for a reason of its own; others may pass.
    Later,
    /// There is no room for the one whose turn it is; nobody may pass.
    Stop,
}

/// Start-time fair queueing over keys (after Goyal, Vin and Cheng, 1996), with equal weights.
#[derive(Default)]
pub(crate) struct Queue {
    lanes: HashMap<u64, Lane>,
    /// Where a key starts that comes back after a silence, so that it saved up nothing.
    now: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, job: Submitted) {
        let now = self.now;
        let lane = self.lanes.entry(job.job.fairness_key).or_default();
        if lane.jobs.is_empty() {
            lane.charged = lane.charged.max(now);
        }
        lane.jobs.push_back(job);
    }

    /// Takes the next job that `judge` agrees to.
    pub(crate) fn pop(
        &mut self,
        mut judge: impl FnMut(&Submitted) -> Verdict,
    ) -> Option<Submitted> {
        let mut order: Vec<(u64, Instant, u64)> = self
            .lanes
            .iter()
            .filter_map(|(key, lane)| Some((lane.charged, lane.jobs.front()?.at, *key)))
            .collect();
        order.sort_unstable();
        for (_, _, key) in order {
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            for index in 0..lane.jobs.len() {
                match judge(&lane.jobs[index]) {
                    Verdict::Later => {}
                    Verdict::Stop => return None,
                    Verdict::Take => {
                        let taken = lane.jobs.remove(index)?;
                        self.now = self.now.max(lane.charged);
                        let output =
                            u64::from(taken.job.max_tokens.unwrap_or(OUTPUT_ASSUMED).min(4096));
                        lane.charged += taken.job.prompt.len() as u64 + output;
                        return Some(taken);
                    }
                }
            }
        }
        None
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.jobs.is_empty())
    }

    /// Removes jobs that waited too long and jobs without a reader.
    pub(crate) fn sweep(&mut self, now: Instant, deadline: Duration) -> Vec<Submitted> {
        let mut out = Vec::new();
        for lane in self.lanes.values_mut() {
            let over = |job: &Submitted| {
                now.duration_since(job.at) >= deadline || job.events.is_cancelled()
            };
            if lane.jobs.iter().any(over) {
                let (gone, kept) = std::mem::take(&mut lane.jobs).into_iter().partition(over);
                lane.jobs = kept;
                let gone: VecDeque<Submitted> = gone;
                out.extend(gone);
            }
        }
        let floor = self.now;
        self.lanes
            .retain(|_, lane| !lane.jobs.is_empty() || lane.charged > floor);
        out
    }

    /// When the next job would wait too long.
    pub(crate) fn next_deadline(&self, deadline: Duration) -> Option<Instant> {
        self.lanes
            .values()
            .flat_map(|lane| &lane.jobs)
            .map(|job| job.at + deadline)
            .min()
    }

    pub(crate) fn drain(&mut self) -> Vec<Submitted> {
        self.lanes.drain().flat_map(|(_, lane)| lane.jobs).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::{self, JobEvents, Wake};
    use crate::job::Job;

    struct Nobody;
    impl Wake for Nobody {
        fn wake(&self) {}
        fn reader_left(&self) {}
    }

    fn job(key: u64, tokens: usize, at: Instant) -> (Submitted, JobEvents) {
        let (events, reader) = events::channel(Arc::new(Nobody));
        let job = Job {
            fairness_key: key,
            max_tokens: Some(1),
            ..Job::new(vec![1; tokens])
        };
        (Submitted { job, events, at }, reader)
    }

    fn keys(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop(|_| Verdict::Take))
            .map(|s| s.job.fairness_key)
            .collect()
    }

    #[test]
    fn a_key_with_many_jobs_does_not_push_others_back() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let mut readers = Vec::new();
        for (i, key) in [1, 1, 1, 1, 2, 2].into_iter().enumerate() {
            let (job, reader) = job(key, 9, start + Duration::from_millis(i as u64));
            queue.push(job);
            readers.push(reader);
        }
        assert_eq!(keys(&mut queue), [1, 2, 1, 2, 1, 1]);
    }

    #[test]
    fn turns_are_by_tokens_and_not_by_jobs() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let mut readers = Vec::new();
        for (i, (key, tokens)) in [(1, 99), (1, 99), (2, 9), (2, 9), (2, 9)]
            .into_iter()
            .enumerate()
        {
            let (job, reader) = job(key, tokens, start + Duration::from_millis(i as u64));
            queue.push(job);
            readers.push(reader);
        }
        assert_eq!(keys(&mut queue), [1, 2, 2, 2, 1]);
    }

    #[test]
    fn the_oldest_of_a_key_goes_first_and_a_stop_lets_nobody_pass() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let (a, _ra) = job(1, 5, start);
        let (b, _rb) = job(1, 6, start);
        queue.push(a);
        queue.push(b);
        assert!(queue.pop(|_| Verdict::Stop).is_none());
        let passed = queue.pop(|s| {
            if s.job.prompt.len() == 5 {
                Verdict::Later
            } else {
                Verdict::Take
            }
        });
        assert_eq!(passed.map(|s| s.job.prompt.len()), Some(6));
        assert_eq!(
            queue.pop(|_| Verdict::Take).map(|s| s.job.prompt.len()),
            Some(5)
        );
    }

    #[test]
    fn late_and_abandoned_jobs_are_swept() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let (late, _reader) = job(1, 5, start);
        let (abandoned, reader) = job(2, 5, start + Duration::from_secs(5));
        let (kept, _kept) = job(2, 6, start + Duration::from_secs(5));
        drop(reader);
        queue.push(late);
        queue.push(abandoned);
        queue.push(kept);
        assert_eq!(
            queue
                .sweep(start + Duration::from_secs(10), Duration::from_secs(10))
                .len(),
            2
        );
        assert_eq!(
            queue.pop(|_| Verdict::Take).map(|s| s.job.prompt.len()),
            Some(6)
        );
    }
}
