//! Who gets in, and what those hear who do not.

use std::time::Duration;

use honshu_domain::Clock as _;
use serde_json::Value;

use crate::support::{ALIAS, Answer, House, MODEL, chat};

const ID: &str = "ocid1.generativeaiapikey.oc1.ap-osaka-1.aaaa";

/// Every route below the bases, by the methods that it serves.
const OPENAI: [(&str, &str); 30] = [
    ("POST", "/responses"),
    ("GET", "/responses/resp_1"),
    ("DELETE", "/responses/resp_1"),
    ("POST", "/responses/resp_1/cancel"),
    ("GET", "/responses/resp_1/input_items"),
    ("POST", "/responses/compact"),
    ("POST", "/responses/input_tokens"),
    ("POST", "/conversations"),
    ("GET", "/conversations/conv_1"),
    ("POST", "/conversations/conv_1"),
    ("DELETE", "/conversations/conv_1"),
    ("GET", "/conversations/conv_1/items"),
    ("POST", "/conversations/conv_1/items"),
    ("GET", "/conversations/conv_1/items/msg_1"),
    ("DELETE", "/conversations/conv_1/items/msg_1"),
    ("GET", "/files"),
    ("POST", "/files"),
    ("GET", "/files/file-1"),
    ("GET", "/files/file-1/content"),
    ("DELETE", "/files/file-1"),
    ("POST", "/chat/completions"),
    ("GET", "/chat/completions"),
    ("GET", "/chat/completions/chatcmpl-1"),
    ("POST", "/chat/completions/chatcmpl-1"),
    ("DELETE", "/chat/completions/chatcmpl-1"),
    ("GET", "/chat/completions/chatcmpl-1/messages"),
    ("GET", "/models"),
    ("GET", "/models/a/b"),
    ("GET", "/models/%FF"),
    ("GET", "/models/a%2Fb"),
];

const SIGNED: [(&str, &str); 32] = [
    ("POST", "/20231130/apikeys"),
    ("GET", "/20231130/apikeys"),
    ("GET", "/20231130/apikeys/ID"),
    ("PUT", "/20231130/apikeys/ID"),
    ("DELETE", "/20231130/apikeys/ID"),
    ("GET", "/20231130/apikeys/%FF"),
    ("POST", "/20231130/apikeys/ID/actions/renew"),
    ("POST", "/20231130/apikeys/ID/actions/setstate"),
    ("POST", "/20231130/apikeys/ID/actions/changeCompartment"),
    ("GET", "/20231130/models"),
    ("GET", "/20231130/models?%FF=%FF"),
    ("GET", "/20231130/models/ID"),
    ("POST", "/20231130/endpoints"),
    ("GET", "/20231130/workRequests/a/errors"),
    ("POST", "/20231130/actions/chat"),
    ("POST", "/20231130/actions/nonsense"),
    ("POST", "/20160918/compartments"),
    ("GET", "/20160918/compartments"),
    ("GET", "/20160918/compartments/ID"),
    ("PUT", "/20160918/compartments/ID"),
    ("DELETE", "/20160918/compartments/ID"),
    ("GET", "/20160918/compartments/%C3%28"),
    ("POST", "/20160918/policies"),
    ("GET", "/20160918/policies"),
    ("GET", "/20160918/policies/ID"),
    ("PUT", "/20160918/policies/ID"),
    ("DELETE", "/20160918/policies/ID"),
    ("GET", "/20160918/tenancies/ID"),
    ("GET", "/20160918/tenancies/ID/regionSubscriptions"),
    ("GET", "/20160918/regions"),
    ("GET", "/20160918/users"),
    ("POST", "/20160918/groups"),
];

