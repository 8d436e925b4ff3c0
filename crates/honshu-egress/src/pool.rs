//! Open connections, by target.
//!
//! HTTP/1.1 connections serve one request at a time: the most recently used idle one is taken, so that the others can
//! age and be closed. HTTP/2 connections are shared; when one carries as many streams as peers commonly allow, another is
//! opened beside it, because one connection for each target would cap a busy upstream at about a hundred streams.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::connect::{Connected, Connector};
use crate::error::EgressError;
use crate::target::{Target, UrlError};

pub(crate) type RequestBody = Full<Bytes>;
pub(crate) type Http1 = http1::SendRequest<RequestBody>;
pub(crate) type Http2 = http2::SendRequest<RequestBody>;

/// HTTP/2 connections opened to one target before streams queue on them.
const HTTP2_CONNECTIONS_MAX: usize = 16;
/// Streams on one connection. The HTTP/2 specification advises peers to allow at least this many (RFC 9113, 6.5.2), and
/// most public services allow exactly this many.
const HTTP2_STREAMS_MAX: usize = 100;
/// Pings on an HTTP/2 connection that has streams, to find a peer that vanished.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection whose answer was just read may take to be ready again. Its task runs on another thread and
/// needs microseconds; opening a connection instead would cost both sides more.
const READY_GRACE: Duration = Duration::from_millis(5);
/// Targets remembered at once; idle ones are forgotten by the reaper.
const HOSTS_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) connector: Connector,
    pub(crate) idle_timeout: Duration,
    pub(crate) idle_per_host_max: usize,
    hosts: RwLock<Hosts>,
    reaping: AtomicBool,
}

/// Two maps, so that a look-up borrows the request's authority and allocates nothing.
#[derive(Debug, Default)]
struct Hosts {
    plain: HashMap<Authority, Arc<Host>>,
    tls: HashMap<Authority, Arc<Host>>,
}

/// Everything that is the same for all requests to one target.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) target: Target,
    pub(crate) host_header: HeaderValue,
    /// Set when plain requests go through a proxy, which wants the whole URL in the request line.
    pub(crate) via_proxy: Option<ViaProxy>,
    state: Mutex<State>,
    /// Held while the first connection to an encrypted target is made, so that a burst of requests to an HTTP/2 target
    /// ends up on one connection.
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(crate) struct ViaProxy {
    pub(crate) authorization: Option<HeaderValue>,
}

#[derive(Debug, Default)]
struct State {
    http1: VecDeque<IdleHttp1>,
    http2: Vec<SharedHttp2>,
    is_known_http1: bool,
}

#[derive(Debug)]
struct IdleHttp1 {
    sender: Http1,
    since: Instant,
}

#[derive(Debug)]
struct SharedHttp2 {
    sender: Http2,
    streams: Arc<AtomicUsize>,
    last_used: Instant,
}

/// The right to send one request on one connection.
#[derive(Debug)]
pub(crate) enum Checkout {
    Http1 {
        sender: Http1,
        is_reused: bool,
    },
    Http2 {
        sender: Http2,
        stream: StreamGuard,
        is_reused: bool,
    },
}

/// Counts one HTTP/2 stream until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamGuard(Arc<AtomicUsize>);

