//! Reads the head of a GGUF file and refuses files that are cut short or contradict themselves.
//!
//! A model file comes from anywhere, and llama.cpp may end the process or allocate without bound on a hostile one. So
//! this reader goes first. It trusts no count or length of the file: each is compared with the bytes that are left.
//! Format: the GGUF specification of the ggml project, versions 2 and 3.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::LoadError;

/// Longest metadata string: a chat template is some 20 kB, the longest vocabulary entry some 1 kB.
const STRING_BYTES_MAX: u64 = 16 << 20;
/// Largest known models have some 3,000 tensors.
const TENSORS_MAX: u64 = 65_536;
const PAIRS_MAX: u64 = 65_536;
const ELEMENTS_MAX: u64 = 1 << 40;

/// A scalar of the metadata, or what is needed of an array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// Length, and the sum of the elements if they are integers.
    Array {
        length: u64,
        sum: u64,
    },
}

/// The head of a file.
#[derive(Debug, Default)]
pub(crate) struct Gguf {
    pub metadata: HashMap<String, Value>,
    /// Bytes of tensor data.
    pub tensor_bytes: u64,
}

impl Gguf {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A number of the metadata under the architecture's name, for example `llama.block_count`.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        let architecture = self.text("general.architecture")?;
        match self.metadata.get(&format!("{architecture}.{key}"))? {
            Value::Unsigned(n) => Some(*n),
            Value::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The sum over all layers of a number that may be one for all or one for each.
    pub(crate) fn sum_over_layers(&self, key: &str, layers: u64) -> Option<u64> {
        let architecture = self.text("general.architecture")?;
        match self.metadata.get(&format!("{architecture}.{key}"))? {
            Value::Array { sum, .. } => Some(*sum),
            _ => self.number(key).map(|n| n.saturating_mul(layers)),
        }
    }

    /// Entries of the vocabulary.
    pub(crate) fn n_vocab(&self) -> Option<u64> {
        match self.metadata.get("tokenizer.ggml.tokens") {
            Some(Value::Array { length, .. }) => Some(*length),
            _ => self.number("vocab_size"),
        }
    }
}

/// Reads and checks the head of a file.
///
/// # Errors
/// [`LoadError::Unreadable`] and [`LoadError::Corrupt`].
pub(crate) fn read(path: &Path) -> Result<Gguf, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let info = file.metadata().map_err(unreadable)?;
    if !info.is_file() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
        return Err(unreadable(source));
    }
    let mut reader = Reader {
        from: BufReader::with_capacity(1 << 16, file),
        at: 0,
        length: info.len(),
    };
    parse(&mut reader).map_err(|error| match error {
        Problem::Io(source) => unreadable(source),
        Problem::Corrupt(reason) => LoadError::Corrupt {
            path: path.to_owned(),
            reason,
        },
    })
}

#[derive(Debug)]
enum Problem {
    Io(std::io::Error),
    Corrupt(String),
}

fn corrupt<T>(reason: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Corrupt(reason.into()))
}

struct Reader<R> {
    from: R,
    at: u64,
    length: u64,
}

