//! The document itself: that it is whole, that it names what the router serves and nothing else, and how it is given.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::judge::{below_base, document, judge};
use crate::support::{Answer, House, chat, chat_stream};

/// Every object of the document with its pointer.
fn objects(value: &Value, pointer: &str, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            visit(pointer, value);
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                objects(value, &format!("{pointer}/{key}"), visit);
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                objects(value, &format!("{pointer}/{index}"), visit);
            }
        }
        _ => {}
    }
}

/// Method, template and description of each operation.
fn operations() -> Vec<(String, String, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    let mut found = Vec::new();
    for (template, item) in paths {
        for method in ["get", "post", "put", "patch", "delete"] {
            if let Some(operation) = item.get(method) {
                found.push((method.to_owned(), template.clone(), operation));
            }
        }
    }
    found
}

#[test]
fn every_reference_resolves_and_nothing_is_named_in_vain() {
    let mut used = BTreeSet::new();
    objects(document(), "", &mut |pointer, value| {
        let Some(reference) = value.get("$ref") else {
            return;
        };
        let to = reference.as_str().unwrap();
        assert!(
            to.starts_with("#/") && document().pointer(&to[1..]).is_some(),
            "{pointer}: `{to}` is not there"
        );
        used.insert(to.to_owned());
    });
    for kind in ["schemas", "responses", "headers", "parameters"] {
        for name in document()["components"][kind].as_object().unwrap().keys() {
            let own = format!("#/components/{kind}/{name}");
            assert!(used.contains(&own), "nothing uses {own}");
        }
    }
}

#[test]
fn every_operation_has_an_id_of_its_own_a_good_answer_and_errors() {
    let mut ids = BTreeSet::new();
    for (method, template, operation) in operations() {
        let what = format!("{method} {template}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{what}: `{id}` is taken");
        assert!(operation["summary"].is_string(), "{what}");
        let statuses: Vec<&String> = operation["responses"].as_object().unwrap().keys().collect();
        let has = |first: char| statuses.iter().any(|status| status.starts_with(first));
        assert!(has('2') || has('1'), "{what}: no good answer");
        assert!(has('4') && has('5'), "{what}: no errors");
        // Who may call says the document, or that nobody has to say who they are.
        let is_health = matches!(template.as_str(), "/healthz" | "/readyz");
        assert_eq!(
            statuses.iter().any(|status| *status == "401"),
            !is_health,
            "{what}"
        );
        // Every parameter of the path is described, and no other.
        let mut named: Vec<&str> = Vec::new();
        let item = &document()["paths"][&template];
        for parameter in item["parameters"].as_array().into_iter().flatten() {
            assert_eq!(parameter["in"], "path", "{what}");
            named.push(parameter["name"].as_str().unwrap());
        }
        let wanted: Vec<&str> = template
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        assert_eq!(named, wanted, "{what}");
    }
}

