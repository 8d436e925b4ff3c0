//! What the tests with the real small model share.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this"
)]

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use honshu_domain::{
    Attempt, Backend, Demand, Dialect, Error, Finish, InferenceRequest, Item, Message, Part,
    RawJson, Role, RunEvent, Sampling, TextFormat, Timeouts, ToolChoice,
};
use honshu_engine::{EnginePool, FlashAttention, LoadOptions, ModelOptions, PoolOptions};

/// The small test model; `HONSHU_TEST_MODEL` names another file.
pub fn model_path() -> PathBuf {
    let path = std::env::var_os("HONSHU_TEST_MODEL").map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../.cache/models/smollm2-135m-instruct.gguf")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "no test model at {}: run make test-model",
        path.display()
    );
    path
}

pub fn options() -> ModelOptions {
    // One thread: several tests run at the same time, and threads that wait for each other are slow then.
    let load = LoadOptions {
        n_ctx: 2048,
        n_seq_max: 4,
        threads: Some(
            std::env::var("THR")
                .ok()
                .and_then(|t| t.parse().ok())
                .unwrap_or(1),
        ),
        flash_attention: if std::env::var_os("FA_ON").is_some() {
            FlashAttention::On
        } else {
            FlashAttention::Off
        },
        ..LoadOptions::default()
    };
    ModelOptions {
        load,
        chat_template: None,
    }
}

pub fn pool() -> EnginePool {
    EnginePool::new(PoolOptions::default())
}

pub fn backend(pool: &EnginePool) -> Arc<dyn Backend> {
    pool.backend_for(&model_path(), "small", options())
}

pub fn say(role: Role, text: &str) -> Item {
    Item::Message(Message {
        id: None,
        role,
        content: vec![Part::text(text)],
        phase: None,
        name: None,
    })
}

/// A greedy request for at most 32 tokens.
pub fn ask(question: &str) -> InferenceRequest {
    InferenceRequest {
        dialect: Dialect::Responses,
        raw: Vec::new().into(),
        model: "small".into(),
        instructions: None,
        input: vec![say(Role::User, question)],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        sampling: Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        },
        format: TextFormat::Text,
        max_output_tokens: Some(32),
        stop: Vec::new(),
        choices: 1,
        top_logprobs: None,
        reasoning_effort: None,
        stream: true,
        include_usage: true,
        obfuscates: false,
        demands: Vec::<(Demand, String)>::new(),
        hints: Vec::new(),
    }
}

pub fn schema(schema: &str) -> TextFormat {
    TextFormat::JsonSchema {
        name: "answer".to_owned(),
        description: None,
        schema: RawJson::parse(schema).unwrap(),
        strict: Some(true),
    }
}

pub fn attempt(request: InferenceRequest) -> Attempt {
    Attempt {
        request: Arc::new(request),
        upstream: "small".into(),
        served_model: "small".into(),
        request_id: "r".into(),
        fairness_key: 1,
        cache_salt: 1,
        timeouts: Timeouts::default(),
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A whole run, after checking that its events are in legal order.
#[derive(Debug)]
pub struct Whole {
    pub input_tokens: u64,
    /// The finished items with their choice, in the order of their places in the output.
    pub items: Vec<(u32, Item)>,
    pub finish: Finish,
    pub deltas: usize,
    pub argument_deltas: usize,
}

impl Whole {
    pub fn texts(&self) -> Vec<String> {
        self.items.iter().map(|(_, item)| text_of(item)).collect()
    }

    pub fn text(&self) -> String {
        self.texts().concat()
    }
}

pub fn text_of(item: &Item) -> String {
    match item {
        Item::Message(message) => message
            .content
            .iter()
            .map(|part| match part {
                Part::Text { text, .. } => text.as_str(),
                _ => "",
            })
            .collect(),
        call => call.call_text().unwrap_or_default().to_owned(),
    }
}

pub async fn run(backend: &Arc<dyn Backend>, request: InferenceRequest) -> Result<Whole, Error> {
    let mut stream = backend.generate(attempt(request));
    let mut input_tokens = None;
    let mut open: Vec<Option<(u32, String, bool)>> = Vec::new();
    let mut items = Vec::new();
    let mut finish = None;
    let (mut deltas, mut argument_deltas) = (0, 0);
    while let Some(event) = stream.next().await {
        assert!(finish.is_none(), "an event after the end");
        let event = event?;
        assert!(
            input_tokens.is_some() || matches!(event, RunEvent::Started { .. }),
            "the first event is Started"
        );
        match event {
            RunEvent::Started {
                input_tokens: count,
                ..
            } => {
                assert!(
                    input_tokens.replace(count.unwrap()).is_none(),
                    "Started comes once"
                );
            }
            RunEvent::ItemStarted {
                output_index,
                choice,
                ..
            } => {
                assert_eq!(
                    output_index as usize,
                    open.len(),
                    "places are given in order"
                );
                open.push(Some((choice, String::new(), false)));
            }
            RunEvent::PartStarted { output_index, .. } => {
                open[output_index as usize].as_mut().unwrap().2 = true
            }
            RunEvent::Delta {
                output_index, text, ..
            } => {
                let item = open[output_index as usize].as_mut().unwrap();
                assert!(item.2, "a delta comes inside a part");
                item.1.push_str(&text);
                deltas += 1;
            }
            RunEvent::ArgumentsDelta {
                output_index,
                delta,
            } => {
                argument_deltas += 1;
                open[output_index as usize]
                    .as_mut()
                    .unwrap()
                    .1
                    .push_str(&delta);
            }
            RunEvent::PartDone { output_index, .. } => {
                open[output_index as usize].as_mut().unwrap().2 = false
            }
            RunEvent::ItemDone { output_index, item } => {
                let (choice, text, inside) = open[output_index as usize].take().unwrap();
                assert!(!inside, "the part ends before its item");
                if matches!(item, Item::Message(_)) || item.call_id().is_some() {
                    assert_eq!(text, text_of(&item), "deltas and the whole agree");
                }
                items.push((output_index, (choice, item)));
            }
            RunEvent::ChoiceFinished { .. } => {}
            RunEvent::Finished(end) => finish = Some(end),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        open.iter().all(Option::is_none),
        "every item is done at the end"
    );
    items.sort_by_key(|(index, _)| *index);
    Ok(Whole {
        input_tokens: input_tokens.unwrap(),
        items: items.into_iter().map(|(_, item)| item).collect(),
        finish: finish.expect("the stream ends with Finished"),
        deltas,
        argument_deltas,
    })
}
