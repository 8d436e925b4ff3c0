//! The seam that every store implements.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use honshu_domain::{Timestamp, UsageRow};

use crate::command::{Applied, Command, Committed, RetryEntry};
use crate::error::StoreError;
use crate::rows::{ControlState, LogEntry};

/// An answer on its way. Dropping it gives up the answer and never the work.
pub type Reply<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// Called with what was committed, in order, before any of the callers is answered, so that what a caller
/// reads back after its answer is never older than its own change. It must not block and must not call the store.
pub type Observer = Arc<dyn Fn(&[Committed]) + Send + Sync>;

/// A durable store of the control plane and of usage.
///
/// Commands are atomic and serial. An answered command survives a loss of power; a command that failed left
/// nothing behind. All methods hand the work over at once, before the returned future is polled.
pub trait Store: Send + Sync {
    /// Carries out a command.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`], [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::NotEmpty`],
    /// [`StoreError::RetryTokenTaken`] by what the command asks; `Unavailable` when the store cannot now.
    fn apply(&self, command: Command) -> Reply<Applied>;

    /// Reads everything that the control plane keeps in memory, at one point in time.
    fn load(&self) -> Reply<ControlState>;

    /// Sets who learns of commits. There is one; a second call replaces it.
    fn observe(&self, observer: Observer);

    /// Finds the request that took a retry token and is not yet forgotten at `now`.
    fn find_retry(
        &self,
        principal: &str,
        operation: &str,
        token: &str,
        now: Timestamp,
    ) -> Reply<Option<RetryEntry>>;

    /// Writes usage rows; those whose `run_id` is there already change nothing. Gives how many were new.
    fn ingest_usage(&self, rows: Vec<UsageRow>) -> Reply<u64>;

    /// Usage rows that started in `[from, until)`, oldest first, at most `limit`.
    fn list_usage(&self, from: Timestamp, until: Timestamp, limit: u32) -> Reply<Vec<UsageRow>>;

    /// The change log after `sequence`, oldest first, at most `limit` lines.
    fn list_log(&self, sequence: i64, limit: u32) -> Reply<Vec<LogEntry>>;
}
