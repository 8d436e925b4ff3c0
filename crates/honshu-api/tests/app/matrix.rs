//! Every dialect over every kind of backend, streamed and not, in everything that can happen to an answer.
//!
//! The upstream is another Honshu with the scripted model, asked by Chat Completions or by Responses: so the same words
//! bring about the same answer behind each translation, and one table says what every cell has to look like.

use std::sync::Arc;
use std::time::Duration;

use honshu_egress::{AddressRules, Client, ClientOptions};
use honshu_provider::{Credential, OpenAiOptions, OpenAiProvider};
use honshu_testkit::model;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::kept::Caller;
use crate::support::{Answer, House, MODEL};

pub(crate) const DIALECTS: [&str; 3] = ["chat", "responses", "messages"];
pub(crate) const MODELS: [&str; 3] = [MODEL, "up.chat", "up.responses"];

/// What a caller sees of an answer, whatever the dialect.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) text: String,
    pub(crate) refusal: String,
    /// Names and arguments.
    pub(crate) calls: Vec<(String, Value)>,
    /// In the words of Chat Completions, except for refusals.
    pub(crate) reason: String,
    /// The kind of error: HTTP, or within the stream.
    pub(crate) error: &'static str,
}

pub(crate) fn seen(text: &str, reason: &str) -> Seen {
    Seen {
        text: text.to_owned(),
        reason: reason.to_owned(),
        ..Seen::default()
    }
}

pub(crate) fn called(cities: &[&str]) -> Seen {
    Seen {
        calls: cities
            .iter()
            .map(|city| ("get_weather".to_owned(), json!({"city": city})))
            .collect(),
        reason: "tool_calls".to_owned(),
        ..Seen::default()
    }
}

/// Two houses: callers ask the first, whose other models are the second's.
pub(crate) struct Street {
    pub(crate) house: House,
    upstream: House,
    pub(crate) secret: String,
    key: String,
}

impl Street {
    pub(crate) async fn new() -> Self {
        let (house, upstream) = (House::new().await, House::new().await);
        let (secret, key) = (house.chatting().await, upstream.chatting().await);
        for (name, is_chat) in [("up.chat", true), ("up.responses", false)] {
            let credential = Credential::none();
            credential.set(&key).unwrap();
            let options = OpenAiOptions {
                name: name.to_owned(),
                base_url: format!("http://{}/v1", upstream.osaka),
                credential,
                chat: is_chat,
                responses: !is_chat,
            };
            let client = Client::new(ClientOptions {
                allow: AddressRules::any(),
                ..ClientOptions::default()
            });
            let provider = Arc::new(OpenAiProvider::new(options, client).unwrap());
            let mut made = model(name, provider);
            for deployment in &mut made.deployments {
                deployment.upstream = MODEL.into();
            }
            house.catalogue.insert(name, Arc::new(made), false);
        }
        Self {
            house,
            upstream,
            secret,
            key,
        }
    }

    /// Who asks the first house.
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller {
            house: &self.house,
            bearer: format!("Bearer {}", self.secret),
            project: None,
        }
    }

    /// Who asks the second house by the first one's key.
    pub(crate) fn upstream_caller(&self) -> Caller<'_> {
        Caller {
            house: &self.upstream,
            bearer: format!("Bearer {}", self.key),
            project: None,
        }
    }

    async fn ask(&self, cell: &Cell, text: &str, options: &Options) -> Answer {
        let body = body(cell, text, options);
        self.house
            .post(&self.secret, path(cell.dialect), body.to_string())
            .await
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) dialect: &'static str,
    pub(crate) model: &'static str,
    pub(crate) streamed: bool,
}

fn cells() -> impl Iterator<Item = Cell> {
    DIALECTS.into_iter().flat_map(|dialect| {
        MODELS.into_iter().flat_map(move |model| {
            [false, true].map(|streamed| Cell {
                dialect,
                model,
                streamed,
            })
        })
    })
}

#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) tools: bool,
    /// Whether several calls may come. The scripted model makes as many as it is told.
    pub(crate) parallel: bool,
    pub(crate) schema: bool,
    /// The only city that the schemas allow.
    pub(crate) only: Option<&'static str>,
    pub(crate) tokens_max: Option<u32>,
    pub(crate) stop: Option<&'static str>,
}

