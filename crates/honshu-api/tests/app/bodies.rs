//! Bodies that are wrong: a 4xx that names the place, whatever it is.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{House, MODEL, chat};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/20231130/actions/v1/responses";

/// Both dialects' bodies with `extra` members, and the place of the message's text.
fn with(extra: &str) -> [(&'static str, String); 2] {
    let comma = if extra.is_empty() { "" } else { "," };
    [
        (
            CHAT,
            format!(
                r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"hi"}}]{comma}{extra}}}"#
            ),
        ),
        (
            RESPONSES,
            format!(r#"{{"model":"{MODEL}","input":"hi"{comma}{extra}}}"#),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_fields_are_400_with_their_path() {
    let house = House::new().await;
    let secret = house.chatting().await;
    for (extra, param) in [
        (r#""temperature":"hot""#, "temperature"),
        (r#""temperature":2.1"#, "temperature"),
        (r#""temperature":-1"#, "temperature"),
        (r#""temperature":1e400"#, "temperature"),
        (r#""top_p":[]"#, "top_p"),
        (r#""stream":"yes""#, "stream"),
        (r#""stream":1"#, "stream"),
        (r#""top_logprobs":21"#, "top_logprobs"),
        (
            r#""top_logprobs":170141183460469231731687303715884105728"#,
            "top_logprobs",
        ),
        (r#""tools":[{}]"#, "tools[0].type"),
        (r#""tools":{}"#, "tools"),
        (r#""tool_choice":"sometimes""#, "tool_choice"),
        (r#""tool_choice":"required""#, "tool_choice"),
        (r#""parallel_tool_calls":"no""#, "parallel_tool_calls"),
    ] {
        for (target, body) in with(extra) {
            let answer = house.post(&secret, target, body).await;
            let what = format!("{target} {extra}");
            answer.check(&what);
            assert_eq!(answer.status, 400, "{what}: {}", answer.text());
            let body = answer.json();
            assert_eq!(body["error"]["type"], "invalid_request_error", "{what}");
            assert_eq!(body["error"]["param"], param, "{what}: {body}");
            assert_eq!(body["code"], "400", "{what}");
            assert_eq!(body["message"], body["error"]["message"], "{what}");
        }
    }
    for (target, body, param) in [
        (RESPONSES, json!({"input": "hi"}), "model"),
        (RESPONSES, json!({"model": MODEL}), "input"),
        (RESPONSES, json!({"model": MODEL, "input": ""}), "input"),
        (RESPONSES, json!({"model": MODEL, "input": []}), "input"),
        (RESPONSES, json!({"model": MODEL, "input": 7}), "input"),
        (RESPONSES, json!({"model": 7, "input": "hi"}), "model"),
        (
            RESPONSES,
            json!({"model": MODEL, "input": "hi", "max_output_tokens": -1}),
            "max_output_tokens",
        ),
        (
            RESPONSES,
            json!({"model": MODEL, "input": "hi", "previous_response_id": "a", "conversation": "b"}),
            "conversation",
        ),
        (CHAT, json!({"model": MODEL}), "messages"),
        (CHAT, json!({"model": MODEL, "messages": []}), "messages"),
        (
            CHAT,
            json!({"model": MODEL, "messages": ["hi"]}),
            "messages[0]",
        ),
        (
            CHAT,
            json!({"model": MODEL, "messages": [{"role": "king", "content": "hi"}]}),
            "messages[0].role",
        ),
    ] {
        let answer = house.post(&secret, target, body.to_string()).await;
        answer.check(&body.to_string());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], param, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_json_are_4xx() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let deep = |depth: usize| {
        format!(
            r#"{{"model":"{MODEL}","input":"hi","metadata2":{}{}}}"#,
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        )
    };
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("empty", Vec::new(), 400),
        ("half", b"{\"model\":".to_vec(), 400),
        ("an array", b"[]".to_vec(), 400),
        ("null", b"null".to_vec(), 400),
        (
            "NaN",
            br#"{"model":"m","input":"x","temperature":NaN}"#.to_vec(),
            400,
        ),
        ("two values", b"{} {}".to_vec(), 400),
        (
            "a repeated key",
            br#"{"model":"a","model":"b","input":"x"}"#.to_vec(),
            400,
        ),
        (
            "invalid UTF-8",
            b"{\"model\":\"m\",\"input\":\"\xff\"}".to_vec(),
            400,
        ),
        (
            "a lone surrogate",
            br#"{"model":"m","input":"\ud800"}"#.to_vec(),
            400,
        ),
        ("depth 127", deep(127).into_bytes(), 200),
        ("depth 129", deep(129).into_bytes(), 400),
    ];
    for (what, body, status) in cases {
        let answer = house.post(&secret, "/v1/responses", body).await;
        answer.check(what);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }
}

/// The answer comes on the announced length. A client that goes on writing may find its connection closed before it
/// has read the answer, so this one only announces.
#[tokio::test(flavor = "multi_thread")]
async fn eleven_megabytes_are_refused_when_they_are_announced() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let mut stream = tokio::net::TcpStream::connect(house.osaka).await.unwrap();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {secret}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        house.osaka,
        11 * 1024 * 1024
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_content_is_415_in_the_words_of_the_plane() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let bearer = format!("Bearer {secret}");
    for (name, value, status) in [
        ("content-encoding", "gzip", 415),
        ("content-encoding", "br", 415),
        ("content-type", "multipart/form-data; boundary=x", 415),
        ("content-type", "text/html", 415),
        ("content-type", "application/json; charset=utf-8", 200),
    ] {
        let headers = [("authorization", bearer.as_str()), (name, value)];
        let answer = house
            .send(house.osaka, "POST", CHAT, &headers, chat("hi"))
            .await;
        answer.check(value);
        assert_eq!(answer.status, status, "{value}");
        if status == 415 {
            assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_do_is_refused_by_name_and_what_is_left_out_is_named() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let stored = json!({"model": MODEL, "input": "hi", "prompt": {"id": "pmpt_1"}});
    let answer = house.post(&secret, RESPONSES, stored.to_string()).await;
    assert_eq!(answer.check("stored").status, 400, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["param"], "prompt");
    assert!(error["message"].as_str().unwrap().contains(MODEL));

    let agent = json!({
        "model": MODEL,
        "input": "hi",
        "store": true,
        "service_tier": "flex",
        "reasoning": {"effort": "none", "summary": "auto"},
        "tools": [{"type": "web_search"}],
        "client_metadata": {"a": "b"},
        "include": ["reasoning.encrypted_content"],
    });
    let answer = house.post(&secret, RESPONSES, agent.to_string()).await;
    assert_eq!(answer.check("agent").status, 200, "{}", answer.text());
    let ignored: Vec<&str> = answer
        .header("honshu-ignored")
        .unwrap()
        .split(", ")
        .collect();
    for path in [
        "service_tier",
        "reasoning.summary",
        "tools[0]",
        "client_metadata",
    ] {
        assert!(ignored.contains(&path), "{path} in {ignored:?}");
    }
    for path in ["reasoning.effort", "store", "include[0]"] {
        assert!(!ignored.contains(&path), "{path} in {ignored:?}");
    }
    let plain = house.post(&secret, CHAT, chat("hi")).await;
    assert_eq!(plain.header("honshu-ignored"), None);
}
