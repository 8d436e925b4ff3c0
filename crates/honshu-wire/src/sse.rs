//! Server-sent events as they leave: LF line ends, one event in one piece, no multi-line data.
//!
//! Some readers lose an event whose blank line comes in a later network chunk, so callers must hand each
//! event to the socket in one write.

use bytes::BytesMut;

/// A comment that keeps idle connections open. Clients skip it.
pub const HEARTBEAT: &[u8] = b": keepalive\n\n";

/// The end marker of OpenAI streams.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends one event. `data` must hold no line break outside of JSON white space; such breaks become spaces.
pub fn encode_frame(event: Option<&str>, data: &[u8], out: &mut BytesMut) {
    out.reserve(data.len() + event.map_or(0, |event| event.len() + 8) + 8);
    if let Some(event) = event {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"data: ");
    let start = out.len();
    out.extend_from_slice(data);
    if memchr::memchr2(b'\n', b'\r', data).is_some() {
        // In valid JSON a raw line break is white space between tokens; in SSE it would end the field.
        for byte in &mut out[start..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    out.extend_from_slice(b"\n\n");
}
