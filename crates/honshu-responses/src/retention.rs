//! Nothing is kept for ever: the job that deletes what is old. Each portion is one transaction, so that it can be
//! killed at any point and goes on where it was.

use honshu_domain::Error;

use crate::Runtime;

impl Runtime {
    /// Deletes what is old, portion by portion. Gives how much went.
    ///
    /// # Errors
    /// What the store says; what went before it is gone.
    pub async fn forget_what_is_old(&self) -> Result<u64, Error> {
        let shared = &self.shared;
        let limits = &shared.limits;
        let mut gone = 0;
        loop {
            let now = shared.clock.now();
            let count = shared
                .store
                .forget(
                    now.minus(limits.response_retention),
                    now.minus(limits.conversation_retention),
                    now,
                    limits.retention_batch,
                )
                .await?;
            gone += count;
            if count == 0 {
                return Ok(gone);
            }
            // Others write between two portions.
            tokio::task::yield_now().await;
        }
    }

    /// Keeps the retention until it is dropped.
    pub async fn retain(self) {
        loop {
            match self.forget_what_is_old().await {
                Ok(0) => {}
                Ok(gone) => {
                    tracing::info!(
                        gone,
                        "old responses, chat completions, conversations and files were deleted"
                    )
                }
                Err(error) => tracing::warn!(%error, "old responses could not be deleted"),
            }
            tokio::time::sleep(self.shared.limits.retention_interval).await;
        }
    }
}
