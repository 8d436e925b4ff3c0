//! Reads calls that are JSON objects while they are being written: the head up to the arguments as soon as the name
//! is known, then the arguments piece by piece. Nothing here allocates for what it only looks at, and every answer
//! depends on the text alone, never on how it was cut.

use super::CONTROL_OPEN;

/// Longest head of a call, in bytes: arguments that come before the name are held until the name comes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest name of a function, in bytes; the OpenAI API allows 64 characters.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// The members that calls have in one form or another.
const MEMBERS: &[&str] = &[
    "name",
    "tool_name",
    "function",
    "arguments",
    "parameters",
    "args",
    "type",
    "id",
    "tool_call_id",
    "call_id",
    "index",
];

/// How far a reader came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read<T> {
    /// It cannot be told before more text comes.
    More,
    /// It is something else.
    Not,
    /// It is read.
    Is(T),
}

macro_rules! read {
    ($read:expr) => {
        match $read {
            Read::More => return Read::More,
            Read::Not => return Read::Not,
            Read::Is(value) => value,
        }
    };
}

/// The beginning of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub name: String,
    pub arguments: Begin,
    /// Bytes of the text that the head takes.
    pub length: usize,
    /// Objects that are still open behind the head.
    pub depth: u32,
}

/// Where the arguments are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    /// They begin behind the head: a JSON value.
    Value,
    /// They begin behind the head: a string that holds the JSON text.
    Quoted,
    /// They came before the name, or the call has none.
    Known(String),
}

/// Reads the head of a call at the start of `text`. `strict` takes only objects that have nothing but the members of
/// calls, for text that no marker announced.
pub(super) fn head(text: &str, strict: bool) -> Read<Head> {
    let mut reader = HeadReader {
        text,
        strict,
        name: None,
        arguments: None,
    };
    let read = reader.object(0, 0);
    match read {
        Read::More if text.len() > HEAD_BYTES_MAX => Read::Not,
        other => other,
    }
}

struct HeadReader<'a> {
    text: &'a str,
    strict: bool,
    name: Option<String>,
    arguments: Option<String>,
}

impl HeadReader<'_> {
    /// Reads the object that begins at `at`, inside `outer` others.
    fn object(&mut self, at: usize, outer: u32) -> Read<Head> {
        let text = self.text;
        let mut at = read!(expect(text, at, b'{'));
        loop {
            at = space(text, at);
            if text.as_bytes().get(at) == Some(&b'}') {
                return self.end(at + 1, outer);
            }
            let (key, after) = read!(string(text, at));
            at = space(text, read!(expect(text, space(text, after), b':')));
            if self.strict && !MEMBERS.contains(&key.as_str()) {
                return Read::Not;
            }
            let Some(first) = text.as_bytes().get(at).copied() else {
                return Read::More;
            };
            match (key.as_str(), first) {
                ("function", b'{') if outer == 0 => return self.object(at, 1),
                ("name" | "tool_name" | "function", b'"') => {
                    let (name, after) = read!(string(text, at));
                    if name.is_empty() || name.len() > NAME_BYTES_MAX {
                        return Read::Not;
                    }
                    self.name = Some(name);
                    at = after;
                    if let Some(arguments) = self.arguments.take() {
                        return self.found(Begin::Known(arguments), at, outer + 1);
                    }
                }
                ("arguments" | "parameters" | "args", _) => {
                    let kind = match first {
                        b'{' | b'[' => Some(Begin::Value),
                        b'"' => Some(Begin::Quoted),
                        b'n' => None,
                        _ => return Read::Not,
                    };
                    match kind {
                        Some(kind) if self.name.is_some() => {
                            let quote = usize::from(kind == Begin::Quoted);
                            return self.found(kind, at + quote, outer + 1);
                        }
                        Some(Begin::Quoted) => {
                            let (arguments, after) = read!(string(text, at));
                            self.arguments = Some(arguments);
                            at = after;
                        }
                        Some(_) => {
                            let after = read!(skip(text, at));
                            self.arguments = Some(text[at..after].to_owned());
                            at = after;
                        }
                        None => at = read!(skip(text, at)),
                    }
                }
                ("name" | "tool_name", _) => return Read::Not,
                _ => at = read!(skip(text, at)),
            }
            at = space(text, at);
            match text.as_bytes().get(at) {
                None => return Read::More,
                Some(b',') => at += 1,
                Some(b'}') => {}
                Some(_) => return Read::Not,
            }
        }
    }

    fn end(&mut self, at: usize, depth: u32) -> Read<Head> {
        if self.strict && self.arguments.is_none() {
            return Read::Not;
        }
        let arguments = self.arguments.take().unwrap_or_else(|| "{}".to_owned());
        self.found(Begin::Known(arguments), at, depth)
    }

    fn found(&mut self, arguments: Begin, length: usize, depth: u32) -> Read<Head> {
        match self.name.take() {
            None => Read::Not,
            Some(name) => Read::Is(Head {
                name,
                arguments,
                length,
                depth,
            }),
        }
    }
}

