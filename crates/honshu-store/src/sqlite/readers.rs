//! The threads that read. They share one bounded queue; each has its own connection.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::connect;
use crate::error::{OpenError, Reason, StoreError};

/// Reads that may wait. A full queue means that the disk stands still.
const QUEUE_MAX: usize = 1_024;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

pub(super) struct Readers {
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(path: &Path, count: usize) -> Result<Self, OpenError> {
        let (queue, jobs) = sync_channel::<Job>(QUEUE_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let database = |source| OpenError::Database {
                path: path.to_owned(),
                source,
            };
            let mut connection = connect(path).map_err(database)?;
            connection
                .pragma_update(None, "query_only", true)
                .map_err(database)?;
            let jobs = Arc::clone(&jobs);
            let thread = std::thread::Builder::new()
                .name(format!("store-read-{number}"))
                .spawn(move || {
                    while let Some(job) = next(&jobs) {
                        job(&mut connection);
                    }
                })
                .map_err(OpenError::Thread)?;
            threads.push(thread);
        }
        Ok(Self {
            queue: Some(queue),
            threads,
        })
    }

    pub(super) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody waits any more: for a read that is a reason not to start.
            if !answer.is_closed() {
                let _ = answer.send(work(connection));
            }
        });
        let queue = self
            .queue
            .as_ref()
            .ok_or(StoreError::unavailable(Reason::Stopped))?;
        match queue.try_send(job) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(StoreError::unavailable(Reason::Overloaded)),
            Err(TrySendError::Disconnected(_)) => Err(StoreError::unavailable(Reason::Stopped)),
        }
    }
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
