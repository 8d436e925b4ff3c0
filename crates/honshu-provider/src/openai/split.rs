//! Splits the bytes of a `text/event-stream` into the data of its events (WHATWG HTML, server-sent events).
//!
//! Nothing is copied unless an event comes in several network chunks or has several `data` lines. Only the data
//! is given out: in the OpenAI dialects the event's name is in it as well. Bounded: an event larger than the limit
//! is an error, not memory.

use bytes::{Buf as _, Bytes, BytesMut};

/// An event was larger than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Splits one stream. Call [`Splitter::push`] with a chunk, then [`Splitter::next`] until it gives `None`.
#[derive(Debug)]
pub struct Splitter {
    chunk: Bytes,
    /// The beginning of a line whose end has not come yet.
    line: BytesMut,
    data: Data,
    /// A carriage return ended the last line: a line feed right after it belongs to it.
    skip_line_feed: bool,
    at_start: bool,
    bytes_max: usize,
}

#[derive(Debug)]
enum Data {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(data) => data.len(),
            Self::Many(data) => data.len(),
        }
    }

    fn add(&mut self, value: Bytes) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(value),
            Self::One(first) => {
                let mut both = BytesMut::with_capacity(first.len() + value.len() + 1);
                both.extend_from_slice(&first);
                both.extend_from_slice(b"\n");
                both.extend_from_slice(&value);
                Self::Many(both)
            }
            Self::Many(mut all) => {
                all.extend_from_slice(b"\n");
                all.extend_from_slice(&value);
                Self::Many(all)
            }
        };
    }

    fn take(&mut self) -> Option<Bytes> {
        let data = match std::mem::replace(self, Self::None) {
            Self::None => return None,
            Self::One(data) => data,
            Self::Many(data) => data.freeze(),
        };
        (!data.is_empty()).then_some(data)
    }
}

impl Splitter {
    /// A splitter for events of at most `bytes_max` bytes of data.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            chunk: Bytes::new(),
            line: BytesMut::new(),
            data: Data::None,
            skip_line_feed: false,
            at_start: true,
            bytes_max,
        }
    }

    /// Takes the next chunk. The one before must have been used up.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the last chunk was not used up");
        self.chunk = chunk;
    }

    /// The data of the next event; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`TooLong`]; the stream is of no use after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "`None` means more bytes are needed, not the end"
    )]
    pub fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        while let Some(line) = self.take_line()? {
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
            } else {
                self.take_field(line);
            }
        }
        Ok(None)
    }

    /// The stream ended in good order: an event whose closing blank line is missing is given out as well, because
    /// some servers forget it. Whoever reads the data sees whether it is whole.
    pub fn finish(&mut self) -> Option<Bytes> {
        let line = self.line.split().freeze();
        if !line.is_empty() {
            self.take_field(line);
        }
        self.data.take()
    }

    fn take_line(&mut self) -> Result<Option<Bytes>, TooLong> {
        if self.skip_line_feed && !self.chunk.is_empty() {
            self.skip_line_feed = false;
            if self.chunk[0] == b'\n' {
                self.chunk.advance(1);
            }
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', &self.chunk) else {
            let rest = std::mem::take(&mut self.chunk);
            self.check(self.line.len() + rest.len())?;
            self.line.extend_from_slice(&rest);
            return Ok(None);
        };
        self.check(self.line.len() + end)?;
        self.skip_line_feed = self.chunk[end] == b'\r';
        let line = if self.line.is_empty() {
            self.chunk.split_to(end)
        } else {
            self.line.extend_from_slice(&self.chunk[..end]);
            self.chunk.advance(end);
            self.line.split().freeze()
        };
        self.chunk.advance(1);
        Ok(Some(line))
    }

    fn check(&self, line_bytes: usize) -> Result<(), TooLong> {
        if self.data.len() + line_bytes > self.bytes_max {
            Err(TooLong)
        } else {
            Ok(())
        }
    }

    fn take_field(&mut self, mut line: Bytes) {
        const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
        if std::mem::replace(&mut self.at_start, false) && line.starts_with(BYTE_ORDER_MARK) {
            line.advance(BYTE_ORDER_MARK.len());
        }
        if !line.starts_with(b"data") {
            return;
        }
        match line.get(4) {
            None => self.data.add(Bytes::new()),
            Some(b':') => {
                let space = line.get(5) == Some(&b' ');
                line.advance(if space { 6 } else { 5 });
                self.data.add(line);
            }
            Some(_) => {}
        }
    }
}
