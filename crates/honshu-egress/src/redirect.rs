//! Following redirects, for downloads. Inference requests are never redirected.

use http::header::{AUTHORIZATION, COOKIE, LOCATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use crate::body::EgressBody;
use crate::client::Client;
use crate::error::EgressError;
use crate::target::{Target, parse_url};

/// One redirect on the way to the answer.
#[derive(Debug)]
pub struct Hop {
    /// The URL that was asked.
    pub url: Uri,
    /// Its status, 301 to 308.
    pub status: StatusCode,
    /// Its headers: hubs put the digest of the file here and not on the answer of the store behind them.
    pub headers: HeaderMap,
}

/// The answer at the end of a chain of redirects.
#[derive(Debug)]
pub struct Fetched {
    /// The first answer that is not a redirect.
    pub response: Response<EgressBody>,
    /// The URL that it came from.
    pub url: Uri,
    /// The redirects before it, first to last.
    pub hops: Vec<Hop>,
}

impl Client {
    /// Sends `GET` and follows up to `redirects_max` redirects. Every hop passes the address rules anew. Credentials
    /// are not sent to another scheme, host or port than the first, and encryption is never given up.
    ///
    /// # Errors
    /// As [`Client::send`], and [`EgressError::Redirect`].
    pub async fn get_following(
        &self,
        url: &Uri,
        mut headers: HeaderMap,
        redirects_max: usize,
    ) -> Result<Fetched, EgressError> {
        let mut url = url.clone();
        let mut target = Target::of(&url)?;
        let mut hops = Vec::new();
        loop {
            let mut request = Request::new(bytes::Bytes::new());
            *request.method_mut() = Method::GET;
            *request.uri_mut() = url.clone();
            *request.headers_mut() = headers.clone();
            let response = self.send(request).await?;
            if !is_followed(response.status()) {
                return Ok(Fetched {
                    response,
                    url,
                    hops,
                });
            }
            let refuse = |reason| EgressError::Redirect {
                authority: target.authority(),
                reason,
            };
            if hops.len() >= redirects_max {
                return Err(refuse("too many redirects"));
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|v| v.to_str().ok())
                .ok_or_else(|| refuse("it names no location"))?;
            let next = resolve_location(&url, location)
                .ok_or_else(|| refuse("its location is not a valid http or https URL"))?;
            let next_target = Target::of(&next)?;
            if target.is_tls() && !next_target.is_tls() {
                return Err(refuse("it leads from https to http"));
            }
            if next_target != target {
                for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                    headers.remove(name);
                }
            }
            let (parts, body) = response.into_parts();
            // A short body is read so that the connection can be used again; a long one is not worth it.
            let _ = body.collect_bounded(16 * 1024).await;
            hops.push(Hop {
                url,
                status: parts.status,
                headers: parts.headers,
            });
            (url, target) = (next, next_target);
        }
    }
}

fn is_followed(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Resolves a `location` against the URL that sent it (RFC 3986, 5.2).
fn resolve_location(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let has_scheme = location
        .find(':')
        .is_some_and(|at| !location[..at].contains(['/', '?']));
    let absolute = if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else {
        let path = base.path();
        let joined = if location.is_empty() {
            base.path_and_query()?.to_string()
        } else if location.starts_with('/') {
            location.to_owned()
        } else if location.starts_with('?') {
            format!("{path}{location}")
        } else {
            let directory = &path[..path.rfind('/').map_or(0, |at| at + 1)];
            format!("/{}{location}", directory.trim_start_matches('/'))
        };
        format!("{scheme}://{authority}{}", without_dots(&joined))
    };
    parse_url(&absolute).ok()
}

/// Removes `.` and `..` segments (RFC 3986, 5.2.4).
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut result = format!("/{}", kept.join("/"));
    if let Some(query) = query {
        result.push('?');
        result.push_str(query);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_as_the_standard_says() {
        let base: Uri = "https://hub.test/a/b/c?q=1".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.test/x?y=z", Some("https://cdn.test/x?y=z")),
            ("//cdn.test/x", Some("https://cdn.test/x")),
            ("/x/../y", Some("https://hub.test/y")),
            ("d", Some("https://hub.test/a/b/d")),
            ("../d#frag", Some("https://hub.test/a/d")),
            ("../../../../d", Some("https://hub.test/d")),
            ("?p=2", Some("https://hub.test/a/b/c?p=2")),
            ("", Some("https://hub.test/a/b/c?q=1")),
            ("ftp://cdn.test/x", None),
            ("file:///etc/passwd", None),
            ("https://user@cdn.test/", None),
            ("https://cdn.test\\@evil.test/", None),
            ("http://0x7f.1/", None),
        ] {
            let found = resolve_location(&base, location).map(|u| u.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }
}