impl StreamGuard {
    fn new(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Picked {
    Ready(Checkout),
    /// A connection whose last answer has been read but whose task has not come round yet.
    Almost(Http1),
    Nothing,
}

impl Pool {
    pub(crate) fn new(
        connector: Connector,
        idle_timeout: Duration,
        idle_per_host_max: usize,
    ) -> Self {
        Self {
            connector,
            idle_timeout,
            idle_per_host_max,
            hosts: RwLock::default(),
            reaping: AtomicBool::new(false),
        }
    }

    pub(crate) fn host(&self, uri: &Uri) -> Result<Arc<Host>, EgressError> {
        let scheme = uri.scheme().ok_or(UrlError::Scheme)?;
        let authority = uri.authority().ok_or(UrlError::Host)?;
        {
            let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
            let map = if *scheme == Scheme::HTTPS {
                &hosts.tls
            } else {
                &hosts.plain
            };
            if let Some(host) = map.get(authority)
                && (*scheme == Scheme::HTTPS || *scheme == Scheme::HTTP)
            {
                return Ok(Arc::clone(host));
            }
        }
        let target = Target::of_parts(scheme, authority)?;
        let host = Arc::new(Host {
            host_header: HeaderValue::from_str(authority.as_str()).map_err(|_| UrlError::Host)?,
            via_proxy: match self.connector.proxies.proxy_for(&target) {
                Some(proxy) if !target.is_tls() => Some(ViaProxy {
                    authorization: proxy.authorization.clone(),
                }),
                _ => None,
            },
            state: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
            target,
        });
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        let map = if host.target.is_tls() {
            &mut hosts.tls
        } else {
            &mut hosts.plain
        };
        if map.len() >= HOSTS_MAX {
            map.retain(|_, h| Arc::strong_count(h) > 1 || !h.state().is_empty());
        }
        if map.len() >= HOSTS_MAX {
            // Still full of busy targets: this one goes without keep-alive.
            return Ok(host);
        }
        Ok(Arc::clone(map.entry(authority.clone()).or_insert(host)))
    }

    /// A connection that was used before, or else a new one.
    pub(crate) async fn checkout(
        self: &Arc<Self>,
        host: &Arc<Host>,
    ) -> Result<Checkout, EgressError> {
        match host.pick(self.idle_timeout) {
            Picked::Ready(checkout) => Ok(checkout),
            Picked::Almost(mut sender) => {
                match tokio::time::timeout(READY_GRACE, sender.ready()).await {
                    Ok(Ok(())) => Ok(Checkout::Http1 {
                        sender,
                        is_reused: true,
                    }),
                    // Closed, or the peer does not read the rest of the last request: not worth keeping.
                    _ => Box::pin(self.dial_in_turn(host)).await,
                }
            }
            // Boxed: connecting is rare and its state is large.
            Picked::Nothing => Box::pin(self.dial_in_turn(host)).await,
        }
    }

    async fn dial_in_turn(self: &Arc<Self>, host: &Arc<Host>) -> Result<Checkout, EgressError> {
        let _turn = if host.target.is_tls() && !host.state().is_known_http1 {
            let turn = host.dialing.lock().await;
            if let Picked::Ready(checkout) = host.pick(self.idle_timeout) {
                return Ok(checkout);
            }
            Some(turn)
        } else {
            None
        };
        self.dial(host).await
    }

    async fn dial(self: &Arc<Self>, host: &Arc<Host>) -> Result<Checkout, EgressError> {
        let Connected { stream, is_http2 } = self.connector.connect(&host.target).await?;
        self.start_reaper();
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(HTTP2_PING_INTERVAL)
                .keep_alive_timeout(HTTP2_PING_TIMEOUT)
                .handshake(io)
                .await
                .map_err(|e| EgressError::from_hyper(e, false))?;
            #[expect(
                clippy::disallowed_methods,
                reason = "the task ends with its connection, which the pool owns by the sender"
            )]
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an upstream HTTP/2 connection ended with an error");
                }
            });
            let streams = Arc::new(AtomicUsize::new(0));
            let stream = StreamGuard::new(&streams);
            let shared = SharedHttp2 {
                sender: sender.clone(),
                streams,
                last_used: Instant::now(),
            };
            host.state().http2.push(shared);
            Ok(Checkout::Http2 {
                sender,
                stream,
                is_reused: false,
            })
        } else {
            let (sender, connection) = http1::Builder::new()
                .handshake(io)
                .await
                .map_err(|e| EgressError::from_hyper(e, false))?;
            #[expect(
                clippy::disallowed_methods,
                reason = "the task ends with its connection, which the pool owns by the sender"
            )]
            tokio::spawn(async move {
                // The request that was under way has been told the same error.
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an upstream connection ended with an error");
                }
            });
            host.state().is_known_http1 = true;
            Ok(Checkout::Http1 {
                sender,
                is_reused: false,
            })
        }
    }

    /// Takes back a connection whose answer was read to its end.
    pub(crate) fn release(&self, host: &Host, sender: Http1) {
        if sender.is_closed() || self.idle_per_host_max == 0 {
            return;
        }
        let mut state = host.state();
        if state.http1.len() >= self.idle_per_host_max {
            state.http1.pop_front();
        }
        state.http1.push_back(IdleHttp1 {
            sender,
            since: Instant::now(),
        });
    }

    /// One task for each pool closes what nobody used for `idle_timeout`. It ends with the pool.
    fn start_reaper(self: &Arc<Self>) {
        if self.reaping.swap(true, Ordering::Relaxed) {
            return;
        }
        let pool: Weak<Self> = Arc::downgrade(self);
        let pause = (self.idle_timeout / 2).max(Duration::from_millis(100));
        #[expect(
            clippy::disallowed_methods,
            reason = "the task ends by itself after the pool it holds weakly"
        )]
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.reap();
            }
        });
    }

    fn reap(&self) {
        let hosts: Vec<_> = {
            let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
            hosts
                .plain
                .values()
                .chain(hosts.tls.values())
                .cloned()
                .collect()
        };
        for host in hosts {
            host.state().retain_fresh(self.idle_timeout);
        }
    }
}

