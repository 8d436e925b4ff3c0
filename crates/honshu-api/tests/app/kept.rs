//! Responses that are kept, continued, listed, deleted; conversations; background and replay.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, House, MODEL};

pub(crate) struct Caller<'a> {
    pub(crate) house: &'a House,
    pub(crate) bearer: String,
    pub(crate) project: Option<&'static str>,
}

impl<'a> Caller<'a> {
    pub(crate) async fn new(house: &'a House) -> Self {
        Self {
            bearer: format!("Bearer {}", house.chatting().await),
            house,
            project: None,
        }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let mut headers = vec![
            ("authorization", self.bearer.as_str()),
            ("content-type", "application/json"),
        ];
        headers.extend(self.project.map(|project| ("openai-project", project)));
        let target = format!("/openai/v1{path}");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let house = self.house;
        let answer = house.send(house.osaka, method, &target, &headers, body);
        let answer = answer.await;
        answer.check(path);
        answer
    }

    pub(crate) async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, Value::Null).await
    }

    async fn respond(&self, mut body: Value) -> Value {
        body["model"] = json!(MODEL);
        self.ok("POST", "/responses", body).await
    }

    pub(crate) async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = self.call(method, path, body).await;
        let error = answer.json()["error"].clone();
        (answer.status.as_u16(), error)
    }
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"]
        .as_str()
        .unwrap()
}

