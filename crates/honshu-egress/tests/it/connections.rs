//! Reuse, cancellation, cuts and limits on real connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use honshu_egress::{Client, ClientOptions, EgressError, ErrorKind, Resolve, Resolving};
use http::Request;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Server, get, local_client, local_options, read_head, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_used_again_and_again() {
    let server = Server::http(|_| text("x".repeat(2000))).await;
    let client = local_client();
    for _ in 0..500 {
        let response = client.send(get(&server.url("/"))).await.unwrap();
        assert_eq!(
            response
                .into_body()
                .collect_bounded(4000)
                .await
                .unwrap()
                .len(),
            2000
        );
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_open_no_more_connections_than_they_need() {
    let server = Server::http(|_| text("ok")).await;
    let client = local_client();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (client, url) = (client.clone(), server.url("/"));
            tokio::spawn(async move {
                for _ in 0..100 {
                    let response = client.send(get(&url)).await.unwrap();
                    response.into_body().collect_bounded(10).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(server.connections() <= 16, "{}", server.connections());
}

#[tokio::test]
async fn answers_without_a_body_give_their_connection_back() {
    let server = Server::http(|_| {
        http::Response::builder()
            .status(204)
            .body(Default::default())
            .unwrap()
    })
    .await;
    let client = local_client();
    for _ in 0..20 {
        drop(client.send(get(&server.url("/"))).await.unwrap());
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_closed_idle_connection_is_replaced_without_an_error() {
    let server = Server::raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        // Closes although it promised to keep the connection.
    })
    .await;
    let client = local_client();
    for n in 1..=5 {
        let request = Request::post(server.url("/"))
            .body(Bytes::from_static(b"{}"))
            .unwrap();
        let body = client.send(request).await.unwrap().into_body();
        assert_eq!(body.collect_bounded(10).await.unwrap(), "ok");
        sleep(Duration::from_millis(20)).await;
        assert_eq!(server.connections(), n);
    }
}

#[tokio::test]
async fn idle_connections_are_closed_after_their_time() {
    let (gone, mut closed) = mpsc::unbounded_channel();
    let server = Server::raw(move |mut tcp| {
        let gone = gone.clone();
        async move {
            read_head(&mut tcp).await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
            assert_eq!(tcp.read(&mut [0; 1]).await.unwrap(), 0);
            gone.send(()).unwrap();
        }
    })
    .await;
    let options = ClientOptions {
        pool_idle_timeout: Duration::from_millis(200),
        ..local_options()
    };
    let client = Client::new(options);
    let body = client
        .send(get(&server.url("/")))
        .await
        .unwrap()
        .into_body();
    body.collect_bounded(10).await.unwrap();
    timeout(Duration::from_secs(3), closed.recv())
        .await
        .unwrap()
        .unwrap();
    drop(client);
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_allowed() {
    let server = Server::raw(|mut tcp| async move {
        while !read_head(&mut tcp).await.is_empty() {
            sleep(Duration::from_millis(50)).await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
    })
    .await;
    let client = Client::new(ClientOptions {
        pool_idle_per_host: 2,
        ..local_options()
    });
    let url = server.url("/");
    for expected in [6, 10] {
        let sends = (0..6).map(|_| async {
            client
                .send(get(&url))
                .await
                .unwrap()
                .into_body()
                .collect_bounded(10)
                .await
                .unwrap()
        });
        futures_util::future::join_all(sends).await;
        assert_eq!(server.connections(), expected);
    }
}

#[tokio::test]
async fn a_cut_is_an_error_and_never_an_end() {
    for (answer, received) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", "half"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "half",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
            "half",
        ),
    ] {
        let server = Server::raw(move |mut tcp| async move {
            read_head(&mut tcp).await;
            tcp.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let mut body = local_client()
            .send(get(&server.url("/")))
            .await
            .unwrap()
            .into_body();
        let mut seen = Vec::new();
        let error = loop {
            match body
                .frame()
                .await
                .expect("a cut stream must not end cleanly")
            {
                Ok(frame) => seen.extend_from_slice(&frame.into_data().unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(seen, received.as_bytes());
        assert!(
            matches!(
                error,
                EgressError::Cut {
                    may_have_reached: true,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(body.frame().await.is_none());
    }
}

#[tokio::test]
async fn errors_before_the_answer_say_whether_the_request_may_have_arrived() {
    let silent = Server::raw(|mut tcp| async move {
        read_head(&mut tcp).await;
    })
    .await;
    let error = local_client()
        .send(get(&silent.url("/")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_reached_upstream()),
        (ErrorKind::Cut, true)
    );

    let babbling = Server::raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        let _ = tcp.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    })
    .await;
    let error = local_client()
        .send(get(&babbling.url("/")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_reached_upstream()),
        (ErrorKind::Protocol, true)
    );

    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = local_client()
        .send(get(&format!("http://{nobody}/")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_reached_upstream()),
        (ErrorKind::Connect, false)
    );

    let error = local_client().send(get("/relative")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_reached_upstream()),
        (ErrorKind::Url, false)
    );
}

#[derive(Debug)]
struct Never;

impl Resolve for Never {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn connecting_has_one_deadline_for_all_its_steps() {
    let mute = Server::raw(|tcp| async move {
        sleep(Duration::from_secs(30)).await;
        drop(tcp);
    })
    .await;
    let resolver: Arc<dyn Resolve> = Arc::new(Never);
    for (url, resolver) in [
        ("http://slow.test/".to_owned(), Some(resolver)),
        (format!("https://{}/", mute.address), None),
    ] {
        let options = ClientOptions {
            connect_timeout: Duration::from_millis(150),
            resolver,
            ..local_options()
        };
        let start = Instant::now();
        let error = Client::new(options).send(get(&url)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have_reached_upstream()),
            (ErrorKind::ConnectTimeout, false)
        );
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
}

/// Accepts, writes `answer`, and reports when the client has closed.
async fn watched(
    answer: &'static [u8],
) -> (
    Server,
    mpsc::UnboundedReceiver<()>,
    mpsc::UnboundedReceiver<()>,
) {
    let (asked, is_asked) = mpsc::unbounded_channel();
    let (gone, is_gone) = mpsc::unbounded_channel();
    let server = Server::raw(move |mut tcp| {
        let (asked, gone) = (asked.clone(), gone.clone());
        async move {
            read_head(&mut tcp).await;
            tcp.write_all(answer).await.unwrap();
            asked.send(()).unwrap();
            let mut rest = [0; 1024];
            while matches!(tcp.read(&mut rest).await, Ok(1..)) {}
            gone.send(()).unwrap();
        }
    })
    .await;
    (server, is_asked, is_gone)
}

#[tokio::test]
async fn dropping_the_future_closes_the_connection() {
    let (server, mut asked, mut gone) = watched(b"").await;
    let client = local_client();
    let url = server.url("/");
    let task = tokio::spawn(async move { client.send(get(&url)).await.map(|_| ()) });
    asked.recv().await.unwrap();
    task.abort();
    timeout(Duration::from_millis(250), gone.recv())
        .await
        .expect("closed at once")
        .unwrap();
}

#[tokio::test]
async fn dropping_the_body_closes_the_connection() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nhello",
    ] {
        for read_first in [false, true] {
            let (server, mut asked, mut gone) = watched(answer).await;
            let client = local_client();
            let mut response = client.send(get(&server.url("/"))).await.unwrap();
            asked.recv().await.unwrap();
            if read_first {
                response.body_mut().frame().await.unwrap().unwrap();
            }
            drop(response);
            timeout(Duration::from_millis(250), gone.recv())
                .await
                .expect("closed at once")
                .unwrap();
        }
    }
}

#[tokio::test]
async fn answers_are_collected_up_to_a_limit() {
    for head in [
        "content-length: 10\r\n\r\n0123456789",
        "transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n",
    ] {
        let server = Server::raw(move |mut tcp| async move {
            while !read_head(&mut tcp).await.is_empty() {
                let answer = format!("HTTP/1.1 200 OK\r\n{head}");
                if tcp.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let client = local_client();
        for (bytes_max, fits) in [(0, false), (9, false), (10, true), (1000, true)] {
            let body = client
                .send(get(&server.url("/")))
                .await
                .unwrap()
                .into_body();
            let collected = body.collect_bounded(bytes_max).await;
            match collected {
                Ok(bytes) => assert!(fits && bytes == "0123456789"),
                Err(error) => assert!(!fits && error.kind() == ErrorKind::TooLarge, "{error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_large_request_body_arrives_whole_with_its_length() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = Server::raw(move |mut tcp| {
        let tell = tell.clone();
        async move {
            let head = read_head(&mut tcp).await;
            let mut body = vec![0; 300_000];
            tcp.read_exact(&mut body).await.unwrap();
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            tell.send((head, body)).unwrap();
        }
    })
    .await;
    let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let request = Request::post(server.url("/v1/x?y=z"))
        .header("content-length", "5")
        .header("transfer-encoding", "chunked")
        .header("authorization", "Bearer t")
        .body(sent.clone())
        .unwrap();
    local_client().send(request).await.unwrap();
    let (head, body) = told.recv().await.unwrap();
    assert!(body == sent);
    let mut lines: Vec<_> = head
        .trim_end()
        .split("\r\n")
        .map(str::to_ascii_lowercase)
        .collect();
    lines[1..].sort();
    let expected = [
        "post /v1/x?y=z http/1.1".to_owned(),
        "authorization: bearer t".to_owned(),
        "content-length: 300000".to_owned(),
        format!("host: {}", server.address),
        format!("user-agent: honshu/{}", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn plain_requests_through_a_proxy_carry_the_whole_url() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let proxy = Server::raw(move |mut tcp| {
        let tell = tell.clone();
        async move {
            let head = read_head(&mut tcp).await;
            tell.send(head.clone()).unwrap();
            let answer: &[u8] = if head.starts_with("CONNECT") {
                b"HTTP/1.1 403 Forbidden\r\n\r\n"
            } else {
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
            };
            tcp.write_all(answer).await.unwrap();
        }
    })
    .await;
    let proxies =
        honshu_egress::ProxyRules::all_through(&format!("http://ann:secret@{}", proxy.address))
            .unwrap();
    let client = Client::new(ClientOptions {
        proxies,
        ..ClientOptions::default()
    });
    let response = client
        .send(get("http://models.test:8080/a?b"))
        .await
        .unwrap();
    assert_eq!(response.into_body().collect_bounded(2).await.unwrap(), "ok");
    let head = told.recv().await.unwrap();
    assert!(
        head.starts_with("GET http://models.test:8080/a?b HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("proxy-authorization: Basic YW5uOnNlY3JldA=="),
        "{head}"
    );

    let error = client.send(get("https://models.test/")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_reached_upstream()),
        (ErrorKind::Connect, false)
    );
    assert!(
        told.recv()
            .await
            .unwrap()
            .starts_with("CONNECT models.test:443 HTTP/1.1\r\nhost: models.test:443\r\n")
    );
    // Literal private addresses are not asked of the proxy either.
    assert_eq!(
        client
            .send(get("http://10.0.0.1/"))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Refused
    );
    assert_eq!(proxy.connections(), 2);
}
