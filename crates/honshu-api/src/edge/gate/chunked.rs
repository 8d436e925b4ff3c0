//! The chunked transfer coding (RFC 9112, section 7.1), read strictly.

use super::super::limits::EdgeLimits;
use super::super::reply::Refusal;
use super::head::{has_control, is_token};

/// Chunk extensions of one body, in bytes. Nobody uses them; attackers do.
const EXTENSION_BYTES_MAX: usize = 4096;

/// Trailer fields of one body, in bytes.
const TRAILER_BYTES_MAX: usize = 8192;

/// Hexadecimal digits of a chunk size: enough for 2^60 bytes, and no overflow.
const SIZE_DIGITS_MAX: u8 = 15;

/// Data bytes per chunk that make its framing worth the work: bodies in chunks
/// of one byte cost a hundred times what they carry.
const SMALL_CHUNKS_MAX: u32 = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    extension_bytes: usize,
    trailer_bytes: usize,
    small_chunks: u32,
    /// The trailer line that is being read.
    line: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    SizeStart,
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        remaining: u64,
    },
    DataCr,
    DataLf,
    Trailer,
}

const BAD_SIZE: Refusal = Refusal::bad("the chunk size is malformed");
const BAD_END: Refusal = Refusal::bad("a chunk does not end in CR LF");

impl Chunked {
    /// Takes input; gives the bytes taken and whether the body has ended.
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        limits: &EdgeLimits,
    ) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while at < input.len() {
            if let State::Data { remaining } = &mut self.state {
                let rest = input.len() - at;
                let taken = usize::try_from(*remaining).map_or(rest, |r| r.min(rest));
                *remaining -= taken as u64;
                at += taken;
                if *remaining == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let byte = input[at];
            at += 1;
            self.state = match self.state {
                State::SizeStart => match hex(byte) {
                    Some(digit) => State::Size {
                        size: digit,
                        digits: 1,
                    },
                    None => return Err(BAD_SIZE),
                },
                State::Size { size, digits } => match (byte, hex(byte)) {
                    (_, Some(digit)) if digits < SIZE_DIGITS_MAX => State::Size {
                        size: size * 16 + digit,
                        digits: digits + 1,
                    },
                    (b'\r', _) => State::SizeLf { size },
                    (b';', _) => State::Extension { size },
                    _ => return Err(BAD_SIZE),
                },
                State::Extension { size } => {
                    self.extension_bytes += 1;
                    if self.extension_bytes > EXTENSION_BYTES_MAX {
                        return Err(Refusal::bad("the chunk extensions are too long"));
                    }
                    match byte {
                        b'\r' => State::SizeLf { size },
                        b'\t' | b' '..=b'~' | 0x80.. => State::Extension { size },
                        _ => return Err(Refusal::bad("a chunk extension is malformed")),
                    }
                }
                State::SizeLf { size } => {
                    if byte != b'\n' {
                        return Err(BAD_SIZE);
                    }
                    if (1..16).contains(&size) {
                        self.small_chunks += 1;
                        if self.small_chunks > SMALL_CHUNKS_MAX {
                            return Err(Refusal::bad("the body has too many tiny chunks"));
                        }
                    }
                    if size == 0 {
                        State::Trailer
                    } else {
                        State::Data { remaining: size }
                    }
                }
                State::Data { .. } => self.state,
                State::DataCr if byte == b'\r' => State::DataLf,
                State::DataLf if byte == b'\n' => State::SizeStart,
                State::DataCr | State::DataLf => return Err(BAD_END),
                State::Trailer => {
                    if self.trailer_byte(byte, limits)? {
                        return Ok((at, true));
                    }
                    State::Trailer
                }
            };
        }
        Ok((at, false))
    }

    /// Takes one byte of the trailer section; true at its end.
    fn trailer_byte(&mut self, byte: u8, limits: &EdgeLimits) -> Result<bool, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX.min(limits.header_bytes_max) {
            return Err(Refusal::HEAD_TOO_LARGE);
        }
        if byte != b'\n' {
            self.line.push(byte);
            return Ok(false);
        }
        if self.line.pop() != Some(b'\r') {
            return Err(Refusal::bad("a line ends in LF without CR"));
        }
        if self.line.is_empty() {
            return Ok(true);
        }
        let colon =
            memchr::memchr(b':', &self.line).ok_or(Refusal::bad("a trailer field has no colon"))?;
        let name = &self.line[..colon];
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) || has_control(&self.line) {
            return Err(Refusal::bad("a trailer field is malformed"));
        }
        // RFC 9110, section 6.5.1: these decide about framing and routing, and a
        // reader that merged them would change the request after the fact.
        for forbidden in [
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "content-encoding",
            "connection",
            "trailer",
        ] {
            if name.eq_ignore_ascii_case(forbidden.as_bytes()) {
                return Err(Refusal::bad("a trailer field may not stand in a trailer"));
            }
        }
        self.line.clear();
        Ok(false)
    }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<(usize, bool), Refusal> {
        Chunked::default().advance(input, &EdgeLimits::default())
    }

    #[test]
    fn what_passes_and_what_does_not() {
        for (input, taken) in [
            (&b"0\r\n\r\n"[..], 5),
            (b"0\r\n\r\nGET /", 5),
            (b"1\r\nx\r\n0\r\n\r\n", 11),
            (b"001\r\nx\r\n000\r\n\r\n", 15),
            (b"A;a=b;c=\"d\"\r\n0123456789\r\n0\r\n\r\n", 30),
            (b"0\r\na: b\r\nc:\r\n\r\n", 15),
        ] {
            assert_eq!(read(input), Ok((taken, true)), "{}", input.escape_ascii());
        }
        for input in [
            &b"\r\n"[..],
            b"\n",
            b" 1\r\nx\r\n",
            b"1 \r\nx\r\n",
            b"1\nx\r\n",
            b"1\r\nxy\r\n",
            b"1\r\nx\n",
            b"1\r\nx\r0",
            b"0x1\r\n",
            b"+1\r\n",
            b"-1\r\n",
            b"1_0\r\n",
            b"g\r\n",
            b"0000000000000001\r\n",
            b"FFFFFFFFFFFFFFFFF\r\n",
            b"1;a\nb\r\n",
            b"1;a\x00\r\n",
            b"1\r\r\n",
            b"0\r\na b\r\n",
            b"0\r\na: b\n\r\n",
            b"0\r\n folded\r\n",
            b"0\r\nContent-Length: 5\r\n",
            b"0\r\nHost: b\r\n",
            b"0\r\n: b\r\n",
            b"0\r\na: \x01\r\n",
        ] {
            assert!(read(input).is_err(), "{}", input.escape_ascii());
        }
        let mut long = b"1;".to_vec();
        long.extend(vec![b'x'; EXTENSION_BYTES_MAX + 1]);
        assert!(read(&long).is_err());
        let long = [b"0\r\na: ".as_slice(), &[b'x'; TRAILER_BYTES_MAX]].concat();
        assert_eq!(read(&long), Err(Refusal::HEAD_TOO_LARGE));
        let tiny = b"1\r\nx\r\n".repeat(SMALL_CHUNKS_MAX as usize + 1);
        assert!(read(&tiny).is_err());
    }
}
