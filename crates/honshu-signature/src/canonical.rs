//! The signing string: what exactly is signed.

use http::{HeaderMap, Method};

use crate::error::SignatureError;
use crate::header::REQUEST_TARGET;

/// The parts of a request that a signature can cover.
#[derive(Clone, Copy)]
pub struct CanonicalRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query exactly as on the request line, still percent-encoded and
    /// not normalised.
    pub raw_target: &'a str,
    /// All request headers. For HTTP/2 the caller adds `host` from `:authority`.
    pub headers: &'a HeaderMap,
}

impl CanonicalRequest<'_> {
    /// One line `name: value` for each covered name, joined by line feeds without
    /// a final one (draft-cavage-http-signatures-08, section 2.3).
    ///
    /// # Errors
    /// [`SignatureError::MissingHeader`] for a covered header that is absent, and
    /// [`SignatureError::AmbiguousHeader`] for one that stands twice: the draft
    /// would join the values, but no OCI client sends such a request, and a reader
    /// further on might use only one of them.
    pub fn signing_string<S: AsRef<str>>(&self, covered: &[S]) -> Result<Vec<u8>, SignatureError> {
        let mut text = Vec::with_capacity(256 + self.raw_target.len());
        for name in covered {
            let name = name.as_ref();
            if !text.is_empty() {
                text.push(b'\n');
            }
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            if name == REQUEST_TARGET {
                text.extend(self.method.as_str().bytes().map(|b| b.to_ascii_lowercase()));
                text.push(b' ');
                text.extend_from_slice(self.raw_target.as_bytes());
            } else {
                let value = self
                    .single(name)?
                    .ok_or_else(|| SignatureError::MissingHeader(name.to_owned()))?;
                text.extend_from_slice(value);
            }
        }
        Ok(text)
    }

    /// The value of a header that may stand at most once, without outer space.
    pub(crate) fn single(&self, name: &str) -> Result<Option<&[u8]>, SignatureError> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next();
        if values.next().is_some() {
            return Err(SignatureError::AmbiguousHeader(name.to_owned()));
        }
        Ok(first.map(|value| value.as_bytes().trim_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_follows_the_covered_list_and_the_target_stays_raw() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "127.0.0.1:18080".parse().unwrap());
        headers.insert("date", " Sun, 22 Nov 2026 12:19:46 GMT ".parse().unwrap());
        let request = CanonicalRequest {
            method: &Method::DELETE,
            raw_target: "//20160918/users/u/apiKeys/aa%3Abb?x=a%20b&y=%C3%BC",
            headers: &headers,
        };
        let text = request
            .signing_string(&["host", "(request-target)", "date"])
            .unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "host: 127.0.0.1:18080\n(request-target): delete //20160918/users/u/apiKeys/aa%3Abb?x=a%20b&y=%C3%BC\ndate: Sun, 22 Nov 2026 12:19:46 GMT"
        );
        assert_eq!(
            request.signing_string(&["x-date"]),
            Err(SignatureError::MissingHeader("x-date".into()))
        );
        headers.append("host", "other".parse().unwrap());
        let request = CanonicalRequest {
            method: &Method::GET,
            raw_target: "/",
            headers: &headers,
        };
        assert_eq!(
            request.signing_string(&["host"]),
            Err(SignatureError::AmbiguousHeader("host".into()))
        );
    }
}
