//! A server on a free port, and clients that speak in bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use bytes::Bytes;
use honshu_api::edge::{
    DrainReport, EdgeBodyError, EdgeLimits, Listener, ListenerTag, RequestInfo, Tls, serve,
};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What handlers of the test server saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// Requests that reached a handler.
    pub(crate) requests: AtomicUsize,
    /// Requests for `/smuggled`.
    pub(crate) smuggled: AtomicUsize,
    /// Bodies of `/silent` that were made.
    pub(crate) streams: AtomicUsize,
    /// Bodies of `/silent` that were dropped.
    pub(crate) dropped: AtomicUsize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    pub(crate) drain: CancellationToken,
    pub(crate) cut: CancellationToken,
    pub(crate) task: JoinHandle<DrainReport>,
}

/// Short clocks, long enough for a busy machine.
pub(crate) fn short_limits() -> EdgeLimits {
    EdgeLimits {
        first_byte_timeout: Duration::from_millis(700),
        header_timeout: Duration::from_millis(700),
        tls_handshake_timeout: Duration::from_millis(700),
        keep_alive_idle_timeout: Duration::from_millis(1500),
        body_idle_timeout: Duration::from_millis(700),
        body_grace: Duration::from_millis(1200),
        write_stall_timeout: Duration::from_millis(700),
        linger_timeout: Duration::from_millis(200),
        tls_poll_interval: Duration::from_millis(50),
        drain_timeout: Duration::from_secs(2),
        ..EdgeLimits::default()
    }
}

pub(crate) async fn start() -> Server {
    start_with(short_limits(), None).await
}

pub(crate) async fn start_with(limits: EdgeLimits, tls: Option<Arc<Tls>>) -> Server {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let (drain, cut) = (CancellationToken::new(), CancellationToken::new());
    let listener = Listener {
        socket,
        tag: ListenerTag("first".into()),
        tls,
    };
    let router = router(&seen);
    let task = tokio::spawn(serve(
        vec![listener],
        router,
        limits,
        drain.clone(),
        cut.clone(),
    ));
    Server {
        address,
        seen,
        drain,
        cut,
        task,
    }
}

fn router(seen: &Arc<Seen>) -> Router {
    let silent = {
        let seen = Arc::clone(seen);
        get(move || async move { Body::new(Silent::new(&seen)) })
    };
    let slow = get(|| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        "slow\n"
    });
    let endless = get(|| async {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        tokio::spawn(async move {
            while sender
                .send(Bytes::from(vec![b'x'; 16 * 1024]))
                .await
                .is_ok()
            {}
        });
        Body::new(Channel(receiver))
    });
    let counted = Arc::clone(seen);
    let echo = any(move |request: Request<Body>| async move {
        counted.requests.fetch_add(1, Ordering::SeqCst);
        if request.uri().path().contains("smuggled") {
            counted.smuggled.fetch_add(1, Ordering::SeqCst);
        }
        echo(request).await
    });
    Router::new()
        .route("/silent", silent)
        .route("/slow", slow)
        .route("/endless", endless)
        .route("/early", any(|| async { StatusCode::PAYLOAD_TOO_LARGE }))
        .route("/panic", any(panics))
        .fallback(echo)
}

async fn panics() -> &'static str {
    panic!("a handler that panics on purpose")
}

/// Reads the whole body and says how long it was, and what the edge told us.
async fn echo(request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let info = parts.extensions.get::<RequestInfo>().unwrap();
    assert!(info.peer.ip().is_loopback());
    let hosts = parts.headers.get_all("host").iter().count();
    assert_eq!(hosts, 1, "one host after the edge");
    let host = parts.headers["host"].to_str().unwrap().to_owned();
    match body.collect().await {
        Ok(body) => (
            StatusCode::OK,
            format!(
                "{} {} {} {}\n",
                info.listener.0,
                host,
                parts.uri.path(),
                body.to_bytes().len()
            ),
        )
            .into_response(),
        Err(error) => {
            let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            let mut status = StatusCode::IM_A_TEAPOT;
            while let Some(cause) = source {
                match cause.downcast_ref::<EdgeBodyError>() {
                    Some(EdgeBodyError::TooLarge { .. }) => status = StatusCode::PAYLOAD_TOO_LARGE,
                    Some(EdgeBodyError::TooSlow) => status = StatusCode::REQUEST_TIMEOUT,
                    Some(_) => status = StatusCode::BAD_REQUEST,
                    None => {}
                }
                source = cause.source();
            }
            status.into_response()
        }
    }
}

/// A body that sends one event and then nothing, and counts its end.
struct Silent {
    first: bool,
    seen: Arc<Seen>,
}

impl Silent {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.streams.fetch_add(1, Ordering::SeqCst);
        Self {
            first: true,
            seen: Arc::clone(seen),
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.seen.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl http_body::Body for Silent {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if std::mem::take(&mut self.first) {
            std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: 1\n\n")))))
        } else {
            std::task::Poll::Pending
        }
    }
}

struct Channel(mpsc::Receiver<Bytes>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|data| data.map(|d| Ok(Frame::data(d))))
    }
}

pub(crate) async fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads until the server closes or is silent for `silence`; true if it closed.
pub(crate) async fn read_all<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
    silence: Duration,
) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match timeout(silence, stream.read(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => return (bytes, true),
            Ok(Ok(length)) => bytes.extend_from_slice(&chunk[..length]),
            Err(_) => return (bytes, false),
        }
    }
}

/// Sends `bytes` and reads until the connection ends.
pub(crate) async fn exchange(server: &Server, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = connect(server).await;
    let _ = stream.write_all(bytes).await;
    read_all(&mut stream, Duration::from_secs(5)).await
}

/// The final status codes in a byte string of responses, by their lengths.
pub(crate) fn statuses(mut bytes: &[u8], head_only: bool) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !bytes.is_empty() {
        let text = String::from_utf8_lossy(bytes);
        let (head, _) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("not a response: {text:.200}"));
        let status: u16 = head
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("not a response: {text:.200}"));
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
            .unwrap_or(0);
        let body = if head_only { 0 } else { length };
        bytes = &bytes[head.len() + 4 + body..];
        if status >= 200 {
            statuses.push(status);
        }
    }
    statuses
}

/// Whether a refusal carries its ids and can be read by clients of both dialects. What a handler answered to a
/// body that broke is its own affair.
pub(crate) fn is_a_whole_refusal(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let id = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .filter(|id| id.len() == 32)
    };
    if body.is_empty() {
        return true;
    }
    let Ok(body) = serde_json::from_str::<serde_json::Value>(body) else {
        return false;
    };
    let has_both_shapes = ["message", "type", "param", "code"]
        .iter()
        .all(|key| body["error"].get(key).is_some())
        && body["code"].is_string()
        && body["message"] == body["error"]["message"];
    has_both_shapes && id("x-request-id:").is_some() && id("x-request-id:") == id("opc-request-id:")
}

/// Waits for a state, not for a time.
pub(crate) async fn eventually(what: &str, within: Duration, mut check: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !check() {
        assert!(start.elapsed() < within, "{what} within {within:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
