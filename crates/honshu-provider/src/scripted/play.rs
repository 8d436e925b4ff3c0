//! Plays a script: its events with its pauses and its one fault.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use honshu_domain::{Error, RunEvent};
use tokio::time::Sleep;

use super::script::{Fault, Script};

pub(super) struct Play {
    events: std::vec::IntoIter<RunEvent>,
    played: usize,
    fault: Option<(usize, Fault)>,
    first: Duration,
    delay: Duration,
    /// The pause before the next event, while it runs.
    pause: Option<Pin<Box<Sleep>>>,
    has_paused: bool,
    is_over: bool,
}

impl Play {
    pub(super) fn new(script: Script) -> Self {
        Self {
            events: script.events.into_iter(),
            played: 0,
            fault: script.fault,
            first: script.first,
            delay: script.delay,
            pause: None,
            has_paused: false,
            is_over: false,
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_paused {
            return Poll::Ready(());
        }
        let length = match self.events.as_slice().first() {
            _ if self.played == 0 => self.first,
            Some(RunEvent::Delta { .. } | RunEvent::ArgumentsDelta { .. }) => self.delay,
            _ => Duration::ZERO,
        };
        if !length.is_zero() {
            let pause = self
                .pause
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(length)));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        self.has_paused = true;
        Poll::Ready(())
    }
}

impl Stream for Play {
    type Item = Result<RunEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        ready!(this.poll_pause(cx));
        if let Some((at, fault)) = &this.fault
            && *at == this.played
        {
            return match fault {
                // Nobody wakes this task any more: only whoever polls it has a clock.
                Fault::Stall => Poll::Pending,
                Fault::Cut => {
                    this.is_over = true;
                    Poll::Ready(None)
                }
                Fault::Fail(error) => {
                    this.is_over = true;
                    Poll::Ready(Some(Err(error.clone())))
                }
            };
        }
        this.played += 1;
        this.has_paused = false;
        let event = this.events.next();
        this.is_over = event.is_none();
        Poll::Ready(event.map(Ok))
    }
}
