//! The Messages dialect: what is hard to bring about through a whole server.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Error, ErrorKind, FailureReason, Finish, FinishReason, FunctionCall, Item, Outcome, PartKind,
    Reasoning, RunEvent, Status, SystemEntropy, Timestamp, Usage,
};
use honshu_wire::messages::{Collector, StreamEncoder, parse_count_request, parse_request};
use honshu_wire::{ResponseHead, error};
use serde_json::{Value, json};

const PLAIN: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

fn head() -> ResponseHead {
    ResponseHead {
        id: "msg_1".into(),
        created: Timestamp::from_seconds(1),
        model: "m".into(),
        service_tier: None,
    }
}

fn outcome(status: Status) -> Outcome {
    Outcome {
        status,
        usage: Usage {
            input_tokens: 10,
            cached_input_tokens: 4,
            output_tokens: 3,
            ..Usage::default()
        },
        usage_exact: true,
    }
}

fn call(index: u32) -> RunEvent {
    RunEvent::ItemStarted {
        output_index: index,
        choice: 0,
        item: Item::FunctionCall(FunctionCall {
            id: None,
            call_id: format!("call_{index}").into(),
            name: "f".into(),
            arguments: String::new(),
        }),
    }
}

fn arguments(index: u32, delta: &str) -> RunEvent {
    RunEvent::ArgumentsDelta {
        output_index: index,
        delta: delta.to_owned(),
    }
}

fn delta(index: u32, kind: PartKind, text: &str) -> RunEvent {
    RunEvent::Delta {
        output_index: index,
        part_index: 0,
        kind,
        text: text.to_owned(),
        logprobs: Vec::new(),
    }
}

fn finished(reason: FinishReason) -> RunEvent {
    RunEvent::Finished(Finish {
        reason,
        usage: None,
        stop_text: None,
    })
}

/// The stream as its data, and the whole message.
fn both(events: &[RunEvent], status: Status) -> (Vec<Value>, Value) {
    let request = parse_request(Bytes::from_static(PLAIN.as_bytes())).unwrap();
    let mut encoder = StreamEncoder::new(head(), &request, &SystemEntropy);
    let mut collector = Collector::new(head(), &request, &SystemEntropy);
    let mut out = BytesMut::new();
    for event in events {
        encoder.event(event, &mut out);
        collector.event(event);
    }
    let now = Timestamp::from_seconds(2);
    encoder.end(&outcome(status), None, now, &mut out);
    let text = String::from_utf8(out.to_vec()).unwrap();
    let frames = text
        .split_terminator("\n\n")
        .map(|frame| {
            let (event, data) = frame.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(event.strip_prefix("event: "), data["type"].as_str());
            data
        })
        .collect();
    let whole = serde_json::from_slice(&collector.finish(&outcome(status), now)).unwrap();
    (frames, whole)
}

/// Puts a stream together as the official helper does, insisting on one open block at a time.
fn assemble(frames: &[Value]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut open = None;
    for frame in frames {
        let index = frame["index"].as_u64();
        match frame["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!(open, None, "a block began inside of another");
                assert_eq!(index, Some(blocks.len() as u64));
                open = index;
                let mut block = frame["content_block"].clone();
                if block["type"] == "tool_use" {
                    block["input"] = json!("");
                }
                blocks.push(block);
            }
            "content_block_delta" => {
                assert_eq!(index, open, "a delta outside of its block");
                let block = blocks.last_mut().unwrap();
                let (from, to) = match frame["delta"]["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text"),
                    "thinking_delta" => ("thinking", "thinking"),
                    "signature_delta" => ("signature", "signature"),
                    _ => ("partial_json", "input"),
                };
                let more = frame["delta"][from].as_str().unwrap();
                block[to] = json!(block[to].as_str().unwrap().to_owned() + more);
            }
            "content_block_stop" => {
                assert_eq!(index, open);
                open = None;
            }
            _ => assert_eq!(open, None),
        }
    }
    for block in &mut blocks {
        if block["type"] == "tool_use" {
            let text = block["input"].as_str().unwrap();
            block["input"] = serde_json::from_str(if text.is_empty() { "{}" } else { text })
                .unwrap_or_else(|_| json!({"INVALID_JSON": text}));
        }
    }
    blocks
}

