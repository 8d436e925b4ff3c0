//! HTTP/2: the same rules, and floods.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::support::{Server, connect, eventually, read_all, start};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn client<B, S>(stream: S) -> SendRequest<B>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn get<S>(stream: S, uri: &str) -> (u16, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = client(stream).await;
    let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let response = client.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn prior_knowledge_is_enough_and_the_authority_becomes_the_host() {
    let server = start().await;
    let answer = get(connect(&server).await, "http://service:80/x?y").await;
    assert_eq!(answer, (200, "first service:80 /x 0\n".to_owned()));
}

#[tokio::test]
async fn heads_have_the_same_limits() {
    let server = start().await;
    let mut client = client(connect(&server).await).await;
    let request = || {
        Request::get("http://a/x")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let mut status = async |edit: &dyn Fn(&mut Request<Empty<Bytes>>)| {
        let mut request = request();
        edit(&mut request);
        client.send_request(request).await.map(|r| r.status())
    };
    let header = |name: &'static str, value: &'static str| {
        move |request: &mut Request<Empty<Bytes>>| {
            request.headers_mut().append(name, value.parse().unwrap());
        }
    };
    assert_eq!(status(&|_| ()).await.unwrap(), StatusCode::OK);
    assert_eq!(status(&header("host", "a")).await.unwrap(), StatusCode::OK);
    assert_eq!(
        status(&header("host", "b")).await.unwrap(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        status(&header("x_y", "z")).await.unwrap(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        status(&header("content-encoding", "gzip")).await.unwrap(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let many = |request: &mut Request<Empty<Bytes>>| {
        for _ in 0..101 {
            request.headers_mut().append("x", "y".parse().unwrap());
        }
    };
    assert_eq!(
        status(&many).await.unwrap(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    let long = |request: &mut Request<Empty<Bytes>>| {
        *request.uri_mut() = format!("http://a/{}", "x".repeat(8192)).parse().unwrap();
    };
    assert_eq!(status(&long).await.unwrap(), StatusCode::URI_TOO_LONG);
    let large = |request: &mut Request<Empty<Bytes>>| {
        let value = "y".repeat(40_000).parse().unwrap();
        request.headers_mut().append("x", value);
    };
    let large = status(&large).await;
    assert!(large.is_err() || large.unwrap() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn bodies_have_the_same_limits_and_a_panic_costs_one_stream() {
    let server = start().await;
    let mut client = client(connect(&server).await).await;
    let body = Bytes::from(vec![b'x'; 10 * 1024 * 1024 + 1]);
    let request = Request::post("http://a/x").body(Full::new(body)).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let request = Request::get("http://a/panic")
        .body(Full::default())
        .unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 500);
    let request = Request::get("http://a/x").body(Full::default()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_reset_stream_or_a_closed_connection_drops_its_body_within_250_ms() {
    let server = start().await;
    let mut sender = client(connect(&server).await).await;
    let request = || {
        Request::get("http://a/silent")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let mut first = sender.send_request(request()).await.unwrap();
    let mut second = sender.send_request(request()).await.unwrap();
    first.body_mut().frame().await.unwrap().unwrap();
    second.body_mut().frame().await.unwrap().unwrap();
    let dropped = || server.seen.dropped.load(Ordering::SeqCst);
    assert_eq!(dropped(), 0);
    drop(first);
    eventually("the reset stream", Duration::from_millis(250), || {
        dropped() == 1
    })
    .await;
    drop(second);
    eventually("the other one", Duration::from_millis(250), || {
        dropped() == 2
    })
    .await;
    let mut stream = connect(&server).await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    stream
        .write_all(&frame(1, 5, 1, &silent_head()))
        .await
        .unwrap();
    eventually("a stream", Duration::from_secs(2), || {
        server.seen.streams.load(Ordering::SeqCst) == 3
    })
    .await;
    drop(stream);
    eventually("the closed connection", Duration::from_millis(250), || {
        dropped() == 3
    })
    .await;
}

#[tokio::test]
async fn an_unused_connection_is_closed() {
    let server = start().await;
    for bytes in [
        PREFACE.to_vec(),
        [PREFACE, &frame(4, 0, 0, &[])].concat(),
        // A head that waits for its continuation.
        [
            PREFACE,
            &frame(4, 0, 0, &[]),
            &frame(1, 1, 1, &silent_head()),
        ]
        .concat(),
    ] {
        let mut stream = connect(&server).await;
        let start = Instant::now();
        stream.write_all(&bytes).await.unwrap();
        let (_, closed) = read_all(&mut stream, Duration::from_secs(4)).await;
        assert!(closed);
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_drain_says_goodbye_and_lets_streams_end() {
    let server = start().await;
    let mut idle: SendRequest<Empty<Bytes>> = client(connect(&server).await).await;
    let mut busy = client(connect(&server).await).await;
    let request = Request::get("http://a/slow")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = busy.send_request(request);
    let answer = tokio::spawn(answer);
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.drain.cancel();
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    let report = timeout(Duration::from_secs(2), server.task).await.unwrap();
    assert_eq!(report.unwrap().cut, 0);
    assert!(idle.ready().await.is_err());
}

/// HPACK for `GET http://a/silent`.
fn silent_head() -> Vec<u8> {
    let mut head = vec![0x82, 0x86, 0x04, 7];
    head.extend_from_slice(b"/silent");
    head.extend_from_slice(&[0x01, 1, b'a']);
    head
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends `flood` over and over; gives the time until the server hung up or said
/// GOAWAY.
async fn flood(server: &Server, mut next: impl FnMut(u32) -> Vec<u8> + Send + 'static) -> Duration {
    let stream = connect(server).await;
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(PREFACE).await.unwrap();
    writer.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let start = Instant::now();
    let sender = tokio::spawn(async move {
        let mut stream = 1;
        loop {
            let mut bytes = Vec::new();
            for _ in 0..50 {
                bytes.extend(next(stream));
                stream += 2;
            }
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let mut buffer = vec![0; 65_536];
    let mut received = Vec::new();
    let over = timeout(Duration::from_secs(5), async {
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => received.extend_from_slice(&buffer[..length]),
            }
            if has_goaway(&received) {
                return;
            }
        }
    })
    .await;
    sender.abort();
    assert!(over.is_ok(), "the flood was taken for 5 s");
    start.elapsed()
}

fn has_goaway(mut bytes: &[u8]) -> bool {
    while bytes.len() >= 9 {
        let length =
            usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        if bytes[3] == 7 {
            return true;
        }
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_given_up_within_a_second_and_others_are_served() {
    let server = start().await;
    let head = silent_head();
    let rapid_reset = {
        let head = head.clone();
        move |stream| {
            [
                frame(1, 5, stream, &head),
                frame(3, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat()
        }
    };
    // A window update of nothing makes the server reset the stream itself.
    let made_reset = {
        let head = head.clone();
        move |stream| [frame(1, 5, stream, &head), frame(8, 0, stream, &[0; 4])].concat()
    };
    let continuation = {
        let mut begun = false;
        move |_| {
            if std::mem::replace(&mut begun, true) {
                frame(9, 0, 1, &[])
            } else {
                frame(1, 0, 1, &head)
            }
        }
    };
    type Flood = Box<dyn FnMut(u32) -> Vec<u8> + Send>;
    let floods: Vec<(&str, Flood)> = vec![
        ("rapid reset", Box::new(rapid_reset)),
        ("made resets", Box::new(made_reset)),
        ("continuation", Box::new(continuation)),
        ("ping", Box::new(|_| frame(6, 0, 0, &[0; 8]))),
        ("settings", Box::new(|_| frame(4, 0, 0, &[]))),
        (
            "priority",
            Box::new(|stream| frame(2, 0, stream, &[0, 0, 0, 0, 1])),
        ),
        ("unknown frames", Box::new(|_| frame(0x42, 0, 0, &[]))),
        (
            "window updates",
            Box::new(|_| frame(8, 0, 0, &[0, 0, 0, 1])),
        ),
    ];
    for (name, next) in floods {
        let elapsed = flood(&server, next).await;
        assert!(elapsed < Duration::from_secs(2), "{name} took {elapsed:?}");
        let start = Instant::now();
        assert_eq!(get(connect(&server).await, "http://a/x").await.0, 200);
        assert!(start.elapsed() < Duration::from_millis(500), "after {name}");
    }
}
