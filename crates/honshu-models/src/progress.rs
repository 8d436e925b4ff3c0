//! How far a pull has come. The library reports; drawing is the caller's.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::manifest::Digest;

/// Reports arrive at least this often while something is under way, so that a stalled transfer is seen to stall.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// Rate and remaining time are measured over this much of the past.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Receives a pull's reports. Called from the pull's own task or from a blocking thread; must return quickly.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: &PullEvent);
}

impl<F: Fn(&PullEvent) + Send + Sync> Progress for F {
    fn event(&self, event: &PullEvent) {
        self(event);
    }
}

/// Ignores all reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn event(&self, _: &PullEvent) {}
}

/// One report.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PullEvent {
    /// Another process is changing the models directory; the pull waits.
    Waiting,
    /// Bytes are moving. Sent at least five times a second.
    Transfer(Transfer),
    /// The connection broke; the pull goes on from where it was after a pause.
    Retrying {
        /// What broke.
        reason: String,
        /// The pause.
        after: Duration,
    },
    /// Something that the user should read once.
    Note(String),
    /// The file was verified and installed.
    Installed {
        /// Its digest.
        sha256: Digest,
        /// Its size.
        size_bytes: u64,
    },
}

/// What the bytes are moving for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading what an earlier pull left, or a local file, to compute its digest.
    Hashing,
    /// From the network.
    Downloading,
    /// Out of a package.
    Unpacking,
    /// From another file system.
    Copying,
}

/// How far one phase has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transfer {
    /// Which.
    pub phase: Phase,
    /// Bytes done, those of an earlier pull included.
    pub bytes_done: u64,
    /// Bytes in all, if known.
    pub bytes_total: Option<u64>,
    /// Bytes per second over the last seconds, once there is something to measure.
    pub bytes_per_second: Option<u64>,
}

impl Transfer {
    /// 0 to 100, if the total is known.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        let total = self.bytes_total?;
        Some(if total == 0 {
            100.0
        } else {
            (self.bytes_done.min(total) as f64) * 100.0 / total as f64
        })
    }

    /// Remaining time at the present rate. `None` if unknown or stalled.
    #[must_use]
    pub fn eta(&self) -> Option<Duration> {
        let left = self.bytes_total?.saturating_sub(self.bytes_done);
        let rate = self.bytes_per_second.filter(|r| *r > 0)?;
        Some(Duration::from_secs_f64(left as f64 / rate as f64))
    }
}

/// The rate over a sliding window.
#[derive(Debug, Default)]
pub struct RateWindow(VecDeque<(Instant, u64)>);

impl RateWindow {
    /// Notes that `bytes_done` bytes were done at `now`, and returns the rate in bytes per second.
    pub fn note(&mut self, now: Instant, bytes_done: u64) -> Option<u64> {
        self.0.push_back((now, bytes_done));
        while self.0.len() > 2 && now.duration_since(self.0[1].0) >= RATE_WINDOW {
            self.0.pop_front();
        }
        let (since, before) = *self.0.front()?;
        let elapsed = now.duration_since(since).as_secs_f64();
        (elapsed >= 0.2).then(|| (bytes_done.saturating_sub(before) as f64 / elapsed) as u64)
    }
}

/// Sends [`PullEvent::Transfer`] at the right moments.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    phase: Phase,
    bytes_total: Option<u64>,
    window: RateWindow,
    last: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, phase: Phase, bytes_total: Option<u64>) -> Self {
        Self {
            progress,
            phase,
            bytes_total,
            window: RateWindow::default(),
            last: None,
        }
    }

    /// Reports if it is time to.
    pub(crate) fn advance(&mut self, bytes_done: u64) {
        if self
            .last
            .is_none_or(|last| last.elapsed() >= REPORT_INTERVAL)
        {
            self.report(bytes_done);
        }
    }

    /// Reports now.
    pub(crate) fn report(&mut self, bytes_done: u64) {
        let now = Instant::now();
        self.last = Some(now);
        let bytes_per_second = self.window.note(now, bytes_done);
        let (phase, bytes_total) = (self.phase, self.bytes_total);
        self.progress.event(&PullEvent::Transfer(Transfer {
            phase,
            bytes_done,
            bytes_total,
            bytes_per_second,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_forgets_what_is_long_past() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut window = RateWindow::default();
        assert_eq!(window.note(at(0), 0), None);
        assert_eq!(window.note(at(1000), 1000), Some(1000));
        for s in 2..=20 {
            window.note(at(s * 1000), 1000 + (s - 1) * 50);
        }
        assert_eq!(window.note(at(21_000), 1000 + 20 * 50), Some(50));
        assert!(window.0.len() < 10);
    }

    #[test]
    fn a_stalled_transfer_has_no_remaining_time() {
        let transfer = |done, total, rate| Transfer {
            phase: Phase::Downloading,
            bytes_done: done,
            bytes_total: total,
            bytes_per_second: rate,
        };
        assert_eq!(
            transfer(50, Some(100), Some(10)).eta(),
            Some(Duration::from_secs(5))
        );
        assert_eq!(transfer(50, Some(100), Some(0)).eta(), None);
        assert_eq!(transfer(50, None, Some(10)).eta(), None);
        assert_eq!(transfer(50, Some(100), None).percent(), Some(50.0));
        assert_eq!(transfer(0, Some(0), None).percent(), Some(100.0));
    }
}