#[test]
fn items_that_overlap_become_blocks_that_do_not() {
    let (frames, whole) = both(
        &[
            delta(0, PartKind::Text, "I "),
            call(1),
            arguments(1, "{\"a\""),
            call(2),
            arguments(2, "{\"b\":"),
            arguments(1, ":1}"),
            arguments(2, "2}"),
            call(3),
            finished(FinishReason::ToolCalls),
        ],
        Status::Completed,
    );
    assert_eq!(Value::from(assemble(&frames)), whole["content"]);
    assert_eq!(
        whole["content"],
        json!([
            {"type": "text", "text": "I "},
            {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "call_2", "name": "f", "input": {"b": 2}},
            {"type": "tool_use", "id": "call_3", "name": "f", "input": {}},
        ])
    );
    assert_eq!(whole["stop_reason"], "tool_use");
    // Of ten input tokens four came from the cache, and here they are counted apart.
    assert_eq!(whole["usage"]["input_tokens"], 6);
    assert_eq!(whole["usage"]["cache_read_input_tokens"], 4);
}

#[test]
fn a_second_call_is_streamed_at_once_when_the_first_is_whole() {
    let request = parse_request(Bytes::from_static(PLAIN.as_bytes())).unwrap();
    let mut encoder = StreamEncoder::new(head(), &request, &SystemEntropy);
    let mut out = BytesMut::new();
    for event in [call(0), arguments(0, "{\"a\":1} "), call(1)] {
        encoder.event(&event, &mut out);
    }
    out.clear();
    encoder.event(&arguments(1, "{"), &mut out);
    assert!(!out.is_empty());
}

#[test]
fn text_after_a_call_goes_on_in_a_block_of_its_own() {
    let (frames, _) = both(
        &[
            delta(0, PartKind::Text, "before"),
            call(1),
            arguments(1, "{}"),
            delta(0, PartKind::Text, "after"),
            finished(FinishReason::Stop),
        ],
        Status::Completed,
    );
    let kinds: Vec<Value> = assemble(&frames)
        .iter()
        .map(|block| block["type"].clone())
        .collect();
    assert_eq!(kinds, ["text", "tool_use", "text"]);
    assert_eq!(frames[frames.len() - 2]["delta"]["stop_reason"], "tool_use");
}

#[test]
fn arguments_that_are_no_object_stay_readable() {
    for text in ["[1]", "{\"a\":", "nonsense"] {
        let (frames, whole) = both(
            &[
                call(0),
                arguments(0, text),
                finished(FinishReason::ToolCalls),
            ],
            Status::Completed,
        );
        assert_eq!(whole["content"][0]["input"], json!({"INVALID_JSON": text}));
        assert_eq!(frames[2]["delta"]["partial_json"], text);
    }
}

#[test]
fn a_call_that_was_cut_off_is_not_in_a_whole_message() {
    let (_, whole) = both(
        &[
            call(0),
            arguments(0, "{\"a\":"),
            finished(FinishReason::Length),
        ],
        Status::Incomplete(FinishReason::Length),
    );
    assert_eq!(whole["content"], json!([]));
    assert_eq!(whole["stop_reason"], "max_tokens");
}

#[test]
fn a_refusal_is_text_with_its_own_reason() {
    let (frames, whole) = both(
        &[
            delta(0, PartKind::Refusal, "I will not."),
            finished(FinishReason::Stop),
        ],
        Status::Completed,
    );
    assert_eq!(Value::from(assemble(&frames)), whole["content"]);
    assert_eq!(
        whole["content"],
        json!([{"type": "text", "text": "I will not."}])
    );
    assert_eq!(whole["stop_reason"], "refusal");
    assert_eq!(frames[frames.len() - 2]["delta"]["stop_reason"], "refusal");
}

#[test]
fn sealed_thinking_is_a_signature_or_a_block_and_comes_back_as_it_was() {
    for content in [vec!["I think.".to_owned()], Vec::new()] {
        let reasoning = Reasoning {
            content: content.clone(),
            encrypted_content: Some("sealed".to_owned()),
            ..Reasoning::default()
        };
        let (frames, whole) = both(
            &[
                RunEvent::ItemDone {
                    output_index: 0,
                    item: Item::Reasoning(reasoning.clone()),
                },
                delta(1, PartKind::Text, "x"),
                finished(FinishReason::Stop),
            ],
            Status::Completed,
        );
        assert_eq!(Value::from(assemble(&frames)), whole["content"]);
        let again = json!({"model": "m", "max_tokens": 9, "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": whole["content"]},
            {"role": "user", "content": "go on"},
        ]});
        let request = parse_request(again.to_string().into()).unwrap();
        assert_eq!(request.input[1], Item::Reasoning(reasoning));
    }
}

#[test]
fn a_failed_stream_ends_with_one_error_and_no_stop() {
    let (frames, _) = both(
        &[delta(0, PartKind::Text, "x")],
        Status::Failed(FailureReason::Cut),
    );
    let last = frames.last().unwrap();
    assert_eq!(last["type"], "error");
    assert_eq!(last["error"]["type"], "api_error");
    assert!(frames.iter().all(|frame| frame["type"] != "message_stop"));
    let (frames, _) = both(&[], Status::Cancelled);
    assert!(frames.is_empty());
}

