//! The request head (RFC 9112, sections 2 to 3 and 5), read line by line and strictly.

use std::ops::Range;

use super::super::limits::EdgeLimits;
use super::super::reply::Refusal;
use super::BodyFraming;

/// Longest method, in bytes; the longest registered one has 17.
const METHOD_BYTES_MAX: usize = 24;

/// Longest `Host` value, in bytes: a DNS name and a port.
const HOST_BYTES_MAX: usize = 255 + 6;

/// Empty lines before a request line. RFC 9112, section 2.2: some old clients
/// send one after a body.
const BLANK_LINES_MAX: u8 = 2;

/// What has been learned from the lines of a head so far. Ranges are offsets from
/// the first byte of the head.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Where the line that is being read starts.
    line_start: usize,
    /// Bytes already searched for a line end.
    searched: usize,
    blank_lines: u8,
    has_request_line: bool,
    is_http10: bool,
    fields: usize,
    target_authority: Option<Range<usize>>,
    host: Option<Range<usize>>,
    content_length: Option<u64>,
    is_chunked: bool,
    has_upgrade: bool,
}

impl HeadScan {
    /// Reads the lines that are complete. `head` starts at the first byte of the
    /// head at every call and only grows.
    ///
    /// Gives the length of the head and the framing of its body at the end.
    pub(super) fn advance(
        &mut self,
        head: &[u8],
        limits: &EdgeLimits,
    ) -> Result<Option<(usize, BodyFraming)>, Refusal> {
        while let Some(found) = memchr::memchr(b'\n', &head[self.searched..]) {
            let line_feed = self.searched + found;
            let next = line_feed + 1;
            let line = match head[self.line_start..line_feed].split_last() {
                Some((b'\r', line)) => line,
                _ => return Err(Refusal::bad("a line ends in LF without CR")),
            };
            // The same for a head that arrives whole as for one that arrives in parts.
            if next > limits.header_bytes_max {
                return Err(self.too_large(next, limits));
            }
            if has_control(line) {
                return Err(Refusal::bad("the request head has a control character"));
            }
            let start = self.line_start;
            self.line_start = next;
            self.searched = next;
            if !self.has_request_line {
                if line.is_empty() {
                    self.blank_lines += 1;
                    if self.blank_lines > BLANK_LINES_MAX {
                        return Err(Refusal::bad("there are empty lines before the request"));
                    }
                    continue;
                }
                self.request_line(line, start, limits)?;
                self.has_request_line = true;
            } else if line.is_empty() {
                return self.finish(head).map(|framing| Some((next, framing)));
            } else {
                self.field(line, start, limits)?;
            }
        }
        self.searched = head.len();
        if head.len() > limits.header_bytes_max {
            return Err(self.too_large(head.len(), limits));
        }
        if !self.has_request_line
            && head.len() - self.line_start > limits.uri_bytes_max + METHOD_BYTES_MAX + 16
        {
            return Err(Refusal::URI_TOO_LONG);
        }
        Ok(None)
    }

    /// What is said of a head that has `length` bytes so far and no room for more.
    fn too_large(&self, length: usize, limits: &EdgeLimits) -> Refusal {
        if !self.has_request_line && length - self.line_start > limits.uri_bytes_max {
            Refusal::URI_TOO_LONG
        } else {
            Refusal::HEAD_TOO_LARGE
        }
    }

