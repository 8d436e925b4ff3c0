//! From a target to a connection: look up, check, dial, encrypt, all within one `connect_timeout`.
//!
//! The address rules are applied here and only here, to the addresses that are dialled in the next line.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::AddressRules;
use crate::error::EgressError;
use crate::proxy::{Proxy, ProxyRules};
use crate::stream::Stream;
use crate::target::Target;
use crate::tls::TlsConfig;

/// How long one address may take before the next is tried beside it ("Happy Eyeballs", RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How many addresses of one name are tried. A hostile name server must not make us dial hundreds.
const ADDRESSES_MAX: usize = 8;
/// When an idle connection is probed, and how often until it counts as dead. Finds peers that vanished during a long
/// silent stream after about a minute and a half.
const TCP_KEEPALIVE_TIME: Duration = Duration::from_secs(45);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Longest answer of a proxy to `CONNECT` that is read, in bytes.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

/// What [`Resolve::resolve`] returns.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Looks up names. The default asks the operating system; tests and special networks bring their own.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// All addresses of `host`, best first. Dropping the future gives up.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) rules: AddressRules,
    pub(crate) connect_timeout: Duration,
    pub(crate) tls: Arc<TlsConfig>,
    pub(crate) resolver: Option<Arc<dyn Resolve>>,
    pub(crate) proxies: ProxyRules,
}

/// A connection that is ready for the first request.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) is_http2: bool,
}

impl Connector {
    pub(crate) async fn connect(&self, target: &Target) -> Result<Connected, EgressError> {
        match tokio::time::timeout(self.connect_timeout, self.connect_unbounded(target)).await {
            Ok(result) => result,
            Err(_) => Err(EgressError::ConnectTimeout {
                authority: target.authority(),
                after: self.connect_timeout,
            }),
        }
    }

    async fn connect_unbounded(&self, target: &Target) -> Result<Connected, EgressError> {
        let (host, port) = (target.host(), target.port());
        let refused = |address, rule| EgressError::Refused {
            host: host.to_owned(),
            address,
            rule,
        };
        match target.ip() {
            Some(ip) => self
                .rules
                .check(host, port, ip)
                .map_err(|rule| refused(Some(ip), rule))?,
            None => self
                .rules
                .check_name(host, port)
                .map_err(|rule| refused(None, rule))?,
        }
        let failed = |source| EgressError::Connect {
            authority: target.authority(),
            source,
        };
        let tcp = match self.proxies.proxy_for(target) {
            // Through a proxy the name is looked up by the proxy, whose own rules then apply to the address.
            Some(proxy) => self.dial_proxy(proxy, target).await.map_err(failed)?,
            None => {
                let found = match target.ip() {
                    Some(ip) => vec![ip],
                    None => self.resolve(host).await.map_err(failed)?,
                };
                let mut first_refusal = None;
                let mut allowed = Vec::with_capacity(found.len());
                for ip in found {
                    match self.rules.check(host, port, ip) {
                        Ok(()) => allowed.push(ip),
                        Err(rule) => {
                            first_refusal.get_or_insert((ip, rule));
                        }
                    }
                }
                if allowed.is_empty()
                    && let Some((ip, rule)) = first_refusal
                {
                    return Err(refused(Some(ip), rule));
                }
                dial(&interleave(allowed), port).await.map_err(failed)?
            }
        };
        if target.is_tls() {
            self.encrypt(tcp, target).await
        } else {
            Ok(Connected {
                stream: Stream::Plain(tcp),
                is_http2: false,
            })
        }
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match &self.resolver {
            Some(resolver) => resolver.resolve(host).await,
            None => Ok(tokio::net::lookup_host((host, 0))
                .await?
                .map(|a| a.ip())
                .collect()),
        }
    }

    async fn encrypt(&self, tcp: TcpStream, target: &Target) -> Result<Connected, EgressError> {
        type Source = Box<dyn std::error::Error + Send + Sync>;
        let failed = |source: Source| EgressError::Tls {
            authority: target.authority(),
            source,
        };
        let tls = Arc::clone(&self.tls);
        let config = tokio::task::spawn_blocking(move || tls.get())
            .await
            .map_err(|e| failed(e.into()))?
            .map_err(|e| failed(e.into()))?;
        let name = match target.ip() {
            Some(ip) => ServerName::from(ip),
            None => ServerName::try_from(target.host().to_owned()).map_err(|e| failed(e.into()))?,
        };
        let stream = TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map_err(|e| failed(e.into()))?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected {
            stream: Stream::Tls(Box::new(stream)),
            is_http2,
        })
    }

    /// A connection to the proxy, and through it to the target if that is encrypted.
    async fn dial_proxy(&self, proxy: &Proxy, target: &Target) -> io::Result<TcpStream> {
        let found = match proxy.target.ip() {
            Some(ip) => vec![ip],
            None => self.resolve(proxy.target.host()).await?,
        };
        let mut tcp = dial(&interleave(found), proxy.target.port()).await?;
        if !target.is_tls() {
            return Ok(tcp);
        }
        let authority = target.authority();
        let mut head =
            format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n").into_bytes();
        if let Some(value) = &proxy.authorization {
            head.extend_from_slice(b"proxy-authorization: ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        tcp.write_all(&head).await?;
        read_connect_answer(&mut tcp).await?;
        Ok(tcp)
    }
}

/// Reads to the end of the head and not one byte further: what follows belongs to TLS.
async fn read_connect_answer(tcp: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == PROXY_HEAD_BYTES_MAX {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        head.push(tcp.read_u8().await?);
    }
    let status = head
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .unwrap_or_default();
    if status == b"200" {
        Ok(())
    } else {
        let status = String::from_utf8_lossy(status).into_owned();
        Err(io::Error::other(format!(
            "the proxy refused the connection with status {status}"
        )))
    }
}

/// IPv6 and IPv4 in turn, in the resolver's order otherwise, so that one broken family costs one delay.
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (a, b): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|ip| ip.is_ipv6() == first_is_v6);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(a.next());
        turns.extend(b.next());
        if turns.len() == before || turns.len() >= ADDRESSES_MAX {
            turns.truncate(ADDRESSES_MAX);
            return turns;
        }
    }
}

async fn dial(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(ip) = waiting.next() {
            running.push(dial_one(SocketAddr::new(*ip, port)));
        } else if running.is_empty() {
            return Err(last_error.unwrap_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")
            }));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            Some(result) = running.next() => match result {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last_error = Some(error),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => {}
        }
    }
}

async fn dial_one(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    // A request's last, small piece must not wait for the acknowledgement of the piece before it.
    tcp.set_nodelay(true)?;
    let probes = socket2::TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE_TIME)
        .with_interval(TCP_KEEPALIVE_INTERVAL);
    socket2::SockRef::from(&tcp).set_tcp_keepalive(&probes)?;
    Ok(tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_take_turns_and_are_bounded() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let turns = interleave(vec![
            ip("2600::1"),
            ip("2600::2"),
            ip("1.1.1.1"),
            ip("2600::3"),
        ]);
        assert_eq!(
            turns,
            [ip("2600::1"), ip("1.1.1.1"), ip("2600::2"), ip("2600::3")]
        );
        assert_eq!(interleave(vec![ip("1.1.1.1"); 100]).len(), ADDRESSES_MAX);
        assert!(interleave(Vec::new()).is_empty());
    }
}
