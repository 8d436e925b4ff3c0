//! What surrounds the router for each request of a connection: one host, no encoded bodies, no panics, and
//! the knowledge whether an answer is under way.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use http::{HeaderValue, Request, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tower::Service;

use super::body::EdgeBody;
use super::limits::EdgeLimits;
use super::reply::Refusal;

/// Which listener a connection came in by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerTag(pub Arc<str>);

/// What the edge knows of a request; in its extensions.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// The listener.
    pub listener: ListenerTag,
    /// The other end of the connection.
    pub peer: SocketAddr,
}

/// Whether a connection is answering a request.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    under_way: AtomicUsize,
    waker: AtomicWaker,
}

impl Exchange {
    /// Whether an answer is under way. If so, `cx` is woken when it is done.
    pub(super) fn is_answering(&self, cx: &Context<'_>) -> bool {
        if self.under_way.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.waker.register(cx.waker());
        self.under_way.load(Ordering::Acquire) > 0
    }
}

/// Counts an answer as under way until it is dropped.
#[derive(Debug)]
struct UnderWay(Arc<Exchange>);

impl UnderWay {
    fn begin(exchange: &Arc<Exchange>) -> Self {
        exchange.under_way.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(exchange))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.waker.wake();
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct ResponseBody {
    inner: Body,
    _under_way: UnderWay,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The router of one connection.
#[derive(Clone)]
pub(super) struct Guarded {
    pub(super) router: Router,
    pub(super) limits: Arc<EdgeLimits>,
    pub(super) info: RequestInfo,
    pub(super) exchange: Arc<Exchange>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Guarded {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let under_way = UnderWay::begin(&self.exchange);
        let (mut parts, body) = request.into_parts();
        let refusal = prepare(&mut parts);
        parts.extensions.insert(self.info.clone());
        let mut router = self.router.clone();
        let body = EdgeBody::new(body, &self.limits);
        Box::pin(async move {
            let response = match refusal {
                Some(refusal) => refusal.response().map(Body::from),
                None => {
                    let work = router.call(Request::from_parts(parts, Body::new(body)));
                    match AssertUnwindSafe(work).catch_unwind().await {
                        Ok(Ok(response)) => response,
                        Err(_panic) => {
                            tracing::error!("a handler panicked; its request got a 500");
                            Refusal::PANICKED.response().map(Body::from)
                        }
                    }
                }
            };
            Ok(response.map(|inner| ResponseBody {
                inner,
                _under_way: under_way,
            }))
        })
    }
}

/// Leaves one host header, the authority of the target where there is one, and refuses encoded bodies.
fn prepare(parts: &mut http::request::Parts) -> Option<Refusal> {
    if let Some(authority) = parts.uri.authority() {
        // The target's authority wins over the header (RFC 9112, 3.2.2; RFC 9113, 8.3.1).
        let host = HeaderValue::from_str(authority.as_str()).ok()?;
        parts.headers.insert(header::HOST, host);
    }
    let encoded = parts
        .headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    encoded.then_some(Refusal::ENCODED_BODY)
}