pub(crate) fn path(dialect: &str) -> &'static str {
    match dialect {
        "chat" => "/v1/chat/completions",
        "responses" => "/v1/responses",
        _ => "/v1/messages",
    }
}

pub(crate) fn body(cell: &Cell, text: &str, options: &Options) -> Value {
    let city = match options.only {
        Some(city) => json!({"enum": [city]}),
        None => json!({"type": "string"}),
    };
    let schema = json!({
        "type": "object", "properties": {"city": city}, "required": ["city"],
        "additionalProperties": false,
    });
    let mut body = json!({"model": cell.model, "stream": cell.streamed});
    let messages = json!([{"role": "user", "content": text}]);
    let format = json!({"name": "place", "schema": schema, "strict": true});
    match cell.dialect {
        "chat" => {
            body["messages"] = messages;
            if options.tools {
                body["tools"] = json!([{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]);
            }
            if options.schema {
                body["response_format"] = json!({"type": "json_schema", "json_schema": format});
            }
            body["max_tokens"] = json!(options.tokens_max);
            body["stop"] = json!(options.stop);
        }
        "responses" => {
            body["input"] = messages;
            body["store"] = json!(false);
            if options.tools {
                body["tools"] =
                    json!([{"type": "function", "name": "get_weather", "parameters": schema}]);
            }
            if options.schema {
                body["text"] = json!({"format": {"type": "json_schema", "name": "place", "schema": schema, "strict": true}});
            }
            body["max_output_tokens"] = json!(options.tokens_max);
        }
        _ => {
            body["messages"] = messages;
            body["max_tokens"] = json!(options.tokens_max.unwrap_or(1_000));
            if options.tools {
                body["tools"] = json!([{"name": "get_weather", "input_schema": schema}]);
            }
            if options.schema {
                body["output_config"] =
                    json!({"format": {"type": "json_schema", "schema": schema}});
            }
            body["stop_sequences"] = json!(options.stop.map(|stop| [stop]));
        }
    }
    body
}

/// Reads an answer as its dialect's clients do.
pub(crate) fn read(cell: &Cell, answer: &Answer) -> Seen {
    if answer.status != 200 {
        let body = answer.json();
        let error = &body["error"];
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{body}"
        );
        return Seen {
            error: "http",
            ..Seen::default()
        };
    }
    if cell.streamed {
        let events: Vec<Value> = answer
            .events()
            .iter()
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        let is_done = answer.text().ends_with("data: [DONE]\n\n");
        match cell.dialect {
            "chat" => chat_stream(&events, is_done, answer.whole),
            "responses" => responses_stream(&events),
            _ => messages_stream(&events, answer.whole),
        }
    } else {
        let body = answer.json();
        match cell.dialect {
            "chat" => chat_whole(&body),
            "responses" => response(&body),
            _ => message(&body),
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn chat_whole(body: &Value) -> Seen {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    Seen {
        text: text(&message["content"]).to_owned(),
        refusal: text(&message["refusal"]).to_owned(),
        calls: message["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|call| {
                let function = &call["function"];
                let arguments = serde_json::from_str(text(&function["arguments"])).unwrap();
                (text(&function["name"]).to_owned(), arguments)
            })
            .collect(),
        reason: text(&choice["finish_reason"]).to_owned(),
        error: "",
    }
}

fn chat_stream(events: &[Value], is_done: bool, whole: bool) -> Seen {
    let mut seen = Seen::default();
    let mut calls: Vec<(String, String)> = Vec::new();
    for event in events {
        if event["error"].is_object() {
            seen.error = "stream";
            continue;
        }
        assert_eq!(seen.error, "", "a chunk after the error");
        let choice = &event["choices"][0];
        let delta = &choice["delta"];
        seen.text.push_str(text(&delta["content"]));
        seen.refusal.push_str(text(&delta["refusal"]));
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let at = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            calls.resize_with(calls.len().max(at + 1), Default::default);
            calls[at].0.push_str(text(&call["function"]["name"]));
            calls[at].1.push_str(text(&call["function"]["arguments"]));
        }
        seen.reason.push_str(text(&choice["finish_reason"]));
    }
    assert_eq!(
        (is_done, whole),
        (seen.error.is_empty(), seen.error.is_empty())
    );
    if seen.error.is_empty() {
        seen.calls = calls
            .into_iter()
            .map(|(name, arguments)| (name, serde_json::from_str(&arguments).unwrap()))
            .collect();
    }
    seen
}

fn response(body: &Value) -> Seen {
    let mut seen = Seen::default();
    for item in body["output"].as_array().unwrap() {
        match text(&item["type"]) {
            "message" => {
                for part in item["content"].as_array().unwrap() {
                    seen.text.push_str(text(&part["text"]));
                    seen.refusal.push_str(text(&part["refusal"]));
                }
            }
            "function_call" => seen.calls.push((
                text(&item["name"]).to_owned(),
                serde_json::from_str(text(&item["arguments"])).unwrap_or_default(),
            )),
            _ => {}
        }
    }
    seen.reason = match (text(&body["status"]), seen.calls.is_empty()) {
        ("completed", true) => "stop",
        ("completed", false) => "tool_calls",
        ("incomplete", _) => {
            assert_eq!(body["incomplete_details"]["reason"], "max_output_tokens");
            "length"
        }
        (status, _) => {
            assert_eq!(status, "failed");
            assert!(body["error"]["code"].is_string());
            seen.error = "stream";
            ""
        }
    }
    .to_owned();
    seen
}

fn responses_stream(events: &[Value]) -> Seen {
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], at);
    }
    let last = events.last().unwrap();
    let deltas: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .map(|event| text(&event["delta"]))
        .collect();
    let mut seen = response(&last["response"]);
    if seen.error.is_empty() {
        assert_eq!(deltas, seen.text);
    }
    seen.text = deltas;
    seen
}

