//! Stored responses by their ids: read, listed, cancelled, deleted.

use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use honshu_domain::{Error, ErrorKind, Page, Scope, StoredResponse};
use honshu_wire::responses::{item_list, join, object_in_first_frame};

use crate::replay::Replay;
use crate::{Runtime, not_found};

/// How long a cancellation waits for the run to have ended.
const CANCEL_WAIT: Duration = Duration::from_secs(10);

impl Runtime {
    /// Reads a response.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn retrieve(&self, scope: &Scope, id: &str) -> Result<Bytes, Error> {
        match self.stored(scope, id).await {
            Ok(stored) => Ok(join(&stored.object_now(), &stored.response.output)),
            Err(error) => self.running(scope, id).ok_or(error),
        }
    }

    /// A foreground response that is not stored yet, as it began.
    fn running(&self, scope: &Scope, id: &str) -> Option<Bytes> {
        let handle = self.shared.live.find(scope, id)?;
        let frames = handle
            .first_frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        object_in_first_frame(&frames)
    }

    async fn stored(&self, scope: &Scope, id: &str) -> Result<Stored, Error> {
        let response = self.shared.store.response(scope, id).await?;
        response
            .map(|response| Stored { response })
            .ok_or_else(|| not_found("response", id))
    }

    /// Reads a response's events after the one numbered `after`, and then as they come.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a response that was not made as a stream.
    pub async fn replay(
        &self,
        scope: &Scope,
        id: &str,
        after: Option<u64>,
    ) -> Result<Replay, Error> {
        let replay = Replay::new(&self.shared, scope, id, after);
        // One that streams now is stored when it ends.
        if replay.is_followed() && self.running(scope, id).is_some() {
            return Ok(replay.after_its_end());
        }
        let stored = self.stored(scope, id).await?;
        if stored.response.has_events {
            Ok(replay)
        } else {
            Err(Error::invalid_at(
                "stream",
                "this response was not made as a stream, and its events are not kept",
            ))
        }
    }

    /// Lists a response's own input.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn input_items(&self, scope: &Scope, id: &str, page: Page) -> Result<Bytes, Error> {
        let items = self.shared.store.input_items(scope, id, page).await?;
        let items = items.ok_or_else(|| not_found("response", id))?;
        Ok(item_list(&items.data, items.has_more))
    }

    /// Deletes a response. One that runs is cancelled, and nothing of it is kept.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, scope: &Scope, id: &str) -> Result<(), Error> {
        let live = self.shared.live.find(scope, id);
        if let Some(handle) = &live {
            handle.delete();
        }
        if self.shared.store.delete_response(scope, id).await? || live.is_some() {
            Ok(())
        } else {
            Err(not_found("response", id))
        }
    }

    /// Cancels a background response. One that has ended stays as it is.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a response that does not run in the background.
    pub async fn cancel(&self, scope: &Scope, id: &str) -> Result<Bytes, Error> {
        let not_background = || {
            Error::new(ErrorKind::Invalid, "Cannot cancel a synchronous response.")
                .with_param("response_id")
        };
        let stored = match self.stored(scope, id).await {
            Ok(stored) => stored,
            Err(error) => {
                return Err(match self.running(scope, id) {
                    Some(_) => not_background(),
                    None => error,
                });
            }
        };
        if !stored.response.background {
            return Err(not_background());
        }
        if let Some(mut progress) = self.shared.live.follow(scope, id) {
            if let Some(handle) = self.shared.live.find(scope, id) {
                handle.cancel.cancel();
            }
            // The channel closes when the response has ended and is kept.
            let _ = tokio::time::timeout(CANCEL_WAIT, async {
                while progress.changed().await.is_ok() {}
            })
            .await;
        }
        self.retrieve(scope, id).await
    }
}

struct Stored {
    response: StoredResponse,
}

impl Stored {
    /// The object of a response that runs was written when it was queued; its status is newer.
    fn object_now(&self) -> honshu_domain::RawJson {
        let object = &self.response.object;
        if self.response.status == honshu_domain::StoredStatus::InProgress {
            let now =
                object
                    .get()
                    .replacen("\"status\":\"queued\"", "\"status\":\"in_progress\"", 1);
            return honshu_domain::RawJson::parse(&now).unwrap_or_else(|_| object.clone());
        }
        object.clone()
    }
}
