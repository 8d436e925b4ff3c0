//! What the edge costs: the same trivial route behind the edge and behind the bare
//! HTTP library.
//!
//! ```text
//! cargo run --release -p honshu-api --example edge_cost -- edge 127.0.0.1:9001
//! cargo run --release -p honshu-api --example edge_cost -- bare 127.0.0.1:9002
//! wrk -t1 -c64 -d10 http://127.0.0.1:9001/
//! ```
//!
//! `/silent` sends one event and then nothing, for the memory of open streams. CPU
//! seconds and resident memory are in `/proc/PID/{stat,status}`.
#![allow(
    clippy::disallowed_methods,
    reason = "an example measures real time, and its tasks end with it"
)]
#![expect(clippy::expect_used, reason = "an example ends at its first fault")]

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use honshu_api::edge::{EdgeLimits, Listener, ListenerTag, serve};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "edge".to_owned());
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let socket = TcpListener::bind(&address).await.expect("a free address");
    let silent = get(|| async {
        let first = Ok::<_, Infallible>(Bytes::from_static(b"data: 1\n\n"));
        let stream = futures_util::stream::StreamExt::chain(
            futures_util::stream::iter([first]),
            futures_util::stream::pending(),
        );
        Body::from_stream(stream)
    });
    let router = Router::new()
        .route("/", get(|| async { "ok\n" }))
        .route(
            "/take",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .route("/silent", silent);
    if kind == "edge" {
        let limits = EdgeLimits {
            connections_max: 100_000,
            ..EdgeLimits::default()
        };
        let listener = Listener {
            socket,
            tag: ListenerTag("example".into()),
            tls: None,
        };
        let (drain, cut) = (CancellationToken::new(), CancellationToken::new());
        serve(vec![listener], router, limits, drain, cut).await;
        return;
    }
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
