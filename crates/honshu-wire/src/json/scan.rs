//! The reading head: moves over JSON text token by token, checks the grammar, allocates only for strings with
//! escapes. The tree of [`super::parse`] and the walks over frames are both built on it.

use std::borrow::Cow;
use std::ops::Range;

use super::{DEPTH_MAX, push_key};

/// Why a text is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Byte offset.
    pub(crate) at: usize,
    /// What is wrong.
    pub(crate) what: &'static str,
    /// Path segments from the inside out.
    inside: Vec<String>,
}

impl Fault {
    #[cold]
    pub(crate) fn new(at: usize, what: &'static str) -> Self {
        Self {
            at,
            what,
            inside: Vec::new(),
        }
    }

    #[cold]
    pub(crate) fn inside_key(mut self, key: &str) -> Self {
        let mut segment = String::new();
        push_key(&mut segment, key);
        self.inside.push(segment);
        self
    }

    #[cold]
    pub(crate) fn inside_index(mut self, index: usize) -> Self {
        self.inside.push(format!("[{index}]"));
        self
    }

    /// The JSON path of the value in which the fault lies.
    pub(crate) fn path(&self) -> String {
        let mut path = String::new();
        for segment in self.inside.iter().rev() {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        path
    }
}

/// A position in JSON text.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn slice(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    pub(crate) fn fault(&self, what: &'static str) -> Fault {
        Fault::new(self.at, what)
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(crate) fn white(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.white();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(self.fault("text after the end of the JSON value"))
        }
    }

    /// Enters an array or object; false if it is empty.
    pub(crate) fn open(&mut self, close: u8) -> Result<bool, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fault("nested more than 127 levels deep"));
        }
        self.at += 1;
        self.white();
        if self.peek() == Some(close) {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// After an element: true if another follows, false if the array or object ends.
    pub(crate) fn next(&mut self, close: u8) -> Result<bool, Fault> {
        self.white();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.white();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            None => Err(self.fault("unexpected end of the JSON text")),
            Some(_) if close == b'}' => Err(self.fault("expected `,` or `}`")),
            Some(_) => Err(self.fault("expected `,` or `]`")),
        }
    }

    /// A key and the colon after it.
    pub(crate) fn key(&mut self) -> Result<Cow<'a, str>, Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("expected a key in double quotes"));
        }
        let key = self.string()?;
        self.white();
        if self.peek() != Some(b':') {
            return Err(self.fault("expected `:` after a key"));
        }
        self.at += 1;
        Ok(key)
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Fault> {
        if self.text[self.at..].starts_with("true") {
            self.at += 4;
            Ok(true)
        } else if self.text[self.at..].starts_with("false") {
            self.at += 5;
            Ok(false)
        } else {
            Err(self.fault("expected a JSON value"))
        }
    }

    pub(crate) fn null(&mut self) -> Result<(), Fault> {
        if self.text[self.at..].starts_with("null") {
            self.at += 4;
            Ok(())
        } else {
            Err(self.fault("expected a JSON value"))
        }
    }

    /// Passes over a number: an optional minus, digits without a leading zero, a fraction, an exponent.
    pub(crate) fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            None => return Err(self.fault("unexpected end of the JSON text")),
            Some(_) => return Err(Fault::new(start, "expected a JSON value")),
        }
        let mut plain = true;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            plain = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        // Below 300 digits and without an exponent no number can leave the range of an f64.
        if !plain || self.at - start > 300 {
            let finite = self
                .slice(start)
                .parse::<f64>()
                .is_ok_and(|number| number.is_finite());
            if !finite {
                return Err(Fault::new(start, "a number out of range"));
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), Fault> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.fault("expected a digit"));
        }
        self.digits();
        Ok(())
    }

    /// A string, borrowed if it has no escapes.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at + 1;
        self.at = find_special(self.text.as_bytes(), start);
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        let mut owned = String::with_capacity(2 * (self.at - start) + 16);
        let mut from = start;
        loop {
            owned.push_str(&self.text[from..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(owned));
                }
                Some(b'\\') => owned.push(self.escape()?),
                _ => return Err(self.inside_string()),
            }
            from = self.at;
            self.at = find_special(self.text.as_bytes(), from);
        }
    }

    /// Passes over a string, checking its escapes.
    fn skip_string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            self.at = find_special(self.text.as_bytes(), self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.escape()?;
                }
                _ => return Err(self.inside_string()),
            }
        }
    }

    #[cold]
    fn inside_string(&self) -> Fault {
        self.fault(match self.peek() {
            Some(_) => "a control character inside a string",
            None => "unexpected end of the JSON text",
        })
    }

    /// Passes over an escape and gives what it stands for.
    fn escape(&mut self) -> Result<char, Fault> {
        let bytes = self.text.as_bytes();
        let short = match bytes.get(self.at + 1) {
            Some(b'n') => '\n',
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => return self.unicode_escape(),
            None => return Err(self.fault("unexpected end of the JSON text")),
            Some(_) => return Err(self.fault("an unknown escape inside a string")),
        };
        self.at += 2;
        Ok(short)
    }

    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let bytes = self.text.as_bytes();
        let Some(unit) = hex4(bytes, self.at + 2) else {
            return Err(self.fault("expected four hexadecimal digits after `\\u`"));
        };
        let (scalar, length) = match unit {
            0xD800..=0xDBFF => {
                let low = (bytes.get(self.at + 6..self.at + 8) == Some(b"\\u"))
                    .then(|| hex4(bytes, self.at + 8))
                    .flatten()
                    .filter(|low| (0xDC00..=0xDFFF).contains(low));
                match low {
                    Some(low) => (0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), 12),
                    None => return Err(self.fault("half of a surrogate pair")),
                }
            }
            _ => (unit, 6),
        };
        // Only a low surrogate that stands alone is not a character by now.
        let Some(character) = char::from_u32(scalar) else {
            return Err(self.fault("half of a surrogate pair"));
        };
        self.at += length;
        Ok(character)
    }

    /// Passes over any value, checking its grammar but not for duplicate keys; gives its place.
    pub(crate) fn skip(&mut self) -> Result<Range<usize>, Fault> {
        self.white();
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                self.skip_string()?;
            }
            Some(b'{') => {
                let mut more = self.open(b'}')?;
                while more {
                    if self.peek() != Some(b'"') {
                        return Err(self.fault("expected a key in double quotes"));
                    }
                    self.skip_string()?;
                    self.white();
                    if self.peek() != Some(b':') {
                        return Err(self.fault("expected `:` after a key"));
                    }
                    self.at += 1;
                    self.skip()?;
                    more = self.next(b'}')?;
                }
            }
            Some(b'[') => {
                let mut more = self.open(b']')?;
                while more {
                    self.skip()?;
                    more = self.next(b']')?;
                }
            }
            Some(b't' | b'f') => {
                self.boolean()?;
            }
            Some(b'n') => self.null()?,
            _ => self.number()?,
        }
        Ok(start..self.at)
    }
}

