//! What is under way on this node: responses that run, and the conversations that they hold.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use honshu_domain::{Error, ErrorKind, Retry, Scope};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Key = (Scope, Arc<str>);

/// Responses that run here.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<HashMap<Key, Arc<Handle>>>);

/// What others may know of a running response, and do to it.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Ends it.
    pub(crate) cancel: CancellationToken,
    /// Set when it was deleted while it ran: nothing of it is kept then.
    deleted: AtomicBool,
    /// Frames of which the first is `response.created`, of a response that is not stored before its end.
    pub(crate) first_frames: Mutex<Bytes>,
    /// Counts what was kept of its events; closed when it has ended.
    progress: watch::Sender<u64>,
}

impl Handle {
    pub(crate) fn published(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    pub(crate) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
        self.cancel.cancel();
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
}

/// A response's entry, for as long as it runs.
pub(crate) struct Entry {
    live: Arc<crate::Shared>,
    key: Key,
    pub(crate) handle: Arc<Handle>,
}

impl Live {
    pub(crate) fn enter(shared: &Arc<crate::Shared>, scope: &Scope, id: &Arc<str>) -> Entry {
        let handle = Arc::new(Handle {
            cancel: CancellationToken::new(),
            deleted: AtomicBool::new(false),
            first_frames: Mutex::new(Bytes::new()),
            progress: watch::Sender::new(0),
        });
        let key = (scope.clone(), Arc::clone(id));
        shared
            .live
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), Arc::clone(&handle));
        Entry {
            live: Arc::clone(shared),
            key,
            handle,
        }
    }

    pub(crate) fn find(&self, scope: &Scope, id: &str) -> Option<Arc<Handle>> {
        let live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(&(scope.clone(), Arc::from(id))).cloned()
    }

    /// Who wants to hear of progress. The channel is closed when the response has ended.
    pub(crate) fn follow(&self, scope: &Scope, id: &str) -> Option<watch::Receiver<u64>> {
        self.find(scope, id)
            .map(|handle| handle.progress.subscribe())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.live
            .live
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
        self.handle.published();
    }
}

/// Conversations in which a response runs. A node's own: two nodes that share a store each keep their turns in
/// order, and the store appends whole turns.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashSet<Key>>);

/// A conversation that is held. Dropping it lets go.
pub(crate) struct Held {
    shared: Arc<crate::Shared>,
    key: Key,
}

impl Locks {
    /// Takes a conversation.
    ///
    /// # Errors
    /// `Conflict` while a response runs in it.
    pub(crate) fn take(
        shared: &Arc<crate::Shared>,
        scope: &Scope,
        id: &str,
    ) -> Result<Held, Error> {
        let key = (scope.clone(), Arc::from(id));
        let mut held = shared
            .locks
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if held.insert(key.clone()) {
            Ok(Held {
                shared: Arc::clone(shared),
                key,
            })
        } else {
            Err(Error::new(
                ErrorKind::Conflict,
                "another response is running in this conversation; wait for its end",
            )
            .with_code("conversation_locked")
            .with_param("conversation")
            .with_retry(Retry::Now))
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared
            .locks
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}
