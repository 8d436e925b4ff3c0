//! Every bound of the data plane, with its unit and the reason for its default. A number that limits a run
//! and is written anywhere else in this crate is a mistake.

use std::time::Duration;

/// The bounds of the data plane. Begin with [`Limits::default`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Runs alive at once, all callers together. Above it callers get 503 with `Retry-After`.
    /// An idle run costs less than 64 KiB, so the default is a quarter of a gigabyte.
    pub runs_max: u32,
    /// Runs alive at once for one key or user. Above it the caller gets 429 with `Retry-After`. Generous: it
    /// keeps one runaway program from taking every place, and is not a quota.
    pub runs_per_principal_max: u32,
    /// How long a refused caller is asked to wait.
    pub admission_retry_after: Duration,
    /// Tries of one request, the first included. Three is what the official SDKs do as well.
    pub attempts_max: u32,
    /// Events that wait for a slow subscriber. When they are full the backend is no longer read, which is how
    /// backpressure reaches an upstream.
    pub events_buffered_max: usize,
    /// A subscriber that takes no event for this long while events wait for it is treated as gone.
    pub subscriber_stall_max: Duration,
    /// After the subscriber left, a stream that is about to end may go on this long for its usage counts.
    /// Below the 250 ms within which upstream work must stop.
    pub drain_after_leave_max: Duration,
    /// A streamed run whose backend took the request and is silent is handed to the caller after this long, so
    /// that headers and heartbeats flow before proxies in between lose patience (nginx: 60 s). From then on
    /// there is no failover.
    pub commit_after: Duration,
    /// The longest wait before another try of the same deployment. A longer `Retry-After` goes to the caller,
    /// who can plan with it.
    pub retry_wait_max: Duration,
    /// The wait before the first retry of the same deployment; doubles with each, less up to half as jitter.
    pub retry_backoff_first: Duration,
    /// Retries that are allowed for every 100 runs; a fifth is what proxies commonly allow. A failing upstream
    /// then sees at most 1.2 times the offered load.
    pub retry_budget_percent: u32,
    /// Retries that a quiet server may spend at once.
    pub retry_budget_burst: u32,
    /// Failures in a row after which a deployment rests and the others are preferred.
    pub rest_after_failures: u32,
    /// The first rest of a deployment; doubles with each further failure. One request at a time then probes it.
    pub rest_first: Duration,
    /// The longest rest.
    pub rest_max: Duration,
    /// How long the usage log may take to make a row durable before the run counts as failed.
    pub record_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            runs_max: 4_096,
            runs_per_principal_max: 1_024,
            admission_retry_after: Duration::from_secs(1),
            attempts_max: 3,
            events_buffered_max: 32,
            subscriber_stall_max: Duration::from_secs(120),
            drain_after_leave_max: Duration::from_millis(200),
            commit_after: Duration::from_secs(10),
            retry_wait_max: Duration::from_secs(2),
            retry_backoff_first: Duration::from_millis(100),
            retry_budget_percent: 20,
            retry_budget_burst: 10,
            rest_after_failures: 3,
            rest_first: Duration::from_secs(1),
            rest_max: Duration::from_secs(30),
            record_timeout: Duration::from_secs(10),
        }
    }
}
