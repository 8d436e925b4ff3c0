//! Feeding recordings through the crate, as the provider and HTTP layers do.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use honshu_domain::{
    Dialect, Entropy, Error, ErrorKind, FailureReason, Finish, FinishReason, InferenceRequest,
    Outcome, RunEvent, Status, Timestamp, Usage,
};
use honshu_wire::passthrough::FramePatcher;
use honshu_wire::{ResponseHead, chat, responses};
use sse_stream::SseByteStream;

/// Always the same bytes: ids in golden files must not change.
pub(crate) struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(index % 62).unwrap();
        }
    }
}

async fn data_of(chunks: Vec<Bytes>) -> Vec<Bytes> {
    let chunks = stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
    let events: Vec<_> = SseByteStream::new(chunks).collect().await;
    events
        .into_iter()
        .filter_map(|event| event.unwrap().data.map(Bytes::from))
        .collect()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// The data of every event.
pub(crate) fn frames_of(sse: &[u8]) -> Vec<Bytes> {
    block(data_of(vec![Bytes::copy_from_slice(sse)]))
}

enum Decoder {
    Chat(Box<chat::UpstreamDecoder>),
    Responses(responses::UpstreamDecoder),
}

impl Decoder {
    fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::ChatCompletions => Self::Chat(Box::default()),
            Dialect::Responses => Self::Responses(responses::UpstreamDecoder::new()),
            other => panic!("no transcripts of {other:?}"),
        }
    }

    fn frame(&mut self, data: &[u8], out: &mut Vec<RunEvent>) -> Result<(), Error> {
        match self {
            Self::Chat(decoder) => decoder.frame(data, out),
            Self::Responses(decoder) => decoder.frame(data, out),
        }
    }

    fn end(&mut self, out: &mut Vec<RunEvent>) -> Result<(), Error> {
        match self {
            Self::Chat(decoder) => decoder.end(out),
            Self::Responses(decoder) => decoder.end(out),
        }
    }
}

/// The events of a stream and the error that ended it.
pub(crate) fn decode_all(upstream: Dialect, frames: &[Bytes]) -> (Vec<RunEvent>, Option<Error>) {
    let mut decoder = Decoder::new(upstream);
    let mut events = Vec::new();
    for frame in frames {
        if let Err(error) = decoder.frame(frame, &mut events) {
            return (events, Some(error));
        }
    }
    let error = decoder.end(&mut events).err();
    (events, error)
}

/// The events of a stream that arrives in two pieces.
pub(crate) fn split_decode(upstream: Dialect, sse: &[u8], at: usize) -> Vec<RunEvent> {
    let pieces = vec![
        Bytes::copy_from_slice(&sse[..at]),
        Bytes::copy_from_slice(&sse[at..]),
    ];
    decode_all(upstream, &block(data_of(pieces))).0
}

/// Read from the recording itself, without the decoder: did every choice or the response end?
pub(crate) fn upstream_said_it_ended(upstream: Dialect, frames: &[Bytes]) -> bool {
    let values: Vec<serde_json::Value> = frames
        .iter()
        .filter_map(|frame| serde_json::from_slice(frame).ok())
        .collect();
    match upstream {
        Dialect::Responses => values.iter().any(|value| {
            value["type"] == "response.completed" || value["type"] == "response.incomplete"
        }),
        Dialect::ChatCompletions => {
            let mut open = std::collections::BTreeMap::new();
            for choice in values
                .iter()
                .flat_map(|value| value["choices"].as_array().into_iter().flatten())
            {
                let ended = open
                    .entry(choice["index"].as_u64().unwrap())
                    .or_insert(false);
                *ended |= choice["finish_reason"].is_string();
            }
            !open.is_empty()
                && open.values().all(|ended| *ended)
                && values.iter().all(|value| value.get("error").is_none())
        }
        other => panic!("no transcripts of {other:?}"),
    }
}

/// The native events of a stream, as a provider sends them.
pub(crate) fn native_all(
    dialect: Dialect,
    frames: &[Bytes],
    caller_wants_usage: bool,
) -> (Vec<RunEvent>, Option<Error>) {
    let mut patcher = FramePatcher::new(dialect, "vendor.served".into(), caller_wants_usage);
    let mut events = Vec::new();
    let (mut usage, mut finish, mut terminal) = (None, None, false);
    for frame in frames {
        let patched = patcher.frame(frame.clone()).unwrap();
        usage = patched.facts.usage.or(usage);
        finish = patched.facts.finish.or(finish);
        terminal |= patched.facts.terminal;
        events.extend(patched.frame.map(RunEvent::Native));
        if let Some(error) = patched.facts.error {
            return (events, Some(error));
        }
    }
    let whole = terminal || (dialect == Dialect::ChatCompletions && finish.is_some());
    match finish.filter(|_| whole) {
        Some(reason) => {
            events.push(RunEvent::Finished(Finish {
                reason,
                usage,
                stop_text: None,
            }));
            (events, None)
        }
        None => (events, Some(Error::new(ErrorKind::Upstream, "cut"))),
    }
}