impl Host {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing can panic half way through a change of the state, so a poisoned lock holds good data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pick(&self, idle_timeout: Duration) -> Picked {
        let mut state = self.state();
        let state = &mut *state;
        let mut almost = None;
        while let Some(idle) = state.http1.pop_back() {
            if idle.sender.is_closed() || idle.since.elapsed() >= idle_timeout {
                continue;
            }
            if idle.sender.is_ready() {
                if let Some(other) = almost {
                    state.http1.push_back(other);
                }
                return Picked::Ready(Checkout::Http1 {
                    sender: idle.sender,
                    is_reused: true,
                });
            }
            if almost.is_some() {
                // Two in a row are not ready: it is a busy moment, and searching on would hold the lock.
                state.http1.push_back(idle);
                break;
            }
            almost = Some(idle);
        }
        if let Some(almost) = almost {
            return Picked::Almost(almost.sender);
        }
        state.http2.retain(|c| !c.sender.is_closed());
        let is_full = state.http2.len() >= HTTP2_CONNECTIONS_MAX;
        let mut best: Option<&mut SharedHttp2> = None;
        let mut best_streams = usize::MAX;
        for connection in &mut state.http2 {
            let streams = connection.streams.load(Ordering::Relaxed);
            if streams < HTTP2_STREAMS_MAX {
                // The first with room, not the emptiest, so that spare connections can age.
                best = Some(connection);
                break;
            }
            if is_full && streams < best_streams {
                best_streams = streams;
                best = Some(connection);
            }
        }
        match best {
            Some(connection) => {
                connection.last_used = Instant::now();
                Picked::Ready(Checkout::Http2 {
                    sender: connection.sender.clone(),
                    stream: StreamGuard::new(&connection.streams),
                    is_reused: true,
                })
            }
            None => Picked::Nothing,
        }
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.http1.is_empty() && self.http2.is_empty()
    }

    fn retain_fresh(&mut self, idle_timeout: Duration) {
        self.http1
            .retain(|c| !c.sender.is_closed() && c.since.elapsed() < idle_timeout);
        self.http2.retain(|c| {
            let is_idle = c.streams.load(Ordering::Relaxed) == 0;
            !c.sender.is_closed() && (!is_idle || c.last_used.elapsed() < idle_timeout)
        });
    }
}
