//! The management API as OCI's clients see it.

use serde_json::{Value, json};

use crate::support::{ALIAS, House, MODEL};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_leaves_once_and_versions_guard_changes() {
    let house = House::new().await;
    let (id, secrets) = house.key(None).await;
    let path = format!("/20231130/apikeys/{id}");
    let got = house.signed("GET", &path, &[], "").await;
    assert_eq!(got.check("get").status, 200);
    assert!(
        secrets
            .iter()
            .all(|secret| !got.text().contains(secret.as_str()))
    );
    let etag = got.header("etag").unwrap().to_owned();

    let rename = |name: &str| json!({"displayName": name}).to_string();
    for (if_match, status) in [
        ("other", 412),
        ("\u{e9}", 400),
        (etag.as_str(), 200),
        (etag.as_str(), 412),
    ] {
        let headers = [("if-match", if_match)];
        let answer = house.signed("PUT", &path, &headers, &rename("n")).await;
        answer.check(if_match);
        assert_eq!(answer.status, status, "{if_match}: {}", answer.text());
        if status == 412 {
            assert_eq!(answer.json()["code"], "NoEtagMatch");
        }
    }
    let gone = house.signed("DELETE", &path, &[], "").await;
    assert_eq!(gone.check("delete").status, 204);
    assert!(gone.body.is_empty());
    for target in [
        path.as_str(),
        "/20231130/apikeys/%FF",
        "/20231130/models/%FF",
    ] {
        let answer = house.signed("GET", target, &[], "").await;
        answer.check(target);
        assert_eq!(answer.status, 404, "{target}: {}", answer.text());
        assert_eq!(answer.json()["code"], "NotAuthorizedOrNotFound", "{target}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_create_is_one_key() {
    let house = House::new().await;
    let body = json!({
        "displayName": "app",
        "compartmentId": house.root.as_str(),
        "keyDetails": [{"keyName": "one"}],
    })
    .to_string();
    let headers = [("opc-retry-token", "1WKe2jbd8w2jewFCjY5KqVho4YqdXk")];
    let first = house
        .signed("POST", "/20231130/apikeys", &headers, &body)
        .await;
    let again = house
        .signed("POST", "/20231130/apikeys", &headers, &body)
        .await;
    assert_eq!(first.status, 200);
    assert_eq!(first.json(), again.json());
    let other = body.replace("app", "other");
    let other = house
        .signed("POST", "/20231130/apikeys", &headers, &other)
        .await;
    assert_eq!(other.check("another request").status, 409);
    assert_eq!(other.json()["code"], "InvalidatedRetryToken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_filtered_and_sorted_models_too() {
    let house = House::new().await;
    for _ in 0..3 {
        house.key(None).await;
    }
    let root = house.root.to_string();
    let pages = async |first: String| {
        let mut names = Vec::new();
        let mut target = first.clone();
        loop {
            let answer = house.signed("GET", &target, &[], "").await;
            assert_eq!(answer.check(&target).status, 200, "{}", answer.text());
            let items = answer.json()["items"].as_array().unwrap().clone();
            assert_eq!(items.len(), 1, "{target}");
            names.push(items[0]["displayName"].as_str().unwrap().to_owned());
            match answer.header("opc-next-page") {
                Some(next) => target = format!("{first}&page={next}"),
                None => return names,
            }
        }
    };
    let keys = pages(format!("/20231130/apikeys?compartmentId={root}&limit=1")).await;
    assert_eq!(keys, ["app"; 3]);
    let models = format!("/20231130/models?compartmentId={root}");
    for (order, expected) in [("ASC", [MODEL, ALIAS]), ("DESC", [ALIAS, MODEL])] {
        let names = pages(format!(
            "{models}&limit=1&sortBy=displayName&sortOrder={order}"
        ))
        .await;
        assert_eq!(names, expected);
    }
    for (query, count) in [
        ("capability=CHAT", 2),
        ("capability=CHAT&capability=TEXT_EMBEDDINGS", 0),
        ("capability=TEXT_EMBEDDINGS&capability=CHAT", 0),
        ("displayName=HONSHU.scripted", 1),
        ("vendor=nobody", 0),
    ] {
        let answer = house
            .signed("GET", &format!("{models}&{query}"), &[], "")
            .await;
        let items = answer.json()["items"].as_array().unwrap().len();
        assert_eq!(items, count, "{query}");
    }
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("page=x%20y", "page"),
        ("sortBy=color", "sortBy"),
        ("sortOrder=up", "sortOrder"),
        ("vendor=a&vendor=b", "vendor"),
    ] {
        let answer = house
            .signed("GET", &format!("{models}&{query}"), &[], "")
            .await;
        answer.check(query);
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        assert!(answer.text().contains(param), "{query}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_built_is_501_for_those_who_may_ask_and_bodies_are_the_signed_ones() {
    let house = House::new().await;
    for (method, target) in [
        ("GET", "/20231130/endpoints"),
        ("POST", "/20231130/actions/chat"),
        ("GET", "/20160918/users"),
    ] {
        let answer = house.signed(method, target, &[], "").await;
        answer.check(target);
        assert_eq!(answer.status, 501, "{target}");
    }
    // The hash of another body: the signature is good, what arrives is not what was signed.
    let signed_for = "{}";
    let answer = house
        .signed(
            "POST",
            "/20231130/apikeys",
            &[(
                "x-content-sha256",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            )],
            signed_for,
        )
        .await;
    assert_eq!(answer.check("hash").status, 401);
    let client = [("opc-request-id", "50AE2670D06A49738F57CE330BC11A97")];
    let answer = house.signed("GET", "/20160918/regions", &client, "").await;
    let opc = answer.check("ids").header("opc-request-id").unwrap();
    assert!(
        opc.starts_with("50AE2670D06A49738F57CE330BC11A97/"),
        "{opc}"
    );
    let keys: Vec<Value> = answer.json().as_array().unwrap().clone();
    assert_eq!(keys[0]["key"], "KIX");
}