impl<R: Read> Reader<R> {
    fn left(&self) -> u64 {
        self.length.saturating_sub(self.at)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut buffer = [0; N];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Problem> {
        if (buffer.len() as u64) > self.left() {
            return corrupt(format!("it ends in its head, after {} bytes", self.length));
        }
        self.from.read_exact(buffer).map_err(Problem::Io)?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn string(&mut self) -> Result<String, Problem> {
        let length = self.u64()?;
        if length > self.left() || length > STRING_BYTES_MAX {
            return corrupt(format!(
                "a string claims {length} bytes and {} are left",
                self.left()
            ));
        }
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
        self.fill(&mut buffer)?;
        Ok(String::from_utf8(buffer)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    fn skip(&mut self, mut length: u64) -> Result<(), Problem> {
        let mut buffer = [0; 4096];
        while length > 0 {
            let part = usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.fill(&mut buffer[..part])?;
            length -= part as u64;
        }
        Ok(())
    }
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of a metadata scalar.
fn scalar_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn scalar<R: Read>(reader: &mut Reader<R>, kind: u32) -> Result<Value, Problem> {
    Ok(match kind {
        0 => Value::Unsigned(reader.bytes::<1>()?[0].into()),
        1 => Value::Signed(i8::from_le_bytes(reader.bytes()?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(reader.bytes()?).into()),
        3 => Value::Signed(i16::from_le_bytes(reader.bytes()?).into()),
        4 => Value::Unsigned(reader.u32()?.into()),
        5 => Value::Signed(i32::from_le_bytes(reader.bytes()?).into()),
        6 => Value::Float(f32::from_le_bytes(reader.bytes()?).into()),
        7 => Value::Bool(reader.bytes::<1>()?[0] != 0),
        TEXT => Value::Text(reader.string()?),
        10 => Value::Unsigned(reader.u64()?),
        11 => Value::Signed(i64::from_le_bytes(reader.bytes()?)),
        12 => Value::Float(f64::from_le_bytes(reader.bytes()?)),
        kind => return corrupt(format!("a metadata value has the unknown type {kind}")),
    })
}

fn array<R: Read>(reader: &mut Reader<R>) -> Result<Value, Problem> {
    let kind = reader.u32()?;
    let length = reader.u64()?;
    let element_bytes = if kind == TEXT {
        Some(8)
    } else {
        scalar_bytes(kind)
    };
    let Some(element_bytes) = element_bytes else {
        return corrupt(format!("a metadata array has the unknown type {kind}"));
    };
    if length > reader.left() / element_bytes {
        return corrupt(format!(
            "a metadata array claims {length} elements and {} bytes are left",
            reader.left()
        ));
    }
    let mut sum = 0_u64;
    match kind {
        TEXT => {
            for _ in 0..length {
                let bytes = reader.u64()?;
                if bytes > reader.left() || bytes > STRING_BYTES_MAX {
                    return corrupt(format!(
                        "a string claims {bytes} bytes and {} are left",
                        reader.left()
                    ));
                }
                reader.skip(bytes)?;
            }
        }
        4 | 5 => {
            for _ in 0..length {
                sum = sum.saturating_add(
                    u64::try_from(i32::from_le_bytes(reader.bytes()?)).unwrap_or(0),
                );
            }
        }
        _ => reader.skip(length * element_bytes)?,
    }
    Ok(Value::Array { length, sum })
}

/// Elements and bytes of a block of a tensor type, for the types of this llama.cpp; `None` leaves the size to it.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        2 | 20 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        9 => (32, 36),
        10 => (256, 84),
        11 | 21 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        16 | 35 => (256, 66),
        17 => (256, 74),
        18 => (256, 98),
        19 => (256, 50),
        22 => (256, 82),
        23 => (256, 136),
        24 => (1, 1),
        27 | 28 => (1, 8),
        29 => (256, 56),
        34 => (256, 54),
        39 => (32, 17),
        _ => return None,
    })
}

fn parse<R: Read>(reader: &mut Reader<R>) -> Result<Gguf, Problem> {
    if reader.left() < 24 || &reader.bytes::<4>()? != b"GGUF" {
        return corrupt("it does not begin as a GGUF file");
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return corrupt(format!(
            "it has GGUF version {version}; versions 2 and 3 are known"
        ));
    }
    let tensors = reader.u64()?;
    let pairs = reader.u64()?;
    // A tensor takes at least 32 bytes of the head and a pair at least 13.
    if tensors > TENSORS_MAX || tensors > reader.left() / 32 {
        return corrupt(format!("it claims {tensors} tensors"));
    }
    if pairs > PAIRS_MAX || pairs > reader.left() / 13 {
        return corrupt(format!("it claims {pairs} metadata pairs"));
    }
    let mut gguf = Gguf::default();
    for _ in 0..pairs {
        let key = reader.string()?;
        let kind = reader.u32()?;
        let value = if kind == ARRAY {
            array(reader)?
        } else {
            scalar(reader, kind)?
        };
        if gguf.metadata.insert(key.clone(), value).is_some() {
            return corrupt(format!("metadata key `{}` comes twice", key.escape_debug()));
        }
    }
    let alignment = match gguf.metadata.get("general.alignment") {
        None => 32,
        Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n,
        Some(_) => return corrupt("its alignment is not a power of two"),
    };
    let mut names = HashSet::new();
    let mut end = 0_u64;
    for _ in 0..tensors {
        let name = reader.string()?;
        let dimensions = reader.u32()?;
        if dimensions > 4 {
            return corrupt(format!("a tensor has {dimensions} dimensions"));
        }
        let mut elements = 1_u64;
        let mut row = 1_u64;
        for dimension in 0..dimensions {
            let n = reader.u64()?;
            elements = elements
                .checked_mul(n)
                .filter(|n| *n <= ELEMENTS_MAX)
                .unwrap_or(0);
            if elements == 0 {
                return corrupt(format!(
                    "tensor `{}` has an impossible size",
                    name.escape_debug()
                ));
            }
            if dimension == 0 {
                row = n;
            }
        }
        let kind = reader.u32()?;
        let offset = reader.u64()?;
        if !offset.is_multiple_of(alignment) {
            return corrupt(format!("tensor `{}` is not aligned", name.escape_debug()));
        }
        let bytes = match block(kind) {
            Some((block, bytes)) if row.is_multiple_of(block) => elements / block * bytes,
            Some(_) => {
                return corrupt(format!(
                    "tensor `{}` has a row of odd length",
                    name.escape_debug()
                ));
            }
            None => 0,
        };
        let Some(this_end) = offset.checked_add(bytes) else {
            return corrupt(format!(
                "tensor `{}` lies outside the file",
                name.escape_debug()
            ));
        };
        end = end.max(this_end);
        if !names.insert(name) {
            return corrupt("two tensors have the same name");
        }
    }
    let data = reader.at.next_multiple_of(alignment);
    match data.checked_add(end) {
        Some(needed) if needed <= reader.length => {}
        Some(needed) => {
            return corrupt(format!(
                "it has {} bytes and its tensors need {needed}",
                reader.length
            ));
        }
        None => return corrupt("a tensor lies outside the file"),
    }
    if tensors == 0 {
        return corrupt("it has no tensors");
    }
    if gguf.text("general.architecture").is_none() {
        return corrupt("it names no architecture");
    }
    gguf.tensor_bytes = end;
    Ok(gguf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_bytes(bytes: &[u8]) -> Result<Gguf, Problem> {
        parse(&mut Reader {
            from: bytes,
            at: 0,
            length: bytes.len() as u64,
        })
    }

    fn sample() -> Vec<u8> {
        crate::selftest::tiny_model(1)
    }

    #[test]
    fn a_sound_file_is_read() {
        let gguf = parse_bytes(&sample()).unwrap();
        assert_eq!(gguf.text("general.architecture"), Some("llama"));
        assert_eq!(gguf.number("block_count"), Some(1));
        assert!(gguf.tensor_bytes > 1000);
    }

    #[test]
    fn every_shorter_file_is_refused() {
        let bytes = sample();
        for length in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            assert!(
                matches!(parse_bytes(&bytes[..length]), Err(Problem::Corrupt(_))),
                "{length}"
            );
        }
    }

    #[test]
    fn huge_counts_are_refused_without_allocating() {
        for (at, what) in [(8, "tensors"), (16, "pairs"), (24, "string")] {
            let mut bytes = sample();
            bytes[at..at + 8].copy_from_slice(&(u64::MAX - 7).to_le_bytes());
            assert!(
                matches!(parse_bytes(&bytes), Err(Problem::Corrupt(_))),
                "{what}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_damage_makes_the_reader_panic(at in 0_usize..600, byte: u8, width in 1_usize..9) {
            let mut bytes = sample();
            for b in bytes.iter_mut().skip(at).take(width) {
                *b ^= byte;
            }
            let _ = parse_bytes(&bytes);
        }

        #[test]
        fn no_input_makes_the_reader_panic(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
            bytes.extend(tail);
            let _ = parse_bytes(&bytes);
        }
    }
}
