use std::sync::Arc;

use futures_util::StreamExt as _;
use honshu_domain::{
    Attempt, Backend, CustomToolCall, Error, Finish, FunctionCall, InferenceRequest, Item, Part,
    RunEvent, RunStream, Timeouts,
};

pub(crate) fn attempt(request: InferenceRequest, upstream: &str) -> Attempt {
    Attempt {
        request: Arc::new(request),
        upstream: upstream.into(),
        served_model: "test.model".into(),
        request_id: "0123456789ABCDEF0123456789ABCDEF".into(),
        fairness_key: 1,
        cache_salt: 2,
        timeouts: Timeouts::default(),
    }
}

/// All that a stream gave, and the error it ended with.
#[derive(Debug, Default)]
pub(crate) struct Got {
    pub(crate) events: Vec<RunEvent>,
    pub(crate) error: Option<Error>,
}

pub(crate) async fn run(backend: &dyn Backend, request: InferenceRequest) -> Got {
    read(backend.generate(attempt(request, "up"))).await
}

pub(crate) async fn read(mut stream: RunStream) -> Got {
    let mut got = Got::default();
    while let Some(item) = stream.next().await {
        assert!(
            got.error.is_none() && got.finish().is_none(),
            "nothing after the end: {item:?}"
        );
        match item {
            Ok(event) => got.events.push(event),
            Err(error) => got.error = Some(error),
        }
    }
    got
}

impl Got {
    pub(crate) fn finish(&self) -> Option<&Finish> {
        match self.events.last() {
            Some(RunEvent::Finished(finish)) => Some(finish),
            _ => None,
        }
    }

    /// The deltas of text, joined.
    pub(crate) fn text(&self) -> String {
        self.events
            .iter()
            .filter_map(|event| match event {
                RunEvent::Delta {
                    text,
                    kind: honshu_domain::PartKind::Text,
                    ..
                } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The texts of the finished messages.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.items()
            .filter_map(|item| match item {
                Item::Message(message) => Some(
                    message
                        .content
                        .iter()
                        .map(|part| match part {
                            Part::Text { text, .. } => text.as_str(),
                            _ => "",
                        })
                        .collect(),
                ),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn calls(&self) -> Vec<FunctionCall> {
        self.items()
            .filter_map(|item| match item {
                Item::FunctionCall(call) => Some(call.clone()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn custom_calls(&self) -> Vec<CustomToolCall> {
        self.items()
            .filter_map(|item| match item {
                Item::CustomToolCall(call) => Some(call.clone()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.events.iter().filter_map(|event| match event {
            RunEvent::ItemDone { item, .. } => Some(item),
            _ => None,
        })
    }

    /// The native frames, joined by line breaks.
    pub(crate) fn native(&self) -> String {
        self.events
            .iter()
            .filter_map(|event| match event {
                RunEvent::Native(frame) => Some(String::from_utf8(frame.json.to_vec()).unwrap()),
                _ => None,
            })
            .collect::<Vec<_>>()
            .join("\n")
    }
}
