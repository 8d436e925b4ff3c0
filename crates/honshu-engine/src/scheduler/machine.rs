//! How busy the machine is, and with whose work, where the system tells it at the price of reading two lines.

use std::time::{Duration, Instant};

/// Shorter windows say little: the system counts in hundredths of a second.
const WINDOW_MIN: Duration = Duration::from_millis(250);

/// Processors on average over a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// That were idle.
    pub(crate) idle: f64,
    /// That worked for other processes, or that the host gave to other machines.
    pub(crate) others: f64,
}

/// Watches the processors.
#[derive(Default)]
pub(crate) struct Machine {
    last: Option<(Instant, Seconds)>,
}

/// Processor seconds since the start: of the machine idle and busy, and of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seconds {
    idle: f64,
    busy: f64,
    own: f64,
}

impl Machine {
    /// The load since the last answer; `None` while the window is too short, and always where the system does not
    /// tell.
    pub(crate) fn sample(&mut self, now: Instant) -> Option<Load> {
        match self.last {
            None => {
                self.last = Some((now, read_seconds()?));
                None
            }
            Some((at, _)) if now.duration_since(at) < WINDOW_MIN => None,
            Some((at, before)) => {
                let seconds = read_seconds()?;
                self.last = Some((now, seconds));
                // A window over a pause of the engine says nothing about the time when it computes.
                let window = now.duration_since(at);
                (window < WINDOW_MIN * 8).then(|| Load {
                    idle: (seconds.idle - before.idle) / window.as_secs_f64(),
                    others: (seconds.busy - before.busy - (seconds.own - before.own)).max(0.0)
                        / window.as_secs_f64(),
                })
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn read_seconds() -> Option<Seconds> {
    let read = |path: &str| {
        use std::io::Read as _;
        let mut start = [0; 512];
        let read = std::fs::File::open(path)
            .and_then(|mut file| file.read(&mut start))
            .ok()?;
        Some(String::from_utf8_lossy(&start[..read]).into_owned())
    };
    seconds(&read("/proc/stat")?, &read("/proc/self/stat")?)
}

#[cfg(not(target_os = "linux"))]
fn read_seconds() -> Option<Seconds> {
    None
}

/// From the first line of `/proc/stat` and from `/proc/self/stat`, both in hundredths of a second (proc(5)).
#[cfg(any(target_os = "linux", test))]
fn seconds(machine: &str, process: &str) -> Option<Seconds> {
    let fields = machine.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = fields
        .split_whitespace()
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [user, nice, system, idle, disk, irq, soft_irq, steal] = ticks[..] else {
        return None;
    };
    // The name of the program stands in parentheses and may hold anything.
    let mut fields = process.rsplit(')').next()?.split_whitespace().skip(11);
    let own: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(Seconds {
        idle: (idle + disk) / 100.0,
        busy: (user + nice + system + irq + soft_irq + steal) / 100.0,
        own: own / 100.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_read() {
        let machine = "cpu  10 20 30 4000 500 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        let process = "7 (a ) b) R 1 7 7 0 -1 4194304 100 0 0 0 1200 34 0 0 20 0 1 0 5 6 7";
        assert_eq!(
            seconds(machine, process),
            Some(Seconds {
                idle: 45.0,
                busy: 0.81,
                own: 12.34
            })
        );
        for (machine, process) in [
            ("cpu0 1 2 3 4", process),
            ("cpu  1 2", process),
            ("cpu  1 2 3 x 5 6 7 8", process),
            (machine, "7 (a) R 1"),
            (machine, ""),
        ] {
            assert_eq!(seconds(machine, process), None);
        }
    }

    #[test]
    fn short_windows_and_long_pauses_tell_nothing() {
        let now = Instant::now();
        let mut machine = Machine::default();
        assert_eq!(machine.sample(now), None);
        assert_eq!(machine.sample(now + WINDOW_MIN / 2), None);
        assert_eq!(machine.sample(now + WINDOW_MIN * 20), None);
        #[cfg(target_os = "linux")]
        assert!(machine.sample(now + WINDOW_MIN * 22).is_some());
    }
}
