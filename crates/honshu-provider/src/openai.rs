//! Upstreams that speak OpenAI's API: Chat Completions, Responses, or both.
//!
//! Where the upstream speaks the caller's dialect, the request's body goes out as it came but for the model's
//! name, and the answer's frames come back the same way. Otherwise `honshu-wire` translates both ways.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use honshu_domain::{
    Attempt, Backend, BackendKind, Demand, Dialect, Error, ErrorKind, Finish, FinishReason, Retry, RunEvent, RunStream, Support, TimeoutKind,
};
use honshu_egress::{Client, EgressBody, EgressError};
use honshu_wire::passthrough::{FramePatcher, Patched, patch_request};
use honshu_wire::{chat, error as wire_error, responses};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::Body;

use crate::credential::Credential;
use crate::sse::{Splitter, TooLong};

/// The largest whole answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The largest error body that is read, in bytes.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// What an upstream is.
#[derive(Debug, Clone)]
pub struct OpenAiOptions {
    /// Its name in the configuration.
    pub name: String,
    /// Its URL up to and including `/v1`, without a trailing slash.
    pub base_url: String,
    /// Our key there.
    pub credential: Credential,
    /// Whether it speaks Chat Completions.
    pub chat: bool,
    /// Whether it speaks Responses.
    pub responses: bool,
}

/// An OpenAI-compatible upstream.
#[derive(Debug)]
pub struct OpenAiProvider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    client: Client,
    credential: Credential,
    chat: Option<Uri>,
    responses: Option<Uri>,
}

impl OpenAiProvider {
    /// An upstream that is reached through `client`, whose rules must allow its address.
    ///
    /// # Errors
    /// When the URL is not one, or the upstream speaks neither dialect.
    pub fn new(options: OpenAiOptions, client: Client) -> Result<Self, String> {
        let url = |path: &str| {
            honshu_egress::parse_url(&format!("{}{path}", options.base_url))
                .map_err(|error| error.to_string())
        };
        if !options.chat && !options.responses {
            return Err("speaks neither Chat Completions nor Responses".to_owned());
        }
        let chat = options.chat.then(|| url("/chat/completions")).transpose()?;
        let responses = options.responses.then(|| url("/responses")).transpose()?;
        Ok(Self(Arc::new(Inner {
            name: options.name,
            client,
            credential: options.credential,
            chat,
            responses,
        })))
    }
}

impl Inner {
    /// The dialect in which a caller of `dialect` is served.
    fn spoken(&self, dialect: Dialect) -> Dialect {
        match dialect {
            Dialect::ChatCompletions if self.chat.is_none() => Dialect::Responses,
            Dialect::Responses if self.responses.is_none() => Dialect::ChatCompletions,
            same => same,
        }
    }

    fn url(&self, spoken: Dialect) -> Option<&Uri> {
        match spoken {
            Dialect::ChatCompletions => self.chat.as_ref(),
            Dialect::Responses => self.responses.as_ref(),
        }
    }
}

impl Backend for OpenAiProvider {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> BackendKind {
        BackendKind::OpenAi
    }

    fn supports(&self, _upstream: &str, dialect: Dialect, demand: Demand) -> Support {
        if self.0.spoken(dialect) == dialect {
            // The upstream gets the request as it came and answers for itself.
            return Support::Yes;
        }
        match demand {
            Demand::ForeignItems | Demand::StoredState | Demand::FileInput | Demand::Audio => {
                Support::No
            }
            // Responses has neither of these.
            Demand::Choices | Demand::LogitBias if dialect == Dialect::ChatCompletions => {
                Support::No
            }
            _ => Support::Yes,
        }
    }

    fn passes_through(&self, _upstream: &str, dialect: Dialect) -> bool {
        self.0.spoken(dialect) == dialect
    }

    fn generate(&self, attempt: Attempt) -> RunStream {
        let inner = Arc::clone(&self.0);
        Box::pin(AttemptStream {
            state: State::Connecting(Box::pin(connect(inner, attempt))),
            events: VecDeque::new(),
        })
    }
}

/// What turns an answer into events.
enum Decoder {
    Native(Box<Native>),
    Chat(Box<chat::UpstreamDecoder>),
    Responses(Box<responses::UpstreamDecoder>),
}

