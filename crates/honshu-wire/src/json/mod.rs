//! JSON as the dialects need it: one pass over the body gives a borrowed tree in which every value knows its
//! own text, so that what we do not know can be carried byte for byte and `model` can be patched in place.
//!
//! Why not `serde_json` alone: it accepts duplicate keys, skips over lone surrogates and `1e400` inside values
//! that are only carried, gives no positions, and reads a prompt once per level of nesting when `RawValue` is
//! used on each. The grammar here is RFC 8259 to the letter; a property test holds it against `serde_json`.

mod scan;
mod write;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

pub(crate) use scan::{Fault, Reader, elements, members, members_until};
pub(crate) use write::{put, put_bool, put_f32, put_str, put_u64, put_uint};

/// Arrays and objects inside each other. The same bound as `serde_json`'s, which reads our carried values again.
pub(crate) const DEPTH_MAX: u32 = 127;

/// Values in one body. A tree node takes 48 bytes, so this bounds a hostile body of empty arrays to 48 MiB;
/// the largest honest body, an embedding request of 300,000 token ids, stays far below.
pub(crate) const VALUES_MAX: usize = 1_000_000;

/// From this many keys on, duplicates are found by hashing.
const HASH_KEYS_FROM: usize = 24;

/// A value and the text it was read from.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// The value's own text, without white space around it.
    pub(crate) raw: &'a str,
    /// What it is.
    pub(crate) kind: Kind<'a>,
}

/// A JSON value. Numbers stay text until somebody asks for a type; they are finite as `f64`.
#[derive(Debug)]
pub(crate) enum Kind<'a> {
    Null,
    Bool(bool),
    Number,
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// The string, if it is one.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub(crate) fn as_object(&self) -> Option<&[(Cow<'a, str>, Node<'a>)]> {
        match &self.kind {
            Kind::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub(crate) fn as_array(&self) -> Option<&[Node<'a>]> {
        match &self.kind {
            Kind::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self.kind {
            Kind::Number => self.raw.parse().ok(),
            _ => None,
        }
    }

    /// The number, if it is a whole one and fits. `16.0` is one as well: JSON has one kind of numbers, and some
    /// languages write whole ones so. Beyond 2⁵³ nobody can say which whole number such a text means.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only whole numbers below 2^53 are converted"
    )]
    pub(crate) fn as_i64(&self) -> Option<i64> {
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        if matches!(self.kind, Kind::Number) {
            self.raw.parse().ok().or_else(|| {
                self.as_f64()
                    .filter(|number| number.fract() == 0.0 && number.abs() < EXACT_MAX)
                    .map(|number| number as i64)
            })
        } else {
            None
        }
    }

    /// A count, where upstreams write one; 0 for anything else.
    pub(crate) fn count(&self) -> u64 {
        match self.kind {
            Kind::Number => self
                .raw
                .parse()
                .ok()
                .or_else(|| self.as_i64().and_then(|number| u64::try_from(number).ok()))
                .unwrap_or_default(),
            _ => 0,
        }
    }

    /// The truth value, if it is one.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self.kind {
            Kind::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// True for `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// A member of an object that is there and not `null`.
    pub(crate) fn find(&self, key: &str) -> Option<&Node<'a>> {
        self.as_object()?
            .iter()
            .find(|(name, node)| name == key && !node.is_null())
            .map(|(_, node)| node)
    }

    /// The string under `key`.
    pub(crate) fn find_str(&self, key: &str) -> Option<&str> {
        self.find(key)?.as_str()
    }

    /// What it is, with an article, for messages.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Number => "a number",
            Kind::String(_) => "a string",
            Kind::Array(_) => "an array",
            Kind::Object(_) => "an object",
        }
    }
}

/// Reads one whole JSON text, checked to the last byte.
///
/// # Errors
/// [`Fault`] for bytes that are not UTF-8 or not JSON, for a key that is twice in one object, a number that no
/// `f64` can hold, half a surrogate pair, more than [`DEPTH_MAX`] levels or [`VALUES_MAX`] values.
pub(crate) fn parse(bytes: &[u8]) -> Result<Node<'_>, Fault> {
    parse_text(utf8(bytes)?)
}

