//! What the translations cost on the data path, in nanoseconds. Budget: a request without stream may cost the
//! whole gateway about 40 µs, one with a 100 kB prompt about 50 µs of reading, a chunk 5 µs.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that fails panics; helpers are not seen as tests"
)]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use honshu_domain::{Dialect, PartKind, RunEvent, SystemEntropy, Timestamp};
use honshu_wire::passthrough::{FramePatcher, patch_request};
use honshu_wire::{ResponseHead, chat, responses};

fn chat_body(prompt: &str) -> Bytes {
    Bytes::from(
        serde_json::json!({
            "model": "openai.gpt-oss-120b",
            "messages": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": prompt}],
            "temperature": 0.7, "max_tokens": 300, "stream": false, "user": "somebody"
        })
        .to_string(),
    )
}

/// 100 kB with a line break every 60 characters, as prompts with documents have.
fn long_prompt() -> String {
    "All work and no play makes Jack a dull boy, said the fox.\n".repeat(1_700)
}

fn delta() -> RunEvent {
    RunEvent::Delta {
        output_index: 0,
        part_index: 0,
        kind: PartKind::Text,
        text: " token".to_owned(),
        logprobs: Vec::new(),
    }
}

fn head() -> ResponseHead {
    ResponseHead {
        id: "resp_0123456789012345678901234567890123456789".into(),
        created: Timestamp::from_seconds(1_800_000_000),
        model: "openai.gpt-oss-120b".into(),
        service_tier: None,
    }
}

fn requests(c: &mut Criterion) {
    let short = chat_body(&"What is the capital of Japan? ".repeat(4));
    let long = chat_body(&long_prompt());
    let long_responses = Bytes::from(
        serde_json::json!({"model": "m", "input": long_prompt(), "stream": true}).to_string(),
    );
    c.bench_function(&format!("parse chat {} B", short.len()), |b| {
        b.iter(|| chat::parse_request(black_box(short.clone())).unwrap());
    });
    c.bench_function(&format!("parse chat {} B", long.len()), |b| {
        b.iter(|| chat::parse_request(black_box(long.clone())).unwrap());
    });
    c.bench_function(
        &format!("parse responses {} B", long_responses.len()),
        |b| {
            b.iter(|| responses::parse_request(black_box(long_responses.clone())).unwrap());
        },
    );
    c.bench_function("serde_json::Value of the same, for scale", |b| {
        b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&long)).unwrap());
    });
    c.bench_function(&format!("patch {} B", short.len()), |b| {
        b.iter(|| {
            patch_request(
                black_box(&short),
                "upstream",
                Dialect::ChatCompletions,
                false,
            )
        });
    });
    c.bench_function(&format!("patch {} B", long.len()), |b| {
        b.iter(|| patch_request(black_box(&long), "upstream", Dialect::ChatCompletions, true));
    });
}

fn frames(c: &mut Criterion) {
    let short = chat_body("hi");
    let request = chat::parse_request(short).unwrap();
    let mut encoder = chat::StreamEncoder::new(head(), &request, &SystemEntropy);
    let mut out = BytesMut::with_capacity(4_096);
    encoder.event(&delta(), &mut out);
    c.bench_function("encode a chat chunk", |b| {
        b.iter(|| {
            out.clear();
            encoder.event(black_box(&delta()), &mut out);
        });
    });
    let asked =
        responses::parse_request(Bytes::from_static(br#"{"model":"m","input":"hi"}"#)).unwrap();
    // The text so far is kept for the end, so each batch has an encoder of its own.
    c.bench_function("encode 100 responses deltas", |b| {
        b.iter_batched(
            || responses::StreamEncoder::new(head(), &asked, &SystemEntropy),
            |mut encoder| {
                for _ in 0..100 {
                    out.clear();
                    encoder.event(&delta(), &mut out);
                }
            },
            BatchSize::SmallInput,
        );
    });
    c.bench_function("responses encoder, made", |b| {
        b.iter(|| responses::StreamEncoder::new(head(), black_box(&asked), &SystemEntropy));
    });
    let chunk = Bytes::from_static(br#"{"id":"chatcmpl-0123456789012345678901234567","object":"chat.completion.chunk","created":1700000000,"model":"gpt-oss-120b","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_0123456789"}"#);
    let mut patcher =
        FramePatcher::new(Dialect::ChatCompletions, "openai.gpt-oss-120b".into(), true);
    c.bench_function("patch a chat chunk", |b| {
        b.iter(|| patcher.frame(black_box(chunk.clone())).unwrap());
    });
    let event = Bytes::from_static(br#"{"type":"response.output_text.delta","sequence_number":17,"item_id":"msg_0123456789012345678901234567","output_index":0,"content_index":0,"delta":" token","logprobs":[],"obfuscation":"xxxxxxxx"}"#);
    let mut patcher = FramePatcher::new(Dialect::Responses, "openai.gpt-oss-120b".into(), true);
    c.bench_function("patch a responses delta", |b| {
        b.iter(|| patcher.frame(black_box(event.clone())).unwrap());
    });
    let body = Bytes::from(
        serde_json::json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "word ".repeat(300)}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 300, "total_tokens": 312}})
        .to_string(),
    );
    c.bench_function("patch a whole chat answer of 300 tokens", |b| {
        b.iter(|| {
            FramePatcher::new(Dialect::ChatCompletions, "served".into(), true)
                .whole(black_box(body.clone()))
                .unwrap()
        });
    });
}

criterion_group!(benches, requests, frames);
criterion_main!(benches);
