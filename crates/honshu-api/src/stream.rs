//! From the steps of a run to the bytes of an answer, whole or as server-sent events.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Clock, Dialect, Entropy, Error, ErrorKind, InferenceRequest, Outcome, Result, RunEvent, Status,
    SystemEntropy, Timestamp,
};
use honshu_gateway::{Run, Step};
use honshu_wire::{ResponseHead, chat, completions, messages, responses, sse};
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use crate::respond;

/// A comment is sent after this much silence, so that proxies and clients keep the connection.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(15);

/// After an error of a Chat or Messages stream the connection is broken off, because a clean end would read as
/// success. This is the time its last bytes get to leave first.
const BREAK_AFTER: Duration = Duration::from_millis(20);

/// Room for the frames of one wake-up.
const FRAME_BYTES: usize = 1_024;

enum Encoder {
    Responses(Box<responses::StreamEncoder>),
    Chat(Box<chat::StreamEncoder>),
    Messages(Box<messages::StreamEncoder>),
    Completions(Box<completions::StreamEncoder>),
}

impl Encoder {
    fn event(&mut self, event: &RunEvent, out: &mut BytesMut) {
        match self {
            Self::Responses(encoder) => encoder.event(event, out),
            Self::Chat(encoder) => encoder.event(event, out),
            Self::Messages(encoder) => encoder.event(event, out),
            Self::Completions(encoder) => encoder.event(event, out),
        }
    }

    fn end(
        &mut self,
        outcome: &Outcome,
        error: Option<&Error>,
        now: Timestamp,
        out: &mut BytesMut,
    ) {
        match self {
            Self::Responses(encoder) => encoder.end(outcome, error, now, out),
            Self::Chat(encoder) => encoder.end(outcome, error, now, out),
            Self::Messages(encoder) => encoder.end(outcome, error, now, out),
            Self::Completions(encoder) => encoder.end(outcome, error, now, out),
        }
    }
}

