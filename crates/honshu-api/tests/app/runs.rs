//! Answers, whole and streamed, good and broken.

use serde_json::{Value, json};

use crate::support::{House, MODEL, chat, chat_stream};

const RESPONSES: &str = "/openai/v1/responses";

fn respond(text: &str, stream: bool) -> String {
    json!({"model": MODEL, "input": text, "stream": stream}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_object_has_every_key_that_strict_readers_want() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let answer = house
        .post(
            &secret,
            RESPONSES,
            respond("Reply with exactly: 大阪", false),
        )
        .await;
    assert_eq!(answer.check("response").status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert!(body["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!(body["output"][0]["content"][0]["text"], "大阪");
    for (keys, fits) in [
        (
            &[
                "temperature",
                "top_p",
                "presence_penalty",
                "frequency_penalty",
                "top_logprobs",
            ][..],
            Value::is_number as fn(&Value) -> bool,
        ),
        (
            &["store", "background", "parallel_tool_calls"],
            Value::is_boolean,
        ),
        (&["service_tier", "truncation", "status"], Value::is_string),
        (&["tools", "output"], Value::is_array),
        (&["text", "metadata", "usage"], Value::is_object),
        (&["created_at", "completed_at"], Value::is_i64),
        (
            &[
                "error",
                "incomplete_details",
                "instructions",
                "previous_response_id",
                "max_output_tokens",
                "max_tool_calls",
                "safety_identifier",
                "prompt_cache_key",
            ],
            Value::is_null,
        ),
    ] {
        for key in keys {
            let value = body.get(key).unwrap_or_else(|| panic!("no {key}"));
            assert!(fits(value), "{key}: {value}");
        }
    }
    for key in ["user", "conversation", "prompt"] {
        assert!(body.get(key).is_none(), "{key} must be absent");
    }
    let usage = &body["usage"];
    assert_eq!(
        usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap(),
        usage["total_tokens"].as_u64().unwrap()
    );
    assert!(usage["input_tokens_details"]["cache_write_tokens"].is_u64());
    assert!(usage["output_tokens_details"]["reasoning_tokens"].is_u64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_gapless_numbers_one_end_and_a_row() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let answer = house
        .post(&secret, RESPONSES, respond("Answer with 5 words", true))
        .await;
    assert_eq!(answer.check("stream").status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(answer.whole);
    let mut events = answer.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert_eq!(
        kinds[kinds.len() - 4..],
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed"
        ]
    );
    let rows = house.usage.rows();
    assert_eq!(rows.len(), 1);
    assert_eq!(&*rows[0].status, "completed");
    assert_eq!(
        Some(&*rows[0].request_id),
        answer.header("x-request-id"),
        "the row and the caller have one id"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_breaks_is_never_a_success() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let broken = "Answer with 9 words [scripted: cut-at=5]";

    let chat_streamed = house
        .post(&secret, "/v1/chat/completions", chat_stream(broken))
        .await;
    assert_eq!(chat_streamed.status, 200);
    let events = chat_streamed.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["type"], "server_error", "{last}");
    assert!(!events.iter().any(|event| event == "[DONE]"));
    assert!(!chat_streamed.whole, "a clean end would read as success");

    let streamed = house.post(&secret, RESPONSES, respond(broken, true)).await;
    let mut events = streamed.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["code"], "server_error");

    // Whole answers are HTTP errors; the work was done, so nobody is told to have it done again.
    for (target, body) in [
        ("/v1/chat/completions", chat(broken)),
        (RESPONSES, respond(broken, false)),
    ] {
        let answer = house.post(&secret, target, body).await;
        assert_eq!(answer.status, 502, "{target}: {}", answer.text());
        assert_eq!(answer.header("x-should-retry"), Some("false"), "{target}");
        assert_eq!(answer.header("retry-after"), None, "{target}");
    }

    // Before the first event another try costs nothing.
    let busy = house
        .post(
            &secret,
            RESPONSES,
            respond("[scripted: fail-at=0 status=429]", false),
        )
        .await;
    assert_eq!(busy.status, 429);
    assert_eq!(busy.header("x-should-retry"), Some("true"));
    assert_eq!(busy.json()["error"]["type"], "rate_limit_error");

    let statuses: Vec<String> = house
        .usage
        .rows()
        .iter()
        .map(|row| row.status.to_string())
        .collect();
    assert_eq!(
        statuses, ["failed"; 5],
        "one row for each, also for the refused one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_hits_its_limit_is_incomplete() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let body = json!({"model": MODEL, "input": "Answer with 9 words", "max_output_tokens": 4});
    let answer = house.post(&secret, RESPONSES, body.to_string()).await;
    let body = answer.json();
    assert_eq!(body["status"], "incomplete");
    assert_eq!(body["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(body["completed_at"], Value::Null);
    let body = json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": "Answer with 9 words"}],
        "max_completion_tokens": 4,
    });
    let answer = house
        .post(&secret, "/v1/chat/completions", body.to_string())
        .await;
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "length");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_allowed_tools_are_called() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let function =
        |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}});
    let allowed = |mode: &str| json!({"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "safe"}]});
    let ask = |text: &str, choice: Value| {
        json!({
            "model": MODEL,
            "input": text,
            "tools": [function("safe"), function("dangerous")],
            "tool_choice": choice,
        })
        .to_string()
    };
    let answer = house
        .post(
            &secret,
            RESPONSES,
            ask("Call the tool dangerous with {}", allowed("auto")),
        )
        .await;
    let body = answer.check("auto").json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!(body["output"][0]["type"], "message", "{body}");
    assert_eq!(
        body["tools"].as_array().unwrap().len(),
        2,
        "the echo is whole"
    );
    assert_eq!(body["tool_choice"]["type"], "allowed_tools");
    assert_eq!(answer.header("honshu-ignored"), None);

    let answer = house
        .post(&secret, RESPONSES, ask("hello", allowed("required")))
        .await;
    let body = answer.check("required").json();
    assert_eq!(body["output"][0]["name"], "safe", "{body}");
}
