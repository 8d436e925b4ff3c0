//! What strict readers demand of our streams and bodies: presence, null, order, ids (OpenAI API reference and
//! the Open Responses schema). Written from the rules, not from the encoder.

use std::collections::HashMap;

use honshu_domain::Dialect;
use serde_json::Value;

/// Checks a whole stream. `whole`: the upstream said that its answer was complete or incomplete.
pub(crate) fn stream(case: &str, dialect: Dialect, sse: &[u8], whole: bool) {
    let text = std::str::from_utf8(sse).unwrap();
    assert!(!text.contains('\r'), "{case}: only LF");
    let blocks: Vec<&str> = text.strip_suffix("\n\n").unwrap().split("\n\n").collect();
    match dialect {
        Dialect::ChatCompletions => chat_stream(case, &blocks, whole),
        Dialect::Responses => responses_stream(case, &blocks, whole),
        other => panic!("no transcripts of {other:?}"),
    }
}

/// Checks a whole body.
pub(crate) fn body(case: &str, dialect: Dialect, body: &[u8]) {
    let value: Value = serde_json::from_slice(body).unwrap();
    match dialect {
        Dialect::ChatCompletions => completion(case, &value),
        Dialect::Responses => {
            response(case, &value);
            assert!(value["usage"].is_object(), "{case}");
        }
        other => panic!("no transcripts of {other:?}"),
    }
}

fn chat_stream(case: &str, blocks: &[&str], whole: bool) {
    let (last, chunks) = blocks.split_last().unwrap();
    if whole {
        assert_eq!(*last, "data: [DONE]", "{case}");
    } else {
        let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        for key in ["message", "type", "param", "code"] {
            assert!(
                error["error"].get(key).is_some(),
                "{case}: error without {key}"
            );
        }
    }
    let mut ended: HashMap<u64, bool> = HashMap::new();
    let mut first: Option<Value> = None;
    for chunk in chunks {
        let chunk: Value = serde_json::from_str(chunk.strip_prefix("data: ").unwrap()).unwrap();
        assert!(
            chunk.get("error").is_none(),
            "{case}: only the last frame is an error"
        );
        let first = first.get_or_insert_with(|| chunk.clone());
        for key in ["id", "object", "created", "model"] {
            assert_eq!(chunk[key], first[key], "{case}: {key} changes");
        }
        for choice in chunk["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap();
            assert!(choice["delta"].is_object(), "{case}");
            let done = ended.entry(index).or_insert(false);
            assert!(!*done, "{case}: a delta after the finish reason");
            *done = choice["finish_reason"].is_string();
        }
    }
    if whole {
        assert!(
            !ended.is_empty() && ended.values().all(|done| *done),
            "{case}: a choice is open"
        );
    }
}

fn completion(case: &str, value: &Value) {
    assert_eq!(value["object"], "chat.completion", "{case}");
    assert!(value["id"].is_string() && value["created"].is_u64() && value["model"].is_string());
    for choice in value["choices"].as_array().unwrap() {
        assert!(choice["finish_reason"].is_string(), "{case}");
        assert!(
            choice.get("logprobs").is_some(),
            "{case}: logprobs must be there, null or not"
        );
        let message = &choice["message"];
        assert_eq!(message["role"], "assistant", "{case}");
        for key in ["content", "refusal"] {
            let text = message.get(key).unwrap();
            assert!(text.is_null() || text.is_string(), "{case}");
        }
        if let Some(calls) = message.get("tool_calls") {
            for call in calls.as_array().unwrap() {
                assert!(call["id"].is_string() && call["type"] == "function");
                assert!(
                    call["function"]["name"].is_string()
                        && call["function"]["arguments"].is_string()
                );
            }
        }
    }
}

