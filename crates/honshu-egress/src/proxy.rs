//! Forward proxies, as the environment names them.
//!
//! Only `http://` proxies are spoken to, which is what `HTTP_PROXY` and `HTTPS_PROXY` hold in practice. Requests to
//! `https` targets pass through `CONNECT`, so the proxy sees the host and the port and nothing else.

use std::fmt;

use base64::Engine as _;
use http::HeaderValue;

use crate::target::{Target, UrlError, parse_url};

/// A proxy setting that cannot be used. The text never holds the setting itself, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not an `http://` URL.
    #[error("the proxy setting is not usable: {0}")]
    Url(#[from] UrlError),
    /// `https://`, `socks5://` and others.
    #[error("only `http://` proxies are supported")]
    Scheme,
}

/// Which requests go through which proxy. The default is none.
#[derive(Debug, Clone, Default)]
pub struct ProxyRules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) target: Target,
    pub(crate) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.target).finish()
    }
}

impl ProxyRules {
    /// The rules of `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case of letters.
    ///
    /// # Errors
    /// If a proxy is set that cannot be used: going around it in silence would be worse.
    pub fn from_env() -> Result<Self, ProxyError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// All requests but those to this machine go through one proxy, given as `http://[user:password@]host:port`.
    ///
    /// # Errors
    /// If the setting cannot be used.
    pub fn all_through(proxy: &str) -> Result<Self, ProxyError> {
        let proxy = Proxy::parse(proxy)?;
        Ok(Self {
            http: Some(proxy.clone()),
            https: Some(proxy),
            exceptions: Vec::new(),
        })
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let value = |name: &str| {
            lookup(&name.to_ascii_lowercase())
                .or_else(|| lookup(name))
                .filter(|v| !v.trim().is_empty())
        };
        let all = value("ALL_PROXY");
        let proxy = |name| {
            value(name)
                .or_else(|| all.clone())
                .map(|v| Proxy::parse(v.trim()))
                .transpose()
        };
        let exceptions = value("NO_PROXY").unwrap_or_default();
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            exceptions: exceptions
                .split(',')
                .map(|e| e.trim().to_ascii_lowercase())
                .filter(|e| !e.is_empty())
                .collect(),
        })
    }

    pub(crate) fn proxy_for(&self, target: &Target) -> Option<&Proxy> {
        let proxy = if target.is_tls() {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        }?;
        let direct = target.ip().is_some_and(|ip| ip.is_loopback())
            || target.host() == "localhost"
            || self.exceptions.iter().any(|e| excepts(e, target));
        (!direct).then_some(proxy)
    }
}

/// `*`, `host`, `.domain`, `domain` (with everything below it), each with or without `:port`.
fn excepts(exception: &str, target: &Target) -> bool {
    if exception == "*" {
        return true;
    }
    let (name, port) = match exception.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.parse::<u16>().is_ok() => {
            (name, port.parse().ok())
        }
        _ => (exception, None),
    };
    if port.is_some_and(|p: u16| p != target.port()) {
        return false;
    }
    let name = name
        .strip_prefix("*.")
        .or_else(|| name.strip_prefix('.'))
        .unwrap_or(name);
    let host = target.host();
    host == name
        || host
            .strip_suffix(name)
            .is_some_and(|head| head.ends_with('.'))
}

impl Proxy {
    fn parse(setting: &str) -> Result<Self, ProxyError> {
        let rest = match setting.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(ProxyError::Scheme),
            None => setting,
        };
        let rest = rest.trim_end_matches('/');
        let (userinfo, authority) = match rest.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, rest),
        };
        let uri = parse_url(&format!("http://{authority}/"))?;
        let authorization = userinfo
            .map(|u| {
                let encoded = base64::engine::general_purpose::STANDARD.encode(percent_decode(u));
                let mut value = HeaderValue::try_from(format!("Basic {encoded}"))
                    .map_err(|_| ProxyError::Url(UrlError::Userinfo))?;
                value.set_sensitive(true);
                Ok::<_, ProxyError>(value)
            })
            .transpose()?;
        Ok(Self {
            target: Target::of(&uri)?,
            authorization,
        })
    }
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| {
                text.get(at + 1..at + 3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            })
            .flatten();
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(vars: &[(&str, &str)]) -> Result<ProxyRules, ProxyError> {
        ProxyRules::from_lookup(|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    fn via(rules: &ProxyRules, url: &str) -> Option<String> {
        let target = Target::of(&parse_url(url).unwrap()).unwrap();
        rules.proxy_for(&target).map(|p| p.target.authority())
    }

    #[test]
    fn exceptions_are_honoured() {
        let rules = rules(&[
            ("HTTPS_PROXY", "http://proxy.test:3128"),
            ("http_proxy", "plain.test:8080"),
            (
                "NO_PROXY",
                "internal.test, .corp.test,only.test:8443,10.0.0.1",
            ),
        ])
        .unwrap();
        for (url, proxy) in [
            ("https://example.com/", Some("proxy.test:3128")),
            ("http://example.com/", Some("plain.test:8080")),
            ("https://internal.test/", None),
            ("https://a.internal.test/", None),
            ("https://notinternal.test/", Some("proxy.test:3128")),
            ("https://x.corp.test/", None),
            ("https://only.test:8443/", None),
            ("https://only.test/", Some("proxy.test:3128")),
            ("https://10.0.0.1/", None),
            ("https://127.0.0.1/", None),
            ("http://localhost:9/", None),
        ] {
            assert_eq!(via(&rules, url).as_deref(), proxy, "{url}");
        }
    }

    #[test]
    fn a_password_is_encoded_and_not_printed() {
        let rules = rules(&[("https_proxy", "http://ann:p%40ss@proxy.test:3128/")]).unwrap();
        let proxy = rules.https.as_ref().unwrap();
        assert_eq!(
            proxy.authorization.as_ref().unwrap().as_bytes(),
            b"Basic YW5uOnBAc3M="
        );
        assert!(!format!("{rules:?}").contains("YW5u"));
    }

    #[test]
    fn unusable_settings_are_errors() {
        assert_eq!(
            rules(&[("ALL_PROXY", "socks5://p:1080")]).unwrap_err(),
            ProxyError::Scheme
        );
        assert!(rules(&[("HTTPS_PROXY", "http://:3128")]).is_err());
        assert!(rules(&[("HTTPS_PROXY", "")]).unwrap().https.is_none());
    }
}
