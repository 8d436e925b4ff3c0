//! Moves usage rows from the spool to the main database.
//!
//! A line is deleted only after the database has its rows; a kill in between sends them again, which changes
//! nothing because rows are keyed by `run_id`. A line that cannot be read or written never stops the others
//! for good: reading errors are logged and tried again, since a spool holds what was promised.

use std::sync::Arc;
use std::time::Duration;

use honshu_domain::UsageRow;

use crate::error::StoreError;
use crate::spool::Spool;
use crate::store::Store;

/// Lines taken at once: with full batches some thousands of rows, a few MiB.
const LINES_MAX: u32 = 64;
/// How long rows gather before they are shipped: a second's rows cost one transaction and one sync.
const GATHER: Duration = Duration::from_secs(1);
/// Wait after the first failure; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait after failures: usage appears again this soon after the database came back.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The task that ships.
pub struct Shipper {
    spool: Arc<Spool>,
    store: Arc<dyn Store>,
}

impl Shipper {
    /// A shipper from `spool` to `store`.
    pub fn new(spool: Arc<Spool>, store: Arc<dyn Store>) -> Self {
        Self { spool, store }
    }

    /// Ships as rows arrive, until it is dropped, which is safe at any point.
    pub async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            match self.ship().await {
                Ok(_) => {
                    backoff = BACKOFF_MIN;
                    self.spool.arrived().await;
                    tokio::time::sleep(GATHER).await;
                }
                Err(error) => {
                    tracing::warn!(error = ?error, wait_ms = backoff.as_millis() as u64, "usage rows wait in the spool");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Ships everything that is there now and gives the number of rows that were new to the database.
    ///
    /// # Errors
    /// A [`StoreError`]; what was not shipped stays in the spool.
    pub async fn ship(&self) -> Result<u64, StoreError> {
        let mut new = 0;
        loop {
            let batches = self.spool.read(LINES_MAX).await?;
            let Some(last) = batches.last().map(|batch| batch.sequence) else {
                return Ok(new);
            };
            let rows: Vec<UsageRow> = batches.into_iter().flat_map(|batch| batch.rows).collect();
            new += self.store.ingest_usage(rows).await?;
            self.spool.forget(last).await?;
        }
    }
}
