//! A few threads for work that is too long for an async thread and too short for one of its own: rendering a
//! conversation, cutting it into tokens, compiling a schema. Never more waiting work than the bound below.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Tasks that wait; beyond this the caller is told to come back.
const QUEUE_MAX: usize = 256;
/// Deep schemas are compiled by recursion.
const STACK_BYTES: usize = 16 << 20;
const THREADS_MAX: usize = 4;

type Task = Box<dyn FnOnce() + Send>;

pub(crate) struct Workers {
    sender: SyncSender<Task>,
}

/// Why a task gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerError {
    /// Too many tasks wait.
    Full,
    /// The task panicked.
    Broken,
}

impl Workers {
    pub(crate) fn start() -> Self {
        let (sender, receiver) = sync_channel::<Task>(QUEUE_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = std::thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .clamp(1, THREADS_MAX);
        for _ in 0..threads {
            let receiver = Arc::clone(&receiver);
            let spawned = std::thread::Builder::new()
                .name("honshu-prepare".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || work(&receiver));
            if let Err(error) = spawned {
                tracing::error!(%error, "a worker thread could not be started");
            }
        }
        Self { sender }
    }

    /// Runs `task` on a worker. If the future is dropped, a task that has begun still runs to its end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkerError> {
        let (done, result) = oneshot::channel();
        let task: Task = Box::new(move || {
            if !done.is_closed() {
                let _ = done.send(task());
            }
        });
        match self.sender.try_send(task) {
            Ok(()) => result.await.map_err(|_| WorkerError::Broken),
            Err(TrySendError::Full(_)) => Err(WorkerError::Full),
            Err(TrySendError::Disconnected(_)) => Err(WorkerError::Broken),
        }
    }
}

fn work(receiver: &Mutex<Receiver<Task>>) {
    loop {
        let task = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(task) = task else { return };
        // The one who waits is told by the dropped channel.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(task)).is_err() {
            tracing::error!("a worker's task panicked");
        }
    }
}