fn routes() -> Vec<(&'static str, String)> {
    let mut routes = Vec::new();
    for base in [
        "/20231130/actions/v1",
        "/openai/v1",
        "/20231130/openai/v1",
        "/v1",
    ] {
        for (method, path) in OPENAI {
            routes.push((method, format!("{base}{path}")));
        }
    }
    for (method, path) in SIGNED {
        routes.push((method, path.replace("ID", ID)));
    }
    routes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_credential_every_route_is_401_in_the_shape_of_its_plane() {
    let house = House::new().await;
    for (method, target) in routes() {
        let what = format!("{method} {target}");
        let answer = house.send(house.osaka, method, &target, &[], "").await;
        answer.check(&what);
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        let body = answer.json();
        let is_openai = body.get("error").is_some();
        let on_openai_path = [
            "/v1",
            "/openai/v1",
            "/20231130/actions/v1",
            "/20231130/openai/v1",
        ]
        .iter()
        .any(|base| target.starts_with(&format!("{base}/")));
        assert_eq!(is_openai, on_openai_path, "{what}: {body}");
        let code = &body["code"];
        if on_openai_path || target.starts_with("/20231130/actions") {
            assert_eq!(code, "401", "{what}");
        } else {
            assert_eq!(code, "NotAuthenticated", "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_that_the_router_has_answers_without_a_credential() {
    let house = House::new().await;
    let routes = house.routes();
    assert!(routes.len() > 130, "{}", routes.len());
    for (method, path) in routes {
        if ["/healthz", "/readyz"].contains(&path.as_str()) {
            continue;
        }
        let target: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { ID } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let method = method.to_ascii_uppercase();
        let answer = house.send(house.osaka, &method, &target, &[], "").await;
        // Without an upgrade there is nothing to ask for.
        let is_socket = method == "GET" && target.ends_with("/responses");
        let wanted = if is_socket { 405 } else { 401 };
        assert_eq!(answer.check(&target).status, wanted, "{method} {target}");
    }
}

/// Other ways to write a path, and headers that some servers take for it.
fn disguises(path: &str) -> Vec<(String, Option<(&'static str, &'static str)>)> {
    let (head, tail) = path.rsplit_once('/').unwrap();
    let first = path.split('/').nth(1).unwrap();
    let mut ways: Vec<String> = [
        "{path}/",
        "/{path}",
        "{head}//{tail}",
        "/.{path}",
        "/x/..{path}",
        "{head}/./{tail}",
        "{head}/x/../{tail}",
        "{head}%2f{tail}",
        "{head}%2F{tail}",
        "{head}/%2e/{tail}",
        "{path};a=b",
        "/;{path}",
        "{path}%20",
        "{path}%00",
        "{path}%23",
        "{path}?x=1",
        "{head};/{tail}",
    ]
    .iter()
    .map(|way| {
        way.replace("{path}", path)
            .replace("{head}", head)
            .replace("{tail}", tail)
    })
    .collect();
    ways.push(path.replacen(first, &first.to_ascii_uppercase(), 1));
    let escaped = format!("%{:02x}{}", first.as_bytes()[0], &first[1..]);
    ways.push(path.replacen(first, &escaped, 1));
    ways.retain(|way| way.starts_with('/'));
    let mut all: Vec<_> = ways.into_iter().map(|way| (way, None)).collect();
    for header in [
        ("x-original-url", "/healthz"),
        ("x-rewrite-url", "/healthz"),
        ("x-forwarded-path", "/healthz"),
        ("x-http-method-override", "HEAD"),
    ] {
        all.push((path.to_owned(), Some(header)));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_way_to_write_a_path_opens_it() {
    let house = House::new().await;
    let mut count = 0;
    for (method, path) in house.routes() {
        let is_socket = method == "get" && path.ends_with("/responses");
        if ["/healthz", "/readyz"].contains(&path.as_str()) || is_socket {
            continue;
        }
        let path = path
            .replace("{*id}", "a")
            .replace("{id}", "a")
            .replace("{item}", "b");
        let method = method.to_ascii_uppercase();
        for (target, header) in disguises(&path) {
            let headers: Vec<_> = header.into_iter().collect();
            let answer = house
                .send(house.osaka, &method, &target, &headers, "")
                .await;
            let what = format!("{method} {target} {header:?}");
            // It is the same request, and wants a credential; or it is none that is there.
            let status = answer.check(&what).status.as_u16();
            let wanted: &[u16] = match header {
                Some(_) => &[401],
                None => &[400, 401, 404, 405],
            };
            assert!(wanted.contains(&status), "{what}: {status}");
            count += 1;
        }
    }
    assert!(count > 2_000, "{count}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_opens_no_door_of_the_other_planes() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let bearer = format!("Bearer {secret}");
    for (method, path) in SIGNED {
        let target = path.replace("ID", ID);
        let headers = [("authorization", bearer.as_str())];
        let answer = house.send(house.osaka, method, &target, &headers, "").await;
        assert_eq!(answer.check(&target).status, 401, "{method} {target}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_a_clean_404_or_405_and_health_needs_no_credential() {
    let house = House::new().await;
    for (method, target, status) in [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v1/_stainless_unknown_path", 404),
        ("POST", "/v1/moderations", 404),
        ("POST", "/v1/messages/batches", 404),
        ("GET", "/v1/messages", 405),
        ("GET", "/v1/embeddings", 405),
        ("GET", "/v1/conversations", 405),
        ("POST", "/v1/files/file-x/content", 405),
        ("GET", "//v1/models", 404),
        ("GET", "/V1/models", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/20231130", 404),
        ("GET", "/20231130/apikeys/a/b", 404),
        ("PATCH", "/v1/responses", 405),
        ("PATCH", "/v1/chat/completions", 405),
        ("POST", "/v1/chat/completions/chatcmpl-x/messages", 405),
        ("GET", "/v1/responses", 405),
        ("PATCH", "/20231130/apikeys", 405),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
    ] {
        let answer = house.send(house.osaka, method, target, &[], "").await;
        answer.check(target);
        assert_eq!(
            answer.status,
            status,
            "{method} {target}: {}",
            answer.text()
        );
    }
    // A WebSocket asks for a credential like everything else.
    let headers = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
    ];
    let answer = house
        .send(house.osaka, "GET", "/v1/responses", &headers, "")
        .await;
    assert_eq!(answer.check("websocket").status, 401);
}

/// An answer without what differs between any two.
fn bare(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "x-request-id" | "opc-request-id" | "opc-decision-id" | "date"
            )
        })
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (answer.status.as_u16(), headers, answer.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_key_is_not_good_is_not_told() {
    let house = House::new().await;
    house.let_keys_chat().await;
    let soon = house.clock.now().plus(Duration::from_secs(60));
    let (_, [expired, _]) = house.key(Some(soon)).await;
    let (id, [inactive, revoked]) = house.key(None).await;
    for (name, state) in [("one", "INACTIVE"), ("two", "REVOKED")] {
        let answer = house
            .signed(
                "POST",
                &format!("/20231130/apikeys/{id}/actions/setstate"),
                &[],
                &format!(r#"{{"keyName":"{name}","state":"{state}"}}"#),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let (_, [good, _]) = house.key(None).await;
    house.clock.advance(Duration::from_secs(60));
    let mut bad_checksum = good.clone();
    let last = if bad_checksum.ends_with('0') {
        "1"
    } else {
        "0"
    };
    bad_checksum.replace_range(bad_checksum.len() - 1.., last);
    let unknown = honshu_control::PlainSecret::generate(&honshu_domain::SystemEntropy);

    let none = house
        .send(house.osaka, "POST", "/v1/chat/completions", &[], chat("hi"))
        .await;
    assert_eq!(none.status, 401);
    let error = &none.json()["error"];
    assert_eq!(error["type"], "authentication_error");
    assert_eq!(error["code"], "invalid_api_key");
    for (what, secret) in [
        ("garbage", "x"),
        ("empty", ""),
        ("bad checksum", bad_checksum.as_str()),
        ("unknown", unknown.reveal()),
        ("expired", expired.as_str()),
        ("inactive", inactive.as_str()),
        ("revoked", revoked.as_str()),
    ] {
        let answer = house.post(secret, "/v1/chat/completions", chat("hi")).await;
        assert_eq!(bare(&answer), bare(&none), "{what}");
    }
    let bearer = format!("Bearer {good}");
    let headers = [("authorization", bearer.as_str())];
    let elsewhere = house
        .send(
            house.chicago,
            "POST",
            "/v1/chat/completions",
            &headers,
            chat("hi"),
        )
        .await;
    assert_eq!(bare(&elsewhere), bare(&none), "a key of Osaka in Chicago");
    let here = house.post(&good, "/v1/chat/completions", chat("hi")).await;
    assert_eq!(here.status, 200, "{}", here.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_name_chooses_the_region_before_the_listener_does() {
    let house = House::new().await;
    let secret = house.chatting().await;
    let bearer = format!("Bearer {secret}");
    for (host, status) in [
        ("ap-osaka-1.example.com", 200),
        ("AP-OSAKA-1.example.com:8443", 200),
        ("us-chicago-1.example.com", 401),
        ("elsewhere.example.com", 200),
    ] {
        let headers = [("authorization", bearer.as_str()), ("host", host)];
        let answer = house
            .send(
                house.osaka,
                "POST",
                "/v1/chat/completions",
                &headers,
                chat("hi"),
            )
            .await;
        assert_eq!(answer.status, status, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_a_model_is_not_there_and_the_decision_has_an_id() {
    let house = House::new().await;
    let (_, [secret, _]) = house.key(None).await;
    let ask = |model: &str| format!(r#"{{"model":"{model}","input":"hi"}}"#);
    let forbidden = house.post(&secret, "/v1/responses", ask(MODEL)).await;
    let missing = house
        .post(&secret, "/v1/responses", ask("no.such-model"))
        .await;
    for answer in [&forbidden, &missing] {
        assert_eq!(answer.status, 404);
        assert!(answer.header("opc-decision-id").is_some());
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "not_found_error");
        assert_eq!(error["code"], "model_not_found");
        assert_eq!(error["param"], "model");
    }
    let text = |answer: &Answer, name: &str| answer.text().replace(name, "NAME");
    assert_eq!(
        text(&forbidden, MODEL),
        text(&missing, "no.such-model"),
        "nothing but the name that was asked for"
    );
    let bearer = format!("Bearer {secret}");
    let headers = [("authorization", bearer.as_str())];
    let list = house
        .send(house.osaka, "GET", "/v1/models", &headers, "")
        .await;
    assert_eq!(list.json()["data"], Value::Array(Vec::new()));
    let one = house
        .send(
            house.osaka,
            "GET",
            &format!("/v1/models/{MODEL}"),
            &headers,
            "",
        )
        .await;
    assert_eq!(
        text(&one, MODEL),
        text(&forbidden, MODEL),
        "the same answer wherever a model is named"
    );

    house.let_keys_chat().await;
    let list = house
        .send(house.osaka, "GET", "/v1/models", &headers, "")
        .await;
    let names: Vec<String> = list.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, [MODEL, ALIAS]);
    let through_alias = house.post(&secret, "/v1/responses", ask(ALIAS)).await;
    assert_eq!(
        through_alias.json()["model"],
        MODEL,
        "an alias never pretends"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_credentials_are_refused_and_signatures_hold_for_one_request() {
    let house = House::new().await;
    let secret = house.chatting().await;
    // hyper's client would join them: written by hand.
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(house.osaka).await.unwrap();
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\nAuthorization: Bearer x\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");

    // Without a compartment a signed call does not know where it acts.
    let answer = house
        .signed("POST", "/v1/chat/completions", &[], &chat("hi"))
        .await;
    assert_eq!(answer.check("no compartment").status, 400);
    assert!(answer.text().contains("opc-compartment-id"));
    let root = house.root.to_string();
    for name in ["opc-compartment-id", "CompartmentId"] {
        let headers = [(name, root.as_str())];
        let answer = house
            .signed("POST", "/v1/chat/completions", &headers, &chat("hi"))
            .await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
}

/// Nobody is a listed proxy, so that what proxies say of a request is said by its client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_proxies_say_of_a_request_changes_nothing() {
    let house = House::new().await;
    let bearer = format!("Bearer {}", house.chatting().await);
    let said = [
        ("x-forwarded-host", "us-chicago-1.example.com"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/healthz"),
        ("x-real-ip", "10.0.0.1"),
        (
            "forwarded",
            "for=10.0.0.1;host=us-chicago-1.example.com;proto=https",
        ),
        ("opc-principal", "ocid1.user.oc1..admin"),
        ("opc-region", "us-chicago-1"),
        ("opc-tenancy-id", "ocid1.tenancy.oc1..elsewhere"),
        ("opc-ad-name", "elsewhere"),
    ];
    for (place, status) in [(house.osaka, 200), (house.chicago, 401)] {
        // A key is known in its own region only, whatever a header says of the host.
        for header in said.into_iter().map(Some).chain([None]) {
            let mut headers = vec![("authorization", bearer.as_str())];
            headers.extend(header);
            let answer = house.send(place, "GET", "/v1/models", &headers, "").await;
            assert_eq!(answer.status, status, "{header:?}: {}", answer.text());
        }
    }
    // Nor does one of them stand in for a credential.
    for header in said {
        let answer = house
            .send(house.osaka, "GET", "/v1/models", &[header], "")
            .await;
        assert_eq!(answer.status, 401, "{header:?}");
    }
}