/// Pass-through, with what the frames said on the way.
struct Native {
    patcher: FramePatcher,
    finish: Finish,
    finished: bool,
    /// Whether a frame said why the answer ended.
    reasoned: bool,
}

impl Decoder {
    fn frame(&mut self, data: Bytes, events: &mut VecDeque<RunEvent>) -> Result<(), Error> {
        match self {
            Self::Native(native) => {
                let patched = native.patcher.frame(data)?;
                native.take(patched, events)
            }
            Self::Chat(decoder) => collect(events, |out| decoder.frame(&data, out)),
            Self::Responses(decoder) => collect(events, |out| decoder.frame(&data, out)),
        }
    }

    fn whole(&mut self, body: Bytes, events: &mut VecDeque<RunEvent>) -> Result<(), Error> {
        match self {
            Self::Native(native) => {
                let patched = native.patcher.whole(body)?;
                native.take(patched, events)
            }
            Self::Chat(decoder) => collect(events, |out| decoder.whole(&body, out)),
            Self::Responses(decoder) => collect(events, |out| decoder.whole(&body, out)),
        }
    }

    /// The upstream closed the stream. An error unless it had said that the answer is whole.
    fn end(&mut self, events: &mut VecDeque<RunEvent>) -> Result<(), Error> {
        match self {
            Self::Native(native) if native.finished => Ok(()),
            // Some upstreams leave `[DONE]` out after saying why the answer ended.
            Self::Native(native) if native.reasoned => {
                native.finish(events);
                Ok(())
            }
            Self::Native(_) => Err(cut()),
            Self::Chat(decoder) => collect(events, |out| decoder.end(out)),
            Self::Responses(decoder) => collect(events, |out| decoder.end(out)),
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Native(native) => native.finished,
            Self::Chat(decoder) => decoder.is_finished(),
            Self::Responses(decoder) => decoder.is_finished(),
        }
    }
}

