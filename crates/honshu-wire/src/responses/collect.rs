//! The events of a run as one whole response.

use bytes::{Bytes, BytesMut};
use honshu_domain::{Entropy, InferenceRequest, Outcome, RunEvent, Status, Timestamp, Usage};

use super::encode::{StreamEncoder, is_terminal};
use super::object::{State, TurnFacts};
use crate::head::ResponseHead;
use crate::json::members;

/// Collects the events of a run into one response object. Runs that failed before anything was promised are
/// answered by [`crate::error::openai_body`] instead.
#[derive(Debug)]
pub struct Collector {
    inner: StreamEncoder,
    native: Option<Bytes>,
}

impl Collector {
    /// A collector for the answer to `request`.
    pub fn new(head: ResponseHead, request: &InferenceRequest, entropy: &dyn Entropy) -> Self {
        Self {
            inner: StreamEncoder::new(head, request, entropy),
            native: None,
        }
    }

    /// A collector for a turn of something that is kept.
    pub fn of_turn(
        head: ResponseHead,
        request: &InferenceRequest,
        facts: TurnFacts,
        entropy: &dyn Entropy,
    ) -> Self {
        Self {
            inner: StreamEncoder::of_turn(head, request, facts, entropy),
            native: None,
        }
    }

    /// Takes one event. Of native frames the whole answer, or the response in the terminal one, is kept.
    pub fn event(&mut self, event: &RunEvent) {
        let RunEvent::Native(frame) = event else {
            self.inner.take(event);
            return;
        };
        if frame.whole {
            self.native = Some(frame.json.clone());
        } else if frame.event.as_deref().is_some_and(is_terminal)
            && let Ok(text) = std::str::from_utf8(&frame.json)
        {
            let _ = members(text, |key, place| {
                if key == "response" {
                    self.native = Some(frame.json.slice(place));
                }
            });
        }
    }

    /// The body.
    pub fn finish(mut self, outcome: &Outcome, now: Timestamp) -> Bytes {
        if let Some(body) = &self.native {
            return self.inner.native_body(body);
        }
        let completed = outcome.status == Status::Completed;
        let failed = !completed && !matches!(outcome.status, Status::Incomplete(_));
        if !failed {
            self.inner.close();
        }
        // Programs read the counts of an answer without asking whether they are there.
        let known = !failed || outcome.usage_exact || outcome.usage != Usage::default();
        let state = State {
            status: outcome.status.as_str(),
            completed_at: completed.then(|| now.as_seconds()),
            error: None,
            incomplete: match outcome.status {
                Status::Incomplete(reason) => Some(reason),
                _ => None,
            },
            usage: known.then_some(outcome.usage),
        };
        let mut body = BytesMut::with_capacity(2048);
        self.inner.write_response(&state, &mut body);
        body.freeze()
    }
}
