//! Cuts an upstream's bytes into the data of its events, without a copy where the event is one line.

use bytes::{Buf, Bytes, BytesMut};

/// The largest event that is taken, in bytes: a whole Responses object with images inside fits.
pub(crate) const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The byte order mark that a stream may begin with (WHATWG, server-sent events).
const BOM: &[u8] = b"\xef\xbb\xbf";

/// An event is larger than [`EVENT_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Collects bytes and gives out the data of whole events. Comments, ids and names are passed over.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    /// Where the line under way starts, and how far it was searched for its end.
    line: usize,
    searched: usize,
    /// The places of the event's data lines in `buffer`.
    data: Vec<(usize, usize)>,
    begun: bool,
}

impl Splitter {
    /// Takes more bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.buffer.len() + bytes.len() > EVENT_BYTES_MAX + 64 * 1024 {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        if !self.begun && self.buffer.len() >= BOM.len() {
            self.begun = true;
            if self.buffer.starts_with(BOM) {
                self.buffer.advance(BOM.len());
            }
        }
        Ok(())
    }

    /// The data of the next whole event.
    pub(crate) fn next_event(&mut self) -> Option<Bytes> {
        while self.begun {
            let found = memchr::memchr(b'\n', &self.buffer[self.searched..]);
            let Some(offset) = found else {
                self.searched = self.buffer.len();
                return None;
            };
            let end = self.searched + offset;
            let text_end = if end > self.line && self.buffer[end - 1] == b'\r' {
                end - 1
            } else {
                end
            };
            let line = &self.buffer[self.line..text_end];
            if line.is_empty() {
                let event = self.take_event(end + 1);
                self.line = 0;
                self.searched = 0;
                self.data.clear();
                if event.is_some() {
                    return event;
                }
                continue;
            }
            if let Some(value) = line.strip_prefix(b"data:") {
                let space = usize::from(value.first() == Some(&b' '));
                self.data.push((self.line + 5 + space, text_end));
            }
            self.line = end + 1;
            self.searched = end + 1;
        }
        None
    }

    fn take_event(&mut self, length: usize) -> Option<Bytes> {
        let event = self.buffer.split_to(length).freeze();
        match self.data.as_slice() {
            [] => None,
            [(start, end)] => Some(event.slice(*start..*end)),
            several => {
                let mut joined = BytesMut::new();
                for (index, (start, end)) in several.iter().enumerate() {
                    if index > 0 {
                        joined.extend_from_slice(b"\n");
                    }
                    joined.extend_from_slice(&event[*start..*end]);
                }
                Some(joined.freeze())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(input: &[u8], step: usize) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for piece in input.chunks(step.max(1)) {
            splitter.push(piece).unwrap();
            while let Some(event) = splitter.next_event() {
                events.push(String::from_utf8_lossy(&event).into_owned());
            }
        }
        events
    }

    #[test]
    fn events_come_out_whole_however_they_are_cut() {
        let input = "\u{feff}: hello\r\ndata: {\"a\":\"日本\"}\r\n\r\nevent: x\ndata:one\ndata: two\n\n: keepalive\n\nid: 3\n\ndata: [DONE]\n\ndata: cut".as_bytes();
        for step in 1..=input.len() {
            assert_eq!(split(input, step), ["{\"a\":\"日本\"}", "one\ntwo", "[DONE]"], "{step}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut splitter = Splitter::default();
        let piece = vec![b'x'; 1024 * 1024];
        let refused = (0..20).find(|_| splitter.push(&piece).is_err());
        assert_eq!(refused, Some(16));
    }

    proptest! {
        /// The well-kept decoder and this one agree on what the events are.
        #[test]
        fn agrees_with_sse_stream(lines in prop::collection::vec("(data: ?[a-z{}:\" ]{0,12}|: c|event: e|)", 0..30), step in 1_usize..40) {
            let mut input = lines.join("\n");
            input.push_str("\n\n");
            let ours = split(input.as_bytes(), step);
            let chunks: Vec<Result<Bytes, std::io::Error>> = input.as_bytes().chunks(step).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let theirs = futures_util::FutureExt::now_or_never(async {
                use futures_util::StreamExt;
                let mut stream = sse_stream::SseStream::from_bytes_stream(futures_util::stream::iter(chunks));
                let mut events = Vec::new();
                while let Some(Ok(event)) = stream.next().await {
                    if let Some(data) = event.data {
                        events.push(data);
                    }
                }
                events
            }).unwrap();
            prop_assert_eq!(ours, theirs);
        }
    }
}
