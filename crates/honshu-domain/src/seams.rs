//! The few seams beside [`Backend`](crate::Backend) and [`Catalogue`](crate::Catalogue): clock, entropy, usage log.

use std::future::Future;
use std::pin::Pin;

use crate::error::Result;
use crate::time::Timestamp;
use crate::usage::UsageRow;

/// The wall clock. Behaviour that depends on time asks this and nothing else.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
    }
}

/// Random bytes fit for secrets.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(
        clippy::expect_used,
        reason = "without random bytes no id or secret can be made, and no caller could go on"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

/// Where usage rows go: the node's own durable spool.
pub trait UsageLog: Send + Sync {
    /// Writes `row` so that it survives a kill of the process, then resolves. Writing a row with a
    /// `run_id` that is already there changes nothing. The write goes on if the future is dropped.
    fn record(&self, row: UsageRow) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>>;
}