fn expect(text: &str, at: usize, byte: u8) -> Read<usize> {
    match text.as_bytes().get(at) {
        None => Read::More,
        Some(found) if *found == byte => Read::Is(at + 1),
        Some(_) => Read::Not,
    }
}

/// The place of the first byte from `at` that is not white space.
pub(super) fn space(text: &str, at: usize) -> usize {
    let white = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    at + text.as_bytes()[at.min(text.len())..]
        .iter()
        .take_while(|byte| white(byte))
        .count()
}

/// Reads the string that begins at `at`; answers its value and the place behind it.
fn string(text: &str, at: usize) -> Read<(String, usize)> {
    let start = read!(expect(text, at, b'"'));
    let mut decoder = StringDecoder::default();
    let mut value = String::new();
    match decoder.take(&text[start..], &mut value) {
        Taken {
            length,
            ended: true,
        } => Read::Is((value, start + length)),
        Taken { .. } if decoder.broken => Read::Not,
        Taken { .. } => Read::More,
    }
}

/// Skips the value that begins at `at`.
fn skip(text: &str, at: usize) -> Read<usize> {
    let mut scanner = ValueScanner::default();
    let taken = scanner.take(&text[at..]);
    if taken.ended {
        Read::Is(at + taken.length)
    } else if scanner.broken {
        Read::Not
    } else {
        Read::More
    }
}

/// How many bytes a scanner took and whether what it reads has ended there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub length: usize,
    pub ended: bool,
}

/// Finds the end of a JSON value in text that comes in pieces. It looks at brackets and strings only, so that what a
/// model gets wrong inside is passed on as it is.
#[derive(Debug, Default)]
pub(super) struct ValueScanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    scalar: bool,
    /// A character came that no JSON has at its place: the value ends before it.
    pub broken: bool,
}

impl ValueScanner {
    /// A scanner for the rest of `depth` open objects.
    pub(super) fn inside(depth: u32) -> Self {
        Self {
            depth,
            ..Self::default()
        }
    }

    pub(super) fn take(&mut self, text: &str) -> Taken {
        let taken = |length, ended| Taken { length, ended };
        for (at, c) in text.char_indices() {
            let next = at + c.len_utf8();
            if self.in_string {
                match c {
                    CONTROL_OPEN => {
                        self.broken = true;
                        return taken(at, false);
                    }
                    _ if self.escaped => self.escaped = false,
                    '\\' => self.escaped = true,
                    '"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return taken(next, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match c {
                '{' | '[' if !self.scalar => self.depth += 1,
                '"' if !self.scalar => self.in_string = true,
                '}' | ']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return taken(next, true);
                    }
                }
                '}' | ']' | ',' if self.scalar => return taken(at, true),
                ' ' | '\t' | '\n' | '\r' if self.scalar => return taken(at, true),
                ' ' | '\t' | '\n' | '\r' => {}
                ',' | ':' if self.depth > 0 => {}
                'a'..='z' | 'A'..='Z' | '0'..='9' | '+' | '-' | '.' => {
                    self.scalar = self.depth == 0;
                }
                _ => {
                    self.broken = true;
                    return taken(at, false);
                }
            }
        }
        taken(text.len(), false)
    }
}

/// Decodes a JSON string, behind its first quote, that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct StringDecoder {
    /// A control token stands inside.
    pub broken: bool,
}

