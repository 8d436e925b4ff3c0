//! Writing JSON straight into the outgoing buffer.

use bytes::BytesMut;

use super::scan::find_special;

/// Appends text as it is.
pub(crate) fn put(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a JSON string.
pub(crate) fn put_str(out: &mut BytesMut, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.extend_from_slice(b"\"");
    let mut from = 0;
    loop {
        let at = find_special(bytes, from);
        out.extend_from_slice(&bytes[from..at]);
        let Some(&byte) = bytes.get(at) else { break };
        match byte {
            b'"' => put(out, "\\\""),
            b'\\' => put(out, "\\\\"),
            b'\n' => put(out, "\\n"),
            b'\r' => put(out, "\\r"),
            b'\t' => put(out, "\\t"),
            _ => {
                put(out, "\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        from = at + 1;
    }
    out.extend_from_slice(b"\"");
}

/// Appends a whole number.
pub(crate) fn put_u64(out: &mut BytesMut, number: u64) {
    put(out, itoa::Buffer::new().format(number));
}

/// Appends a whole number.
pub(crate) fn put_uint(out: &mut BytesMut, number: u32) {
    put(out, itoa::Buffer::new().format(number));
}

/// Appends `true` or `false`.
pub(crate) fn put_bool(out: &mut BytesMut, value: bool) {
    put(out, if value { "true" } else { "false" });
}

/// Appends a number with a fraction. What is not finite has no JSON form and becomes the most negative finite
/// number: it is a log probability of zero likelihood.
pub(crate) fn put_f32(out: &mut BytesMut, number: f32) {
    use std::fmt::Write as _;
    let number = if number.is_finite() { number } else { -9999.0 };
    let start = out.len();
    // Writing into memory cannot fail.
    let _ = write!(out, "{number}");
    if !out[start..].contains(&b'.') {
        put(out, ".0");
    }
}
