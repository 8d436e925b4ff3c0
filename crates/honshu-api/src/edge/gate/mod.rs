//! The HTTP/1 framing gate: a second, strict reader in front of the parser.
//!
//! Request smuggling needs two readers who disagree. The parser behind this gate
//! follows the generous half of RFC 9112; proxies in front of us follow their own.
//! The gate lets only those bytes through that all of them must read alike, and it
//! knows where each message ends, so that bytes after a refused or finished
//! request never count as another one.
//!
//! It reads heads and chunk sizes, skips over bodies, and keeps no byte itself.

mod chunked;
mod head;

use super::limits::EdgeLimits;
use super::reply::Refusal;
use chunked::Chunked;
use head::HeadScan;

pub(super) use head::{is_field_name, is_valid_host};

/// How the body of a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyFraming {
    None,
    Fixed(u64),
    Chunked,
}

#[derive(Debug)]
enum State {
    /// Before the end of a head.
    Head(HeadScan),
    Fixed {
        remaining: u64,
    },
    Chunked(Chunked),
    /// After a refusal nothing passes any more.
    Refused(Refusal),
}

/// What [`Framer::advance`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advance {
    /// Bytes from the start of the input that may go on to the parser.
    pub(super) cleared: usize,
    /// Set if what follows them was refused.
    pub(super) refusal: Option<Refusal>,
}

/// Follows the framing of one connection's requests.
#[derive(Debug)]
pub(super) struct Framer {
    state: State,
}

impl Framer {
    pub(super) fn new() -> Self {
        Self {
            state: State::Head(HeadScan::default()),
        }
    }

    /// Whether the next byte belongs to a request head.
    pub(super) fn at_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Looks at input. While [`Framer::at_head`], the input must start at the
    /// first byte of the head, also if parts of it were looked at before;
    /// otherwise it must start at the first byte that was not cleared yet. Never
    /// goes beyond the end of one message: the rest is for the next call.
    ///
    /// A fault in the same input as the head refuses the request as a whole, so
    /// that no handler ever sees it.
    pub(super) fn advance(&mut self, input: &[u8], limits: &EdgeLimits) -> Advance {
        let mut cleared = 0;
        let mut head_in_input = false;
        loop {
            let rest = &input[cleared..];
            let step = match &mut self.state {
                State::Head(scan) => {
                    if head_in_input {
                        break;
                    }
                    match scan.advance(rest, limits) {
                        Ok(None) => break,
                        Ok(Some((length, framing))) => {
                            head_in_input = true;
                            cleared += length;
                            self.state = match framing {
                                BodyFraming::None | BodyFraming::Fixed(0) => {
                                    State::Head(HeadScan::default())
                                }
                                BodyFraming::Fixed(remaining) => State::Fixed { remaining },
                                BodyFraming::Chunked => State::Chunked(Chunked::default()),
                            };
                            continue;
                        }
                        Err(refusal) => Err(refusal),
                    }
                }
                State::Fixed { remaining } => {
                    let taken =
                        usize::try_from(*remaining).map_or(rest.len(), |r| r.min(rest.len()));
                    *remaining -= taken as u64;
                    Ok((taken, *remaining == 0))
                }
                State::Chunked(chunked) => chunked.advance(rest, limits),
                State::Refused(refusal) => {
                    return Advance {
                        cleared,
                        refusal: Some(*refusal),
                    };
                }
            };
            match step {
                Ok((taken, done)) => {
                    cleared += taken;
                    if done {
                        self.state = State::Head(HeadScan::default());
                    }
                    break;
                }
                Err(refusal) => {
                    self.state = State::Refused(refusal);
                    return Advance {
                        cleared: if head_in_input { 0 } else { cleared },
                        refusal: Some(refusal),
                    };
                }
            }
        }
        Advance {
            cleared,
            refusal: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes, as the reader does, and gives the
    /// messages that were let through.
    fn messages(input: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<Refusal>) {
        let limits = EdgeLimits::default();
        let mut framer = Framer::new();
        let mut held: Vec<u8> = Vec::new();
        let mut messages = Vec::new();
        let mut message = Vec::new();
        for piece in input.chunks(step) {
            held.extend_from_slice(piece);
            loop {
                let advance = framer.advance(&held, &limits);
                message.extend(held.drain(..advance.cleared));
                if advance.refusal.is_some() {
                    return (messages, advance.refusal);
                }
                if framer.at_head() && !message.is_empty() {
                    messages.push(std::mem::take(&mut message));
                }
                if advance.cleared == 0 || held.is_empty() {
                    break;
                }
            }
        }
        (messages, None)
    }

    #[test]
    fn messages_end_where_they_end_however_they_are_cut() {
        let parts: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n",
            b"DELETE /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 29\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nxx",
        ];
        let input = parts.concat();
        for step in 1..=input.len() {
            let (messages, refusal) = messages(&input, step);
            assert_eq!(refusal, None, "{step}");
            assert_eq!(messages, parts, "{step}");
        }
    }

    #[test]
    fn a_fault_in_the_body_refuses_the_request_if_it_came_with_the_head() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut framer = Framer::new();
        let limits = EdgeLimits::default();
        let mut whole = head.to_vec();
        whole.extend_from_slice(b"5\nhello");
        let advance = framer.advance(&whole, &limits);
        assert_eq!(advance.cleared, 0);
        assert!(advance.refusal.is_some());
        assert_eq!(
            framer
                .advance(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &limits)
                .cleared,
            0
        );

        let mut framer = Framer::new();
        assert_eq!(framer.advance(head, &limits).cleared, head.len());
        assert!(framer.advance(b"5\nhello", &limits).refusal.is_some());
    }
}