    fn request_line(
        &mut self,
        line: &[u8],
        start: usize,
        limits: &EdgeLimits,
    ) -> Result<(), Refusal> {
        let malformed = Refusal::bad("the request line is malformed");
        let method_end = memchr::memchr(b' ', line).ok_or(malformed)?;
        let method = &line[..method_end];
        if method.is_empty()
            || method.len() > METHOD_BYTES_MAX
            || !method.iter().all(|b| is_token(*b))
        {
            return Err(malformed);
        }
        let rest = &line[method_end + 1..];
        let target_end = memchr::memchr(b' ', rest).ok_or(malformed)?;
        let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
        if target.len() > limits.uri_bytes_max {
            return Err(Refusal::URI_TOO_LONG);
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.is_http10 = true,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(Refusal::new(
                    505,
                    "HttpVersionNotSupported",
                    "this version of HTTP is not supported on this connection",
                ));
            }
            _ => return Err(malformed),
        }
        if method == b"CONNECT" {
            return Err(Refusal::CONNECT);
        }
        if !target.iter().all(|b| is_target_byte(*b)) {
            return Err(Refusal::bad(
                "the request target has a character that must be percent-encoded",
            ));
        }
        match target {
            [b'/', ..] => Ok(()),
            b"*" if method == b"OPTIONS" => Ok(()),
            _ => {
                let scheme = ["http://", "https://"]
                    .into_iter()
                    .find(|scheme| {
                        target.len() > scheme.len()
                            && target[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes())
                    })
                    .ok_or(Refusal::bad("the request target is malformed"))?;
                let after = &target[scheme.len()..];
                let end = memchr::memchr2(b'/', b'?', after).unwrap_or(after.len());
                if !is_valid_host(&after[..end]) {
                    return Err(Refusal::bad(
                        "the authority of the request target is malformed",
                    ));
                }
                let from = start + method_end + 1 + scheme.len();
                self.target_authority = Some(from..from + end);
                Ok(())
            }
        }
    }

    fn field(&mut self, line: &[u8], start: usize, limits: &EdgeLimits) -> Result<(), Refusal> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Refusal::bad("a header field is folded over two lines"));
        }
        self.fields += 1;
        if self.fields > limits.header_fields_max {
            return Err(Refusal::HEAD_TOO_LARGE);
        }
        let colon =
            memchr::memchr(b':', line).ok_or(Refusal::bad("a header field has no colon"))?;
        let name = &line[..colon];
        if !is_field_name(name) {
            return Err(Refusal::FIELD_NAME);
        }
        // Most names differ from ours in length, so this is one comparison for them.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                let value = line[colon + 1..].trim_ascii();
                if self.host.is_some() {
                    return Err(Refusal::TWO_HOSTS);
                }
                if !is_valid_host(value) {
                    return Err(Refusal::BAD_HOST);
                }
                let leading = line[colon + 1..].len() - line[colon + 1..].trim_ascii_start().len();
                let from = start + colon + 1 + leading;
                self.host = Some(from..from + value.len());
            }
            6 if name.eq_ignore_ascii_case(b"expect")
                && !line[colon + 1..]
                    .trim_ascii()
                    .eq_ignore_ascii_case(b"100-continue") =>
            {
                return Err(Refusal::new(
                    417,
                    "ExpectationFailed",
                    "only `Expect: 100-continue` is supported",
                ));
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.has_upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.content_length.is_some() {
                    return Err(Refusal::bad("there is more than one `Content-Length`"));
                }
                let value = line[colon + 1..].trim_ascii();
                self.content_length =
                    Some(decimal(value).ok_or(Refusal::bad("`Content-Length` is not a number"))?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.is_chunked {
                    return Err(Refusal::bad("there is more than one `Transfer-Encoding`"));
                }
                if !line[colon + 1..]
                    .trim_ascii()
                    .eq_ignore_ascii_case(b"chunked")
                {
                    return Err(Refusal::new(
                        501,
                        "NotImplemented",
                        "no `Transfer-Encoding` other than `chunked` is supported",
                    ));
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&self, head: &[u8]) -> Result<BodyFraming, Refusal> {
        let host = self.host.clone().ok_or(Refusal::NO_HOST)?;
        if let Some(authority) = self.target_authority.clone()
            && !head[authority].eq_ignore_ascii_case(&head[host])
        {
            return Err(Refusal::HOST_DIFFERS);
        }
        if self.is_chunked {
            if self.content_length.is_some() {
                return Err(Refusal::bad(
                    "there are both `Content-Length` and `Transfer-Encoding`",
                ));
            }
            if self.is_http10 {
                return Err(Refusal::bad("HTTP/1.0 has no `Transfer-Encoding`"));
            }
        }
        let framing = match self.content_length {
            _ if self.is_chunked => BodyFraming::Chunked,
            Some(length) => BodyFraming::Fixed(length),
            None => BodyFraming::None,
        };
        if self.has_upgrade && !matches!(framing, BodyFraming::None | BodyFraming::Fixed(0)) {
            return Err(Refusal::bad("a request with `Upgrade` may not have a body"));
        }
        Ok(framing)
    }
}

/// Any byte that may not stand in a line: controls other than the tab.
pub(super) fn has_control(line: &[u8]) -> bool {
    // Without a branch in the loop the compiler makes it sixteen bytes at a time.
    line.iter().fold(0_u8, |found, byte| {
        found | u8::from((*byte < 0x20) & (*byte != b'\t')) | u8::from(*byte == 0x7f)
    }) != 0
}

/// Digits only, and not more than fit.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A host name or address with an optional port (RFC 9110, section 7.2), without
/// user information. An underscore is taken because container networks use it.
pub(in super::super) fn is_valid_host(value: &[u8]) -> bool {
    if value.is_empty() || value.len() > HOST_BYTES_MAX {
        return false;
    }
    let (name, port) = if value[0] == b'[' {
        let Some(end) = memchr::memchr(b']', value) else {
            return false;
        };
        let inner = &value[1..end];
        if inner.len() < 2
            || !inner.contains(&b':')
            || !inner
                .iter()
                .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        {
            return false;
        }
        (&value[..0], &value[end + 1..])
    } else {
        let end = memchr::memchr(b':', value).unwrap_or(value.len());
        if end == 0 {
            return false;
        }
        (&value[..end], &value[end..])
    };
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => {
            (1..=5).contains(&digits.len()) && decimal(digits).is_some_and(|p| p <= 65_535)
        }
        _ => false,
    };
    port_ok
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// `tchar` of RFC 9110, section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// A token without underscores: proxies that turn names into variables cannot tell
/// `x_y` from `x-y`, so one of them can pretend to be the other.
pub(in super::super) fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token(*byte) && *byte != b'_')
}

