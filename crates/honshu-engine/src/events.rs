//! The channel from the engine's thread to a job's reader: bounded, and with a voice in both directions.
//!
//! The engine never waits here. A full channel pauses its sequence, a reader that made room wakes the engine, and a
//! reader that went away cancels the job; a plain channel of a library would tell the engine none of these.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::job::JobEvent;

/// Events that wait for a slow reader before its sequence pauses; about four seconds of text at 30 tokens a second.
pub(crate) const EVENTS_MAX: usize = 128;

/// Tells the engine that something changed on a reader's side.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
    /// A reader left; its flag is set already.
    fn reader_left(&self);
}

struct State {
    queue: VecDeque<JobEvent>,
    writer_gone: bool,
    paused: bool,
    waker: Option<Waker>,
}

struct Channel {
    state: Mutex<State>,
    readable: Condvar,
    engine: Arc<dyn Wake>,
    reader_gone: Arc<AtomicBool>,
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock, so a poisoned state is still a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn channel(engine: Arc<dyn Wake>) -> (EventSender, JobEvents) {
    let channel = Arc::new(Channel {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            writer_gone: false,
            paused: false,
            waker: None,
        }),
        readable: Condvar::new(),
        engine,
        reader_gone: Arc::default(),
    });
    (
        EventSender {
            channel: Arc::clone(&channel),
        },
        JobEvents { channel },
    )
}

/// The engine's end.
pub(crate) struct EventSender {
    channel: Arc<Channel>,
}

impl EventSender {
    /// Delivers an event. The last event of a job may exceed the bound by one, so it is never lost.
    pub(crate) fn send(&self, event: JobEvent) {
        let waker = {
            let mut state = self.channel.lock();
            if self.is_cancelled() {
                return;
            }
            state.queue.push_back(event);
            state.waker.take()
        };
        self.channel.readable.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the reader has gone, so that the job is to be cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.channel.reader_gone.load(Ordering::Acquire)
    }

    /// The flag behind [`Self::is_cancelled`].
    pub(crate) fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.channel.reader_gone)
    }

    /// Whether the reader lags so far behind that its sequence must pause. The engine is woken when it caught up.
    pub(crate) fn must_pause(&self) -> bool {
        let mut state = self.channel.lock();
        state.paused = !self.is_cancelled()
            && state.queue.len()
                >= if state.paused {
                    EVENTS_MAX / 2
                } else {
                    EVENTS_MAX
                };
        state.paused
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.channel.lock();
            state.writer_gone = true;
            state.waker.take()
        };
        self.channel.readable.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The events of one job, in order: a stream for async code, an iterator by [`JobEvents::recv`] for threads.
/// Dropping it cancels the job within one decode step. While it is not read, its sequence pauses after
/// a bounded number of events and the other sequences go on.
pub struct JobEvents {
    channel: Arc<Channel>,
}

impl JobEvents {
    /// Waits for the next event; `None` after the last. Blocks the thread: for async code use the stream.
    pub fn recv(&mut self) -> Option<JobEvent> {
        let mut state = self.channel.lock();
        loop {
            if let Some(event) = Self::take(&mut state, &self.channel) {
                return Some(event);
            }
            if state.writer_gone {
                return None;
            }
            state = self
                .channel
                .readable
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<JobEvent> {
        let mut state = self.channel.lock();
        Self::take(&mut state, &self.channel)
    }

    fn take(state: &mut State, channel: &Channel) -> Option<JobEvent> {
        let event = state.queue.pop_front()?;
        if state.paused && state.queue.len() < EVENTS_MAX / 2 {
            state.paused = false;
            channel.engine.wake();
        }
        Some(event)
    }
}

impl futures_core::Stream for JobEvents {
    type Item = JobEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        let mut state = self.channel.lock();
        if let Some(event) = Self::take(&mut state, &self.channel) {
            return Poll::Ready(Some(event));
        }
        if state.writer_gone {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for JobEvents {
    fn drop(&mut self) {
        let gone = {
            let mut state = self.channel.lock();
            self.channel.reader_gone.store(true, Ordering::Release);
            state.queue.clear();
            !state.writer_gone
        };
        if gone {
            self.channel.engine.reader_left();
        }
    }
}

impl std::fmt::Debug for JobEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobEvents")
            .field("waiting", &self.channel.lock().queue.len())
            .finish()
    }
}
