//! Where a URL leads, read strictly.
//!
//! Two programs that read one URL differently are how forged requests get through, so everything that the common
//! parsers disagree about is refused: user names before the host, backslashes, white space, numbers that mean an IPv4
//! address in some parsers only (decimal, octal, hexadecimal, short forms), percent signs and non-ASCII in the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::uri::{Authority, Scheme};

/// Longest URL that is read, in bytes. Signed download addresses of object stores reach about 2 KiB.
const URL_BYTES_MAX: usize = 16 * 1024;
/// Longest host name (RFC 1035, 2.3.4) and label in it, in bytes.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Why a URL is refused before anything is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Neither `http` nor `https`.
    #[error("the URL must begin with `http://` or `https://`")]
    Scheme,
    /// No host, or one that no name or address looks like.
    #[error("the URL has no valid host")]
    Host,
    /// A host that is a number in some parsers and a name in others.
    #[error(
        "the URL's host is a number; write an IPv4 address as four decimal numbers such as `192.0.2.1`"
    )]
    NumericHost,
    /// `user@` or `user:password@` before the host.
    #[error("the URL must not hold a user name or password; use a header or a token instead")]
    Userinfo,
    /// Port 0, empty, or above 65535.
    #[error("the URL's port must be between 1 and 65535")]
    Port,
    /// White space, control characters, backslashes or characters outside ASCII.
    #[error("the URL holds a character that is not allowed; percent-encode it")]
    Character,
    /// Longer than any real URL.
    #[error("the URL is longer than 16 KiB")]
    TooLong,
    /// Anything else.
    #[error("the URL is malformed")]
    Syntax,
}

/// The scheme, host and port of a URL that passed [`parse_url`]'s rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    tls: bool,
    host: String,
    ip: Option<IpAddr>,
    port: u16,
}

/// Reads a URL that came from outside: an operator, a user, a redirect.
///
/// # Errors
/// See [`UrlError`].
pub fn parse_url(text: &str) -> Result<Uri, UrlError> {
    if text.len() > URL_BYTES_MAX {
        return Err(UrlError::TooLong);
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err(UrlError::Character);
    }
    let rest = strip_prefix_ignore_case(text, "https://")
        .or_else(|| strip_prefix_ignore_case(text, "http://"))
        .ok_or(UrlError::Scheme)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(UrlError::Userinfo);
    }
    if authority.is_empty() {
        return Err(UrlError::Host);
    }
    check_port(authority)?;
    // A fragment is for the reader of the answer and is never sent.
    let sent = text.split('#').next().unwrap_or(text);
    let uri: Uri = sent.parse().map_err(|_| UrlError::Syntax)?;
    Target::of(&uri)?;
    Ok(uri)
}

impl Target {
    /// The target of a URL, checked by the same rules as [`parse_url`].
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn of(uri: &Uri) -> Result<Self, UrlError> {
        let scheme = uri.scheme().ok_or(UrlError::Scheme)?;
        let authority = uri.authority().ok_or(UrlError::Host)?;
        Self::of_parts(scheme, authority)
    }

    pub(crate) fn of_parts(scheme: &Scheme, authority: &Authority) -> Result<Self, UrlError> {
        let tls = if *scheme == Scheme::HTTPS {
            true
        } else if *scheme == Scheme::HTTP {
            false
        } else {
            return Err(UrlError::Scheme);
        };
        let text = authority.as_str();
        if text.contains('@') {
            return Err(UrlError::Userinfo);
        }
        check_port(text)?;
        let port = match authority.port() {
            Some(p) if p.as_u16() != 0 => p.as_u16(),
            Some(_) => return Err(UrlError::Port),
            None if tls => 443,
            None => 80,
        };
        let (host, ip) = parse_host(authority.host())?;
        Ok(Self {
            tls,
            host,
            ip,
            port,
        })
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host in lower case, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address, if the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The port, written or by default.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.ip {
            Some(IpAddr::V6(v6)) => format!("[{v6}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix)
        .then(|| &text[prefix.len()..])
}

fn check_port(authority: &str) -> Result<(), UrlError> {
    let after_host = match authority.rfind(']') {
        Some(end) => &authority[end + 1..],
        None => authority.find(':').map_or("", |at| &authority[at..]),
    };
    match after_host.strip_prefix(':') {
        None if after_host.is_empty() => Ok(()),
        None => Err(UrlError::Host),
        Some(port) => {
            let digits =
                !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
            match port.parse::<u16>() {
                Ok(1..) if digits => Ok(()),
                _ => Err(UrlError::Port),
            }
        }
    }
}

fn parse_host(host: &str) -> Result<(String, Option<IpAddr>), UrlError> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(UrlError::Host)?;
        // Zone identifiers (`%eth0`) and future address forms do not parse here, as they should not.
        let ip: Ipv6Addr = inner.parse().map_err(|_| UrlError::Host)?;
        return Ok((ip.to_string(), Some(ip.into())));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() || name.len() > HOST_BYTES_MAX {
        return Err(UrlError::Host);
    }
    let mut last = "";
    for label in name.split('.') {
        let valid = !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !valid {
            return Err(UrlError::Host);
        }
        last = label;
    }
    // The WHATWG URL standard reads a host whose last label is a number as an IPv4 address, in any base and with any
    // number of parts. Only the one form that every parser agrees on is taken.
    let hex = last.get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"))
        && last[2..].bytes().all(|b| b.is_ascii_hexdigit());
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        if name.len() != host.len() {
            return Err(UrlError::NumericHost);
        }
        let ip: Ipv4Addr = name.parse().map_err(|_| UrlError::NumericHost)?;
        return Ok((ip.to_string(), Some(ip.into())));
    }
    Ok((name.to_ascii_lowercase(), None))
}
