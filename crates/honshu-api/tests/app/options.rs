//! Options of a request that change how it is answered: padding, limits, compaction within a response.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kept::{Caller, id};
use crate::matrix::Street;
use crate::support::{Answer, House, MODEL};

fn parsed(answer: &Answer) -> Vec<(String, Value)> {
    let events = answer
        .events()
        .into_iter()
        .filter(|event| event != "[DONE]");
    events
        .map(|event| {
            let value = serde_json::from_str(&event).unwrap();
            (event, value)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_are_padded_when_asked_and_replayed_as_they_were() {
    let street = Street::new().await;
    let caller = street.caller();
    let text = "Reply with exactly: a bb ccc dddd eeeee ffffff";
    for model in [MODEL, "up.chat", "up.responses"] {
        for (path, store) in [
            ("/responses", json!(true)),
            ("/responses", json!(false)),
            ("/chat/completions", json!(true)),
            ("/chat/completions", json!(false)),
        ] {
            let ask = async |options: Value| {
                let body = json!({
                    "model": model, "stream": true, "store": store, "stream_options": options,
                    "input": text, "messages": [{"role": "user", "content": text}],
                });
                let answer = caller.call("POST", path, body).await;
                assert!(
                    !answer
                        .header("honshu-ignored")
                        .unwrap_or_default()
                        .contains("obfuscation"),
                    "{path}"
                );
                answer
            };
            for options in [json!({}), json!({"include_obfuscation": false})] {
                let plain = ask(options).await;
                assert!(!plain.text().contains("obfuscation"), "{model} {path}");
            }
            let padded = ask(json!({"include_obfuscation": true})).await;
            let mut lengths = Vec::new();
            for (event, value) in parsed(&padded) {
                let is_delta = value["type"].as_str().map_or_else(
                    || value["choices"][0]["delta"]["content"].is_string(),
                    |kind| kind.ends_with(".delta"),
                );
                if is_delta {
                    assert!(value["obfuscation"].is_string(), "{event}");
                    assert_eq!(event.len() % 32, 0, "{event}");
                    lengths.push(event.len());
                } else if value["type"].is_string() {
                    assert!(value.get("obfuscation").is_none(), "{event}");
                }
            }
            assert!(lengths.len() >= 6, "{model} {path}: {lengths:?}");
            if path == "/responses" && store == true {
                let events = parsed(&padded);
                let path = format!("/responses/{}?stream=true", id(&events[0].1["response"]));
                for query in ["", "&include_obfuscation=false"] {
                    let path = format!("{path}{query}");
                    let again = caller.call("GET", &path, Value::Null).await;
                    assert_eq!(again.body, padded.body, "{model}");
                }
            }
        }
    }
    let body = json!({"model": MODEL, "prompt": "Reply with exactly: a bb", "stream": true,
        "stream_options": {"include_obfuscation": true}});
    let padded = caller.call("POST", "/completions", body).await;
    for (event, value) in parsed(&padded) {
        assert!(
            value["obfuscation"].is_string() && event.len() % 32 == 0,
            "{event}"
        );
    }
    for path in ["/responses", "/chat/completions"] {
        let body = json!({"model": MODEL, "input": text, "stream": true,
            "messages": [{"role": "user", "content": text}],
            "stream_options": {"include_obfuscation": "yes"}});
        let (status, error) = caller.refused("POST", path, body).await;
        let at = "stream_options.include_obfuscation";
        assert_eq!((status, &error["param"]), (400, &json!(at)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_tool_calls_is_told_again_and_counts_no_functions() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let city = |name: &str| format!("Call the tool get_weather with {{\"city\": \"{name}\"}}");
    let body = json!({
        "model": MODEL, "max_tool_calls": 1, "input": format!("{}\n{}", city("Osaka"), city("Kobe")),
        "tools": [{"type": "function", "name": "get_weather", "strict": false,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}],
    });
    let answer = caller.call("POST", "/responses", body).await;
    assert_eq!(answer.header("honshu-ignored"), None);
    let response = answer.json();
    assert_eq!(response["max_tool_calls"], 1);
    assert_eq!(
        response["output"].as_array().unwrap().len(),
        2,
        "{response}"
    );
    for wrong in [json!(0), json!(-1), json!("1"), json!(1.5)] {
        let body = json!({"model": MODEL, "input": "x", "max_tool_calls": wrong});
        let (status, error) = caller.refused("POST", "/responses", body).await;
        assert_eq!((status, &error["param"]), (400, &json!("max_tool_calls")));
    }
}

fn managed(model: &str, input: Value, threshold: u64) -> Value {
    json!({
        "model": model, "input": input,
        "context_management": [{"type": "compaction", "compact_threshold": threshold}],
    })
}

fn long() -> String {
    "word ".repeat(2_000)
}

fn history() -> Value {
    json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": long()},
        {"role": "assistant", "content": "Understood."},
        {"role": "user", "content": "Reply with exactly: done"},
    ])
}

fn kinds(response: &Value) -> Vec<&str> {
    let output = response["output"].as_array().unwrap();
    output
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_reaches_its_threshold_is_compacted_within_the_response() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let rows = || {
        let rows = house.usage.rows();
        rows.iter()
            .map(|row| row.operation.to_string())
            .collect::<Vec<_>>()
    };
    let below = caller
        .ok("POST", "/responses", managed(MODEL, history(), 5_000))
        .await;
    assert_eq!(kinds(&below), ["message"]);
    let answer = caller
        .call("POST", "/responses", managed(MODEL, history(), 1_000))
        .await;
    assert_eq!(answer.header("honshu-ignored"), None);
    let response = answer.json();
    assert_eq!(kinds(&response), ["compaction", "message"], "{response}");
    assert_eq!(response["output"][1]["content"][0]["text"], "done");
    assert!(id(&response["output"][0]).starts_with("cmp_"));
    let tokens = |response: &Value| response["usage"]["input_tokens"].as_u64().unwrap();
    assert!(
        tokens(&below) > 2_000 && tokens(&response) < 200,
        "{response}"
    );
    assert_eq!(rows(), ["responses", "responses_compact", "responses"]);

    // What comes next continues from the summary.
    let next = json!({"model": MODEL, "input": "Reply with exactly: next",
        "previous_response_id": id(&response)});
    let next = caller.ok("POST", "/responses", next).await;
    assert_eq!(next["output"][0]["content"][0]["text"], "next");
    assert!(tokens(&next) < 200, "{next}");
    let stateless = json!([response["output"][0], response["output"][1],
        {"role": "user", "content": "Reply with exactly: next"}]);
    let next = caller
        .ok("POST", "/responses", managed(MODEL, stateless, 1_000))
        .await;
    assert_eq!(kinds(&next), ["message"]);
    // Whoever always sends everything sends what the summary stands for, too.
    let mut everything = history();
    let list = everything.as_array_mut().unwrap();
    list.extend(response["output"].as_array().unwrap().iter().cloned());
    list.push(json!({"role": "user", "content": "Reply with exactly: next"}));
    let next = caller
        .ok("POST", "/responses", managed(MODEL, everything, 1_000))
        .await;
    assert_eq!(kinds(&next), ["message"]);
    assert!(tokens(&next) < 200, "{next}");
    // There is nothing to sum up in what no model has answered yet.
    let first = managed(
        MODEL,
        json!(format!("{} Reply with exactly: a", long())),
        1_000,
    );
    let first = caller.ok("POST", "/responses", first).await;
    assert_eq!(kinds(&first), ["message"]);

    // Streamed, in the background, kept nowhere.
    let mut body = managed(MODEL, history(), 1_000);
    body["stream"] = json!(true);
    for store in [true, false] {
        body["store"] = json!(store);
        let streamed = caller.call("POST", "/responses", body.clone()).await;
        let events = parsed(&streamed);
        for (number, (_, event)) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
        let (_, last) = events.last().unwrap();
        assert_eq!(last["type"], "response.completed");
        assert_eq!(kinds(&last["response"]), ["compaction", "message"]);
        let added: Vec<_> = events
            .iter()
            .filter(|(_, event)| event["type"] == "response.output_item.added")
            .map(|(_, event)| (&event["output_index"], &event["item"]["type"]))
            .collect();
        let (compaction, message) = (json!("compaction"), json!("message"));
        assert_eq!(added, [(&json!(0), &compaction), (&json!(1), &message)]);
    }
    let mut body = managed(MODEL, history(), 1_000);
    body["background"] = json!(true);
    let queued = caller.ok("POST", "/responses", body).await;
    let ended = caller.ended(id(&queued)).await;
    assert_eq!(
        (&ended["status"], kinds(&ended)),
        (&json!("completed"), vec!["compaction", "message"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_goes_on_from_the_summary_too() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let items = json!({"items": [{"role": "user", "content": long()},
        {"role": "assistant", "content": "Understood."}]});
    let made = caller.ok("POST", "/conversations", items).await;
    let mut body = managed(MODEL, json!("Reply with exactly: done"), 1_000);
    body["conversation"] = json!(id(&made));
    let first = caller.ok("POST", "/responses", body.clone()).await;
    assert_eq!(kinds(&first), ["compaction", "message"]);
    let second = caller.ok("POST", "/responses", body).await;
    assert_eq!(kinds(&second), ["message"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_threshold_needs_a_count_or_an_upstream_that_keeps_it() {
    let street = Street::new().await;
    let caller = street.caller();
    let (status, error) = caller
        .refused("POST", "/responses", managed("up.chat", history(), 1_000))
        .await;
    assert_eq!(
        (status, &error["param"]),
        (400, &json!("context_management")),
        "{error}"
    );
    // The upstream is a Honshu, which does it.
    let passed = caller
        .ok(
            "POST",
            "/responses",
            managed("up.responses", history(), 1_000),
        )
        .await;
    assert_eq!(kinds(&passed), ["compaction", "message"]);

    let entry = |entry: Value| json!([entry]);
    for (value, param) in [
        (json!("auto"), "context_management"),
        (entry(json!("x")), "context_management[0]"),
        (entry(json!({})), "context_management[0].type"),
        (
            entry(json!({"type": "magic"})),
            "context_management[0].type",
        ),
        (
            entry(json!({"type": "compaction"})),
            "context_management[0].compact_threshold",
        ),
        (
            entry(json!({"type": "compaction", "compact_threshold": 999})),
            "context_management[0].compact_threshold",
        ),
        (
            json!([{"type": "compaction", "compact_threshold": 1000}, {"type": "compaction", "compact_threshold": 1000}]),
            "context_management",
        ),
    ] {
        let body = json!({"model": MODEL, "input": "x", "context_management": value});
        let (status, error) = caller.refused("POST", "/responses", body).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasoning_is_sealed_in_the_background_as_well() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let body = json!({
        "model": MODEL, "input": "Reply with exactly: x [scripted: reasoning]", "background": true,
        "include": ["reasoning.encrypted_content"],
    });
    let queued = caller.ok("POST", "/responses", body).await;
    let ended = caller.ended(id(&queued)).await;
    let sealed = ended["output"][0]["encrypted_content"].as_str();
    assert!(
        sealed.is_some_and(|text| text.starts_with("hsealed1.")),
        "{ended}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_a_prompt_is_read_by_who_may_read_files() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let policy = house.let_keys_do("manage", "generative-ai-file").await;
    let file = caller
        .upload("notes.txt", "Reply with exactly: from the file")
        .await;
    let body = |file: &str| {
        json!({"model": MODEL, "input": [
            {"role": "user", "content": [{"type": "input_file", "file_id": file}]}
        ]})
    };
    let answer = caller.ok("POST", "/responses", body(&file)).await;
    assert_eq!(answer["output"][0]["content"][0]["text"], "from the file");
    let next = |previous: &Value| json!({"model": MODEL, "input": "Reply with exactly: x", "previous_response_id": id(previous)});
    caller.ok("POST", "/responses", next(&answer)).await;

    house.delete_policy(&policy).await;
    let seen = async |file: &str| {
        let (status, mut error) = caller.refused("POST", "/responses", body(file)).await;
        error["message"] = error["message"]
            .as_str()
            .unwrap()
            .replace(file, "ID")
            .into();
        (status, error)
    };
    let (status, error) = seen(&file).await;
    assert_eq!(
        (status, &error["param"]),
        (400, &json!("input[0].content[0].file_id"))
    );
    assert_eq!(seen("file-nothing").await, (status, error));
    // Nor in a chain, where the field that stands for it is named.
    let (status, error) = caller.refused("POST", "/responses", next(&answer)).await;
    assert_eq!(
        (status, &error["param"]),
        (400, &json!("previous_response_id")),
        "{error}"
    );
    // Nor in the background, where the rights of then count.
    let mut later = body(&file);
    later["background"] = json!(true);
    let (status, _) = caller.refused("POST", "/responses", later).await;
    assert_eq!(status, 400);
}

impl Caller<'_> {
    /// Uploads a file. Gives its id.
    async fn upload(&self, name: &str, content: &str) -> String {
        let part = |head: &str, value: &str| {
            format!("--line\r\ncontent-disposition: form-data; {head}\r\n\r\n{value}\r\n")
        };
        let file = format!("name=\"file\"; filename=\"{name}\"");
        let purpose = part("name=\"purpose\"", "user_data");
        let body = format!("{}{purpose}--line--\r\n", part(&file, content));
        let headers = [
            ("authorization", self.bearer.as_str()),
            ("content-type", "multipart/form-data; boundary=line"),
        ];
        let house = self.house;
        let answer = house.send(house.osaka, "POST", "/v1/files", &headers, body);
        id(&answer.await.json()).to_owned()
    }

    /// A background response when it has ended.
    async fn ended(&self, id: &str) -> Value {
        let path = format!("/responses/{id}");
        let wait = async {
            loop {
                let response = self.get(&path).await;
                if !matches!(response["status"].as_str(), Some("queued" | "in_progress")) {
                    return response;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), wait).await;
        ended.unwrap()
    }
}
