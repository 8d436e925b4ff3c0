//! A request of one dialect for an upstream of the other, and back.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails panics; helpers are not seen as tests"
)]

use bytes::Bytes;
use honshu_wire::{chat, responses};
use serde_json::{Value, json};

fn chat_of(responses_body: Value) -> Value {
    let request = responses::parse_request(Bytes::from(responses_body.to_string())).unwrap();
    serde_json::from_slice(&chat::build_request(&request, "up", true)).unwrap()
}

fn responses_of(chat_body: Value) -> Value {
    let request = chat::parse_request(Bytes::from(chat_body.to_string())).unwrap();
    serde_json::from_slice(&responses::build_request(&request, "up", true)).unwrap()
}

#[test]
fn a_responses_conversation_becomes_chat_messages() {
    let sent = chat_of(json!({
        "model": "m", "instructions": "be good", "temperature": 0.5, "max_output_tokens": 9, "top_p": 1,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "f"},
        "input": [
            {"role": "developer", "content": "dev"},
            {"role": "user", "content": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://a/b", "detail": "low"}]},
            {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"role": "assistant", "content": "let me"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "function_call_output", "call_id": "c2", "output": "2"}
        ]
    }));
    assert_eq!(
        sent,
        json!({
            "model": "up",
            "messages": [
                {"role": "system", "content": "be good"},
                {"role": "system", "content": "dev"},
                {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://a/b", "detail": "low"}}]},
                {"role": "assistant", "content": "let me", "reasoning_content": "hm", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": "1"},
                {"role": "tool", "tool_call_id": "c2", "content": "2"}
            ],
            "stream": true, "stream_options": {"include_usage": true},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "max_tokens": 9, "temperature": 0.5, "top_p": 1.0, "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}}
        })
    );
}

#[test]
fn a_chat_conversation_becomes_response_items() {
    let sent = responses_of(json!({
        "model": "m", "max_tokens": 7, "logprobs": true, "top_logprobs": 2, "reasoning_effort": "high",
        "response_format": {"type": "json_object"}, "parallel_tool_calls": false,
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "strict": false}}],
        "tool_choice": "required",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "ok"}]},
            {"role": "assistant", "content": "fine"},
            {"role": "user", "content": "go"}
        ]
    }));
    assert_eq!(
        sent,
        json!({
            "model": "up", "store": false, "stream": true,
            "input": [
                {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "s"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"},
                {"type": "function_call_output", "call_id": "c", "output": "ok"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "fine", "annotations": []}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]}
            ],
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": null, "strict": false}],
            "parallel_tool_calls": false, "tool_choice": "required", "max_output_tokens": 7,
            "reasoning": {"effort": "high"}, "include": ["message.output_text.logprobs"], "top_logprobs": 2,
            "text": {"format": {"type": "json_object"}}
        })
    );
}

#[test]
fn what_was_built_reads_back_as_the_same_request() {
    let body = json!({
        "model": "m", "seed": -5, "stop": ["a", "b"], "n": 2, "top_k": 4, "min_p": 0.25, "temperature": 0.75,
        "frequency_penalty": -1.5, "repetition_penalty": 1.25, "logit_bias": {"7": -100, "9": 1.5},
        "messages": [{"role": "user", "content": "日本語 \u{1f600} \"\\ \u{7f}\u{0}", "name": "bob"}]
    });
    let first = chat::parse_request(Bytes::from(body.to_string())).unwrap();
    let again = chat::parse_request(chat::build_request(&first, "m", false)).unwrap();
    assert_eq!(first.input, again.input);
    assert_eq!(first.sampling, again.sampling);
    assert_eq!((first.stop, first.choices), (again.stop, again.choices));
}