fn message(body: &Value) -> Seen {
    let mut seen = Seen {
        reason: match text(&body["stop_reason"]) {
            "end_turn" | "stop_sequence" => "stop",
            "max_tokens" => "length",
            "tool_use" => "tool_calls",
            other => other,
        }
        .to_owned(),
        ..Seen::default()
    };
    for block in body["content"].as_array().unwrap() {
        match text(&block["type"]) {
            "text" => seen.text.push_str(text(&block["text"])),
            "tool_use" => seen
                .calls
                .push((text(&block["name"]).to_owned(), block["input"].clone())),
            other => panic!("{other}"),
        }
    }
    if seen.reason == "refusal" {
        // Here a refusal is a text with a reason of its own.
        seen.refusal = std::mem::take(&mut seen.text);
        seen.reason = "stop".to_owned();
    }
    seen
}

fn messages_stream(events: &[Value], whole: bool) -> Seen {
    let mut blocks: Vec<(Value, String)> = Vec::new();
    let mut ending = json!({});
    let (mut error, mut is_stopped) = ("", false);
    for event in events {
        assert!(error.is_empty() && !is_stopped, "an event after the end");
        match text(&event["type"]) {
            "content_block_start" => blocks.push((event["content_block"].clone(), String::new())),
            "content_block_delta" => {
                let delta = &event["delta"];
                let more = delta.get("text").or_else(|| delta.get("partial_json"));
                blocks.last_mut().unwrap().1.push_str(text(more.unwrap()));
            }
            "message_delta" => ending = event["delta"].clone(),
            "message_stop" => is_stopped = true,
            "error" => error = "stream",
            _ => {}
        }
    }
    assert_eq!((is_stopped, whole), (error.is_empty(), error.is_empty()));
    let content: Vec<Value> = blocks
        .into_iter()
        .map(|(mut block, text)| {
            if block["type"] == "text" {
                block["text"] = json!(text);
            } else {
                block["input"] = serde_json::from_str(&text).unwrap_or_default();
            }
            block
        })
        .collect();
    Seen {
        error,
        ..message(&json!({"content": content, "stop_reason": ending["stop_reason"]}))
    }
}

