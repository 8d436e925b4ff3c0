//! Vectors of a loaded model: one thread that owns the context for them, begun by the first request for vectors and
//! ended with the model.
//!
//! Entries are computed one after the other, so that a vector is the same to the last bit whatever else was asked for
//! beside it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::job::Token;
use crate::sys::{self, EmbedError, EmbeddingContext};

/// Requests that wait.
const QUEUE_MAX: usize = 64;
/// Requests that take turns.
const TURNS_MAX: usize = 16;
/// Longest entry, in tokens: the attention of an encoder over more would take memory by its square, and the API takes
/// no more.
const ENTRY_TOKENS_MAX: u32 = 8_192;

/// Why there are no vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Too many requests wait.
    Full,
    /// An entry, by its place, that cannot have a vector.
    Entry(usize, &'static str),
    /// The model gives none.
    Refused(String),
    /// The model is being unloaded.
    Stopped,
    /// llama.cpp failed.
    Failed(i32),
}

struct Work {
    entries: Vec<Vec<Token>>,
    vectors: Vec<Vec<f32>>,
    done: oneshot::Sender<Result<Vec<Vec<f32>>, Failure>>,
}

struct Running {
    sender: SyncSender<Work>,
    thread: JoinHandle<()>,
}

/// Makes vectors with one model.
pub(crate) struct Embedder {
    model: Arc<sys::Model>,
    n_ctx: u32,
    threads: u32,
    abort: Arc<AtomicBool>,
    running: Mutex<Option<Running>>,
}

impl Embedder {
    /// For entries of at most `n_ctx` tokens. Takes no memory before the first request.
    pub(crate) fn new(model: Arc<sys::Model>, n_ctx: u32, threads: u32) -> Self {
        let trained = model.n_ctx_train();
        let trained = if trained == 0 { u32::MAX } else { trained };
        Self {
            n_ctx: n_ctx.min(trained).min(ENTRY_TOKENS_MAX),
            model,
            threads,
            abort: Arc::default(),
            running: Mutex::default(),
        }
    }

    /// Tokens of the longest entry.
    pub(crate) fn n_ctx(&self) -> u32 {
        self.n_ctx
    }

    /// Numbers of a vector.
    pub(crate) fn width(&self) -> usize {
        self.model.vector_width()
    }

    /// The vectors of entries, in order, each of length 1. Dropping the future gives up what was not begun.
    pub(crate) async fn embed(&self, entries: Vec<Vec<Token>>) -> Result<Vec<Vec<f32>>, Failure> {
        let (done, vectors) = oneshot::channel();
        let sent = self.sender()?.try_send(Work {
            vectors: Vec::with_capacity(entries.len()),
            entries,
            done,
        });
        match sent {
            Ok(()) => vectors.await.unwrap_or(Err(Failure::Stopped)),
            Err(TrySendError::Full(_)) => Err(Failure::Full),
            Err(TrySendError::Disconnected(_)) => Err(Failure::Stopped),
        }
    }

    fn sender(&self) -> Result<SyncSender<Work>, Failure> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*running {
            return Ok(running.sender.clone());
        }
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let (model, abort) = (Arc::clone(&self.model), Arc::clone(&self.abort));
        let (n_ctx, threads) = (self.n_ctx, self.threads);
        let thread = std::thread::Builder::new()
            .name("honshu-embed".to_owned())
            .spawn(move || work(&receiver, &model, n_ctx, threads, &abort))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        *running = Some(Running {
            sender: sender.clone(),
            thread,
        });
        Ok(sender)
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        self.abort.store(true, Ordering::Relaxed);
        let running = self
            .running
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Running { sender, thread }) = running {
            drop(sender);
            if thread.join().is_err() {
                tracing::error!("the thread of the vectors had panicked");
            }
        }
    }
}

fn work(
    receiver: &Receiver<Work>,
    model: &Arc<sys::Model>,
    n_ctx: u32,
    threads: u32,
    abort: &Arc<AtomicBool>,
) {
    let mut context: Option<EmbeddingContext> = None;
    // Requests take turns entry by entry, so that a long one holds up nobody.
    let mut turns: VecDeque<Work> = VecDeque::new();
    loop {
        if turns.is_empty() {
            match receiver.recv() {
                Ok(work) => turns.push_back(work),
                Err(_) => return,
            }
        }
        while turns.len() < TURNS_MAX
            && let Ok(work) = receiver.try_recv()
        {
            turns.push_back(work);
        }
        if abort.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut work) = turns.pop_front() else {
            continue;
        };
        if work.done.is_closed() {
            continue;
        }
        let opened = match &mut context {
            Some(context) => Ok(context),
            // A failure may be one of memory, which the next request can find free again.
            none => EmbeddingContext::new(Arc::clone(model), n_ctx, threads, Arc::clone(abort))
                .map(|made| none.insert(made)),
        };
        let next = opened
            .map_err(Failure::Refused)
            .and_then(|context| next_vector(context, &mut work));
        match next {
            Ok(()) if work.vectors.len() < work.entries.len() => turns.push_back(work),
            next => {
                let vectors = next.map(|()| work.vectors);
                let _ = work.done.send(vectors);
            }
        }
    }
}

fn next_vector(context: &mut EmbeddingContext, work: &mut Work) -> Result<(), Failure> {
    let place = work.vectors.len();
    let Some(tokens) = work.entries.get(place) else {
        return Ok(());
    };
    let mut vector = context.embed(tokens).map_err(|error| match error {
        EmbedError::Invalid(what) => Failure::Entry(place, what),
        EmbedError::Aborted => Failure::Stopped,
        EmbedError::Failed(code) => Failure::Failed(code),
    })?;
    normalize(&mut vector);
    work.vectors.push(vector);
    Ok(())
}

/// Gives a vector the length 1; one of nothing but zeros stays as it is.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|number| f64::from(*number) * f64::from(*number))
        .sum::<f64>()
        .sqrt();
    if length > 0.0 && length.is_finite() {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "vectors are single precision; the sum alone needs more"
        )]
        for number in vector {
            *number = (f64::from(*number) / length) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn vectors_get_the_length_one() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zeros = [0.0, 0.0];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0, 0.0]);
        let mut huge = [f32::MAX, 0.0];
        normalize(&mut huge);
        assert_eq!(huge, [1.0, 0.0]);
    }
}
