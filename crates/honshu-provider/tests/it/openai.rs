//! An upstream that is told what to send.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use honshu_domain::{
    Backend, CustomTool, Demand, Dialect, ErrorKind, FinishReason, GrammarSyntax, InputFormat,
    Origin, Retry, RunEvent, Support, Tool,
};
use honshu_egress::{AddressRules, Client, ClientOptions};
use honshu_provider::{Credential, OpenAiOptions, OpenAiProvider};
use honshu_testkit::{MockUpstream, Reply, chat_request, request};

use crate::common::{attempt, read, run};

const KEY: &str = "sk-canary-of-the-upstream";

fn provider(base_url: &str, chat: bool, responses: bool) -> OpenAiProvider {
    let credential = Credential::none();
    credential.set(KEY).unwrap();
    let options = ClientOptions {
        allow: AddressRules::any(),
        connect_timeout: Duration::from_millis(500),
        ..ClientOptions::default()
    };
    OpenAiProvider::new(
        OpenAiOptions {
            name: "mock".into(),
            base_url: base_url.into(),
            credential,
            chat,
            responses,
        },
        Client::new(options),
    )
    .unwrap()
}

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"real-name","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    )
}

fn chat_frames() -> Vec<Vec<u8>> {
    let usage = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"real-name","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":2,"total_tokens":13}}"#;
    [
        chunk(r#"{"role":"assistant","content":""}"#, "null"),
        chunk(r#"{"content":"Osaka "}"#, "null"),
        chunk(r#"{"content":"castle"}"#, "null"),
        chunk("{}", "\"stop\""),
        usage.to_owned(),
        "[DONE]".to_owned(),
    ]
    .map(|data| format!("data: {data}\n\n").into_bytes())
    .into()
}

#[tokio::test]
async fn the_same_dialect_passes_through_with_the_model_renamed_and_the_usage_kept() {
    let upstream =
        MockUpstream::start([Reply::stream(chat_frames()).header("x-request-id", "up-1")]).await;
    let provider = provider(&upstream.base_url(), true, false);
    let got = run(&provider, chat_request("test.model", "hi", true)).await;
    assert!(got.error.is_none(), "{:?}", got.error);
    let finish = got.finish().unwrap();
    assert_eq!(finish.reason, FinishReason::Stop);
    let usage = finish.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (11, 2));
    let native = got.native();
    assert!(native.contains(r#""content":"Osaka ""#) && native.contains(r#""model":"test.model""#));
    assert!(
        !native.contains("real-name") && !native.contains("prompt_tokens"),
        "{native}"
    );
    assert!(
        matches!(&got.events[0], RunEvent::Started { upstream_request_id: Some(id), .. } if &**id == "up-1")
    );

    let received = upstream.received().remove(0);
    assert!(
        received
            .head
            .starts_with("POST /v1/chat/completions HTTP/1.1"),
        "{}",
        received.head
    );
    assert_eq!(
        received.header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    assert_eq!(
        received.header("x-request-id"),
        Some("0123456789ABCDEF0123456789ABCDEF")
    );
    let body = String::from_utf8(received.body).unwrap();
    assert!(
        body.contains(r#""model":"up""#) && body.contains(r#""include_usage":true"#),
        "{body}"
    );
}

#[tokio::test]
async fn a_whole_answer_passes_through_whole() {
    let body = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"real-name","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4},"x_unknown":[1]}"#;
    let upstream = MockUpstream::start([Reply::json(200, body)]).await;
    let got = run(
        &provider(&upstream.base_url(), true, false),
        chat_request("test.model", "hi", false),
    )
    .await;
    assert_eq!(got.finish().unwrap().reason, FinishReason::Length);
    assert_eq!(got.native(), body.replace("real-name", "test.model"));
    assert!(
        got.events
            .iter()
            .any(|event| matches!(event, RunEvent::Native(frame) if frame.whole))
    );
}

#[tokio::test]
async fn another_dialect_is_translated_both_ways() {
    let upstream = MockUpstream::start([Reply::stream(chat_frames())]).await;
    let provider = provider(&upstream.base_url(), true, false);
    let got = run(&provider, request("test.model", "Where is the castle?")).await;
    assert_eq!(got.text(), "Osaka castle");
    assert_eq!(got.messages(), ["Osaka castle"]);
    assert_eq!(got.finish().unwrap().usage.unwrap().input_tokens, 11);
    let body = String::from_utf8(upstream.received().remove(0).body).unwrap();
    assert!(
        body.contains("\"messages\"") && body.contains("Where is the castle?"),
        "{body}"
    );
    assert_eq!(
        provider.supports("up", Dialect::Responses, Demand::StoredState),
        Support::No
    );
    assert_eq!(
        provider.supports("up", Dialect::ChatCompletions, Demand::StoredState),
        Support::Yes
    );
    assert!(!provider.passes_through("up", Dialect::Responses));
}

#[tokio::test]
async fn a_custom_tool_is_a_function_for_an_upstream_that_speaks_chat_alone() {
    let call = |rest: &str| {
        chunk(
            &format!(r#"{{"tool_calls":[{{"index":0,{rest}}}]}}"#),
            "null",
        )
    };
    let frames = [
        call(r#""id":"c","type":"function","function":{"name":"patch","arguments":""}"#),
        call(r#""function":{"arguments":"{\"input\": \"*** Be"}"#),
        call(r#""function":{"arguments":"gin\\n+\"}"}"#),
        chunk("{}", "\"tool_calls\""),
        "[DONE]".to_owned(),
    ];
    let frames: Vec<Vec<u8>> = frames
        .iter()
        .map(|data| format!("data: {data}\n\n").into_bytes())
        .collect();
    let upstream = MockUpstream::start([Reply::stream(frames)]).await;
    let chat_only = provider(&upstream.base_url(), true, false);
    let mut asked = request("test.model", "Patch it.");
    asked.tools = vec![Tool::Custom(CustomTool {
        name: "patch".into(),
        description: None,
        format: InputFormat::Grammar {
            syntax: GrammarSyntax::Lark,
            definition: "start: /.*/".into(),
        },
    })];
    assert_eq!(chat_only.leaves_out("up", &asked), ["tools[0].format"]);
    let both = provider(&upstream.base_url(), true, true);
    assert!(both.leaves_out("up", &asked).is_empty());

    let got = run(&chat_only, asked).await;
    let calls = got.custom_calls();
    assert_eq!(calls.len(), 1, "{got:?}");
    assert_eq!(
        (&*calls[0].call_id, calls[0].input.as_str()),
        ("c", "*** Begin\n+")
    );
    assert_eq!(got.finish().unwrap().reason, FinishReason::ToolCalls);
    let sent: serde_json::Value =
        serde_json::from_slice(&upstream.received().remove(0).body).unwrap();
    assert_eq!(sent["tools"][0]["function"]["name"], "patch");
}

#[tokio::test]
async fn an_upstream_that_ignores_the_wish_for_a_stream_is_understood() {
    let body = r#"{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}"#;
    let upstream = MockUpstream::start([Reply::json(200, body)]).await;
    let got = run(
        &provider(&upstream.base_url(), true, false),
        chat_request("test.model", "hi", true),
    )
    .await;
    assert_eq!(got.messages(), ["hello"]);
    assert!(got.finish().is_some());
}

#[tokio::test]
async fn what_upstreams_say_instead_of_an_answer() {
    struct Case {
        reply: Reply,
        kind: ErrorKind,
        retry: Retry,
    }
    let json = |status, code: &str| {
        Reply::json(
            status,
            &format!(
                r#"{{"error":{{"message":"no: {KEY}","type":"t","param":null,"code":"{code}"}}}}"#
            ),
        )
    };
    let case = |reply, kind, retry| Case { reply, kind, retry };
    let cases = [
        case(json(400, "bad"), ErrorKind::Invalid, Retry::Never),
        case(
            json(400, "context_length_exceeded"),
            ErrorKind::ContextLength,
            Retry::Never,
        ),
        case(
            json(401, "invalid_api_key"),
            ErrorKind::Upstream,
            Retry::Never,
        ),
        case(json(403, "x"), ErrorKind::Upstream, Retry::Never),
        case(
            json(404, "model_not_found"),
            ErrorKind::Upstream,
            Retry::Never,
        ),
        case(
            json(429, "x").header("retry-after", "7"),
            ErrorKind::RateLimited,
            Retry::After(Duration::from_secs(7)),
        ),
        case(json(500, "x"), ErrorKind::Upstream, Retry::Now),
        case(json(503, "x"), ErrorKind::Unavailable, Retry::Now),
        case(
            Reply::json(200, "not json"),
            ErrorKind::Upstream,
            Retry::Now,
        ),
        case(
            Reply::stream([
                b"data: {\"error\":{\"message\":\"boom\",\"code\":\"x\"}}\n\n".to_vec(),
            ]),
            ErrorKind::Upstream,
            Retry::Now,
        ),
        case(
            Reply::stream([b"data: <html>\n\n".to_vec()]),
            ErrorKind::Upstream,
            Retry::Now,
        ),
        case(
            Reply::stream([b"data: [DONE]\n\n".to_vec()]),
            ErrorKind::Upstream,
            Retry::Now,
        ),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let upstream = MockUpstream::start([case.reply]).await;
        let provider = provider(&upstream.base_url(), true, false);
        let got = run(&provider, chat_request("test.model", "hi", true)).await;
        let error = got
            .error
            .unwrap_or_else(|| panic!("case {number}: no error"));
        assert_eq!(
            (error.kind(), error.retry()),
            (case.kind, case.retry),
            "case {number}: {error:?}"
        );
        assert_eq!(error.origin(), Origin::Upstream, "case {number}");
        let mut all = format!("{error:?} {error}");
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
        while let Some(inner) = cause {
            all.push_str(&inner.to_string());
            cause = inner.source();
        }
        assert!(!all.contains("canary"), "case {number}: {all}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_may_be_tried_again() {
    let upstream = MockUpstream::start([Reply::json(200, "{}")]).await;
    let url = upstream.base_url();
    drop(upstream);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let got = run(
        &provider(&url, true, true),
        chat_request("test.model", "hi", true),
    )
    .await;
    let error = got.error.unwrap();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Upstream, Retry::Now)
    );
    assert!(got.events.is_empty());
    assert!(
        !error.message().contains("127.0.0.1"),
        "callers do not learn where upstreams are"
    );
}

#[tokio::test]
async fn a_stream_that_breaks_ends_without_its_finish() {
    let frames = chat_frames();
    for kept in 0..frames.len() {
        let some = || frames[..kept].to_vec();
        for (how, reply) in [
            ("cut", Reply::stream(some()).cut()),
            ("reset", Reply::stream(some()).reset()),
        ] {
            let upstream = MockUpstream::start([reply]).await;
            let provider = provider(&upstream.base_url(), true, false);
            for streamed_as in [
                chat_request("test.model", "hi", true),
                request("test.model", "hi"),
            ] {
                let got = run(&provider, streamed_as).await;
                assert!(got.finish().is_none(), "{how} after {kept} frames: {got:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_chat_stream_without_its_marker_is_whole_once_the_reason_came() {
    let frames = chat_frames();
    for (kept, is_whole) in [(3, false), (4, true), (5, true)] {
        let upstream = MockUpstream::start([Reply::stream(frames[..kept].to_vec())]).await;
        let provider = provider(&upstream.base_url(), true, false);
        for asked in [
            chat_request("test.model", "hi", true),
            request("test.model", "hi"),
        ] {
            let got = run(&provider, asked).await;
            assert_eq!(
                got.finish().is_some(),
                is_whole,
                "clean end after {kept} frames"
            );
        }
    }
}

#[tokio::test]
async fn a_translation_says_which_hints_it_carries_over() {
    for (chat, responses) in [(true, false), (false, true)] {
        let provider = provider("http://127.0.0.1:9/v1", chat, responses);
        for dialect in [Dialect::ChatCompletions, Dialect::Responses] {
            for (path, acts) in [
                ("reasoning.effort", true),
                ("reasoning_effort", true),
                ("reasoning.summary", false),
                ("service_tier", false),
            ] {
                assert_eq!(provider.acts_on_hint("up", dialect, path), acts, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn what_responses_cannot_say_is_named() {
    let mut asked = chat_request("test.model", "hi", true);
    asked.stop = vec!["end".into()];
    asked.sampling.seed = Some(7);
    asked.sampling.temperature = Some(0.5);
    let left_out = |chat, responses| {
        provider("http://127.0.0.1:9/v1", chat, responses).leaves_out("up", &asked)
    };
    assert_eq!(left_out(false, true), ["stop", "seed"]);
    assert!(left_out(true, false).is_empty());
    assert!(left_out(true, true).is_empty());
}

#[tokio::test]
async fn several_choices_without_a_marker_are_whole_when_the_last_one_has_its_reason() {
    let choice = |index: u32, delta: &str, finish: &str| {
        format!(
            "data: {{\"model\":\"real-name\",\"choices\":[{{\"index\":{index},\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
        .into_bytes()
    };
    let frames = [
        choice(0, r#"{"content":"a"}"#, "null"),
        choice(1, r#"{"content":"b"}"#, "null"),
        choice(0, "{}", "\"stop\""),
        choice(1, "{}", "\"stop\""),
    ];
    for (kept, is_whole) in [(3, false), (4, true)] {
        let upstream = MockUpstream::start([Reply::stream(frames[..kept].to_vec())]).await;
        let provider = provider(&upstream.base_url(), true, false);
        for native in [true, false] {
            let mut asked = if native {
                chat_request("test.model", "hi", true)
            } else {
                request("test.model", "hi")
            };
            asked.choices = 2;
            let got = run(&provider, asked).await;
            assert_eq!(
                got.finish().is_some(),
                is_whole,
                "native {native}, clean end after {kept} frames"
            );
        }
    }
}

#[tokio::test]
async fn an_error_inside_a_stream_does_not_quote_our_key() {
    let frames = |data: String| {
        let mut frames = chat_frames()[..2].to_vec();
        frames.push(format!("data: {data}\n\n").into_bytes());
        frames
    };
    let quote = format!(r#"{{"error":{{"message":"key {KEY} is out of money","code":"x"}}}}"#);
    let upstream = MockUpstream::start([Reply::stream(frames(quote))]).await;
    let provider = provider(&upstream.base_url(), true, false);
    for asked in [
        chat_request("test.model", "hi", true),
        request("test.model", "hi"),
    ] {
        let error = run(&provider, asked).await.error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Upstream);
        assert_eq!(error.message(), "key [credential] is out of money");
    }
}

#[tokio::test]
async fn dropping_the_stream_closes_the_upstreams_connection_within_250_ms() {
    let slow = Reply::stream(chat_frames()[..2].to_vec()).stall();
    let upstream = MockUpstream::start([slow]).await;
    let provider = provider(&upstream.base_url(), true, false);
    for number in 1..=5 {
        let mut stream = provider.generate(attempt(chat_request("test.model", "hi", true), "up"));
        for _ in 0..2 {
            stream.next().await.unwrap().unwrap();
        }
        let left = Instant::now();
        drop(stream);
        while upstream.hang_ups().len() < number {
            assert!(
                left.elapsed() < Duration::from_millis(250),
                "the upstream still works"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_was_read_to_its_end_leaves_its_connection_for_the_next() {
    let upstream = MockUpstream::start([Reply::stream(chat_frames())]).await;
    let provider = provider(&upstream.base_url(), true, false);
    for _ in 0..10 {
        let got =
            read(provider.generate(attempt(chat_request("test.model", "hi", true), "up"))).await;
        assert!(got.finish().is_some());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_new_credential_reaches_the_next_request() {
    let upstream = MockUpstream::start([Reply::stream(chat_frames())]).await;
    let credential = Credential::none();
    let provider = OpenAiProvider::new(
        OpenAiOptions {
            name: "mock".into(),
            base_url: upstream.base_url(),
            credential: credential.clone(),
            chat: true,
            responses: true,
        },
        Client::new(ClientOptions {
            allow: AddressRules::any(),
            ..ClientOptions::default()
        }),
    )
    .unwrap()
    .with_header("x-team", "blue")
    .unwrap();
    for key in [None, Some("sk-one"), Some("sk-two")] {
        if let Some(key) = key {
            credential.set(key).unwrap();
        }
        run(&provider, chat_request("test.model", "hi", true)).await;
        let received = upstream.received().pop().unwrap();
        let expected = key.map(|key| format!("Bearer {key}"));
        assert_eq!(received.header("authorization"), expected.as_deref());
        assert_eq!(received.header("x-team"), Some("blue"));
    }
    assert!(!format!("{provider:?}").contains("sk-two"));
}

#[test]
fn options_that_cannot_work_are_refused_with_words() {
    let new = |base_url: &str, chat| {
        OpenAiProvider::new(
            OpenAiOptions {
                name: "x".into(),
                base_url: base_url.into(),
                credential: Credential::none(),
                chat,
                responses: false,
            },
            Client::new(ClientOptions::default()),
        )
        .map(|_| ())
    };
    assert!(new("https://example.com/v1/", true).is_ok());
    for (url, chat, word) in [
        ("https://example.com/v1", false, "chat"),
        ("ftp://example.com", true, "base_url"),
        ("https://user:pw@example.com", true, "base_url"),
        ("https://example.com/v1?x=1", true, "base_url"),
    ] {
        let refused = new(url, chat).unwrap_err();
        assert!(refused.contains(word), "{refused}");
    }
}
