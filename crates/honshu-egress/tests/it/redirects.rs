//! Redirects are followed when asked, each hop under the same rules as the first.

use honshu_egress::{AddressRules, Client, ClientOptions, ErrorKind, parse_url};
use http::{HeaderMap, Response, StatusCode};

use crate::server::{Server, get, local_client, text};

fn redirect(location: &str) -> Response<http_body_util::Full<bytes::Bytes>> {
    let mut response = text("moved");
    *response.status_mut() = StatusCode::FOUND;
    response
        .headers_mut()
        .insert("location", location.parse().unwrap());
    response
        .headers_mut()
        .insert("x-linked-size", "7".parse().unwrap());
    response
}

#[tokio::test]
async fn redirects_are_answers_unless_somebody_follows_them() {
    let server = Server::http(|_| redirect("/elsewhere")).await;
    assert_eq!(
        local_client()
            .send(get(&server.url("/")))
            .await
            .unwrap()
            .status(),
        302
    );
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_chain_is_followed_and_told() {
    let server = Server::http(|r| match r.uri().path() {
        "/a" => redirect("b"),
        "/b" => redirect("/c?x=1"),
        _ => text(r.uri().to_string()),
    })
    .await;
    let url = parse_url(&server.url("/a")).unwrap();
    let fetched = local_client()
        .get_following(&url, HeaderMap::new(), 2)
        .await
        .unwrap();
    assert_eq!(fetched.url.path(), "/c");
    assert_eq!(fetched.hops.len(), 2);
    assert_eq!(fetched.hops[0].headers["x-linked-size"], "7");
    assert_eq!(
        fetched
            .response
            .into_body()
            .collect_bounded(10)
            .await
            .unwrap(),
        "/c?x=1"
    );
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_loop_ends_at_the_limit() {
    let server = Server::http(|_| redirect("/again")).await;
    let url = parse_url(&server.url("/")).unwrap();
    let error = local_client()
        .get_following(&url, HeaderMap::new(), 5)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert!(error.to_string().contains("too many"), "{error}");
}

#[tokio::test]
async fn a_redirect_to_a_forbidden_address_is_refused() {
    let inner = Server::http(|_| text("secret")).await;
    for location in [
        inner.url("/"),
        format!("http://localhost:{}/", inner.address.port()),
        format!("http://[::1]:{}/", inner.address.port()),
        "http://169.254.169.254/latest/".to_owned(),
    ] {
        let server = Server::http(move |_| redirect(&location)).await;
        let allow = AddressRules::public_only().allow_host_port("127.0.0.1", server.address.port());
        let client = Client::new(ClientOptions {
            allow,
            ..ClientOptions::default()
        });
        let url = parse_url(&server.url("/")).unwrap();
        let error = client
            .get_following(&url, HeaderMap::new(), 5)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
    for location in [
        "file:///etc/passwd",
        "gopher://x/",
        "http://2130706433/",
        "http://a@b/",
    ] {
        let server = Server::http(move |_| redirect(location)).await;
        let url = parse_url(&server.url("/")).unwrap();
        let error = local_client()
            .get_following(&url, HeaderMap::new(), 5)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Redirect, "{location}");
    }
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn credentials_stay_with_the_first_host() {
    let other = Server::http(|r| {
        text(format!(
            "{:?} {:?}",
            r.headers().get("authorization"),
            r.headers().get("range")
        ))
    })
    .await;
    let to = other.url("/");
    let server = Server::http(move |r| match r.uri().path() {
        "/out" => redirect(&to),
        "/in" => redirect("/end"),
        _ => text(format!("{:?}", r.headers().get("authorization"))),
    })
    .await;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer t".parse().unwrap());
    headers.insert("range", "bytes=1-".parse().unwrap());
    for (path, expected) in [
        ("/in", "Some(\"Bearer t\")"),
        ("/out", "None Some(\"bytes=1-\")"),
    ] {
        let url = parse_url(&server.url(path)).unwrap();
        let fetched = local_client()
            .get_following(&url, headers.clone(), 5)
            .await
            .unwrap();
        assert_eq!(
            fetched
                .response
                .into_body()
                .collect_bounded(100)
                .await
                .unwrap(),
            expected
        );
    }
}
