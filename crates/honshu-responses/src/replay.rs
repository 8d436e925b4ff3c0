//! The events of a stored response again, byte for byte, and then as they come.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use honshu_domain::{Error, Scope};
use honshu_wire::responses::frames_after;
use tokio::sync::watch;

use crate::{Shared, log, not_found};

/// A reader of a response's stored events.
pub struct Replay {
    shared: Arc<Shared>,
    scope: Scope,
    id: Arc<str>,
    /// The last event that was read.
    after: Option<u64>,
    follow: Option<watch::Receiver<u64>>,
    ready: VecDeque<Bytes>,
    is_over: bool,
    waits_for_end: bool,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("id", &self.id)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl Replay {
    pub(crate) fn new(shared: &Arc<Shared>, scope: &Scope, id: &str, after: Option<u64>) -> Self {
        Self {
            shared: Arc::clone(shared),
            scope: scope.clone(),
            id: id.into(),
            after,
            follow: shared.live.follow(scope, id),
            ready: VecDeque::new(),
            is_over: false,
            waits_for_end: false,
        }
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.follow.is_some()
    }

    /// Begins when the response has ended: until then nothing of it is stored.
    pub(crate) fn after_its_end(mut self) -> Self {
        self.waits_for_end = true;
        self
    }

    /// The next frames, whole events. `None` after the last. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when the response was deleted meanwhile; what the store says.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.waits_for_end {
            self.wait().await;
            self.waits_for_end = self.follow.is_some();
        }
        loop {
            if let Some(frames) = self.ready.pop_front() {
                return Ok(Some(frames));
            }
            if self.is_over {
                return Ok(None);
            }
            let events = self.shared.store.events(&self.scope, &self.id, self.after);
            let Some((segments, is_last)) = events.await? else {
                return Err(not_found("response", &self.id));
            };
            for segment in &segments {
                let frames = log::unfold(segment)?;
                let wanted = frames_after(&frames, segment.first, self.after);
                if !wanted.is_empty() {
                    self.ready.push_back(frames.slice_ref(wanted));
                }
                self.after = Some(segment.first + segment.count.saturating_sub(1));
            }
            self.is_over = is_last;
            if segments.is_empty() && !is_last {
                self.wait().await;
            }
        }
    }

    async fn wait(&mut self) {
        match &mut self.follow {
            Some(progress) => {
                if progress.changed().await.is_err() {
                    self.follow = None;
                }
            }
            // It runs elsewhere, or has just ended.
            None => tokio::time::sleep(self.shared.limits.replay_poll_interval).await,
        }
    }
}