#[test]
fn every_kind_of_error_has_a_type_of_the_dialect() {
    const TYPES: [&str; 8] = [
        "invalid_request_error",
        "authentication_error",
        "not_found_error",
        "rate_limit_error",
        "timeout_error",
        "api_error",
        "overloaded_error",
        "request_too_large",
    ];
    for (kind, status, word) in [
        (ErrorKind::Unauthenticated, 401, "authentication_error"),
        (ErrorKind::ModelNotFound, 404, "not_found_error"),
        (ErrorKind::TooLarge, 413, "request_too_large"),
        (ErrorKind::RateLimited, 429, "rate_limit_error"),
        (ErrorKind::Unavailable, 503, "overloaded_error"),
        (ErrorKind::ContextLength, 400, "invalid_request_error"),
    ] {
        let answer = error::anthropic_body(&Error::new(kind, "why"), "id");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (answer.status, body["error"]["type"].as_str()),
            (status, Some(word))
        );
        assert!(TYPES.contains(&word));
        assert_eq!(body["request_id"], "id");
    }
    let overflow = error::anthropic_body(&Error::new(ErrorKind::ContextLength, "9 > 8"), "id");
    let body: Value = serde_json::from_slice(&overflow.body).unwrap();
    assert_eq!(body["error"]["message"], "prompt is too long: 9 > 8");
}

#[test]
fn each_mistake_is_named_with_its_path() {
    let base: Value = serde_json::from_str(PLAIN).unwrap();
    let user = json!({"role": "user", "content": "hi"});
    let block = |block: Value| json!([{"role": "user", "content": [block]}]);
    for (key, value, path) in [
        ("max_tokens", Value::Null, "max_tokens"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!("9"), "max_tokens"),
        ("model", Value::Null, "model"),
        ("messages", Value::Null, "messages"),
        ("messages", json!([]), "messages"),
        ("messages", json!([1]), "messages[0]"),
        (
            "messages",
            json!([{"role": "tool", "content": "x"}]),
            "messages[0].role",
        ),
        ("messages", json!([{"role": "user"}]), "messages[0].content"),
        (
            "messages",
            json!([{"role": "user", "content": 1}]),
            "messages[0].content",
        ),
        (
            "messages",
            json!([user, {"role": "assistant", "content": "The"}]),
            "messages[1]",
        ),
        ("messages", block(json!({})), "messages[0].content[0].type"),
        (
            "messages",
            block(json!({"type": "text"})),
            "messages[0].content[0].text",
        ),
        (
            "messages",
            block(json!({"type": "image"})),
            "messages[0].content[0].source",
        ),
        (
            "messages",
            block(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": "x"}}),
            ),
            "messages[0].content[0].source.media_type",
        ),
        (
            "messages",
            block(json!({"type": "tool_result", "tool_use_id": "t"})),
            "messages[0].content[0].tool_use_id",
        ),
        ("system", json!(1), "system"),
        ("system", json!([{"type": "image"}]), "system[0].type"),
        ("stop_sequences", json!("x"), "stop_sequences"),
        ("stop_sequences", json!([1]), "stop_sequences[0]"),
        ("stop_sequences", json!(vec!["x"; 17]), "stop_sequences"),
        ("tools", json!([{"name": "f"}]), "tools[0].input_schema"),
        ("tools", json!([{"input_schema": {}}]), "tools[0].name"),
        ("tool_choice", json!({"type": "any"}), "tool_choice"),
        ("tool_choice", json!({"type": "each"}), "tool_choice.type"),
        (
            "tool_choice",
            json!({"type": "tool", "name": "f"}),
            "tool_choice",
        ),
        (
            "thinking",
            json!({"type": "enabled"}),
            "thinking.budget_tokens",
        ),
        (
            "thinking",
            json!({"type": "enabled", "budget_tokens": 9}),
            "thinking.budget_tokens",
        ),
        ("thinking", json!({"type": "much"}), "thinking.type"),
        (
            "output_config",
            json!({"format": {"type": "xml"}}),
            "output_config.format.type",
        ),
        (
            "output_config",
            json!({"format": {"type": "json_schema"}}),
            "output_config.format.schema",
        ),
    ] {
        let mut body = base.clone();
        body[key] = value;
        let text = body.to_string();
        let error = parse_request(text.clone().into()).expect_err(&text);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.param(), Some(path), "{text}: {error}");
    }
    // Counting needs no limit.
    let mut body = base;
    body["max_tokens"] = Value::Null;
    assert!(parse_count_request(body.to_string().into()).is_ok());
}