impl StringDecoder {
    /// Decodes whole characters and escapes into `out`; what is only begun is not taken.
    pub(super) fn take(&mut self, text: &str, out: &mut String) -> Taken {
        let bytes = text.as_bytes();
        let mut at = 0;
        let stop = |at, ended| Taken { length: at, ended };
        while let Some(c) = text[at..].chars().next() {
            match c {
                '"' => return stop(at + 1, true),
                CONTROL_OPEN => {
                    self.broken = true;
                    return stop(at, false);
                }
                '\\' => {
                    let Some(kind) = text[at + 1..].chars().next() else {
                        return stop(at, false);
                    };
                    if kind == 'u' {
                        let Some(digits) = bytes.get(at + 2..at + 6) else {
                            return stop(at, false);
                        };
                        let Some(unit) = unit(digits) else {
                            out.push('\u{FFFD}');
                            at += 2;
                            continue;
                        };
                        at += 6;
                        if !(0xD800..0xDC00).contains(&unit) {
                            out.push(char::from_u32(unit).unwrap_or('\u{FFFD}'));
                            continue;
                        }
                        // The first half of a pair: the second one decides.
                        let rest = &bytes[at..];
                        let half = b"\\u";
                        if rest.len() < 6 && half.starts_with(&rest[..rest.len().min(2)]) {
                            return stop(at - 6, false);
                        }
                        let low = rest
                            .strip_prefix(half)
                            .and_then(|rest| unit_of(rest.get(..4)))
                            .filter(|low| (0xDC00..0xE000).contains(low));
                        match low {
                            Some(low) => {
                                let code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                                out.push(char::from_u32(code).unwrap_or('\u{FFFD}'));
                                at += 6;
                            }
                            None => out.push('\u{FFFD}'),
                        }
                        continue;
                    }
                    out.push(match kind {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        other => other,
                    });
                    at += 1 + kind.len_utf8();
                }
                other => {
                    out.push(other);
                    at += other.len_utf8();
                }
            }
        }
        stop(at, false)
    }
}

fn unit_of(digits: Option<&[u8]>) -> Option<u32> {
    digits.and_then(unit)
}

fn unit(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(name: &str, arguments: Begin, length: usize, depth: u32) -> Read<Head> {
        Read::Is(Head {
            name: name.to_owned(),
            arguments,
            length,
            depth,
        })
    }

    #[test]
    fn a_head_is_known_as_soon_as_it_can_be() {
        for (text, strict, expected) in [
            (
                r#"{"name": "f", "arguments": {"#,
                true,
                is("f", Begin::Value, 27, 1),
            ),
            (
                r#"{"name": "f", "parameters": ["#,
                true,
                is("f", Begin::Value, 28, 1),
            ),
            (
                r#"{"name": "f", "arguments": "{\"#,
                true,
                is("f", Begin::Quoted, 28, 1),
            ),
            (
                r#"{"type": "function", "name": "f", "arguments": "#,
                true,
                Read::More,
            ),
            (
                r#"{"function": {"name": "f", "arguments": {"#,
                true,
                is("f", Begin::Value, 40, 2),
            ),
            (
                r#"{"id": "1", "function": "f", "args": {"#,
                true,
                is("f", Begin::Value, 37, 1),
            ),
            (
                r#"{"arguments": {"a": "}"}, "name": "f""#,
                true,
                is("f", Begin::Known(r#"{"a": "}"}"#.to_owned()), 37, 1),
            ),
            (r#"{"arguments": {"a": 1}, "na"#, true, Read::More),
            (
                r#"{"name": "f"}"#,
                false,
                is("f", Begin::Known("{}".to_owned()), 13, 0),
            ),
            (
                r#"{"name": "f", "arguments": null}"#,
                false,
                is("f", Begin::Known("{}".to_owned()), 32, 0),
            ),
            (r#"{"name": "f"}"#, true, Read::Not),
            (r#"{"city": "#, true, Read::Not),
            (
                r#"{"city": "x", "name": "f", "arguments": {"#,
                false,
                is("f", Begin::Value, 40, 1),
            ),
            (r#"{"name": 7"#, true, Read::Not),
            (r#"{"name": """#, true, Read::Not),
            ("{}", false, Read::Not),
            ("{", false, Read::More),
            ("x", false, Read::Not),
            ("", false, Read::More),
        ] {
            assert_eq!(head(text, strict), expected, "{text}");
        }
    }

    #[test]
    fn values_end_where_their_brackets_do() {
        for (text, length, ended) in [
            (r#"{"a": "}\"", "b": [1]} rest"#, 22, true),
            (r#""x" "#, 3, true),
            ("12, ", 2, true),
            ("true}", 4, true),
            (r#"{"a": "#, 6, false),
            (r#"{"a": 1<"#, 7, false),
        ] {
            let taken = ValueScanner::default().take(text);
            assert_eq!((taken.length, taken.ended), (length, ended), "{text}");
        }
    }

    #[test]
    fn strings_are_decoded_however_they_are_cut() {
        let text = r#"a\n\"\u6771\ud83d\ude00\ud83dx\q\\" rest"#;
        for cut in 0..text.len() {
            let (mut decoder, mut out) = (StringDecoder::default(), String::new());
            let mut held = text[..cut].to_owned();
            let first = decoder.take(&held, &mut out);
            if !first.ended {
                held.drain(..first.length);
                held.push_str(&text[cut..]);
                assert!(decoder.take(&held, &mut out).ended);
            }
            assert_eq!(out, "a\n\"東😀\u{FFFD}xq\\", "cut at {cut}");
        }
    }
}