pub(crate) fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_response_is_read_listed_continued_and_deleted() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let first = caller
        .respond(json!({
            "input": "Reply with exactly: one", "metadata": {"a": "b"}, "instructions": "Be brief."
        }))
        .await;
    assert_eq!(
        (&first["store"], &first["background"]),
        (&json!(true), &json!(false))
    );
    let path = format!("/responses/{}", id(&first));
    assert_eq!(
        caller.get(&path).await,
        first,
        "what is kept is what was sent"
    );
    let items = caller.get(&format!("{path}/input_items")).await;
    assert_eq!(
        items["data"][0]["content"],
        json!([{"type": "input_text", "text": "Reply with exactly: one"}])
    );
    assert!(id(&items["data"][0]).starts_with("msg_"));
    assert_eq!(items["first_id"], items["data"][0]["id"]);

    let second = caller
        .respond(json!({
            "input": [{"role": "user", "content": "Reply with exactly: two"}],
            "previous_response_id": id(&first),
        }))
        .await;
    assert_eq!(second["previous_response_id"], first["id"]);
    assert_eq!(
        second["instructions"],
        Value::Null,
        "instructions are not carried over"
    );
    // The scripted model counts words, and 3 for each item: all three items are in the prompt, the instructions not.
    let count = |response: &Value| response["usage"]["input_tokens"].as_u64().unwrap();
    assert_eq!(count(&first), (4 + 3) + (2 + 3));
    assert_eq!(count(&second), (4 + 3) + (1 + 3) + (4 + 3));
    let items = caller
        .get(&format!("/responses/{}/input_items", id(&second)))
        .await;
    assert_eq!(items["data"].as_array().unwrap().len(), 1, "its own input");

    // An item by reference, and a response that is not stored from one that is.
    let third = caller
        .respond(json!({
            "input": [{"type": "item_reference", "id": first["output"][0]["id"]},
                      {"role": "user", "content": "Reply with exactly: three"}],
            "store": false,
        }))
        .await;
    assert_eq!((text(&third), &third["store"]), ("three", &json!(false)));
    assert_eq!(count(&third), (1 + 3) + (4 + 3));
    let unstored = format!("/responses/{}", id(&third));
    let gone = caller.refused("GET", &unstored, Value::Null).await;
    assert_eq!(gone.0, 404, "it was not stored");

    let deleted = caller.ok("DELETE", &path, Value::Null).await;
    assert_eq!(
        deleted,
        json!({"id": first["id"], "object": "response", "deleted": true})
    );
    for (method, path) in [
        ("GET", path.clone()),
        ("DELETE", path.clone()),
        ("GET", format!("{path}/input_items")),
    ] {
        assert_eq!(caller.refused(method, &path, Value::Null).await.0, 404);
    }
    // A chain with a deleted link.
    let (status, error) = caller
        .refused(
            "POST",
            "/responses",
            json!({
                "model": MODEL, "input": "x", "previous_response_id": id(&second)
            }),
        )
        .await;
    assert_eq!(status, 400);
    assert_eq!(error["code"], "previous_response_not_found");
    assert_eq!(error["param"], "previous_response_id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_somebody_else_looks_like_what_never_was() {
    let house = House::new().await;
    let mine = Caller::new(&house).await;
    let response = mine.respond(json!({"input": "hello"})).await;
    let conversation = mine.ok("POST", "/conversations", json!({})).await;
    let (response, conversation) = (id(&response), id(&conversation));
    let theirs = Caller {
        house: &house,
        bearer: mine.bearer.clone(),
        project: Some("ocid1.generativeaiproject.oc1.ap-osaka-1.other"),
    };
    theirs.respond(json!({"input": "hello"})).await;
    let never = ("resp_never", "conv_never");
    for (method, path, body) in [
        ("GET", "/responses/RESP", Value::Null),
        ("GET", "/responses/RESP?stream=true", Value::Null),
        ("GET", "/responses/RESP/input_items", Value::Null),
        ("DELETE", "/responses/RESP", Value::Null),
        ("POST", "/responses/RESP/cancel", Value::Null),
        (
            "POST",
            "/responses",
            json!({"model": MODEL, "input": "x", "previous_response_id": "RESP"}),
        ),
        (
            "POST",
            "/responses",
            json!({"model": MODEL, "input": "x", "conversation": "CONV"}),
        ),
        (
            "POST",
            "/responses",
            json!({"model": MODEL, "input": "x", "conversation": {"id": "CONV"}}),
        ),
        ("GET", "/conversations/CONV", Value::Null),
        ("POST", "/conversations/CONV", json!({"metadata": {}})),
        ("DELETE", "/conversations/CONV", Value::Null),
        ("GET", "/conversations/CONV/items", Value::Null),
        (
            "POST",
            "/conversations/CONV/items",
            json!({"items": [{"role": "user", "content": "x"}]}),
        ),
        ("GET", "/conversations/CONV/items/msg_1", Value::Null),
        ("DELETE", "/conversations/CONV/items/msg_1", Value::Null),
    ] {
        let fill = |text: &str, (response, conversation): (&str, &str)| {
            text.replace("RESP", response).replace("CONV", conversation)
        };
        let ask = async |ids: (&str, &str)| {
            let body = match &body {
                Value::Null => Value::Null,
                body => serde_json::from_str(&fill(&body.to_string(), ids)).unwrap(),
            };
            let answer = theirs.call(method, &fill(path, ids), body).await;
            let text = answer.text().replace(ids.0, "RESP").replace(ids.1, "CONV");
            (answer.status.as_u16(), text)
        };
        let foreign = ask((response, conversation)).await;
        let unknown = ask(never).await;
        let mut same: Vec<Value> = [&foreign.1, &unknown.1]
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        for body in &mut same {
            body["opc-request-id"].take();
            body["request_id"].take();
        }
        assert_eq!(foreign.0, unknown.0, "{method} {path}");
        assert!(
            matches!(foreign.0, 400 | 404),
            "{method} {path}: {}",
            foreign.1
        );
        assert_eq!(same[0], same[1], "{method} {path}");
    }
    assert_eq!(
        id(&mine.get(&format!("/responses/{response}")).await),
        response
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_replayed_byte_for_byte() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let streamed = caller
        .call(
            "POST",
            "/responses",
            json!({
                "model": MODEL, "input": "Answer with 300 words", "stream": true
            }),
        )
        .await;
    let events = streamed.events();
    let first: Value = serde_json::from_str(&events[0]).unwrap();
    let path = format!("/responses/{}", id(&first["response"]));
    let again = caller
        .call("GET", &format!("{path}?stream=true"), Value::Null)
        .await;
    assert_eq!(again.body, streamed.body);
    let late = caller
        .call(
            "GET",
            &format!("{path}?stream=true&starting_after=200"),
            Value::Null,
        )
        .await;
    assert_eq!(late.events(), events[201..]);
    let next: Value = serde_json::from_str(&late.events()[0]).unwrap();
    assert_eq!(next["sequence_number"], 201);
    let beyond = caller
        .call(
            "GET",
            &format!("{path}?stream=true&starting_after=100000"),
            Value::Null,
        )
        .await;
    assert_eq!(beyond.events(), ["[DONE]"]);
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(caller.get(&path).await, last["response"]);
    // One that was not streamed has no events.
    let whole = caller.respond(json!({"input": "x"})).await;
    let (status, error) = caller
        .refused(
            "GET",
            &format!("/responses/{}?stream=true", id(&whole)),
            Value::Null,
        )
        .await;
    assert_eq!((status, &error["param"]), (400, &json!("stream")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_background_response_runs_by_itself_and_can_be_followed() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let queued = caller
        .respond(json!({"input": "Reply with exactly: done", "background": true}))
        .await;
    assert_eq!(
        (&queued["status"], &queued["background"]),
        (&json!("queued"), &json!(true))
    );
    assert_eq!(
        (&queued["output"], &queued["usage"]),
        (&json!([]), &Value::Null)
    );
    let path = format!("/responses/{}", id(&queued));
    let followed = caller
        .call("GET", &format!("{path}?stream=true"), Value::Null)
        .await;
    let kinds: Vec<String> = followed
        .events()
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds[..3],
        [
            "response.created",
            "response.queued",
            "response.in_progress"
        ]
    );
    assert_eq!(kinds.last().unwrap(), "response.completed");
    for (number, event) in followed.events().iter().enumerate() {
        if let Ok(event) = serde_json::from_str::<Value>(event) {
            assert_eq!(event["sequence_number"], number);
        }
    }
    let done = caller.get(&path).await;
    assert_eq!(
        (text(&done), &done["status"]),
        ("done", &json!("completed"))
    );
    let again = caller
        .call("GET", &format!("{path}?stream=true"), Value::Null)
        .await;
    assert_eq!(
        again.body, followed.body,
        "live and stored are the same bytes"
    );
    // It is a turn like any other.
    let next = caller
        .respond(json!({"input": "Reply with exactly: next", "previous_response_id": id(&queued)}))
        .await;
    assert_eq!(text(&next), "next");
    // Cancelling what has ended changes nothing.
    assert_eq!(
        caller
            .ok("POST", &format!("{path}/cancel"), Value::Null)
            .await,
        done
    );
    let (status, error) = caller
        .refused(
            "POST",
            &format!("/responses/{}/cancel", id(&next)),
            Value::Null,
        )
        .await;
    assert_eq!(
        (status, error["message"].as_str().unwrap()),
        (400, "Cannot cancel a synchronous response.")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_background_response_is_cancelled_and_deleted_while_it_runs() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let slow = json!({
        "input": "[scripted: delay-ms=50] Answer with 5000 words", "background": true, "stream": false
    });
    let running = caller.respond(slow.clone()).await;
    let path = format!("/responses/{}", id(&running));
    while caller.get(&path).await["status"] == "queued" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (status, error) = caller
        .refused(
            "POST",
            "/responses",
            json!({
                "model": MODEL, "input": "x", "previous_response_id": id(&running)
            }),
        )
        .await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("previous_response_not_found"))
    );
    let cancelled = caller
        .ok("POST", &format!("{path}/cancel"), Value::Null)
        .await;
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(
        caller
            .ok("POST", &format!("{path}/cancel"), Value::Null)
            .await,
        cancelled
    );
    let replay = caller
        .call("GET", &format!("{path}?stream=true"), Value::Null)
        .await;
    let events = replay.events();
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.incomplete"), &json!("cancelled"))
    );

    let running = caller.respond(slow).await;
    let path = format!("/responses/{}", id(&running));
    caller.ok("DELETE", &path, Value::Null).await;
    house.runtime.settled().await;
    assert_eq!(caller.refused("GET", &path, Value::Null).await.0, 404);
    assert!(
        house
            .usage
            .rows()
            .iter()
            .any(|row| &*row.status == "cancelled")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_hold_items_and_take_turns() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let made = caller
        .ok(
            "POST",
            "/conversations",
            json!({
                "metadata": {"topic": "sea"}, "items": [{"role": "user", "content": "first"}]
            }),
        )
        .await;
    assert_eq!(made["object"], "conversation");
    let path = format!("/conversations/{}", id(&made));
    let turn = caller
        .respond(json!({"input": "Reply with exactly: second", "conversation": id(&made)}))
        .await;
    assert_eq!(turn["conversation"], json!({"id": made["id"]}));
    let stream = caller
        .call("POST", "/responses", json!({
            "model": MODEL, "input": "Reply with exactly: third", "conversation": {"id": id(&made)}, "stream": true
        }))
        .await;
    assert!(
        stream.text().contains("response.completed"),
        "{}",
        stream.text()
    );
    let items = caller.get(&format!("{path}/items?order=asc")).await;
    let texts: Vec<&str> = items["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["content"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            "first",
            "Reply with exactly: second",
            "second",
            "Reply with exactly: third",
            "third"
        ]
    );
    let page = caller.get(&format!("{path}/items?limit=2")).await;
    assert_eq!(
        (&page["has_more"], &page["last_id"]),
        (&json!(true), &items["data"][3]["id"])
    );
    let item = format!("{path}/items/{}", id(&items["data"][0]));
    assert_eq!(caller.get(&item).await, items["data"][0]);
    assert_eq!(caller.ok("DELETE", &item, Value::Null).await, made);
    assert_eq!(caller.refused("GET", &item, Value::Null).await.0, 404);
    let added = caller
        .ok(
            "POST",
            &format!("{path}/items"),
            json!({"items": [{"role": "user", "content": "fourth"}]}),
        )
        .await;
    assert_eq!(added["data"][0]["content"][0]["text"], "fourth");
    let changed = caller
        .ok("POST", &path, json!({"metadata": {"x": "y"}}))
        .await;
    assert_eq!(changed["metadata"], json!({"x": "y"}));
    assert_eq!(caller.get(&path).await, changed);

    // While a response runs in it, it is locked.
    let running = caller
        .respond(json!({
            "input": "[scripted: delay-ms=50] Answer with 5000 words",
            "conversation": id(&made), "background": true
        }))
        .await;
    for (path, body) in [
        (
            "/responses".to_owned(),
            json!({"model": MODEL, "input": "x", "conversation": id(&made)}),
        ),
        (
            format!("{path}/items"),
            json!({"items": [{"role": "user", "content": "x"}]}),
        ),
    ] {
        let (status, error) = caller.refused("POST", &path, body).await;
        assert_eq!(
            (status, &error["code"]),
            (409, &json!("conversation_locked"))
        );
        assert_eq!(error["param"], "conversation");
    }
    caller
        .ok(
            "POST",
            &format!("/responses/{}/cancel", id(&running)),
            Value::Null,
        )
        .await;
    let next = caller
        .respond(json!({"input": "Reply with exactly: fifth", "conversation": id(&made)}))
        .await;
    assert_eq!(text(&next), "fifth");
    let gone = caller.ok("DELETE", &path, Value::Null).await;
    assert_eq!(
        gone,
        json!({"id": made["id"], "object": "conversation.deleted", "deleted": true})
    );
    assert_eq!(caller.refused("GET", &path, Value::Null).await.0, 404);
    assert_eq!(caller.get(&format!("/responses/{}", id(&next))).await, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_input_is_counted_as_the_model_will_count_it() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let first = caller.respond(json!({"input": "one two three"})).await;
    for body in [
        json!({"model": MODEL, "input": "one two three"}),
        json!({"model": MODEL, "input": "four", "previous_response_id": id(&first), "instructions": "Be brief."}),
    ] {
        let counted = caller
            .ok("POST", "/responses/input_tokens", body.clone())
            .await;
        assert_eq!(counted["object"], "response.input_tokens");
        let answered = caller.respond(body).await;
        assert_eq!(counted["input_tokens"], answered["usage"]["input_tokens"]);
    }
    let (status, error) = caller
        .refused(
            "POST",
            "/responses/input_tokens",
            json!({"model": "none", "input": "x"}),
        )
        .await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_with_its_place() {
    let house = House::new().await;
    let caller = Caller::new(&house).await;
    let first = caller.respond(json!({"input": "x"})).await;
    let made = caller.ok("POST", "/conversations", json!({})).await;
    for (body, param) in [
        (
            json!({"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}],
                "previous_response_id": id(&first)}),
            "input[0].call_id",
        ),
        (
            json!({"input": [{"type": "item_reference", "id": "msg_x"}]}),
            "input[0].id",
        ),
        (
            json!({"input": "x", "background": true, "store": false}),
            "background",
        ),
        (
            json!({"input": "x", "conversation": id(&made), "previous_response_id": id(&first)}),
            "conversation",
        ),
        (
            json!({"input": "x", "conversation": {"name": "y"}}),
            "conversation",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-x"}]}]}),
            "input[0].content[0].file_id",
        ),
        (json!({"input": "x", "metadata": {"a": 1}}), "metadata.a"),
    ] {
        let mut body = body;
        body["model"] = json!(MODEL);
        let (status, error) = caller.refused("POST", "/responses", body.clone()).await;
        assert_eq!(
            (status, error["param"].as_str()),
            (400, Some(param)),
            "{body}: {error}"
        );
    }
    for (path, param) in [
        ("input_items?limit=0", "limit"),
        ("input_items?limit=101", "limit"),
        ("input_items?order=up", "order"),
    ] {
        let path = format!("/responses/{}/{path}", id(&first));
        let (status, error) = caller.refused("GET", &path, Value::Null).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(param)));
    }
    let many: Vec<Value> = (0..21)
        .map(|_| json!({"role": "user", "content": "x"}))
        .collect();
    for (path, body, param) in [
        ("/conversations", json!({"items": many}), "items"),
        (
            "/conversations",
            json!({"items": [{"role": "nobody", "content": "x"}]}),
            "items[0].role",
        ),
        ("/conversations", json!({"metadata": []}), "metadata"),
    ] {
        let (status, error) = caller.refused("POST", path, body).await;
        assert_eq!(
            (status, error["param"].as_str()),
            (400, Some(param)),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_nothing_is_read() {
    let house = House::new().await;
    let (_, [secret, _]) = house.key(None).await;
    let caller = Caller {
        house: &house,
        bearer: format!("Bearer {secret}"),
        project: None,
    };
    for (method, path) in [
        ("GET", "/responses/resp_x"),
        ("POST", "/conversations"),
        ("GET", "/files"),
        ("GET", "/files/file-x"),
    ] {
        assert_eq!(
            caller.refused(method, path, Value::Null).await.0,
            404,
            "{path}"
        );
    }
}