/// Visible ASCII without what RFC 3986 never allows and other readers rewrite.
fn is_target_byte(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\')
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the loop")]
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "a",
            "A.example",
            "127.0.0.1:8080",
            "localhost:0",
            "[::1]",
            "[::1]:8080",
            "[::ffff:1.2.3.4]:65535",
            "my_service:80",
            "xn--wgv71a.example",
        ] {
            assert!(is_valid_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:", "a:x", "a:65536", "a:000080", "a/", "a/?x=", "a b", "a,b", "u@a",
            "a#", "a?", "[::1", "::1", "[::1]x", "[::1]:", "[]", "[g::1]", "a:1:2", "\u{e4}",
            "%41",
        ] {
            assert!(!is_valid_host(bad.as_bytes()), "{bad}");
        }
        assert!(!is_valid_host(&[b'a'; HOST_BYTES_MAX + 1]));
    }

    #[test]
    fn limits_have_their_own_status() {
        let limits = EdgeLimits::default();
        let status = |head: Vec<u8>| {
            HeadScan::default()
                .advance(&head, &limits)
                .err()
                .map(|refusal| refusal.status().as_u16())
        };
        let request = |target: usize, fields: usize, field: usize| {
            let mut head = b"GET /".to_vec();
            head.extend(vec![b'x'; target]);
            head.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\n");
            for _ in 0..fields {
                head.extend_from_slice(b"x: ");
                head.extend(vec![b'y'; field]);
                head.extend_from_slice(b"\r\n");
            }
            head.extend_from_slice(b"\r\n");
            head
        };
        assert_eq!(status(request(8191, 0, 0)), None);
        assert_eq!(status(request(8192, 0, 0)), Some(414));
        assert_eq!(status(request(0, 99, 0)), None);
        assert_eq!(status(request(0, 100, 0)), Some(431));
        assert_eq!(status(request(0, 3, 15_000)), Some(431));
        let most = 32 * 1024 - request(0, 1, 0).len();
        assert_eq!(status(request(0, 1, most)), None);
        assert_eq!(status(request(0, 1, most + 1)), Some(431));
        assert_eq!(status(request(40_000, 1, 0)), Some(414));
        // Without a line end there is nothing to wait for.
        assert_eq!(status(vec![b'x'; 9000]), Some(414));
        assert_eq!(
            status([b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'y'; 33_000]].concat()),
            Some(431)
        );
    }
}
