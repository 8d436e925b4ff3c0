//! One exchange with an upstream as a stream of events.
//!
//! A stream that breaks off ends without `Finished`: the run's owner then knows that it was cut. Dropping the
//! stream closes the connection, which tells the upstream to stop.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use honshu_domain::{Dialect, Error, Finish, FinishReason, RunEvent, Usage};
use honshu_egress::{Client, EgressBody};
use honshu_wire::passthrough::{FramePatcher, Patched};
use honshu_wire::{chat, responses};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request};
use http_body::Body as _;

use super::error;
use super::split::Splitter;
use crate::credential::Credential;

/// The largest event of a stream. A final Responses event holds the whole answer, images included.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest answer that is not streamed.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The largest error body that is read; the rest would say nothing new.
const ERROR_BYTES_MAX: u64 = 64 * 1024;
/// After the terminal frame an upstream has this long to end its body, so that its connection can be used again.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// What an exchange needs.
pub(super) struct Exchange {
    pub(super) client: Client,
    pub(super) request: Request<Bytes>,
    pub(super) credential: Credential,
    /// The dialect that the upstream is asked in.
    pub(super) dialect: Dialect,
    pub(super) is_streamed: bool,
    pub(super) decoder: Decoder,
}

/// The answer of an upstream. See the module.
pub(super) struct Answer {
    state: State,
    /// Events that are ready.
    queue: VecDeque<RunEvent>,
    /// Reused by the translating decoders.
    scratch: Vec<RunEvent>,
    decoder: Decoder,
    credential: Credential,
    dialect: Dialect,
}

enum State {
    Opening(Pin<Box<dyn Future<Output = Result<Opened, Error>> + Send>>),
    Reading {
        body: EgressBody,
        splitter: Box<Splitter>,
    },
    /// Nothing comes any more but what is queued.
    Ended,
}

struct Opened {
    upstream_request_id: Option<Arc<str>>,
    content: Content,
}

enum Content {
    Stream(EgressBody),
    Whole(Bytes),
    /// A whole answer although a stream was asked for.
    WholeForStream(Bytes),
}

impl Answer {
    pub(super) fn new(exchange: Exchange) -> Self {
        let Exchange {
            client,
            request,
            credential,
            dialect,
            is_streamed,
            decoder,
        } = exchange;
        Self {
            state: State::Opening(Box::pin(open(
                client,
                request,
                credential.clone(),
                is_streamed,
            ))),
            queue: VecDeque::new(),
            scratch: Vec::new(),
            decoder,
            credential,
            dialect,
        }
    }

    fn opened(&mut self, opened: Opened) -> Result<(), Error> {
        self.queue.push_back(RunEvent::Started {
            upstream_request_id: opened.upstream_request_id,
            input_tokens: None,
        });
        match opened.content {
            Content::Stream(body) => {
                let splitter = Box::new(Splitter::new(EVENT_BYTES_MAX));
                self.state = State::Reading { body, splitter };
                return Ok(());
            }
            Content::Whole(bytes) => self.decoder.whole(bytes, &mut self.scratch)?,
            Content::WholeForStream(bytes) => {
                if matches!(self.decoder, Decoder::Native(_)) {
                    // Only a translation can make a stream of it.
                    self.decoder = Decoder::translating(self.dialect, 1, HashSet::new());
                }
                self.decoder.whole(bytes, &mut self.scratch)?;
            }
        }
        self.state = State::Ended;
        self.queue_decoded();
        Ok(())
    }

    /// `Started` was said when the head came; the decoders say it again with the first frame.
    fn queue_decoded(&mut self) {
        let decoded = self.scratch.drain(..);
        self.queue
            .extend(decoded.filter(|event| !matches!(event, RunEvent::Started { .. })));
    }

    /// Reads until an event is queued or the stream is over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let State::Reading { body, splitter } = &mut self.state else {
                return Poll::Ready(Ok(()));
            };
            match splitter.next() {
                Ok(Some(data)) => {
                    self.decoder.frame(data, &mut self.scratch)?;
                    self.queue_decoded();
                    if self.decoder.is_finished() {
                        self.say_goodbye();
                    }
                    if !self.queue.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(super::TooLong) => return Poll::Ready(Err(error::too_large())),
            }
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        splitter.push(chunk);
                    }
                }
                Some(Err(cause)) => {
                    tracing::debug!(%cause, "an upstream's stream broke");
                    self.state = State::Ended;
                }
                None => {
                    let last = splitter.finish();
                    self.state = State::Ended;
                    self.close(last);
                }
            }
        }
    }

    /// The upstream closed the stream in good order. If it had not said that the answer is whole, nothing is
    /// added: the missing `Finished` says so.
    fn close(&mut self, last: Option<Bytes>) {
        let decoded = match last {
            Some(data) => self.decoder.frame(data, &mut self.scratch),
            None => Ok(()),
        };
        if decoded.is_ok() && !self.decoder.is_finished() {
            // A refusal to finish is what being cut means here.
            let _ = self.decoder.end(&mut self.scratch);
        }
        self.queue_decoded();
    }

    /// The answer is whole. Its body is read to its end beside the run, so that the connection can be used again.
    fn say_goodbye(&mut self) {
        if let State::Reading { body, .. } = std::mem::replace(&mut self.state, State::Ended)
            && !body.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(
                GOODBYE_MAX,
                body.collect_bounded(ERROR_BYTES_MAX),
            ));
        }
    }
}