/// What the run's owner makes of the end.
pub(crate) fn outcome_of(events: &[RunEvent], error: Option<&Error>) -> Outcome {
    let finish = events.iter().find_map(|event| match event {
        RunEvent::Finished(finish) => Some(finish),
        _ => None,
    });
    let usage = finish.and_then(|finish| finish.usage);
    let status = match (error, finish.map(|finish| finish.reason)) {
        (None, Some(reason @ (FinishReason::Length | FinishReason::ContentFilter))) => {
            Status::Incomplete(reason)
        }
        (None, Some(_)) => Status::Completed,
        _ => Status::Failed(FailureReason::Cut),
    };
    Outcome {
        status,
        usage: usage.unwrap_or(Usage::default()),
        usage_exact: usage.is_some(),
    }
}

/// Somebody who asked.
pub(crate) struct Caller {
    dialect: Dialect,
    request: InferenceRequest,
}

impl Caller {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let request = match dialect {
            Dialect::ChatCompletions => chat::parse_request(Bytes::from_static(
                br#"{"model":"alias","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},"logprobs":true,"n":2}"#,
            )),
            Dialect::Responses => responses::parse_request(Bytes::from_static(
                b"{\"model\":\"alias\",\"input\":\"hi\",\"instructions\":\"be brief\",\"metadata\":{\n\"k\":\"v\"},\"reasoning\":{\"effort\":\"low\"},\"temperature\":0.7,\"tools\":[{\"type\":\"function\",\"name\":\"get_weather\"},\r\n{\"type\":\"web_search\"}],\"stream\":true,\"include\":[\"message.output_text.logprobs\"]}",
            )),
            other => panic!("no transcripts of {other:?}"),
        };
        Self {
            dialect,
            request: request.unwrap(),
        }
    }

    fn head(&self) -> ResponseHead {
        let id = match self.dialect {
            Dialect::ChatCompletions => "chatcmpl-ours",
            Dialect::Responses => "resp_ours",
            other => panic!("no transcripts of {other:?}"),
        };
        ResponseHead {
            id: id.into(),
            created: Timestamp::from_seconds(1_800_000_000),
            model: "vendor.served".into(),
            service_tier: None,
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_800_000_003)
    }

    pub(crate) fn stream(
        &self,
        events: &[RunEvent],
        outcome: &Outcome,
        error: Option<&Error>,
    ) -> Vec<u8> {
        let mut out = BytesMut::new();
        match self.dialect {
            Dialect::ChatCompletions => {
                let mut encoder = chat::StreamEncoder::new(self.head(), &self.request, &Fixed);
                events
                    .iter()
                    .for_each(|event| encoder.event(event, &mut out));
                encoder.end(outcome, error, Self::now(), &mut out);
            }
            Dialect::Responses => {
                let mut encoder = responses::StreamEncoder::new(self.head(), &self.request, &Fixed);
                events
                    .iter()
                    .for_each(|event| encoder.event(event, &mut out));
                encoder.end(outcome, error, Self::now(), &mut out);
            }
            other => panic!("no transcripts of {other:?}"),
        }
        out.to_vec()
    }

    pub(crate) fn body(&self, events: &[RunEvent], outcome: &Outcome) -> Vec<u8> {
        match self.dialect {
            Dialect::ChatCompletions => {
                let mut collector = chat::Collector::new(self.head(), &self.request, &Fixed);
                events.iter().for_each(|event| collector.event(event));
                collector.finish(outcome, Self::now()).to_vec()
            }
            Dialect::Responses => {
                let mut collector = responses::Collector::new(self.head(), &self.request, &Fixed);
                events.iter().for_each(|event| collector.event(event));
                collector.finish(outcome, Self::now()).to_vec()
            }
            other => panic!("no transcripts of {other:?}"),
        }
    }

    /// What an answer says, read by our own decoder: items without ids, and the end.
    pub(crate) fn answer_of_stream(&self, sse: &[u8]) -> String {
        let (events, error) = decode_all(self.dialect, &frames_of(sse));
        assert!(error.is_none(), "{error:?}");
        answer(&events)
    }

    pub(crate) fn answer_of_body(&self, body: &[u8]) -> String {
        let mut events = Vec::new();
        match self.dialect {
            Dialect::ChatCompletions => chat::UpstreamDecoder::new().whole(body, &mut events),
            Dialect::Responses => responses::UpstreamDecoder::new().whole(body, &mut events),
            other => panic!("no transcripts of {other:?}"),
        }
        .unwrap();
        answer(&events)
    }
}

fn answer(events: &[RunEvent]) -> String {
    let mut items: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::ItemDone { item, .. } => Some(format!("{item:?}")),
            _ => None,
        })
        .collect();
    items.sort();
    let end = events.iter().find_map(|event| match event {
        RunEvent::Finished(finish) => Some(format!("{finish:?}")),
        _ => None,
    });
    format!("{items:#?}{end:?}")
}