#[tokio::test]
async fn every_cell_of_good_answers() {
    let street = Street::new().await;
    let plain = Options::default();
    let tools = || Options {
        tools: true,
        ..Options::default()
    };
    let call = |city: &str| format!("Call the tool get_weather with {{\"city\": \"{city}\"}}\n");
    let table: [(&str, String, Options, Seen); 7] = [
        (
            "text",
            "Reply with exactly: one two".into(),
            plain,
            seen("one two", "stop"),
        ),
        ("tool call", call("Osaka"), tools(), called(&["Osaka"])),
        (
            "parallel tool calls",
            call("Osaka") + &call("Kyoto"),
            tools(),
            called(&["Osaka", "Kyoto"]),
        ),
        (
            "structured",
            "Where?".into(),
            Options {
                schema: true,
                ..Options::default()
            },
            seen("{\"city\":\"city\"}", "stop"),
        ),
        (
            "refusal",
            "Refuse with: not that".into(),
            Options::default(),
            Seen {
                refusal: "not that".to_owned(),
                ..seen("", "stop")
            },
        ),
        (
            "length",
            "Answer with 40 words".into(),
            Options {
                tokens_max: Some(16),
                ..Options::default()
            },
            seen(
                "one island of many between the sea and its mountains one island of many between the",
                "length",
            ),
        ),
        (
            "stop",
            "Reply with exactly: one two STOP three".into(),
            Options {
                stop: Some("STOP"),
                ..Options::default()
            },
            seen("one two ", "stop"),
        ),
    ];
    for (name, text, options, wanted) in &table {
        for cell in cells() {
            // Responses has no stop texts: neither callers of it nor an upstream asked in it can use them.
            let has_no_stop = cell.dialect == "responses" || cell.model == "up.responses";
            if options.stop.is_some() && has_no_stop {
                continue;
            }
            let answer = street.ask(&cell, text, options).await;
            let got = read(&cell, &answer);
            assert_eq!(&got, wanted, "{name}: {cell:?}\n{}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_has_no_translation_passes_through_or_is_refused_by_name() {
    let street = Street::new().await;
    let post = async |path: &str, body: Value| {
        street
            .house
            .post(&street.secret, path, body.to_string())
            .await
    };
    let prompt = "Reply with exactly: one two";
    for streamed in [false, true] {
        let asked = json!({"model": "up.chat", "prompt": prompt, "stream": streamed});
        let answer = post("/v1/completions", asked).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // The upstream's own body, with our name of the model.
        let texts: String = if streamed {
            let events = answer.events();
            assert_eq!(events.last().unwrap(), "[DONE]");
            events
                .iter()
                .filter(|data| *data != "[DONE]")
                .map(|data| {
                    let chunk: Value = serde_json::from_str(data).unwrap();
                    assert_eq!(chunk["model"], "up.chat");
                    text(&chunk["choices"][0]["text"]).to_owned()
                })
                .collect()
        } else {
            let body = answer.json();
            assert_eq!(body["model"], "up.chat");
            assert_eq!(body["choices"][0]["finish_reason"], "stop");
            text(&body["choices"][0]["text"]).to_owned()
        };
        assert_eq!(texts, "one two");
        let asked = json!({"model": "up.responses", "prompt": prompt, "stream": streamed});
        let refused = post("/v1/completions", asked).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains("prompts without a chat template"));
    }
    // An upstream that has no such option says so itself.
    let refused = post(
        "/v1/completions",
        json!({"model": "up.chat", "prompt": prompt, "echo": true}),
    )
    .await;
    assert_eq!(
        (
            refused.status.as_u16(),
            refused.json()["error"]["param"].as_str()
        ),
        (400, Some("echo"))
    );

    // Embeddings need a permission that these keys have in neither house: it looks as if there was no such model.
    let asked = json!({"model": MODEL, "input": "the sea"});
    let refused = post("/v1/embeddings", asked).await;
    assert_eq!(refused.json()["error"]["code"], "model_not_found");
    for house in [&street.house, &street.upstream] {
        house.let_keys("generative-ai-text-embedding").await;
    }
    for model in MODELS {
        let asked = json!({"model": model, "input": ["the sea", "a b c"], "dimensions": 4});
        let answer = post("/v1/embeddings", asked).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = answer.json();
        assert_eq!(
            (body["model"].as_str(), body["object"].as_str()),
            (Some(model), Some("list"))
        );
        assert_eq!(body["data"][1]["embedding"].as_array().unwrap().len(), 4);
        assert_eq!(
            body["usage"],
            json!({"prompt_tokens": 5, "total_tokens": 5})
        );
        let row = street.house.usage.rows().pop().unwrap();
        assert_eq!(
            (&*row.operation, row.usage.input_tokens, &*row.status),
            ("embeddings", 5, "completed")
        );
    }
    // Nobody guesses how many tokens an upstream would count.
    let messages = json!([{"role": "user", "content": "hi"}]);
    let asked = json!({"model": "up.chat", "messages": messages});
    let refused = post("/v1/messages/count_tokens", asked).await;
    assert_eq!(
        (
            refused.status.as_u16(),
            text(&refused.json()["error"]["type"])
        ),
        (400, "invalid_request_error")
    );
    let counted = post(
        "/v1/messages/count_tokens",
        json!({"model": MODEL, "messages": messages}),
    )
    .await;
    assert_eq!(counted.json(), json!({"input_tokens": 4}));
}

#[tokio::test]
async fn every_cell_of_failures() {
    let street = Street::new().await;
    for cell in cells() {
        let before = street
            .ask(
                &cell,
                "Reply with exactly: one two [scripted: fail-at=0 status=400]",
                &Options::default(),
            )
            .await;
        let got = read(&cell, &before);
        assert_eq!(got.error, "http", "{cell:?}: {got:?}");
        assert_eq!(before.status, 400, "{cell:?}");

        for fault in ["fail-at=5", "cut-at=5"] {
            let text = format!("Reply with exactly: one two three four [scripted: {fault}]");
            let after = street.ask(&cell, &text, &Options::default()).await;
            let got = read(&cell, &after);
            // What is not streamed has sent nothing yet when it fails.
            let wanted = if cell.streamed { "stream" } else { "http" };
            assert_eq!(
                (got.error, got.reason.as_str()),
                (wanted, ""),
                "{fault}: {cell:?}\n{}",
                after.text()
            );
            if cell.streamed {
                assert!(
                    got.text.starts_with("one two"),
                    "{fault}: {cell:?}: {got:?}"
                );
            } else {
                assert_eq!(after.status, 502, "{fault}: {cell:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_cell_of_callers_that_leave() {
    let street = Street::new().await;
    for cell in cells() {
        let runs = street.house.usage.rows().len();
        let upstream_runs = street.upstream.usage.rows().len();
        // Ten minutes of words: only leaving ends it.
        let body = body(
            &cell,
            "Answer with 60000 words [scripted: delay-ms=10]",
            &Options::default(),
        );
        leave(&street.house, &street.secret, &cell, &body).await;
        let row = row_after(&street.house, runs).await;
        assert_eq!(&*row, "cancelled", "{cell:?}");
        if cell.model != MODEL {
            let row = row_after(&street.upstream, upstream_runs).await;
            assert_eq!(&*row, "cancelled", "upstream of {cell:?}");
        }
    }
}

/// Sends a request and breaks the connection off when the answer flows, or when it must have begun.
pub(crate) async fn leave(house: &House, secret: &str, cell: &Cell, body: &Value) {
    let stream = tokio::net::TcpStream::connect(house.osaka).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let mut request = http::Request::new(http_body_util::Full::new(bytes::Bytes::from(
        body.to_string(),
    )));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = path(cell.dialect).parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("host", "h".parse().unwrap());
    headers.insert("authorization", format!("Bearer {secret}").parse().unwrap());
    if cell.streamed {
        let response = sender.send_request(request).await.unwrap();
        let mut body = response.into_body();
        for _ in 0..3 {
            body.frame().await.unwrap().unwrap();
        }
    } else {
        let waiting =
            tokio::time::timeout(Duration::from_millis(300), sender.send_request(request));
        assert!(
            waiting.await.is_err(),
            "an answer of ten minutes came at once"
        );
    }
    connection.abort();
}

/// The status of the row that comes after so many.
pub(crate) async fn row_after(house: &House, rows: usize) -> Arc<str> {
    for _ in 0..2_000 {
        if let Some(row) = house.usage.rows().get(rows) {
            return Arc::clone(&row.status);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no usage row in twenty seconds");
}