impl Stream for Answer {
    type Item = Result<RunEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.queue.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let result = match &mut this.state {
                State::Ended => return Poll::Ready(None),
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(opened) => this.opened(opened),
                    Err(error) => Err(error),
                },
                State::Reading { .. } => ready!(this.poll_read(cx)),
            };
            if let Err(error) = result {
                this.state = State::Ended;
                this.queue.clear();
                this.scratch.clear();
                return Poll::Ready(Some(Err(error::redacted(error, &this.credential))));
            }
        }
    }
}

/// Sends the request and judges the head of the answer.
async fn open(
    client: Client,
    request: Request<Bytes>,
    credential: Credential,
    is_streamed: bool,
) -> Result<Opened, Error> {
    let response = client.send(request).await.map_err(error::of_egress)?;
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        let retry_after = text(&head.headers, RETRY_AFTER.as_str()).map(str::to_owned);
        // A body that cannot be read leaves the status, which is enough.
        let body = body
            .collect_bounded(ERROR_BYTES_MAX)
            .await
            .unwrap_or_default();
        let status = head.status.as_u16();
        return Err(error::of_status(
            status,
            retry_after.as_deref(),
            &body,
            &credential,
        ));
    }
    let is_event_stream = text(&head.headers, CONTENT_TYPE.as_str()).is_some_and(|kind| {
        kind.trim_start()
            .to_ascii_lowercase()
            .starts_with("text/event-stream")
    });
    let content = match (is_streamed, is_event_stream) {
        (true, true) => Content::Stream(body),
        (false, true) => return Err(error::nonsense("a stream came although none was asked for")),
        (is_streamed, false) => {
            let bytes = body
                .collect_bounded(ANSWER_BYTES_MAX)
                .await
                .map_err(error::of_egress)?;
            if is_streamed {
                Content::WholeForStream(bytes)
            } else {
                Content::Whole(bytes)
            }
        }
    };
    let upstream_request_id = text(&head.headers, "x-request-id").map(Into::into);
    Ok(Opened {
        upstream_request_id,
        content,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// From the upstream's frames to events.
pub(super) enum Decoder {
    Native(Box<Native>),
    Chat(Box<chat::UpstreamDecoder>),
    Responses(Box<responses::UpstreamDecoder>),
}

/// Pass-through: frames go on, and what the record needs is kept.
pub(super) struct Native {
    patcher: FramePatcher,
    usage: Option<Usage>,
    /// Given once, when every choice has its reason.
    finish: Option<FinishReason>,
    is_finished: bool,
}

impl Native {
    fn take(&mut self, patched: Patched, out: &mut Vec<RunEvent>) -> Result<(), Error> {
        let Patched { frame, facts } = patched;
        if let Some(error) = facts.error {
            return Err(error);
        }
        if facts.usage.is_some() {
            self.usage = facts.usage;
        }
        if facts.finish.is_some() {
            self.finish = facts.finish;
        }
        if let Some(frame) = frame {
            out.push(RunEvent::Native(frame));
        }
        if facts.terminal {
            // An end marker without any reason for the end is what some servers send when they abort.
            let reason = self
                .finish
                .ok_or_else(|| error::nonsense("the answer ended without a reason for its end"))?;
            self.finished(reason, out);
        }
        Ok(())
    }

    fn finished(&mut self, reason: FinishReason, out: &mut Vec<RunEvent>) {
        self.is_finished = true;
        out.push(RunEvent::Finished(Finish {
            reason,
            usage: self.usage,
            stop_text: None,
        }));
    }
}

impl Decoder {
    pub(super) fn native(patcher: FramePatcher) -> Self {
        Self::Native(Box::new(Native {
            patcher,
            usage: None,
            finish: None,
            is_finished: false,
        }))
    }

    /// A decoder of an upstream's `dialect`. `custom_tools` were shown to it as functions.
    pub(super) fn translating(
        dialect: Dialect,
        choices: u32,
        custom_tools: HashSet<Arc<str>>,
    ) -> Self {
        match dialect {
            Dialect::ChatCompletions => {
                let decoder = chat::UpstreamDecoder::new()
                    .with_choices(choices)
                    .with_custom_tools(custom_tools);
                Self::Chat(Box::new(decoder))
            }
            // Nothing is translated from the others.
            Dialect::Responses | Dialect::Messages | Dialect::Completions | Dialect::Embeddings => {
                Self::Responses(Box::new(responses::UpstreamDecoder::new()))
            }
        }
    }

    fn frame(&mut self, data: Bytes, out: &mut Vec<RunEvent>) -> Result<(), Error> {
        match self {
            Self::Native(native) => {
                let patched = native.patcher.frame(data)?;
                native.take(patched, out)
            }
            Self::Chat(decoder) => decoder.frame(&data, out),
            Self::Responses(decoder) => decoder.frame(&data, out),
        }
    }

    fn whole(&mut self, body: Bytes, out: &mut Vec<RunEvent>) -> Result<(), Error> {
        match self {
            Self::Native(native) => {
                let patched = native.patcher.whole(body)?;
                native.take(patched, out)
            }
            Self::Chat(decoder) => decoder.whole(&body, out),
            Self::Responses(decoder) => decoder.whole(&body, out),
        }
    }

    /// The stream was closed without an end marker. Chat upstreams often send none: there the reasons of all
    /// choices make the answer whole.
    fn end(&mut self, out: &mut Vec<RunEvent>) -> Result<(), Error> {
        match self {
            Self::Native(native) => {
                if let Some(reason) = native.finish {
                    native.finished(reason, out);
                }
                Ok(())
            }
            Self::Chat(decoder) => decoder.end(out),
            Self::Responses(decoder) => decoder.end(out),
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Native(native) => native.is_finished,
            Self::Chat(decoder) => decoder.is_finished(),
            Self::Responses(decoder) => decoder.is_finished(),
        }
    }
}
