//! The accept loop: take connections up to a cap, find out what they speak, serve them, drain and stop.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exchange::Exchange;
use super::io::EdgeIo;
use super::limits::EdgeLimits;
use super::reply::Refusal;
use super::service::{Guarded, ListenerTag, RequestInfo};
use super::tls::Tls;

/// How a connection over HTTP/2 begins (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Pause after a failed accept, such as when no file is left: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time for the last frames of an HTTP/2 connection that has no stream.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket that is bound, with its name and certificates.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// Its name.
    pub tag: ListenerTag,
    /// Certificates; absent means plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were still answering at the deadline and were cut.
    pub cut: usize,
}

struct Shared {
    router: Router,
    limits: Arc<EdgeLimits>,
    connections: AtomicUsize,
    drain: CancellationToken,
    cut: CancellationToken,
}

/// Serves until `drain` is cancelled, then lets running answers end for at most `drain_timeout`. Meanwhile whoever
/// comes is answered 503, so that probes see that the server goes away and clients know to come again. Cancelling
/// `cut` ends everything at once.
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: EdgeLimits,
    drain: CancellationToken,
    cut: CancellationToken,
) -> DrainReport {
    let shared = Arc::new(Shared {
        router,
        limits: Arc::new(limits),
        connections: AtomicUsize::new(0),
        drain,
        cut,
    });
    let tasks = TaskTracker::new();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, Arc::clone(&shared), tasks.clone()));
    }
    tokio::select! {
        () = shared.drain.cancelled() => {}
        // Without listeners nobody will come.
        () = async { while accepting.join_next().await.is_some() {} } => {}
    }
    tasks.close();
    let drained = tokio::select! {
        drained = timeout(shared.limits.drain_timeout, tasks.wait()) => drained.is_ok(),
        () = shared.cut.cancelled() => false,
    };
    accepting.shutdown().await;
    let left = if drained { 0 } else { tasks.len() };
    shared.cut.cancel();
    tasks.wait().await;
    DrainReport { cut: left }
}

async fn accept(listener: Listener, shared: Arc<Shared>, tasks: TaskTracker) {
    let follow = async {
        match &listener.tls {
            Some(tls) => tls.follow(shared.limits.tls_poll_interval).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(follow);
    loop {
        let accepted = tokio::select! {
            () = &mut follow => return,
            accepted = listener.socket.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = listener.tls.as_ref().map(|tls| tls.acceptor());
        if shared.drain.is_cancelled() {
            let (cut, limits) = (shared.cut.clone(), Arc::clone(&shared.limits));
            #[expect(
                clippy::disallowed_methods,
                reason = "not among the tasks that the drain waits for: probes must not keep the server up; it ends at the cut"
            )]
            tokio::spawn(async move {
                tokio::select! {
                    () = turn_away(socket, acceptor, &limits) => {}
                    () = cut.cancelled() => {}
                }
            });
            continue;
        }
        let info = RequestInfo {
            listener: listener.tag.clone(),
            peer,
        };
        let open = shared.connections.fetch_add(1, Ordering::AcqRel);
        let place = Place(Arc::clone(&shared));
        if open >= shared.limits.connections_max {
            let encrypted = listener.tls.is_some();
            tasks.spawn(shed(socket, encrypted, place));
            continue;
        }
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let cut = shared.cut.clone();
            tokio::select! {
                biased;
                () = connection(socket, acceptor, info, &shared) => {}
                () = cut.cancelled() => {}
            }
            drop(place);
        });
    }
}

/// A connection's place under the cap.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Says that there is no room, where that can be said in clear, and closes.
async fn shed(mut socket: TcpStream, encrypted: bool, place: Place) {
    if !encrypted {
        let _ = timeout(
            Duration::from_secs(1),
            socket.write_all(&Refusal::OVERLOADED.http1()),
        )
        .await;
    }
    drop(place);
}

/// Says that the server goes away, and closes.
async fn turn_away(
    socket: TcpStream,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    limits: &EdgeLimits,
) {
    let Some(acceptor) = acceptor else {
        say_and_close(socket, limits).await;
        return;
    };
    let handshake = timeout(limits.tls_handshake_timeout, acceptor.accept(socket)).await;
    if let Ok(Ok(stream)) = handshake
        && stream.get_ref().1.alpn_protocol() != Some(b"h2")
    {
        say_and_close(stream, limits).await;
    }
}

async fn say_and_close<S>(mut stream: S, limits: &EdgeLimits)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let talk = async {
        stream.write_all(&Refusal::DRAINING.http1()).await?;
        stream.shutdown().await?;
        // Closing with a request unread would reset the connection under the answer.
        let mut unread = [0_u8; 1_024];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(limits.linger_timeout, talk).await;
}

