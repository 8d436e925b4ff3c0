//! Chat completions that their callers asked to keep.

use serde_json::{Value, json};

use crate::kept::{Caller, id};
use crate::matrix::Street;
use crate::support::{ALIAS, House, MODEL};

fn asked(text: &str, more: Value) -> Value {
    let mut body = json!({
        "model": MODEL, "store": true, "messages": [{"role": "user", "content": text}],
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

async fn completed(caller: &Caller<'_>, text: &str, more: Value) -> Value {
    let path = "/chat/completions";
    caller.ok("POST", path, asked(text, more)).await
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_completion_is_read_changed_and_deleted() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let answer = caller
        .call(
            "POST",
            "/chat/completions",
            asked(
                "Reply with exactly: one",
                json!({"metadata": {"app": "x"}, "temperature": 0.5, "made_up": 1}),
            ),
        )
        .await;
    assert_eq!(
        answer.header("honshu-ignored"),
        Some("made_up"),
        "what is acted upon is not named"
    );
    let made = answer.json();
    let path = format!("/chat/completions/{}", id(&made));
    let read = caller.get(&path).await;
    for (key, value) in made.as_object().unwrap() {
        assert_eq!(read[key], *value, "{key}: what is kept is what was sent");
    }
    assert_eq!(read["metadata"], json!({"app": "x"}));
    assert_eq!(
        (&read["temperature"], &read["top_p"], &read["tools"]),
        (&json!(0.5), &json!(1.0), &Value::Null)
    );
    assert_eq!(read["request_id"], answer.header("x-request-id").unwrap());

    let update = json!({"metadata": {"app": "y", "n": "1"}});
    let changed = caller.ok("POST", &path, update.clone()).await;
    assert_eq!(changed["metadata"], update["metadata"]);
    assert_eq!(caller.get(&path).await, changed);
    let emptied = caller.ok("POST", &path, json!({"metadata": null})).await;
    assert_eq!(emptied["metadata"], json!({}));
    for (body, param) in [
        (json!({}), "metadata"),
        (json!({"metadata": {"a": 1}}), "metadata.a"),
        (json!({"metadata": {"k".repeat(65): "v"}}), "metadata."),
    ] {
        let (status, error) = caller.refused("POST", &path, body).await;
        let at = error["param"].as_str().unwrap();
        assert!(status == 400 && at.starts_with(param), "{error}");
    }

    let deleted = caller.ok("DELETE", &path, Value::Null).await;
    assert_eq!(
        deleted,
        json!({"id": id(&made), "object": "chat.completion.deleted", "deleted": true})
    );
    for (method, path, body) in [
        ("GET", path.clone(), Value::Null),
        ("DELETE", path.clone(), Value::Null),
        ("POST", path.clone(), update),
        ("GET", format!("{path}/messages"), Value::Null),
    ] {
        assert_eq!(caller.refused(method, &path, body).await.0, 404, "{path}");
    }

    let unstored = completed(&caller, "hi", json!({"store": false})).await;
    let path = format!("/chat/completions/{}", id(&unstored));
    assert_eq!(caller.refused("GET", &path, Value::Null).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_kept_as_it_was_sent_and_a_broken_one_is_not() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let more = json!({"stream": true, "stream_options": {"include_usage": true}, "n": 2});
    let body = asked("Reply with exactly: one two", more);
    let answer = caller.call("POST", "/chat/completions", body).await;
    let events = answer.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let read = caller
        .get(&format!("/chat/completions/{}", id(&chunks[0])))
        .await;
    for index in [0, 1] {
        let said: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"].get(0))
            .filter(|choice| choice["index"] == index)
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect();
        let choice = &read["choices"][index];
        assert_eq!(choice["message"]["content"], said);
        assert_eq!(choice["finish_reason"], "stop");
    }
    assert_eq!(read["object"], "chat.completion");
    assert_eq!(read["created"], chunks[0]["created"]);
    assert_eq!(read["usage"], chunks.last().unwrap()["usage"]);
    let count = async || ids(&caller.get("/chat/completions").await).len();
    assert_eq!(count().await, 1);

    for text in ["[scripted: fail-at=0]", "[scripted: cut-at=3]"] {
        for stream in [true, false] {
            let body = asked(text, json!({"stream": stream}));
            let target = "/openai/v1/chat/completions";
            let headers = [("authorization", caller.bearer.as_str())];
            let to = house.osaka;
            let answer = house.send(to, "POST", target, &headers, body.to_string());
            let answer = answer.await;
            let is_error = answer.status.is_server_error() || !answer.whole;
            assert!(is_error, "{text}: {}", answer.text());
            assert!(!answer.text().contains("[DONE]"));
        }
    }
    assert_eq!(count().await, 1, "nothing of a failed run is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_filtered_and_paged_oldest_first() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let mut made = Vec::new();
    for (model, metadata) in [
        (MODEL, json!({"app": "x"})),
        (ALIAS, json!({"app": "y"})),
        (MODEL, json!({"app": "x", "n": "1"})),
    ] {
        let more = json!({"model": model, "metadata": metadata});
        made.push(id(&completed(&caller, "hi", more).await).to_owned());
    }
    let [a, b, c] = [&*made[0], &made[1], &made[2]];
    let list = async |query: &str| caller.get(&format!("/chat/completions{query}")).await;
    let all = list("").await;
    assert_eq!(ids(&all), [a, b, c]);
    assert_eq!(
        (
            &all["object"],
            &all["first_id"],
            &all["last_id"],
            &all["has_more"]
        ),
        (&json!("list"), &json!(a), &json!(c), &json!(false))
    );
    let first = list("?limit=2").await;
    assert_eq!(
        (ids(&first), &first["has_more"]),
        (vec![a, b], &json!(true))
    );
    assert_eq!(ids(&list(&format!("?limit=2&after={b}")).await), [c]);
    assert_eq!(ids(&list("?order=desc&limit=2").await), [c, b]);
    assert_eq!(ids(&list(&format!("?model={ALIAS}")).await), [b]);
    assert_eq!(ids(&list(&format!("?model={MODEL}")).await), [a, b, c]);
    assert_eq!(ids(&list("?metadata[app]=x").await), [a, c]);
    assert_eq!(ids(&list("?metadata%5Bapp%5D=x&metadata[n]=1").await), [c]);
    assert!(ids(&list("?metadata[app]=z").await).is_empty());
    for (query, param) in [
        ("?after=chatcmpl-nothing", "after"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?order=up", "order"),
        ("?metadata[a]=1&metadata[a]=2", "metadata[a]"),
        ("?model=a&model=b", "model"),
    ] {
        let path = format!("/chat/completions{query}");
        let (status, error) = caller.refused("GET", &path, Value::Null).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_a_completion_are_paged() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ann"},
    ]);
    let made = completed(&caller, "", json!({"messages": messages})).await;
    let path = format!("/chat/completions/{}/messages", id(&made));
    let message = |n: u32| format!("{}-{n}", id(&made));
    let all = caller.get(&path).await;
    assert_eq!(
        all["data"],
        json!([
            {"id": message(0), "role": "system", "content": "Be brief.", "content_parts": null, "refusal": null},
            {"id": message(1), "role": "user", "name": "ann", "content": null, "refusal": null,
             "content_parts": [{"type": "text", "text": "hi"}]},
        ])
    );
    assert_eq!(
        (&all["first_id"], &all["last_id"]),
        (&json!(message(0)), &json!(message(1)))
    );
    let first = caller.get(&format!("{path}?limit=1")).await;
    assert_eq!(
        (ids(&first), &first["has_more"]),
        (vec![&*message(0)], &json!(true))
    );
    let rest = caller.get(&format!("{path}?after={}", message(0))).await;
    assert_eq!(
        (ids(&rest), &rest["has_more"]),
        (vec![&*message(1)], &json!(false))
    );
    let last = caller.get(&format!("{path}?order=desc&limit=1")).await;
    assert_eq!(ids(&last), [message(1)]);
    let (status, error) = caller
        .refused("GET", &format!("{path}?after=nothing"), Value::Null)
        .await;
    assert_eq!((status, &error["param"]), (400, &json!("after")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_of_another_project_looks_like_one_that_never_was() {
    let house = House::new().await;
    let mut caller = Caller::new(&house).await;
    let made = completed(&caller, "hi", json!({})).await;
    let theirs = format!("/chat/completions/{}", id(&made));
    caller.project = Some("ocid1.generativeaiproject.oc1..aaaaother");
    assert!(ids(&caller.get("/chat/completions").await).is_empty());
    let nothing = "/chat/completions/chatcmpl-nothing";
    let update = json!({"metadata": {}});
    for (method, tail, body) in [
        ("GET", "", Value::Null),
        ("POST", "", update),
        ("DELETE", "", Value::Null),
        ("GET", "/messages", Value::Null),
    ] {
        let seen = async |path: &str| {
            let path = format!("{path}{tail}");
            let (status, mut error) = caller.refused(method, &path, body.clone()).await;
            let message = error["message"].as_str().unwrap();
            error["message"] = message.replace(id(&made), "chatcmpl-nothing").into();
            (status, error)
        };
        assert_eq!(seen(&theirs).await, seen(nothing).await, "{method} {tail}");
        assert_eq!(seen(nothing).await.0, 404);
    }
    caller.project = None;
    assert_eq!(id(&caller.get(&theirs).await), id(&made));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstreams_answer_is_kept_under_our_name() {
    let street = Street::new().await;
    let caller = street.caller();
    for model in ["up.chat", "up.responses"] {
        let made = completed(&caller, "Reply with exactly: one", json!({"model": model})).await;
        let read = caller
            .get(&format!("/chat/completions/{}", id(&made)))
            .await;
        assert_eq!(read["choices"], made["choices"]);
        assert_eq!(
            (&read["model"], &read["created"]),
            (&json!(model), &made["created"])
        );

        let body = asked(
            "Reply with exactly: two",
            json!({"model": model, "stream": true}),
        );
        let answer = caller.call("POST", "/chat/completions", body).await;
        let chunks: Vec<Value> = answer
            .events()
            .iter()
            .filter(|event| *event != "[DONE]")
            .map(|event| serde_json::from_str(event).unwrap())
            .collect();
        assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
        let read = caller
            .get(&format!("/chat/completions/{}", id(&chunks[0])))
            .await;
        assert_eq!(read["choices"][0]["message"]["content"], "two", "{model}");
    }
    // Its upstream was not asked to keep anything.
    let upstream = street.upstream_caller();
    assert!(ids(&upstream.get("/chat/completions").await).is_empty());
}
