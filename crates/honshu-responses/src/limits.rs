//! Every bound of the stateful runtime, with its unit and the reason for its default.

use std::time::Duration;

/// The bounds of the stateful runtime. Begin with [`Limits::default`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Background responses that run at once. Foreground callers wait for their answers, so that these leave
    /// them most of the places.
    pub background_runs_max: u32,
    /// Background responses that wait. Each holds its body in memory; above it callers get 429.
    pub background_waiting_max: usize,
    /// How often a background response that found no place in the gateway asks again before it fails.
    pub background_tries_max: u32,
    /// The wait between two of these.
    pub background_retry_after: Duration,
    /// Bytes of a stream's frames before they are compressed and put aside: what a running response costs.
    pub log_chunk_bytes: usize,
    /// Bytes of compressed frames of one foreground response. A stream that grows beyond it cannot be replayed.
    pub log_bytes_max: usize,
    /// The shortest time between two writes of a background response's events.
    pub log_write_interval: Duration,
    /// How often a stream that runs on another node is looked at.
    pub replay_poll_interval: Duration,
    /// How long a response is kept after it was made. OpenAI keeps 30 days.
    pub response_retention: Duration,
    /// How long a conversation is kept after its last change.
    pub conversation_retention: Duration,
    /// How often what is old is looked for.
    pub retention_interval: Duration,
    /// What is deleted at once: bounds how long other writers wait.
    pub retention_batch: u32,
    /// Bytes of a file that is put into a prompt.
    pub inline_file_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            background_runs_max: 64,
            background_waiting_max: 1_000,
            background_tries_max: 600,
            background_retry_after: Duration::from_secs(1),
            log_chunk_bytes: 32 * 1024,
            log_bytes_max: 8 * 1024 * 1024,
            log_write_interval: Duration::from_millis(40),
            replay_poll_interval: Duration::from_millis(500),
            response_retention: Duration::from_secs(30 * 86_400),
            conversation_retention: Duration::from_secs(30 * 86_400),
            retention_interval: Duration::from_secs(60),
            retention_batch: 100,
            inline_file_bytes_max: 2 * 1024 * 1024,
        }
    }
}