async fn connection(
    socket: TcpStream,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    info: RequestInfo,
    shared: &Shared,
) {
    let limits = &shared.limits;
    tune(&socket, limits);
    // The first byte, and for clear text the choice of protocol, before any parser holds memory for it.
    let mut start = [0_u8; HTTP2_PREFACE.len()];
    let peeked = tokio::select! {
        peeked = timeout(limits.first_byte_timeout, peek(&socket, &mut start, acceptor.is_some())) => peeked,
        () = shared.drain.cancelled() => return,
    };
    let Ok(Ok(http2)) = peeked else { return };
    // Each phase has memory of its own: a connection that says nothing must not
    // cost what a handshake or a parser needs.
    match acceptor {
        None => speak(socket, http2, info, shared).await,
        Some(acceptor) => {
            let handshake = Box::pin(acceptor.accept(socket));
            let handshake = timeout(limits.tls_handshake_timeout, handshake).await;
            let Ok(Ok(stream)) = handshake else { return };
            let stream = Box::new(stream);
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            speak(stream, http2, info, shared).await;
        }
    }
}

/// Waits for the first bytes. True when they begin HTTP/2 in clear text.
async fn peek(socket: &TcpStream, start: &mut [u8], encrypted: bool) -> std::io::Result<bool> {
    loop {
        let length = socket.peek(start).await?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if encrypted || start[..length] != HTTP2_PREFACE[..length] {
            return Ok(false);
        }
        // "PRI" is no method that anybody uses, but it takes the whole preface to be sure.
        if length == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn speak<S>(stream: S, http2: bool, info: RequestInfo, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let exchange = Arc::new(Exchange::default());
    let service = Guarded {
        router: shared.router.clone(),
        limits: Arc::clone(&shared.limits),
        info,
        exchange: Arc::clone(&exchange),
    };
    if http2 {
        Box::pin(speak_http2(stream, service, &exchange, shared)).await;
        return;
    }
    let mut io = EdgeIo::http1(stream, Arc::clone(&shared.limits), Arc::clone(&exchange));
    let begun = tokio::select! {
        biased;
        begun = poll_fn(|cx| io.poll_begin(cx)) => begun,
        () = shared.drain.cancelled() => return,
    };
    if begun.is_err() {
        return;
    }
    if io.ended_before_it_began() {
        let _ = poll_fn(|cx| io.poll_close(cx)).await;
        return;
    }
    Box::pin(speak_http1(io, service, &exchange, shared)).await;
}

async fn speak_http1<S>(io: EdgeIo<S>, service: Guarded, exchange: &Arc<Exchange>, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Heads come whole out of the gate, which counts fields and keeps deadlines.
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(shared.limits.http1_buffer_bytes_max)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => {
            tunnelled(exchange).await;
            return;
        }
        () = shared.drain.cancelled() => {}
    }
    // A connection that is between requests, or in a head, has nothing to lose.
    if exchange.is_idle() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
    tunnelled(exchange).await;
}

/// Waits for the end of a connection that was upgraded, so that it keeps its place under the cap. If the wait is
/// given up, the connection is cut.
async fn tunnelled(exchange: &Arc<Exchange>) {
    struct Cut<'a>(&'a Exchange);
    impl Drop for Cut<'_> {
        fn drop(&mut self) {
            self.0.cut();
        }
    }
    if exchange.is_tunnel() {
        let _cut = Cut(exchange);
        exchange.closed().await;
    }
}

async fn speak_http2<S>(stream: S, service: Guarded, exchange: &Arc<Exchange>, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &shared.limits;
    let io = EdgeIo::http2(
        stream,
        Arc::clone(limits),
        Arc::clone(exchange),
        HTTP2_PREFACE.len(),
    );
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .initial_stream_window_size(limits.http2_stream_window_bytes)
        .initial_connection_window_size(limits.http2_connection_window_bytes)
        .max_send_buf_size(limits.http2_send_buffer_bytes)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.http2_pending_resets_max)
        .max_local_error_reset_streams(limits.http2_local_resets_max)
        .keep_alive_interval(limits.http2_ping_interval)
        .keep_alive_timeout(limits.http2_ping_timeout)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = unused(exchange, limits) => {}
        () = shared.drain.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    if exchange.is_idle() {
        let _ = timeout(GOAWAY_TIMEOUT, connection).await;
    } else {
        let _ = connection.await;
    }
}

/// Returns when an HTTP/2 connection had no request for the idle timeout, or none
/// at all for the time of a head. Over HTTP/1 the gate keeps these clocks.
async fn unused(exchange: &Exchange, limits: &EdgeLimits) {
    let mut seen = 0;
    let mut pause = limits.header_timeout;
    loop {
        tokio::time::sleep(pause).await;
        let requests = exchange.requests();
        if exchange.under_way() == 0 && requests == seen {
            return;
        }
        seen = requests;
        pause = limits.keep_alive_idle_timeout;
    }
}

/// Keeps what lies in the kernel for a slow reader small, and finds peers that
/// vanished without a word.
fn tune(socket: &TcpStream, limits: &EdgeLimits) {
    let _ = socket.set_nodelay(true);
    let socket = socket2::SockRef::from(socket);
    let _ = socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(limits.tcp_keepalive)
            .with_interval(limits.tcp_keepalive / 4),
    );
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_notsent_lowat(limits.unsent_bytes_max);
}