/// The answer as a stream. Dropping the body drops the run, whose owner then cancels the work.
pub(crate) fn streamed(
    run: Run,
    dialect: Dialect,
    head: ResponseHead,
    request: &InferenceRequest,
    clock: Arc<dyn Clock>,
) -> Response {
    let entropy: &dyn Entropy = &SystemEntropy;
    let encoder = match dialect {
        Dialect::Responses => Encoder::Responses(Box::new(responses::StreamEncoder::new(
            head, request, entropy,
        ))),
        Dialect::ChatCompletions => {
            Encoder::Chat(Box::new(chat::StreamEncoder::new(head, request, entropy)))
        }
        Dialect::Messages => Encoder::Messages(Box::new(messages::StreamEncoder::new(
            head, request, entropy,
        ))),
        // Embeddings are never streamed; their parser sees to that.
        Dialect::Completions | Dialect::Embeddings => Encoder::Completions(Box::new(
            completions::StreamEncoder::new(head, request, entropy),
        )),
    };
    let body = RunBody {
        run,
        encoder,
        clock,
        buffer: BytesMut::with_capacity(FRAME_BYTES),
        heartbeat: None,
        last_frame: Instant::now(),
        state: State::Running,
        breaks_on_failure: dialect != Dialect::Responses,
    };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // Tells nginx not to hold frames back.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

#[derive(Debug)]
enum State {
    Running,
    /// A failed Chat or Messages stream: its error is out, the connection breaks when the sleep ends.
    Breaking(Pin<Box<Sleep>>),
    Ended,
}

struct RunBody {
    run: Run,
    encoder: Encoder,
    clock: Arc<dyn Clock>,
    buffer: BytesMut,
    /// Made at the first silence: most streams never need the timer's wheel entry to move.
    heartbeat: Option<Pin<Box<Sleep>>>,
    last_frame: Instant,
    state: State,
    breaks_on_failure: bool,
}

impl RunBody {
    /// Takes the steps that are there. True when the run has ended.
    fn drain(&mut self, cx: &mut TaskContext<'_>) -> bool {
        while let Poll::Ready(step) = self.run.poll_next(cx) {
            match step {
                Some(Step::Event(event)) => {
                    self.encoder.event(&event, &mut self.buffer);
                    // What is there leaves now: a frame is not held back for its neighbour.
                    if !self.buffer.is_empty() {
                        return false;
                    }
                }
                Some(Step::End { outcome, error }) => {
                    if let Some(error) = &error {
                        tracing::debug!(error = %respond::chain(error), "stream failed");
                    }
                    self.encoder
                        .end(&outcome, error.as_ref(), self.clock.now(), &mut self.buffer);
                    let failed = matches!(outcome.status, Status::Failed(_) | Status::Cancelled);
                    self.state = if failed && self.breaks_on_failure {
                        State::Breaking(Box::pin(tokio::time::sleep(BREAK_AFTER)))
                    } else {
                        State::Ended
                    };
                    return true;
                }
                None => {
                    self.state = State::Ended;
                    return true;
                }
            }
        }
        false
    }

    /// A heartbeat, if it is time for one; else the timer is armed.
    fn poll_heartbeat(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let deadline = self.last_frame + HEARTBEAT_AFTER;
        let sleep = self
            .heartbeat
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            // The timer is set once and moved only when it rings: frames need not touch it.
            if Instant::now() >= deadline {
                sleep.as_mut().reset(Instant::now() + HEARTBEAT_AFTER);
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

impl http_body::Body for RunBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        match &mut this.state {
            State::Ended => return Poll::Ready(None),
            State::Breaking(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                this.state = State::Ended;
                return Poll::Ready(Some(Err(io::Error::other("the run failed"))));
            }
            State::Running => {}
        }
        this.drain(cx);
        if !this.buffer.is_empty() {
            this.last_frame = Instant::now();
            let frame = this.buffer.split().freeze();
            this.buffer.reserve(FRAME_BYTES);
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        match this.state {
            State::Running => {}
            // The end had nothing to say.
            State::Breaking(_) | State::Ended => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        ready!(this.poll_heartbeat(cx));
        this.last_frame = Instant::now();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(sse::HEARTBEAT)))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

/// The answer in one piece. Dropping the future drops the run.
///
/// # Errors
/// What made the run fail.
pub(crate) async fn whole(
    mut run: Run,
    dialect: Dialect,
    head: ResponseHead,
    request: &InferenceRequest,
    clock: &dyn Clock,
) -> Result<Response> {
    enum Collector {
        Responses(Box<responses::Collector>),
        Chat(Box<chat::Collector>),
        Messages(Box<messages::Collector>),
        /// Also embeddings, which are one native frame.
        Completions(Box<completions::Collector>),
    }
    let entropy: &dyn Entropy = &SystemEntropy;
    let mut collector = match dialect {
        Dialect::Responses => {
            Collector::Responses(Box::new(responses::Collector::new(head, request, entropy)))
        }
        Dialect::ChatCompletions => {
            Collector::Chat(Box::new(chat::Collector::new(head, request, entropy)))
        }
        Dialect::Messages => {
            Collector::Messages(Box::new(messages::Collector::new(head, request, entropy)))
        }
        Dialect::Completions | Dialect::Embeddings => Collector::Completions(Box::new(
            completions::Collector::new(head, request, entropy),
        )),
    };
    while let Some(step) = run.next().await {
        match step {
            Step::Event(event) => match &mut collector {
                Collector::Responses(collector) => collector.event(&event),
                Collector::Chat(collector) => collector.event(&event),
                Collector::Messages(collector) => collector.event(&event),
                Collector::Completions(collector) => collector.event(&event),
            },
            Step::End { outcome, error } => {
                return match outcome.status {
                    Status::Completed | Status::Incomplete(_) => {
                        let body = match collector {
                            Collector::Responses(collector) => {
                                collector.finish(&outcome, clock.now())
                            }
                            Collector::Chat(collector) => collector.finish(&outcome, clock.now()),
                            Collector::Completions(collector) => {
                                collector.finish(&outcome, clock.now())
                            }
                            Collector::Messages(collector) => {
                                collector.finish(&outcome, clock.now())
                            }
                        };
                        Ok(respond::json_bytes(StatusCode::OK, body))
                    }
                    Status::Failed(_) | Status::Cancelled => Err(error.unwrap_or_else(|| {
                        Error::new(ErrorKind::Upstream, "the answer broke off before its end")
                    })),
                };
            }
        }
    }
    Err(Error::internal("the run ended without an outcome"))
}
