//! A meter for HTTP/2 frames that cost the server work and the client nothing.
//!
//! The HTTP/2 library bounds resets and its own queues. It answers every PING and
//! SETTINGS and reads every CONTINUATION, however many come. This meter reads the
//! nine bytes in front of each frame (RFC 9113, section 4.1) and gives up a
//! connection that sends more of them than any client has a use for.

use tokio::time::Instant;

use super::limits::EdgeLimits;

/// Length of a frame header, in bytes.
const HEADER_BYTES: usize = 9;

/// Seconds of its rate that a peer may use at once.
const BURST_SECONDS: u32 = 5;

/// Follows the frames that a peer sends. Starts behind the connection preface.
#[derive(Debug)]
pub(super) struct FrameMeter {
    preface_left: usize,
    header: [u8; HEADER_BYTES],
    header_length: usize,
    payload_left: usize,
    control: Bucket,
    window: Bucket,
}

impl FrameMeter {
    /// A meter for a connection whose first `preface_bytes` are not frames.
    pub(super) fn new(limits: &EdgeLimits, preface_bytes: usize) -> Self {
        Self {
            preface_left: preface_bytes,
            header: [0; HEADER_BYTES],
            header_length: 0,
            payload_left: 0,
            control: Bucket::new(limits.http2_control_frames_per_second),
            window: Bucket::new(limits.http2_window_updates_per_second),
        }
    }

    /// Reads input. False when the peer has used up its rate.
    pub(super) fn advance(&mut self, mut input: &[u8]) -> bool {
        let skipped = self.preface_left.min(input.len());
        self.preface_left -= skipped;
        input = &input[skipped..];
        while !input.is_empty() {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(input.len());
                self.payload_left -= skipped;
                input = &input[skipped..];
                continue;
            }
            let taken = (HEADER_BYTES - self.header_length).min(input.len());
            self.header[self.header_length..self.header_length + taken]
                .copy_from_slice(&input[..taken]);
            self.header_length += taken;
            input = &input[taken..];
            if self.header_length == HEADER_BYTES {
                self.header_length = 0;
                let [a, b, c, kind, ..] = self.header;
                self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                let within = match kind {
                    // DATA costs flow control, unless there is nothing in it.
                    0 => self.payload_left > 0 || self.control.take(),
                    // HEADERS and PUSH_PROMISE are bounded as streams.
                    1 | 5 => true,
                    8 => self.window.take(),
                    _ => self.control.take(),
                };
                if !within {
                    return false;
                }
            }
        }
        true
    }
}

/// A token bucket that looks at the clock only when it is empty.
#[derive(Debug)]
struct Bucket {
    per_second: u32,
    left: u32,
    filled_at: Instant,
}

impl Bucket {
    fn new(per_second: u32) -> Self {
        Self {
            per_second,
            left: per_second.saturating_mul(BURST_SECONDS),
            filled_at: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        if self.left == 0 {
            let now = Instant::now();
            let elapsed = now.duration_since(self.filled_at).as_millis();
            let gained = u128::from(self.per_second) * elapsed / 1000;
            let most = u128::from(self.per_second.saturating_mul(BURST_SECONDS));
            self.left = u32::try_from(gained.min(most)).unwrap_or(u32::MAX);
            if self.left == 0 {
                return false;
            }
            self.filled_at = now;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut frame = u32::try_from(payload).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 0]);
        frame.extend(vec![0; payload]);
        frame
    }

    #[tokio::test(start_paused = true)]
    async fn control_frames_have_a_rate_however_they_are_cut() {
        let limits = EdgeLimits {
            http2_control_frames_per_second: 10,
            ..EdgeLimits::default()
        };
        for step in [1, 3, 9, 17, 1000] {
            let mut meter = FrameMeter::new(&limits, 24);
            let mut input = vec![b'P'; 24];
            for _ in 0..100 {
                input.extend(frame(0, 300));
                input.extend(frame(1, 20));
                input.extend(frame(8, 4));
            }
            for _ in 0..50 {
                input.extend(frame(6, 8));
            }
            assert!(
                input.chunks(step).all(|piece| meter.advance(piece)),
                "{step}"
            );
            for kind in [2, 3, 4, 6, 9, 0] {
                let mut meter = FrameMeter::new(&limits, 0);
                let flood = frame(kind, 0).repeat(51);
                assert!(
                    !flood.chunks(step).all(|piece| meter.advance(piece)),
                    "{kind}"
                );
                tokio::time::advance(Duration::from_millis(500)).await;
                let mut meter = FrameMeter::new(&limits, 0);
                let burst = frame(kind, 0).repeat(50);
                assert!(meter.advance(&burst));
                tokio::time::advance(Duration::from_millis(500)).await;
                assert!(meter.advance(&frame(kind, 0).repeat(5)));
                assert!(!meter.advance(&frame(kind, 0)));
            }
        }
    }
}