fn responses_stream(case: &str, blocks: &[&str], whole: bool) {
    let (done, frames) = blocks.split_last().unwrap();
    assert_eq!(*done, "data: [DONE]", "{case}");
    let mut response_id: Option<Value> = None;
    let mut items: HashMap<u64, (Value, bool)> = HashMap::new();
    let mut texts: HashMap<(u64, String), String> = HashMap::new();
    let count = frames.len();
    for (number, frame) in frames.iter().enumerate() {
        let (event, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        let kind = data["type"].as_str().unwrap();
        assert_eq!(event, format!("event: {kind}"), "{case}");
        assert_eq!(data["sequence_number"], number, "{case}: a gap at {kind}");
        let terminal = [
            "response.completed",
            "response.incomplete",
            "response.failed",
        ]
        .contains(&kind);
        assert_eq!(
            terminal,
            number + 1 == count,
            "{case}: {kind} at {number} of {count}"
        );
        assert!(
            whole || !terminal || kind == "response.failed",
            "{case}: {kind} after a cut"
        );
        assert_eq!(
            kind == "response.created",
            number == 0,
            "{case}: created comes first and once"
        );
        if kind == "error" {
            for key in ["code", "message", "param"] {
                assert!(
                    data.get(key).is_some() && data["error"].get(key).is_some(),
                    "{case}"
                );
            }
            assert!(data["error"]["type"].is_string(), "{case}");
        }
        if let Some(body) = data.get("response") {
            response(case, body);
            let id = response_id.get_or_insert_with(|| body["id"].clone());
            assert_eq!(*id, body["id"], "{case}: the response's id changes");
            if whole && terminal {
                let shown: Vec<&Value> = body["output"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| &item["id"])
                    .collect();
                let mut known: Vec<_> = items.iter().collect();
                known.sort_by_key(|(index, _)| **index);
                assert_eq!(
                    shown,
                    known.iter().map(|(_, (id, _))| id).collect::<Vec<_>>(),
                    "{case}"
                );
                assert!(
                    items.values().all(|(_, done)| *done),
                    "{case}: an item is open"
                );
            }
        }
        let index = data["output_index"].as_u64().unwrap_or_default();
        match kind {
            "response.output_item.added" => {
                let id = data["item"]["id"].clone();
                assert!(
                    items.insert(index, (id, false)).is_none(),
                    "{case}: index {index} twice"
                );
            }
            "response.output_item.done" => {
                let item = items.get_mut(&index).unwrap();
                assert_eq!(item.0, data["item"]["id"], "{case}: the item's id changes");
                assert!(!std::mem::replace(&mut item.1, true), "{case}: done twice");
            }
            _ => {}
        }
        if let Some(id) = data.get("item_id") {
            assert_eq!(items[&index].0, *id, "{case}: {kind} of an unknown item");
        }
        let part = format!("{}/{}", data["content_index"], data["summary_index"]);
        if let Some(delta) = data.get("delta") {
            let delta = delta.as_str().unwrap();
            texts.entry((index, part)).or_default().push_str(delta);
            if kind == "response.output_text.delta" {
                assert!(data["logprobs"].is_array(), "{case}");
            }
        } else if kind.ends_with(".done") {
            for key in ["text", "refusal", "arguments"] {
                if let Some(text) = data.get(key) {
                    let streamed = texts.get(&(index, part.clone())).map_or("", String::as_str);
                    assert_eq!(text, streamed, "{case}: {kind} differs from its deltas");
                }
            }
        }
    }
}

/// The presence and null rules of the response object.
fn response(case: &str, value: &Value) {
    let object = value.as_object().unwrap();
    let is = |key: &str, test: fn(&Value) -> bool| {
        let member = object
            .get(key)
            .unwrap_or_else(|| panic!("{case}: `{key}` is missing"));
        assert!(test(member), "{case}: `{key}` is {member}");
    };
    for key in [
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
    ] {
        is(key, Value::is_number);
    }
    for key in ["store", "background", "parallel_tool_calls"] {
        is(key, Value::is_boolean);
    }
    for key in [
        "id",
        "object",
        "status",
        "model",
        "service_tier",
        "truncation",
    ] {
        is(key, Value::is_string);
    }
    for key in [
        "completed_at",
        "error",
        "incomplete_details",
        "instructions",
        "previous_response_id",
        "usage",
        "max_output_tokens",
        "max_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
    ] {
        is(key, |_| true);
    }
    is("created_at", Value::is_u64);
    is("output", Value::is_array);
    is("tools", Value::is_array);
    is("metadata", Value::is_object);
    is("tool_choice", |choice| {
        choice.is_string() || choice.is_object()
    });
    is("text", |text| text["format"]["type"].is_string());
    is("reasoning", |r| {
        r.is_null() || (r.get("effort").is_some() && r.get("summary").is_some())
    });
    for key in ["user", "conversation", "prompt"] {
        assert!(
            object.get(key).is_none_or(|value| !value.is_null()),
            "{case}: `{key}` is null"
        );
    }
    let status = value["status"].as_str().unwrap();
    assert_eq!(
        value["completed_at"].is_u64(),
        status == "completed",
        "{case}: {status}"
    );
    assert_eq!(value["error"].is_object(), status == "failed", "{case}");
    assert_eq!(
        value["incomplete_details"].is_object(),
        status == "incomplete",
        "{case}"
    );
    if let Some(usage) = value["usage"].as_object() {
        let sum =
            usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
        assert_eq!(usage["total_tokens"], sum, "{case}");
        assert!(
            usage["input_tokens_details"]["cached_tokens"].is_u64(),
            "{case}"
        );
        assert!(
            usage["input_tokens_details"]["cache_write_tokens"].is_u64(),
            "{case}"
        );
        assert!(
            usage["output_tokens_details"]["reasoning_tokens"].is_u64(),
            "{case}"
        );
    }
    for tool in value["tools"].as_array().unwrap() {
        if tool["type"] == "function" {
            for key in ["name", "description", "parameters", "strict"] {
                assert!(tool.get(key).is_some(), "{case}: tool without {key}");
            }
        }
    }
    value["output"]
        .as_array()
        .unwrap()
        .iter()
        .for_each(|item| self::item(case, item));
}

fn item(case: &str, item: &Value) {
    for key in ["id", "type", "status"] {
        assert!(
            item[key].as_str().is_some_and(|text| !text.is_empty()),
            "{case}: item without {key}"
        );
    }
    for key in ["phase", "encrypted_content", "created_by"] {
        assert!(
            item.get(key).is_none_or(|value| !value.is_null()),
            "{case}: `{key}` is null"
        );
    }
    match item["type"].as_str().unwrap() {
        "message" => {
            assert_eq!(item["role"], "assistant", "{case}");
            for part in item["content"].as_array().unwrap() {
                match part["type"].as_str().unwrap() {
                    "output_text" => {
                        assert!(
                            part["text"].is_string() && part["annotations"].is_array(),
                            "{case}"
                        );
                        assert!(part.get("logprobs").is_none_or(Value::is_array), "{case}");
                    }
                    "refusal" => assert!(part["refusal"].is_string(), "{case}"),
                    other => panic!("{case}: part {other}"),
                }
            }
        }
        "function_call" => {
            for key in ["call_id", "name", "arguments"] {
                assert!(item[key].is_string(), "{case}");
            }
        }
        "reasoning" => {
            assert!(item["summary"].is_array(), "{case}");
            assert!(item.get("content").is_none_or(Value::is_array), "{case}");
        }
        _ => {}
    }
}
