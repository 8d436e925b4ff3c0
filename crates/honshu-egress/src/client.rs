//! One request out, one answer in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, HOST, HeaderName, PROXY_AUTHORIZATION, TRANSFER_ENCODING, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::Full;
use rustls_pki_types::CertificateDer;

use crate::address::AddressRules;
use crate::body::{EgressBody, Lease};
use crate::connect::{Connector, Resolve};
use crate::error::EgressError;
use crate::pool::{Checkout, Pool};
use crate::proxy::ProxyRules;
use crate::target::UrlError;
use crate::tls::TlsConfig;

/// Headers that belong to one connection (RFC 9110, 7.6.1) or that describe a body framing which is ours to choose.
/// A caller that forwards somebody's headers cannot smuggle a second framing through us.
const FRAMING_HEADERS: [HeaderName; 2] = [CONTENT_LENGTH, TRANSFER_ENCODING];

/// How a [`Client`] behaves. Begin with [`ClientOptions::default`].
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Longest time for name look-up, TCP and TLS together. Default 10 s.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Default 60 s.
    pub pool_idle_timeout: Duration,
    /// Idle HTTP/1.1 connections kept for each target. Default 256.
    pub pool_idle_per_host: usize,
    /// The addresses that may be dialled. Default: public ones.
    pub allow: AddressRules,
    /// Sent when a request has no `user-agent` of its own. Default `honshu/<version>`.
    pub user_agent: HeaderValue,
    /// Trust anchors beside those of the system.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Proxies. Default none: inference upstreams are reached directly.
    pub proxies: ProxyRules,
    /// Looks up names instead of the operating system.
    pub resolver: Option<Arc<dyn Resolve>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            pool_idle_timeout: Duration::from_secs(60),
            pool_idle_per_host: 256,
            allow: AddressRules::public_only(),
            user_agent: HeaderValue::from_static(concat!("honshu/", env!("CARGO_PKG_VERSION"))),
            extra_roots: Vec::new(),
            proxies: ProxyRules::default(),
            resolver: None,
        }
    }
}

/// Sends requests over pooled connections. Clones share the pool.
///
/// There is no timeout here but `connect_timeout`: the others (first event, idle, whole run) belong to the owner of
/// the run, who drops the future or the body when one has passed.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Arc<Pool>,
    user_agent: HeaderValue,
}

impl Client {
    /// A client with its own pool. Opens nothing yet.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        let connector = Connector {
            rules: options.allow,
            connect_timeout: options.connect_timeout,
            tls: Arc::new(TlsConfig::new(options.extra_roots)),
            resolver: options.resolver,
            proxies: options.proxies,
        };
        let pool = Pool::new(
            connector,
            options.pool_idle_timeout,
            options.pool_idle_per_host,
        );
        Self {
            pool: Arc::new(pool),
            user_agent: options.user_agent,
        }
    }

    /// Sends a request and returns when the head of the answer has arrived. The URL must be absolute; `host`,
    /// `content-length` and `user-agent` are added. Redirects are answers like any other.
    ///
    /// Dropping the future cancels the request: an HTTP/1.1 connection is closed, an HTTP/2 stream is reset.
    ///
    /// # Errors
    /// See [`EgressError`]. A kept connection that turns out to be closed before the first byte of the request was
    /// written is replaced without an error; nothing else is tried twice.
    pub async fn send<B: Into<Bytes>>(
        &self,
        request: Request<B>,
    ) -> Result<Response<EgressBody>, EgressError> {
        let (mut parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(UrlError::Syntax.into());
        }
        let host = self.pool.host(&parts.uri)?;
        let url = std::mem::take(&mut parts.uri);
        let headers = &mut parts.headers;
        for name in FRAMING_HEADERS {
            headers.remove(name);
        }
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, self.user_agent.clone());
        }
        if let Some(authorization) = host
            .via_proxy
            .as_ref()
            .and_then(|p| p.authorization.as_ref())
        {
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let mut request = Request::from_parts(parts, Full::new(body.into()));
        loop {
            let unsent = match self.pool.checkout(&host).await? {
                Checkout::Http1 {
                    mut sender,
                    is_reused,
                } => {
                    *request.version_mut() = Version::HTTP_11;
                    *request.uri_mut() = if host.via_proxy.is_some() {
                        url.clone()
                    } else {
                        origin_form(&url)
                    };
                    if !request.headers().contains_key(HOST) {
                        request.headers_mut().insert(HOST, host.host_header.clone());
                    }
                    match sender.try_send_request(request).await {
                        Ok(response) => {
                            let pool = Arc::clone(&self.pool);
                            let lease = Lease::Http1 { sender, host, pool };
                            return Ok(response.map(|incoming| EgressBody::new(incoming, lease)));
                        }
                        Err(mut error) => (error.take_message(), error.into_error(), is_reused),
                    }
                }
                Checkout::Http2 {
                    mut sender,
                    stream,
                    is_reused,
                } => {
                    *request.version_mut() = Version::HTTP_2;
                    *request.uri_mut() = url.clone();
                    request.headers_mut().remove(HOST);
                    match sender.try_send_request(request).await {
                        Ok(response) => {
                            let lease = Lease::Http2 { _stream: stream };
                            return Ok(response.map(|incoming| EgressBody::new(incoming, lease)));
                        }
                        Err(mut error) => (error.take_message(), error.into_error(), is_reused),
                    }
                }
            };
            match unsent {
                (Some(returned), _, true) => request = returned,
                (returned, error, _) => {
                    return Err(EgressError::from_hyper(error, returned.is_none()));
                }
            }
        }
    }
}

fn origin_form(url: &Uri) -> Uri {
    match url.path_and_query() {
        Some(path) if path.as_str().starts_with('/') => path.clone().into(),
        Some(query) => {
            // `http://host?query`: an empty path is sent as `/` (RFC 9112, 3.2.1).
            let path = format!("/{query}");
            PathAndQuery::try_from(path).map_or_else(|_| Uri::from_static("/"), Uri::from)
        }
        None => Uri::from_static("/"),
    }
}
