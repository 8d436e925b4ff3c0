//! How much of the machine is idle, where the system tells it at the price of reading one line.

use std::time::{Duration, Instant};

/// Shorter windows say little: the system counts in hundredths of a second.
const WINDOW_MIN: Duration = Duration::from_millis(250);

/// Watches the processors' idle time.
#[derive(Default)]
pub(crate) struct IdleCores {
    last: Option<(Instant, f64)>,
}

impl IdleCores {
    /// How many processors were idle on average since the last answer; `None` while the window is too short, and
    /// always where the system does not tell.
    pub(crate) fn sample(&mut self, now: Instant) -> Option<f64> {
        match self.last {
            None => {
                self.last = Some((now, read_idle_seconds()?));
                None
            }
            Some((at, _)) if now.duration_since(at) < WINDOW_MIN => None,
            Some((at, before)) => {
                let idle = read_idle_seconds()?;
                self.last = Some((now, idle));
                // A window over a pause of the engine says nothing about the time when it computes.
                let window = now.duration_since(at);
                (window < WINDOW_MIN * 8).then(|| (idle - before) / window.as_secs_f64())
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn read_idle_seconds() -> Option<f64> {
    use std::io::Read as _;
    let mut start = [0; 256];
    let read = std::fs::File::open("/proc/stat")
        .and_then(|mut file| file.read(&mut start))
        .ok()?;
    idle_seconds(std::str::from_utf8(&start[..read]).ok()?)
}

#[cfg(not(target_os = "linux"))]
fn read_idle_seconds() -> Option<f64> {
    None
}

/// The fourth and fifth number of the first line, in hundredths of a second: idle, and idle but for the disk.
#[cfg(any(target_os = "linux", test))]
fn idle_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    let idle: f64 = fields.nth(3)?.parse().ok()?;
    let disk: f64 = fields.next()?.parse().ok()?;
    Some((idle + disk) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_read() {
        let stat = "cpu  10 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(idle_seconds(stat), Some(45.0));
        assert_eq!(idle_seconds("cpu0 1 2 3 4"), None);
        assert_eq!(idle_seconds("cpu  1 2"), None);
    }

    #[test]
    fn short_windows_and_long_pauses_tell_nothing() {
        let now = Instant::now();
        let mut idle = IdleCores::default();
        assert_eq!(idle.sample(now), None);
        assert_eq!(idle.sample(now + WINDOW_MIN / 2), None);
        assert_eq!(idle.sample(now + WINDOW_MIN * 20), None);
        #[cfg(target_os = "linux")]
        assert!(idle.sample(now + WINDOW_MIN * 22).is_some());
    }
}
