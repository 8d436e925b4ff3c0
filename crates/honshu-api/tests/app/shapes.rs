//! Everything that an answer can hold, asked for on purpose. The harness holds each answer and event against the OpenAPI
//! document; what is asserted here is only that the thing was there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::matrix::Street;
use crate::support::MODEL;

const WEATHER: &str = "Call the tool get_weather with {\"city\": \"Osaka\"}";

fn weather() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

/// Every string under a key `type` or `object`, and every key, anywhere in a value.
fn words(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                found.insert(key.clone());
                if let (true, Some(text)) = (key == "type" || key == "object", value.as_str()) {
                    found.insert(text.to_owned());
                }
                words(value, found);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| words(element, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_for_has_the_documents_shape_streamed_and_whole() {
    let street = Street::new().await;
    let text = "Reply with exactly: one two";
    let user = |text: &str| json!([{"role": "user", "content": text}]);
    let flat = json!({"type": "function", "name": "get_weather", "parameters": weather()});
    let nested = json!({"name": "get_weather", "description": "d", "parameters": weather()});
    // What is asked, and what must be somewhere in the answer.
    let table: [(&str, Value, &[&str]); 17] = [
        (
            "/v1/responses",
            json!({"input": text, "reasoning": {"effort": "high", "summary": null}}),
            &["summary_text", "output_text"],
        ),
        (
            "/v1/responses",
            json!({"input": text, "reasoning": {"effort": "low"}, "store": false,
                   "include": ["reasoning.encrypted_content"]}),
            &["encrypted_content"],
        ),
        (
            "/v1/responses",
            json!({"input": text, "top_logprobs": 2, "include": ["message.output_text.logprobs"]}),
            &["top_logprobs", "bytes"],
        ),
        (
            "/v1/responses",
            json!({"input": WEATHER, "tools": [flat, {"type": "web_search"}, {"type": "namespace", "name": "n", "tools": []}],
                   "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]}}),
            &["function_call", "call_id"],
        ),
        (
            "/v1/responses",
            json!({"input": "Refuse with: no", "text": {"verbosity": "low", "format": {"type": "text"}}}),
            &["refusal"],
        ),
        (
            "/v1/responses",
            json!({"input": "Where?", "text": {"format": {"type": "json_schema", "name": "n", "schema": weather(), "strict": true}}}),
            &["json_schema"],
        ),
        (
            // Every member that answers repeat.
            "/v1/responses",
            json!({"input": text, "instructions": "Be brief.", "max_output_tokens": 50, "max_tool_calls": 3, "metadata": {"a": "b"},
                   "parallel_tool_calls": false, "prompt_cache_key": "k", "safety_identifier": "s", "temperature": 0,
                   "top_p": 1, "presence_penalty": -1, "frequency_penalty": 0.5, "truncation": "auto", "user": "u",
                   "service_tier": "flex", "tool_choice": "none", "tools": [flat]}),
            &["user", "metadata"],
        ),
        (
            // The same as nothing.
            "/v1/responses",
            json!({"input": text, "instructions": null, "max_output_tokens": null, "max_tool_calls": null, "metadata": null,
                   "parallel_tool_calls": null, "prompt_cache_key": null, "safety_identifier": null, "temperature": null,
                   "top_p": null, "presence_penalty": null, "frequency_penalty": null, "truncation": null, "user": null,
                   "service_tier": null, "tool_choice": null, "tools": null, "text": {"format": null, "verbosity": null},
                   "reasoning": null, "store": null, "include": null, "conversation": null, "previous_response_id": null}),
            &["output_text"],
        ),
        (
            "/v1/responses",
            json!({"input": [{"role": "user", "content": "Reply with exactly: sum"}, {"type": "compaction_trigger"}]}),
            &["compaction"],
        ),
        (
            "/v1/chat/completions",
            json!({"messages": user(text), "logprobs": true, "top_logprobs": 3, "n": 2,
                   "stream_options": {"include_usage": true}}),
            &["top_logprobs", "usage"],
        ),
        (
            "/v1/chat/completions",
            json!({"messages": user(text), "reasoning_effort": "high"}),
            &["reasoning_content"],
        ),
        (
            "/v1/chat/completions",
            json!({"messages": user(WEATHER), "tools": [{"type": "function", "function": nested}]}),
            &["tool_calls", "function"],
        ),
        (
            "/v1/chat/completions",
            json!({"messages": user(WEATHER), "functions": [nested]}),
            &["function_call"],
        ),
        (
            "/v1/chat/completions",
            json!({"messages": user("Refuse with: no"), "logprobs": true}),
            &["refusal"],
        ),
        (
            "/v1/completions",
            json!({"prompt": text, "logprobs": 2, "n": 2, "stream_options": {"include_usage": true}}),
            &["text_offset", "text_completion"],
        ),
        (
            "/v1/messages",
            json!({"messages": user(text), "max_tokens": 100, "thinking": {"type": "enabled", "budget_tokens": 1024}}),
            &["thinking", "text"],
        ),
        (
            "/v1/messages",
            json!({"messages": user(WEATHER), "max_tokens": 100, "tools": [{"name": "get_weather", "input_schema": weather()}]}),
            &["tool_use"],
        ),
    ];
    for (path, body, wanted) in &table {
        for model in [MODEL, "up.chat", "up.responses"] {
            for stream in [false, true] {
                let mut body = body.clone();
                body["model"] = json!(model);
                body["stream"] = json!(stream);
                if !stream && let Some(body) = body.as_object_mut() {
                    body.remove("stream_options");
                }
                let answer = street.house.post(&street.secret, path, body.to_string());
                let answer = answer.await;
                let what = format!("{path} {body}: {}", answer.text());
                if answer.status == 400 && model != MODEL {
                    // What that upstream's API cannot say is refused by name.
                    assert!(answer.text().contains("unsupported_value"), "{what}");
                    continue;
                }
                assert_eq!(answer.status, 200, "{what}");
                let mut found = BTreeSet::new();
                if stream {
                    for event in answer.events().iter().filter(|event| *event != "[DONE]") {
                        words(&serde_json::from_str(event).unwrap(), &mut found);
                    }
                } else {
                    words(&answer.json(), &mut found);
                }
                // Upstreams of the other API have no form for some of it.
                for word in wanted.iter().filter(|_| model == MODEL) {
                    assert!(found.contains(*word), "no `{word}` in {what}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_item_is_kept_in_the_documents_shape() {
    let street = Street::new().await;
    let house = &street.house;
    let bearer = format!("Bearer {}", street.secret);
    let headers = [("authorization", bearer.as_str())];
    let send = async |method: &str, path: &str, body: Value| {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = house.send(house.osaka, method, path, &headers, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let items = json!([
        {"role": "user", "content": "a"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}], "phase": "commentary", "status": null},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "developer", "content": [{"type": "input_image", "image_url": "https://example.com/a.png", "file_id": null}]},
        {"role": "user", "content": [{"type": "input_file", "filename": "a", "file_data": "data:text/plain;base64,YQ=="}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": null, "id": null, "namespace": null},
        {"type": "function_call_output", "call_id": "c", "output": "r", "status": "failed"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
        {"type": "reasoning", "summary": [], "content": null, "encrypted_content": null},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "reasoning", "summary": null},
        {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "y"},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "somebodys:own", "anything": [null]},
    ]);
    let made = send("POST", "/v1/conversations", json!({"metadata": {"a": "b"}})).await;
    let path = format!("/v1/conversations/{}", made["id"].as_str().unwrap());
    let added = send("POST", &format!("{path}/items"), json!({"items": items})).await;
    assert_eq!(added["data"].as_array().unwrap().len(), 15);
    let listed = send("GET", &format!("{path}/items?order=asc"), Value::Null).await;
    assert_eq!(listed["data"], added["data"]);
    for item in listed["data"].as_array().unwrap() {
        let at = format!("{path}/items/{}", item["id"].as_str().unwrap());
        assert_eq!(&send("GET", &at, Value::Null).await, item);
        let left = send("DELETE", &at, Value::Null).await;
        assert_eq!(left["object"], "conversation");
    }
    let empty = send("GET", &format!("{path}/items"), Value::Null).await;
    assert_eq!(
        (&empty["data"], &empty["first_id"]),
        (&json!([]), &Value::Null)
    );
    send("POST", &path, json!({"metadata": {}})).await;
    send("DELETE", &path, Value::Null).await;
}
