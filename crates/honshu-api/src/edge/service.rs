//! What surrounds the router for each request of a connection: one host, no encoded bodies, no panics, and
//! the knowledge whether an answer is under way.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tower::Service;

use super::body::{BodyLimit, EdgeBody};
use super::exchange::{Exchange, UnderWay};
use super::gate::{is_field_name, is_valid_host};
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
        let refusal = prepare(&mut parts, &self.limits).err();
        parts.extensions.insert(self.info.clone());
        let mut router = self.router.clone();
        let exchange = Arc::clone(&self.exchange);
        let limit = BodyLimit::new(&self.limits);
        parts.extensions.insert(limit.clone());
        let body = EdgeBody::new(body, &self.limits, limit);
        Box::pin(async move {
            let response = match refusal {
                Some(refusal) => refusal.response().map(Body::from),
                None => {
                    let work = router.call(Request::from_parts(parts, Body::new(body)));
                    match AssertUnwindSafe(work).catch_unwind().await {
                        Ok(Ok(response)) => response,
                        Err(_panic) => {
                            let response = Refusal::PANICKED.response();
                            let request_id = response
                                .headers()
                                .get("x-request-id")
                                .and_then(|id| id.to_str().ok());
                            tracing::error!(
                                request_id,
                                "a handler panicked; its request got a 500"
                            );
                            response.map(Body::from)
                        }
                    }
                }
            };
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                exchange.tunnel();
            }
            Ok(response.map(|inner| ResponseBody {
                inner,
                _under_way: under_way,
            }))
        })
    }
}

/// Refuses encoded bodies, and does for HTTP/2 what the gate does for HTTP/1.
fn prepare(parts: &mut http::request::Parts, limits: &EdgeLimits) -> Result<(), Refusal> {
    if parts.version == Version::HTTP_2 {
        check_http2(parts, limits)?;
    }
    let is_encoded = parts
        .headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_encoded {
        return Err(Refusal::ENCODED_BODY);
    }
    Ok(())
}

/// The limits of a head, and exactly one host, which is the authority (RFC 9113,
/// section 8.3.1). The size of the whole head is bounded by the library.
fn check_http2(parts: &mut http::request::Parts, limits: &EdgeLimits) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::CONNECT);
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits.uri_bytes_max {
        return Err(Refusal::URI_TOO_LONG);
    }
    if parts.headers.len() > limits.header_fields_max {
        return Err(Refusal::HEAD_TOO_LARGE);
    }
    if !parts
        .headers
        .keys()
        .all(|name| is_field_name(name.as_str().as_bytes()))
    {
        return Err(Refusal::FIELD_NAME);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let name = match (authority, host) {
        _ if second.is_some() => return Err(Refusal::TWO_HOSTS),
        (None, None) => return Err(Refusal::NO_HOST),
        (Some(authority), Some(host))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) =>
        {
            return Err(Refusal::HOST_DIFFERS);
        }
        (Some(authority), _) => authority.as_bytes(),
        (None, Some(host)) => host.as_bytes(),
    };
    if !is_valid_host(name) {
        return Err(Refusal::BAD_HOST);
    }
    let name = HeaderValue::from_bytes(name).map_err(|_| Refusal::BAD_HOST)?;
    parts.headers.insert(header::HOST, name);
    Ok(())
}