#[test]
fn every_schema_is_one_and_what_is_required_is_described() {
    let schemas = &document()["components"]["schemas"];
    for (name, schema) in schemas.as_object().unwrap() {
        jsonschema::meta::validate(schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    objects(document(), "", &mut |pointer, value| {
        if let (Some(required), Some(properties)) = (
            value.get("required").and_then(Value::as_array),
            value.get("properties").and_then(Value::as_object),
        ) {
            for name in required {
                let name = name.as_str().unwrap();
                assert!(properties.contains_key(name), "{pointer}: `{name}`");
            }
        }
    });
}

/// Names of the schemas that a schema leads to.
fn reached(from: &Value, found: &mut BTreeSet<String>) {
    let mut next = Vec::new();
    objects(from, "", &mut |_, value| {
        let name = value
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|to| to.strip_prefix("#/components/schemas/"));
        if let Some(name) = name
            && found.insert(name.to_owned())
        {
            next.push(name.to_owned());
        }
    });
    for name in next {
        reached(&document()["components"]["schemas"][&name], found);
    }
}

#[test]
fn what_is_asked_is_open_and_what_we_answer_is_closed() {
    /// What somebody else made, and a caller reads it back or an upstream's answer passes on.
    const CARRIED: [&str; 14] = [
        "Annotation",
        "ChatFunction",
        "ChatResponseFormat",
        "ChatToolChoice",
        "ChatToolParam",
        "CustomTool",
        "InputTokenCount",
        "Metadata",
        "OutputItem",
        "RepeatedTool",
        "TextFormat",
        "ToolChoice",
        "Response",
        "StoredChatMessage",
    ];
    let (mut asked, mut answered) = (BTreeSet::new(), BTreeSet::new());
    for (_, _, operation) in operations() {
        reached(&operation["requestBody"], &mut asked);
        for response in operation["responses"].as_object().unwrap().values() {
            reached(response, &mut answered);
        }
    }
    let schemas = &document()["components"]["schemas"];
    let is_carried = |name: &str| {
        CARRIED.contains(&name) || name.starts_with("Carried") || name.starts_with("Kept")
    };
    let closed = |name: &str| {
        let mut found = Vec::new();
        objects(&schemas[name], name, &mut |pointer, value| {
            if value.get("type") == Some(&"object".into()) && value.get("properties").is_some() {
                found.push((pointer.to_owned(), value["additionalProperties"] == false));
            }
        });
        found
    };
    for name in asked.iter().filter(|name| !is_carried(name)) {
        for (pointer, is_closed) in closed(name) {
            assert!(!is_closed, "{pointer} is asked and closed");
        }
    }
    let mut count = 0;
    for name in answered.iter().filter(|name| !is_carried(name)) {
        for (pointer, is_closed) in closed(name) {
            assert!(is_closed, "{pointer} is answered and open");
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
    assert_eq!(schemas["Response"]["additionalProperties"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_serves_what_the_document_names_and_nothing_else() {
    let house = House::new().await;
    let mut served: BTreeSet<(String, String)> = BTreeSet::new();
    let mut bases: BTreeSet<(String, String)> = BTreeSet::new();
    for (method, path) in house.routes() {
        let Some(below) = below_base(&path) else {
            continue;
        };
        // A rest is a parameter that may hold slashes.
        let below = below.replace("{*", "{");
        if below != path {
            let base = path.replace("{*", "{").replace(&below, "");
            bases.insert((base, below.clone()));
        }
        served.insert((method, below));
    }
    let named: BTreeSet<(String, String)> = operations()
        .into_iter()
        .map(|(method, template, _)| (method, template))
        .collect();
    assert_eq!(served, named);
    // Every base has every path, and the document's servers are the bases.
    let mut count = 0;
    for server in document()["servers"].as_array().unwrap() {
        let base = server["url"].as_str().unwrap();
        let own: BTreeSet<&String> = bases
            .iter()
            .filter(|(known, _)| known == base)
            .map(|(_, path)| path)
            .collect();
        let all: BTreeSet<&String> = named
            .iter()
            .map(|(_, path)| path)
            .filter(|path| document()["paths"][*path].get("servers").is_none())
            .collect();
        assert_eq!(own, all, "{base}");
        count += own.len();
    }
    assert_eq!(bases.len(), count, "a base that the document does not name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_given_to_whoever_has_a_credential() {
    let house = House::new().await;
    let ask = async |headers: &[(&str, &str)]| {
        let to = house.osaka;
        house.send(to, "GET", "/openapi.json", headers, "").await
    };
    assert_eq!(ask(&[]).await.check("no credential").status, 401);
    // A key that may do nothing reads it all the same: it says nothing of what is here.
    let (_, [secret, _]) = house.key(None).await;
    let bearer = format!("Bearer {secret}");
    let answer = ask(&[("authorization", bearer.as_str())]).await;
    assert_eq!(answer.check("a key").status, 200);
    assert_eq!(&answer.json(), document());
    let signed = house.signed("GET", "/openapi.json", &[], "").await;
    assert_eq!(signed.body, answer.body);
}

/// Whether the judge finds fault with an answer.
fn is_condemned(method: &str, target: &str, answer: &Answer) -> bool {
    std::panic::catch_unwind(|| judge(method, target, answer)).is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_judge_finds_what_is_wrong() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let target = "/v1/chat/completions";
    let good = house.post(&secret, target, chat("hi")).await;
    assert!(!is_condemned("POST", target, &good));
    let stream = house.post(&secret, target, chat_stream("hi")).await;
    let response = json!({"model": "honshu.scripted", "input": "hi", "stream": true}).to_string();
    let events = house.post(&secret, "/v1/responses", response).await;

    type Change = fn(&mut Answer);
    let stray: Change = |answer| {
        answer.body = answer.text().replacen("{", "{\"stray\":1,", 1).into();
    };
    let missing: Change = |answer| {
        answer.body = answer
            .text()
            .replacen("\"model\":", "\"modell\":", 1)
            .into();
    };
    let null: Change = |answer| {
        answer.body = answer
            .text()
            .replacen("\"role\":\"assistant\"", "\"role\":null", 1)
            .into();
    };
    let status: Change = |answer| answer.status = http::StatusCode::IM_A_TEAPOT;
    let media: Change = |answer| {
        let other = "application/json; charset=utf-8".parse().unwrap();
        answer.headers.insert("content-type", other);
    };
    let no_id: Change = |answer| {
        answer.headers.remove("x-request-id");
    };
    let error: Change = |answer| answer.status = http::StatusCode::BAD_REQUEST;
    for (name, target, answer, change) in [
        ("stray", target, &good, stray),
        ("missing", target, &good, missing),
        ("null", target, &good, null),
        ("status", target, &good, status),
        ("media type", target, &good, media),
        ("no id", target, &good, no_id),
        ("not an error", target, &good, error),
        ("another operation's", "/v1/embeddings", &good, |_| {}),
        ("stray in a chunk", target, &stream, stray),
        ("null in a chunk", target, &stream, null),
        ("after the end", target, &stream, |answer| {
            answer.body = format!("{0}{0}", answer.text()).into();
        }),
        ("another dialect's events", "/v1/messages", &stream, |_| {}),
        ("stray in an event", "/v1/responses", &events, stray),
        ("an unknown event", "/v1/responses", &events, |answer| {
            answer.body = answer
                .text()
                .replace("output_text.delta", "output_text.delt")
                .into();
        }),
        ("another event line", "/v1/responses", &events, |answer| {
            answer.body = answer
                .text()
                .replacen("event: response.created", "event: x", 1)
                .into();
        }),
        (
            "stray in the response",
            "/v1/responses",
            &events,
            |answer| {
                answer.body = answer
                    .text()
                    .replacen("\"response\":{", "\"response\":{\"stray\":1,", 1)
                    .into();
            },
        ),
    ] {
        let mut changed = answer.clone();
        change(&mut changed);
        assert!(is_condemned("POST", target, &changed), "{name}");
    }
}