/// Calls `each` with the key and the value's place for every member of the object that `text` is.
///
/// # Errors
/// [`Fault`] when `text` is not exactly one JSON object.
pub(crate) fn members(text: &str, mut each: impl FnMut(&str, Range<usize>)) -> Result<(), Fault> {
    members_until(text, |key, place| {
        each(key, place);
        false
    })
}

/// [`members`] that ends as soon as `each` says so; what comes after is then neither seen nor checked.
///
/// # Errors
/// As [`members`], for what was seen.
pub(crate) fn members_until(
    text: &str,
    mut each: impl FnMut(&str, Range<usize>) -> bool,
) -> Result<(), Fault> {
    let mut reader = Reader::new(text);
    reader.white();
    if reader.peek() != Some(b'{') {
        return Err(reader.fault("expected a JSON object"));
    }
    let mut more = reader.open(b'}')?;
    while more {
        let key = reader.key()?;
        let value = reader.skip().map_err(|fault| fault.inside_key(&key))?;
        if each(&key, value) {
            return Ok(());
        }
        more = reader.next(b'}')?;
    }
    reader.end()
}

/// Calls `each` with the text of every element of the array that `text` is; does nothing for other values.
///
/// # Errors
/// [`Fault`] when the array is not well formed.
pub(crate) fn elements<'a>(text: &'a str, mut each: impl FnMut(&'a str)) -> Result<(), Fault> {
    let mut reader = Reader::new(text);
    reader.white();
    if reader.peek() != Some(b'[') {
        return Ok(());
    }
    let mut more = reader.open(b']')?;
    while more {
        let place = reader.skip()?;
        each(&text[place]);
        more = reader.next(b']')?;
    }
    Ok(())
}

/// The first place from `at` on that has a quote, a backslash or a control character, or the end. Four words at
/// a time: prompts have an escape every line or so, and long plain runs between.
pub(crate) fn find_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<32>) {
        let hits = [0, 8, 16, 24].map(|from| specials(word(chunk, from)));
        if hits[0] | hits[1] | hits[2] | hits[3] != 0 {
            break;
        }
        at += 32;
    }
    while at + 8 <= bytes.len() {
        let hits = specials(word(bytes, at));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            break;
        }
        at += 1;
    }
    at
}

/// Eight bytes, the first one lowest.
fn word(bytes: &[u8], from: usize) -> u64 {
    bytes
        .get(from..)
        .and_then(<[u8]>::first_chunk::<8>)
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// The high bit of each byte that is special: the usual test for a zero byte, and for one below 32. Exact up
/// to the first hit.
fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    ((quote.wrapping_sub(ONES) & !quote)
        | (slash.wrapping_sub(ONES) & !slash)
        | (word.wrapping_sub(ONES * 0x20) & !word))
        & HIGHS
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0_u32, |value, &digit| {
        Some(value << 4 | char::from(digit).to_digit(16)?)
    })
}
