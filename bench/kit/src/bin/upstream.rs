//! A model provider that costs next to nothing, so that what is measured in front of it is the gateway.
//!
//! It answers `POST /v1/chat/completions` and `/v1/responses`, streamed or not, with 300 tokens of text, and
//! `GET /v1/models`. Bodies are searched for `"stream": true` and for the model's name instead of being parsed.
//! The name may carry options: `mock-c100-d20-l5` streams 100 pieces, 20 ms apart, after 5 ms. Each piece of
//! text is `t<nanoseconds> `, the time at which it was written ([`honshu_bench::monotonic_ns`]).

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use futures_util::stream;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use memchr::memmem;
use tokio::net::{TcpListener, TcpStream};

/// A provider for benches of gateways.
#[derive(Parser)]
struct Args {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
}

#[derive(Clone, Copy)]
struct Options {
    pieces: u32,
    delay: Duration,
    latency: Duration,
}

impl Options {
    /// The options in a model's name; what is not understood is not an option.
    fn of(model: &str) -> Self {
        let mut options = Self {
            pieces: 100,
            delay: Duration::ZERO,
            latency: Duration::ZERO,
        };
        for part in model.split('-').skip(1) {
            let Some((key, value)) = part.split_at_checked(1) else {
                continue;
            };
            let Ok(value) = value.parse::<u32>() else {
                continue;
            };
            match key {
                "c" => options.pieces = value,
                "d" => options.delay = Duration::from_millis(value.into()),
                "l" => options.latency = Duration::from_millis(value.into()),
                _ => {}
            }
        }
        options
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Api {
    Chat,
    Responses,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Answers that are the same each time.
struct Fixed {
    chat: Bytes,
    responses: Bytes,
}

/// About 20 tokens of plain English.
const SENTENCE: &str = "The gateway forwards the request to the model and returns the answer as it was written by the upstream service. ";
/// Sentences of a whole answer: about 300 tokens, 1.5 kB.
const SENTENCES: usize = 14;

impl Fixed {
    fn new() -> Self {
        let text = SENTENCE.repeat(SENTENCES);
        let text = text.trim_end();
        Self {
            chat: format!(
                r#"{{"id":"chatcmpl-mock","object":"chat.completion","created":1760000000,"model":"mock","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":42,"completion_tokens":300,"total_tokens":342,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}},"service_tier":"default","system_fingerprint":"fp_mock"}}"#
            )
            .into(),
            responses: format!(
                r#"{{"id":"resp_mock","object":"response","created_at":1760000000,"status":"completed","background":false,"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"model":"mock","output":[{{"id":"msg_mock","type":"message","status":"completed","role":"assistant","content":[{{"type":"output_text","annotations":[],"logprobs":[],"text":"{text}"}}]}}],"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{{"effort":null,"summary":null}},"store":false,"temperature":1.0,"text":{{"format":{{"type":"text"}}}},"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled","usage":{{"input_tokens":42,"input_tokens_details":{{"cached_tokens":0,"cache_write_tokens":0}},"output_tokens":300,"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":342}},"metadata":{{}}}}"#
            )
            .into(),
        }
    }
}

/// The value of the first `"model"`, without a parser.
fn model_of(body: &[u8]) -> &str {
    let value = |body: &'_ [u8]| -> Option<(usize, usize)> {
        let key = memmem::find(body, b"\"model\"")? + b"\"model\"".len();
        let begin = key + memchr::memchr(b'"', &body[key..])? + 1;
        let end = begin + memchr::memchr(b'"', &body[begin..])?;
        Some((begin, end))
    };
    value(body)
        .and_then(|(begin, end)| std::str::from_utf8(&body[begin..end]).ok())
        .unwrap_or("mock")
}

fn wants_stream(body: &[u8]) -> bool {
    memmem::find_iter(body, b"\"stream\"").any(|at| {
        let rest = &body[at + b"\"stream\"".len()..];
        let value = rest.iter().position(|byte| !b" :\n\t".contains(byte));
        value.is_some_and(|value| rest[value..].starts_with(b"true"))
    })
}

const CHUNK: &str = r#""id":"chatcmpl-mock","object":"chat.completion.chunk","created":1760000000,"model":"mock","service_tier":"default","system_fingerprint":"fp_mock""#;
const LIVE: &str = r#""response":{"id":"resp_mock","object":"response","created_at":1760000000,"status":"in_progress","model":"mock","output":[],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"usage":null,"metadata":{}}"#;
const ITEM: &str = r#"{"id":"msg_mock","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","annotations":[],"logprobs":[],"text":"done"}]}"#;

fn event(out: &mut String, name: &str, rest: std::fmt::Arguments<'_>) {
    let _ = write!(
        out,
        "event: {name}\ndata: {{\"type\":\"{name}\",{rest}}}\n\n"
    );
}

/// Frames before the first piece.
fn head(api: Api, out: &mut String) {
    match api {
        Api::Chat => {
            let _ = write!(
                out,
                "data: {{{CHUNK},\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
            );
        }
        Api::Responses => {
            event(
                out,
                "response.created",
                format_args!(r#""sequence_number":0,{LIVE}"#),
            );
            event(
                out,
                "response.in_progress",
                format_args!(r#""sequence_number":1,{LIVE}"#),
            );
            event(
                out,
                "response.output_item.added",
                format_args!(
                    r#""sequence_number":2,"output_index":0,"item":{{"id":"msg_mock","type":"message","status":"in_progress","content":[],"role":"assistant"}}"#
                ),
            );
            event(
                out,
                "response.content_part.added",
                format_args!(
                    r#""sequence_number":3,"item_id":"msg_mock","output_index":0,"content_index":0,"part":{{"type":"output_text","annotations":[],"logprobs":[],"text":""}}"#
                ),
            );
        }
    }
}

fn piece(api: Api, out: &mut String, index: u32) {
    let now = honshu_bench::monotonic_ns();
    match api {
        Api::Chat => {
            let _ = write!(
                out,
                "data: {{{CHUNK},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"t{now} \"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
            );
        }
        Api::Responses => event(
            out,
            "response.output_text.delta",
            format_args!(
                r#""sequence_number":{},"item_id":"msg_mock","output_index":0,"content_index":0,"delta":"t{now} ","logprobs":[]"#,
                index + 4
            ),
        ),
    }
}

/// Frames after the last piece.
fn tail(api: Api, out: &mut String, pieces: u32) {
    match api {
        Api::Chat => {
            let _ = write!(
                out,
                "data: {{{CHUNK},\"choices\":[{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"stop\"}}]}}\n\n"
            );
            let _ = write!(
                out,
                "data: {{{CHUNK},\"choices\":[],\"usage\":{{\"prompt_tokens\":42,\"completion_tokens\":{pieces},\"total_tokens\":{}}}}}\n\ndata: [DONE]\n\n",
                pieces + 42
            );
        }
        Api::Responses => {
            let place = r#""item_id":"msg_mock","output_index":0,"content_index":0"#;
            event(
                out,
                "response.output_text.done",
                format_args!(
                    r#""sequence_number":{},{place},"text":"done","logprobs":[]"#,
                    pieces + 4
                ),
            );
            event(
                out,
                "response.content_part.done",
                format_args!(
                    r#""sequence_number":{},{place},"part":{{"type":"output_text","annotations":[],"logprobs":[],"text":"done"}}"#,
                    pieces + 5
                ),
            );
            event(
                out,
                "response.output_item.done",
                format_args!(
                    r#""sequence_number":{},"output_index":0,"item":{ITEM}"#,
                    pieces + 6
                ),
            );
            event(
                out,
                "response.completed",
                format_args!(
                    r#""sequence_number":{},"response":{{"id":"resp_mock","object":"response","created_at":1760000000,"status":"completed","model":"mock","output":[{ITEM}],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"usage":{{"input_tokens":42,"input_tokens_details":{{"cached_tokens":0,"cache_write_tokens":0}},"output_tokens":{pieces},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}},"metadata":{{}}}}"#,
                    pieces + 7,
                    pieces + 42
                ),
            );
        }
    }
}

fn frames(
    api: Api,
    options: Options,
) -> impl stream::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(0_u32, move |step| async move {
        let mut out = String::with_capacity(512);
        match step {
            0 => head(api, &mut out),
            step if step <= options.pieces => {
                if !options.delay.is_zero() {
                    tokio::time::sleep(options.delay).await;
                }
                piece(api, &mut out, step - 1);
            }
            step if step == options.pieces + 1 => tail(api, &mut out, options.pieces),
            _ => return None,
        }
        Some((Ok(Frame::data(Bytes::from(out))), step + 1))
    })
}

async fn answer(
    fixed: Arc<Fixed>,
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = BoxError>>, hyper::Error> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let respond = |status, body, media| {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, media);
        response
    };
    let json = |status, body: Bytes| respond(status, Either::Left(Full::new(body)), JSON);
    let api = match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/chat/completions") => Api::Chat,
        (&Method::POST, "/v1/responses") => Api::Responses,
        (&Method::GET, "/v1/models") => {
            let list = r#"{"object":"list","data":[{"id":"mock","object":"model","created":1760000000,"owned_by":"mock"}]}"#;
            return Ok(json(StatusCode::OK, Bytes::from_static(list.as_bytes())));
        }
        _ => return Ok(json(StatusCode::NOT_FOUND, Bytes::from_static(b"{}"))),
    };
    let body = request.into_body().collect().await?.to_bytes();
    let options = Options::of(model_of(&body));
    if !options.latency.is_zero() {
        tokio::time::sleep(options.latency).await;
    }
    Ok(match (wants_stream(&body), api) {
        (true, api) => respond(
            StatusCode::OK,
            Either::Right(StreamBody::new(frames(api, options))),
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        ),
        (false, Api::Chat) => json(StatusCode::OK, fixed.chat.clone()),
        (false, Api::Responses) => json(StatusCode::OK, fixed.responses.clone()),
    })
}

async fn converse(fixed: Arc<Fixed>, socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    // A client that leaves ends the connection with an error, as it should.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(
            TokioIo::new(socket),
            service_fn(move |request| answer(Arc::clone(&fixed), request)),
        )
        .await;
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // One thread: it answers about 150,000 requests a second on it, which no gateway reaches.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let fixed = Arc::new(Fixed::new());
    runtime.block_on(async move {
        let listener = TcpListener::bind(args.listen).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            tokio::spawn(converse(Arc::clone(&fixed), socket));
        }
    })
}