/// [`parse`] for text that is known to be UTF-8.
pub(crate) fn parse_text(text: &str) -> Result<Node<'_>, Fault> {
    let mut tree = Tree {
        reader: Reader::new(text),
        values: 0,
    };
    let node = tree.value()?;
    tree.reader.end()?;
    Ok(node)
}

/// The bytes as text.
///
/// # Errors
/// [`Fault`] at the first byte that is not UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| {
        // Only now is it worth to find out where.
        let at = match simdutf8::compat::from_utf8(bytes) {
            Ok(_) => 0,
            Err(error) => error.valid_up_to(),
        };
        Fault::new(at, "invalid UTF-8")
    })
}

struct Tree<'a> {
    reader: Reader<'a>,
    values: usize,
}

impl<'a> Tree<'a> {
    fn value(&mut self) -> Result<Node<'a>, Fault> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(self.reader.fault("more than 1000000 values in one body"));
        }
        self.reader.white();
        let start = self.reader.at();
        let kind = match self.reader.peek() {
            Some(b'"') => Kind::String(self.reader.string()?),
            Some(b'{') => self.object()?,
            Some(b'[') => self.array()?,
            Some(b't' | b'f') => Kind::Bool(self.reader.boolean()?),
            Some(b'n') => {
                self.reader.null()?;
                Kind::Null
            }
            _ => {
                self.reader.number()?;
                Kind::Number
            }
        };
        Ok(Node {
            raw: self.reader.slice(start),
            kind,
        })
    }

    fn array(&mut self) -> Result<Kind<'a>, Fault> {
        let mut elements = Vec::new();
        let mut more = self.reader.open(b']')?;
        while more {
            let element = self
                .value()
                .map_err(|fault| fault.inside_index(elements.len()))?;
            elements.push(element);
            more = self.reader.next(b']')?;
        }
        Ok(Kind::Array(elements))
    }

    fn object(&mut self) -> Result<Kind<'a>, Fault> {
        let mut members: Vec<(Cow<'a, str>, Node<'a>)> = Vec::new();
        let mut seen: HashSet<Cow<'a, str>> = HashSet::new();
        let mut more = self.reader.open(b'}')?;
        while more {
            let at = self.reader.at();
            let key = self.reader.key()?;
            let twice = if members.len() < HASH_KEYS_FROM {
                members.iter().any(|(name, _)| *name == key)
            } else {
                if seen.is_empty() {
                    seen.extend(members.iter().map(|(name, _)| name.clone()));
                }
                !seen.insert(key.clone())
            };
            if twice {
                return Err(Fault::new(at, "duplicate key").inside_key(&key));
            }
            let value = self.value().map_err(|fault| fault.inside_key(&key))?;
            members.push((key, value));
            more = self.reader.next(b'}')?;
        }
        Ok(Kind::Object(members))
    }
}

/// Where a value is, for messages. Built on the stack on the way down, printed only when something is wrong.
#[derive(Clone, Copy)]
pub(crate) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub(crate) fn key(&'p self, key: &'p str) -> Path<'p> {
        Path::Key(self, key)
    }

    pub(crate) fn index(&'p self, index: usize) -> Path<'p> {
        Path::Index(self, index)
    }

    /// The same path with every index left open: `input[].id`.
    pub(crate) fn general(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Key(parent, key) => {
                let mut text = parent.general();
                push_key(&mut text, key);
                text
            }
            Path::Index(parent, _) => parent.general() + "[]",
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(parent, key) => {
                let mut text = parent.to_string();
                push_key(&mut text, key);
                f.write_str(&text)
            }
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Appends a key to a path. Keys come from strangers and paths go into headers and logs, so that only plain
/// characters are shown and not too many.
pub(crate) fn push_key(path: &mut String, key: &str) {
    const SHOWN_MAX: usize = 64;
    if !path.is_empty() {
        path.push('.');
    }
    path.extend(key.chars().take(SHOWN_MAX).map(|c| {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$' | '/' | ':' | '.') {
            c
        } else {
            '?'
        }
    }));
    if key.chars().nth(SHOWN_MAX).is_some() {
        path.push_str("...");
    }
}

#[cfg(test)]
mod tests;
