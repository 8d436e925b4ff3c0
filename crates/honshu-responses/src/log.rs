//! The frames of a response as they are put aside: pieces of the stream, each compressed by itself. Frames repeat
//! each other, so that they shrink to about a tenth.

use std::io::{Read as _, Write as _};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use honshu_domain::{Error, EventSegment};

/// The most bytes that one piece unfolds to: what is written is far below.
const UNFOLDED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Collects frames.
#[derive(Debug)]
pub(crate) struct Log {
    chunk_bytes: usize,
    bytes_max: usize,
    first: u64,
    next: u64,
    open: BytesMut,
    segments: Vec<EventSegment>,
    bytes: usize,
    is_lost: bool,
}

impl Log {
    pub(crate) fn new(chunk_bytes: usize, bytes_max: usize) -> Self {
        Self {
            chunk_bytes,
            bytes_max,
            first: 0,
            next: 0,
            open: BytesMut::new(),
            segments: Vec::new(),
            bytes: 0,
            is_lost: false,
        }
    }

    /// Adds frames, after which the next event has the number `next`.
    pub(crate) fn push(&mut self, frames: &[u8], next: u64) {
        if self.is_lost {
            return;
        }
        self.open.extend_from_slice(frames);
        self.next = next;
        if self.open.len() >= self.chunk_bytes {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let segment = fold(self.first, self.next - self.first, &self.open);
        self.open.clear();
        self.first = self.next;
        self.bytes += segment.frames.len();
        self.segments.push(segment);
        if self.bytes > self.bytes_max {
            self.is_lost = true;
            self.segments = Vec::new();
        }
    }

    /// All of it; nothing of a stream that grew too long.
    pub(crate) fn finish(mut self) -> Vec<EventSegment> {
        if !self.is_lost {
            self.close();
        }
        self.segments
    }
}

/// Compresses frames.
pub(crate) fn fold(first: u64, count: u64, frames: &[u8]) -> EventSegment {
    let mut encoder =
        DeflateEncoder::new(Vec::with_capacity(frames.len() / 8), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(frames);
    EventSegment {
        first,
        count,
        frames: encoder.finish().unwrap_or_default().into(),
    }
}

/// The frames again.
///
/// # Errors
/// Our own fault: what was stored cannot be read.
pub(crate) fn unfold(segment: &EventSegment) -> Result<Bytes, Error> {
    let mut frames = Vec::new();
    DeflateDecoder::new(&segment.frames[..])
        .take(UNFOLDED_BYTES_MAX)
        .read_to_end(&mut frames)
        .map_err(Error::internal)?;
    Ok(frames.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_byte_for_byte_and_numbered() {
        let mut log = Log::new(64, 1 << 20);
        let mut all = Vec::new();
        for n in 0..100_u64 {
            let frame = format!("event: x\ndata: {{\"sequence_number\":{n}}}\n\n");
            log.push(frame.as_bytes(), n + 1);
            all.extend_from_slice(frame.as_bytes());
        }
        let segments = log.finish();
        assert!(segments.len() > 10);
        let mut next = 0;
        let mut again = Vec::new();
        for segment in &segments {
            assert_eq!(segment.first, next);
            next += segment.count;
            again.extend_from_slice(&unfold(segment).unwrap());
        }
        assert_eq!((next, again), (100, all));
    }

    #[test]
    fn a_stream_that_grows_too_long_keeps_nothing() {
        let mut log = Log::new(16, 100);
        for n in 0..1_000_u64 {
            log.push(n.to_string().repeat(20).as_bytes(), n + 1);
        }
        assert!(log.bytes <= 200, "what was put aside is bounded");
        assert!(log.finish().is_empty());
    }
}
