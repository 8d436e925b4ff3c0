//! A backend that plays scripts and counts what happens to it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use honshu_domain::{
    Attempt, Backend, BackendKind, Demand, Dialect, Error, Finish, FinishReason, PartKind,
    RunEvent, RunStream, Support, Usage,
};
use tokio::time::{Instant, Sleep};

/// One thing that a fake stream does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Gives this event.
    Event(RunEvent),
    /// Is silent for a while.
    Wait(Duration),
    /// Is silent for ever.
    Stall,
    /// Fails.
    Fail(Error),
    /// Ends as it is.
    End,
    /// Panics.
    Panic,
}

impl Act {
    /// `Started` with `input_tokens`.
    #[must_use]
    pub fn started(input_tokens: u64) -> Self {
        Self::Event(RunEvent::Started {
            upstream_request_id: None,
            input_tokens: Some(input_tokens),
        })
    }

    /// A piece of text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Event(RunEvent::Delta {
            output_index: 0,
            part_index: 0,
            kind: PartKind::Text,
            text: text.to_owned(),
            logprobs: Vec::new(),
        })
    }

    /// The end of the text's part.
    #[must_use]
    pub fn part_done() -> Self {
        Self::Event(RunEvent::PartDone {
            output_index: 0,
            part_index: 0,
            kind: PartKind::Text,
        })
    }

    /// The declared end.
    #[must_use]
    pub fn finished(reason: FinishReason, input_tokens: u64, output_tokens: u64) -> Self {
        let usage = Some(Usage {
            input_tokens,
            output_tokens,
            ..Usage::default()
        });
        Self::Event(RunEvent::Finished(Finish {
            reason,
            usage,
            stop_text: None,
        }))
    }

    /// A whole good answer of `pieces` pieces.
    #[must_use]
    pub fn good(pieces: u64) -> Vec<Self> {
        let mut acts = vec![Self::started(7)];
        acts.extend((0..pieces).map(|_| Self::text("word ")));
        acts.push(Self::finished(FinishReason::Stop, 7, pieces));
        acts
    }
}

/// A backend that plays one script after the other, the last one for ever.
#[derive(Debug)]
pub struct FakeBackend {
    name: String,
    scripts: Mutex<VecDeque<Vec<Act>>>,
    calls: AtomicU32,
    live: Arc<AtomicU32>,
    last_drop: Arc<Mutex<Option<Instant>>>,
    unsupported: Vec<Demand>,
    panics_on_call: bool,
}

impl FakeBackend {
    /// A backend of this name that plays `scripts`.
    #[must_use]
    pub fn new(name: &str, scripts: impl IntoIterator<Item = Vec<Act>>) -> Self {
        Self {
            name: name.to_owned(),
            scripts: Mutex::new(scripts.into_iter().collect()),
            calls: AtomicU32::new(0),
            live: Arc::default(),
            last_drop: Arc::default(),
            unsupported: Vec::new(),
            panics_on_call: false,
        }
    }

    /// It cannot do `demand`.
    #[must_use]
    pub fn without(mut self, demand: Demand) -> Self {
        self.unsupported.push(demand);
        self
    }

    /// It panics when it is called.
    #[must_use]
    pub fn panicking(mut self) -> Self {
        self.panics_on_call = true;
        self
    }

    /// How often it was called.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many of its streams exist.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::SeqCst)
    }

    /// When its last stream was dropped, on tokio's clock.
    pub fn last_drop(&self) -> Option<Instant> {
        *self.last_drop.lock().unwrap()
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> BackendKind {
        BackendKind::Scripted
    }

    fn supports(&self, _upstream: &str, _dialect: Dialect, demand: Demand) -> Support {
        if self.unsupported.contains(&demand) {
            Support::No
        } else {
            Support::Yes
        }
    }

    fn passes_through(&self, _upstream: &str, _dialect: Dialect) -> bool {
        false
    }

    fn generate(&self, _attempt: Attempt) -> RunStream {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics_on_call, "told to panic when called");
        let mut scripts = self.scripts.lock().unwrap();
        let acts = if scripts.len() > 1 {
            scripts.pop_front().unwrap()
        } else {
            scripts.front().cloned().unwrap_or_default()
        };
        self.live.fetch_add(1, Ordering::SeqCst);
        Box::pin(FakeStream {
            acts: acts.into(),
            sleep: None,
            live: Arc::clone(&self.live),
            last_drop: Arc::clone(&self.last_drop),
            is_over: false,
        })
    }
}

struct FakeStream {
    acts: VecDeque<Act>,
    sleep: Option<Pin<Box<Sleep>>>,
    live: Arc<AtomicU32>,
    last_drop: Arc<Mutex<Option<Instant>>>,
    is_over: bool,
}

impl Stream for FakeStream {
    type Item = Result<RunEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        assert!(!this.is_over, "polled after the end");
        loop {
            if let Some(sleep) = &mut this.sleep {
                ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
            }
            match this.acts.pop_front() {
                Some(Act::Event(event)) => return Poll::Ready(Some(Ok(event))),
                Some(Act::Wait(duration)) => {
                    this.sleep = Some(Box::pin(tokio::time::sleep(duration)));
                }
                Some(Act::Stall) => {
                    this.acts.push_front(Act::Stall);
                    return Poll::Pending;
                }
                Some(Act::Fail(error)) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Act::End) | None => {
                    this.is_over = true;
                    return Poll::Ready(None);
                }
                Some(Act::Panic) => panic!("told to panic"),
            }
        }
    }
}

impl Drop for FakeStream {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
        *self.last_drop.lock().unwrap() = Some(Instant::now());
    }
}