fn collect(
    events: &mut VecDeque<RunEvent>,
    decode: impl FnOnce(&mut Vec<RunEvent>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut out = Vec::new();
    let result = decode(&mut out);
    events.extend(out);
    result
}

impl Native {
    fn take(&mut self, patched: Patched, events: &mut VecDeque<RunEvent>) -> Result<(), Error> {
        let Patched { frame, facts } = patched;
        if let Some(error) = facts.error {
            return Err(error);
        }
        if let Some(usage) = facts.usage {
            self.finish.usage = Some(usage);
        }
        if let Some(reason) = facts.finish {
            self.finish.reason = reason;
            self.reasoned = true;
        }
        events.extend(frame.map(RunEvent::Native));
        if facts.terminal {
            self.finish(events);
        }
        Ok(())
    }

    fn finish(&mut self, events: &mut VecDeque<RunEvent>) {
        if !self.finished {
            self.finished = true;
            events.push_back(RunEvent::Finished(self.finish.clone()));
        }
    }
}

/// An attempt from its connection to its end.
struct AttemptStream {
    state: State,
    events: VecDeque<RunEvent>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Connected, Error>> + Send>>;

enum State {
    Connecting(Connecting),
    Reading(Box<Reading>),
    Ended,
}

struct Connected {
    started: RunEvent,
    reading: Option<Box<Reading>>,
    events: VecDeque<RunEvent>,
}

struct Reading {
    body: EgressBody,
    splitter: Splitter,
    decoder: Decoder,
}

impl Stream for AttemptStream {
    type Item = Result<RunEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match &mut this.state {
                State::Ended => return Poll::Ready(None),
                State::Connecting(connecting) => match ready!(connecting.as_mut().poll(cx)) {
                    Ok(connected) => {
                        this.events = connected.events;
                        this.events.push_front(connected.started);
                        this.state = connected.reading.map_or(State::Ended, State::Reading);
                    }
                    Err(error) => {
                        this.state = State::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Reading(reading) => {
                    if let Err(error) = ready!(reading.poll(cx, &mut this.events)) {
                        this.state = State::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                    if reading.decoder.is_finished() {
                        this.state = State::Ended;
                    }
                }
            }
        }
    }
}

impl Reading {
    /// Reads until there is an event, the end, or an error.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<RunEvent>,
    ) -> Poll<Result<(), Error>> {
        loop {
            while let Some(data) = self.splitter.next_event() {
                self.decoder.frame(data, events)?;
                if self.decoder.is_finished() {
                    break;
                }
            }
            if !events.is_empty() || self.decoder.is_finished() {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.splitter.push(data).map_err(|TooLong| {
                            Error::new(ErrorKind::Upstream, "the upstream sent an event that is too long")
                                .with_retry(Retry::Never)
                        })?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(cut().with_cause(error))),
                None => {
                    self.decoder.end(events)?;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

async fn connect(inner: Arc<Inner>, attempt: Attempt) -> Result<Connected, Error> {
    let request = &attempt.request;
    let spoken = inner.spoken(request.dialect);
    let native = spoken == request.dialect;
    let body = if native {
        patch_request(&request.raw, &attempt.upstream, spoken, request.stream)
    } else {
        match spoken {
            Dialect::ChatCompletions => {
                chat::build_request(request, &attempt.upstream, request.stream)
            }
            Dialect::Responses => {
                responses::build_request(request, &attempt.upstream, request.stream)
            }
        }
    };
    let url = inner
        .url(spoken)
        .ok_or_else(|| Error::internal("the upstream speaks no dialect"))?;
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = Method::POST;
    *outgoing.uri_mut() = url.clone();
    let headers = outgoing.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::ACCEPT,
        HeaderValue::from_static(if request.stream {
            "text/event-stream"
        } else {
            "application/json"
        }),
    );
    if let Ok(id) = HeaderValue::from_str(&attempt.request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if let Some(credential) = inner.credential.header() {
        headers.insert(header::AUTHORIZATION, credential);
    }
    let response = inner
        .client
        .send(outgoing)
        .await
        .map_err(|error| unreachable(&inner.name, error))?;
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() {
        return Err(refused(&inner.name, parts.status, &parts.headers, body).await);
    }
    let upstream_request_id = parts
        .headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .map(Arc::from);
    let started = RunEvent::Started {
        upstream_request_id,
        input_tokens: None,
    };
    let mut decoder = if native {
        Decoder::Native(Box::new(Native {
            patcher: FramePatcher::new(
                spoken,
                Arc::clone(&attempt.served_model),
                request.include_usage || spoken == Dialect::Responses,
            ),
            finish: Finish {
                reason: FinishReason::Stop,
                usage: None,
            },
            finished: false,
            reasoned: false,
        }))
    } else {
        match spoken {
            Dialect::ChatCompletions => Decoder::Chat(Box::default()),
            Dialect::Responses => Decoder::Responses(Box::default()),
        }
    };
    let mut events = VecDeque::new();
    if !request.stream {
        let whole = body
            .collect_bounded(ANSWER_BYTES_MAX)
            .await
            .map_err(|error| cut().with_cause(error))?;
        decoder.whole(whole, &mut events)?;
        return Ok(Connected {
            started,
            reading: None,
            events,
        });
    }
    Ok(Connected {
        started,
        reading: Some(Box::new(Reading {
            body,
            splitter: Splitter::default(),
            decoder,
        })),
        events,
    })
}

fn cut() -> Error {
    Error::new(
        ErrorKind::Upstream,
        "the upstream broke off before the end of its answer",
    )
}

/// No answer at all.
fn unreachable(name: &str, error: EgressError) -> Error {
    let again = if error.may_have_reached_upstream() {
        // It may be working on it already; the same work twice is paid twice.
        Retry::Never
    } else {
        Retry::Now
    };
    let kind = if error.kind() == honshu_egress::ErrorKind::ConnectTimeout {
        ErrorKind::Timeout(TimeoutKind::Connect)
    } else {
        ErrorKind::Upstream
    };
    Error::new(kind, format!("the provider `{name}` cannot be reached"))
        .with_retry(again)
        .with_cause(error)
}

/// An answer that is an error. A credential of ours that is refused is our configuration's fault, which the
/// log has to say by the provider's name.
async fn refused(
    name: &str,
    status: StatusCode,
    headers: &http::HeaderMap,
    body: EgressBody,
) -> Error {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        tracing::error!(provider = name, status = status.as_u16(), "the provider refuses the credential that is configured for it");
    }
    let body = body
        .collect_bounded(ERROR_BYTES_MAX)
        .await
        .unwrap_or_default();
    let retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    wire_error::from_upstream(status.as_u16(), retry_after, &body)
}
