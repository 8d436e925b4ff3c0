//! What passes through unchanged, and what must not.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails panics; helpers are not seen as tests"
)]

use bytes::Bytes;
use honshu_domain::{Dialect, ErrorKind, FinishReason};
use honshu_wire::passthrough::{FramePatcher, patch_request};
use honshu_wire::{chat, completions, responses};
use proptest::prelude::*;
use serde_json::Value;

fn patched(body: &str, dialect: Dialect, want_usage: bool) -> String {
    let out = patch_request(
        &Bytes::from(body.to_owned()),
        "up/\"model\"",
        dialect,
        want_usage,
    );
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn only_the_top_level_model_and_the_wish_for_usage_change() {
    let chat = Dialect::ChatCompletions;
    for (body, dialect, usage, expected) in [
        (
            r#"{ "model" : "a",  "messages":[{"model":"keep"}], "n":1.0 }"#,
            chat,
            false,
            r#"{ "model" : "up/\"model\"",  "messages":[{"model":"keep"}], "n":1.0 }"#,
        ),
        (
            r#"{"x":"\"model\":1","mod\u0065l":"a"}"#,
            chat,
            false,
            r#"{"x":"\"model\":1","mod\u0065l":"up/\"model\""}"#,
        ),
        (
            "{\"model\":\"a\",\"stream\":true}\n",
            chat,
            true,
            "{\"model\":\"up/\\\"model\\\"\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}\n",
        ),
        (
            r#"{"stream_options":{"include_obfuscation":false,"include_usage":false},"model":"a"}"#,
            chat,
            true,
            r#"{"stream_options":{"include_usage":true,"include_obfuscation":false},"model":"up/\"model\""}"#,
        ),
        (
            r#"{"stream_options":null,"model":"a"}"#,
            chat,
            true,
            r#"{"stream_options":{"include_usage":true},"model":"up/\"model\""}"#,
        ),
        (
            r#"{"model":"a","stream":true}"#,
            Dialect::Responses,
            true,
            r#"{"model":"up/\"model\"","stream":true}"#,
        ),
    ] {
        assert_eq!(patched(body, dialect, usage), expected);
    }
}

#[test]
fn frames_that_need_no_change_are_not_copied() {
    let frame = Bytes::from_static(br#"{"type":"response.output_text.delta","delta":"x"}"#);
    let mut patcher = FramePatcher::new(Dialect::Responses, "m".into(), true);
    let out = patcher.frame(frame.clone()).unwrap().frame.unwrap();
    assert_eq!(out.json.as_ptr(), frame.as_ptr());
    assert_eq!(out.event.as_deref(), Some("response.output_text.delta"));
}

#[test]
fn nonsense_from_an_upstream_is_its_error() {
    for frame in [
        "",
        "[]",
        "null",
        "{",
        "{\"choices\":[}",
        "{\"a\":\"\u{1}\"}",
        "<html>",
        "{\"model\":}",
    ] {
        for dialect in [Dialect::ChatCompletions, Dialect::Responses] {
            let mut patcher = FramePatcher::new(dialect, "m".into(), true);
            let error = patcher.frame(Bytes::from(frame)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Upstream, "{frame}");
            assert!(patcher.whole(Bytes::from(frame)).is_err(), "{frame}");
        }
        assert!(
            chat::UpstreamDecoder::new()
                .frame(frame.as_bytes(), &mut Vec::new())
                .is_err()
        );
        assert!(
            responses::UpstreamDecoder::new()
                .whole(frame.as_bytes(), &mut Vec::new())
                .is_err()
        );
    }
}

#[test]
fn whole_bodies_give_their_facts() {
    let body = Bytes::from_static(
        br#"{"id":"c","model":"up","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"length"}],"usage":{"prompt_tokens":2,"completion_tokens":3}}"#,
    );
    let patched = FramePatcher::new(Dialect::ChatCompletions, "served".into(), false)
        .whole(body)
        .unwrap();
    assert!(patched.facts.terminal);
    assert_eq!(patched.facts.finish, Some(FinishReason::Length));
    assert_eq!(patched.facts.usage.unwrap().output_tokens, 3);
    let frame = patched.frame.unwrap();
    assert!(frame.whole);
    assert!(
        std::str::from_utf8(&frame.json)
            .unwrap()
            .starts_with(r#"{"id":"c","model":"served","#)
    );

    let body = Bytes::from_static(
        br#"{"status":"completed","model":"up","output":[{"type":"function_call"}],"usage":{"input_tokens":2,"output_tokens":3}}"#,
    );
    let patched = FramePatcher::new(Dialect::Responses, "served".into(), false)
        .whole(body)
        .unwrap();
    assert_eq!(patched.facts.finish, Some(FinishReason::ToolCalls));
    assert_eq!(patched.facts.usage.unwrap().input_tokens, 2);

    let failed = Bytes::from_static(
        br#"{"status":"failed","model":"up","error":{"code":"rate_limit_exceeded","message":"m"}}"#,
    );
    let patched = FramePatcher::new(Dialect::Responses, "served".into(), false)
        .whole(failed)
        .unwrap();
    assert_eq!(patched.facts.error.unwrap().kind(), ErrorKind::RateLimited);
    assert!(patched.frame.is_none());
}

fn extras() -> impl Strategy<Value = Vec<(String, Value)>> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
    ];
    let deep = value.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    });
    prop::collection::btree_map("x_.{0,8}", deep, 0..6).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn unknown_fields_survive_the_way_to_an_upstream(extras in extras(), at in 0_usize..4, usage: bool) {
        for (dialect, given) in [
            (Dialect::ChatCompletions, r#"{"messages":[{"role":"user","content":"hi","x_m":[1]}]}"#),
            (Dialect::Responses, r#"{"input":[{"role":"user","content":"hi","x_m":[1]}]}"#),
            (Dialect::Completions, r#"{"prompt":"hi","y_m":[1]}"#),
        ] {
            let mut members: Vec<(String, Value)> = extras.clone();
            let Value::Object(given) = serde_json::from_str(given).unwrap() else { unreachable!() };
            members.extend(given);
            members.insert(at.min(members.len()), ("model".to_owned(), "alias".into()));
            let text = format!("{{{}}}", members.iter().map(|(k, v)| format!("{}: {v}", Value::from(k.as_str()))).collect::<Vec<_>>().join(" ,\n"));
            let body = Bytes::from(text);
            let request = match dialect {
                Dialect::ChatCompletions => chat::parse_request(body),
                Dialect::Responses => responses::parse_request(body),
                _ => completions::parse_request(body),
            }.unwrap();
            prop_assert_eq!(request.model.as_ref(), "alias");
            let sent = patch_request(&request.raw, "up", dialect, usage);
            let mut sent: Value = serde_json::from_slice(&sent).unwrap();
            let sent = sent.as_object_mut().unwrap();
            prop_assert_eq!(sent.get("model"), Some(&Value::from("up")));
            if usage && dialect != Dialect::Responses {
                prop_assert_eq!(&sent.remove("stream_options").unwrap()["include_usage"], &Value::from(true));
            }
            prop_assert_eq!(sent.len(), members.len());
            for (key, value) in members.iter().filter(|(key, _)| key != "model") {
                prop_assert_eq!(&sent[key], value);
            }
            let unknown = extras.iter().filter(|(_, value)| !value.is_null()).count();
            prop_assert!(request.hints.len() <= unknown + 1);
            prop_assert!(unknown == 0 || request.hints.len() > 1);
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "[\\[\\]{}\":,a-z0-9\\\\ue.+-]{0,60}") {
        for text in [text.clone(), format!("{{\"model\":\"m\",\"messages\":{text}}}"), format!("{{\"model\":\"m\",\"input\":{text}}}")] {
            let body = Bytes::from(text);
            let _ = chat::parse_request(body.clone());
            let _ = responses::parse_request(body.clone());
            for dialect in [Dialect::ChatCompletions, Dialect::Responses] {
                let _ = FramePatcher::new(dialect, "m".into(), true).frame(body.clone());
                let _ = FramePatcher::new(dialect, "m".into(), true).whole(body.clone());
            }
            let _ = chat::UpstreamDecoder::new().frame(&body, &mut Vec::new());
            let _ = chat::UpstreamDecoder::new().whole(&body, &mut Vec::new());
            let _ = responses::UpstreamDecoder::new().frame(&body, &mut Vec::new());
            let _ = responses::UpstreamDecoder::new().whole(&body, &mut Vec::new());
        }
    }
}
