//! The reader: one pass, bounded, every number checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufReader, Read, Seek};

use super::ModelInfo;
use super::layout::{TensorType, file_type_name, tensor_type};

/// Metadata entries. Real files have below 100.
const METADATA_MAX: u64 = 8 * 1024;
/// Tensors. The largest known models have some thousands.
const TENSORS_MAX: u64 = 64 * 1024;
/// A key's bytes. The specification allows 65,535; real ones are below 64.
const KEY_BYTES_MAX: u64 = 512;
/// A tensor name's bytes, as llama.cpp has it.
const TENSOR_NAME_BYTES_MAX: u64 = 63;
/// One string's bytes. Chat templates reach some 20 KB.
const STRING_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Entries of an array. The largest vocabularies have about 260,000 tokens, with as many merges.
const ARRAY_MAX: u64 = 4 * 1024 * 1024;
/// Header, metadata and tensor table together.
const HEADER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Text values that are kept are cut to this many bytes.
const KEPT_BYTES_MAX: usize = 256;
/// Languages that are kept.
const LANGUAGES_MAX: usize = 64;
/// Entries of the per-layer arrays that are added up.
const LAYERS_MAX: u64 = 4096;
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 64 * 1024;

/// Why a file is not a usable GGUF model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Not GGUF at all.
    #[error("the file does not begin with `GGUF`")]
    Magic,
    /// A version that is not read.
    #[error("GGUF version {0} is not supported; versions 2 and 3 (little endian) are")]
    Version(u32),
    /// The file ends too early.
    #[error("the file ends in the middle of {0}; the download may be incomplete")]
    Truncated(&'static str),
    /// A count or length beyond its limit.
    #[error("{what} of {found} is beyond the limit of {limit}")]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Something that contradicts the format.
    #[error("the file is malformed: {0}")]
    Malformed(&'static str),
    /// A tensor type that is not known.
    #[error("tensor type {0} is not known; a newer version of Honshu may know it")]
    TensorType(u32),
    /// A key that every model has is not there.
    #[error("the metadata has no `{0}`")]
    Missing(&'static str),
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
}

impl From<io::Error> for GgufError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated("the header")
        } else {
            Self::Io(error)
        }
    }
}

/// A metadata value, as far as anything here asks for it.
enum Value {
    Number(u64),
    Text {
        text: String,
        len: u64,
    },
    /// Arrays of numbers, summed: per-layer head counts.
    Numbers {
        len: u64,
        sum: u64,
    },
    Texts {
        len: u64,
        first: Vec<String>,
    },
    /// Read over.
    Other,
}

pub(super) struct Reader<R: Read + Seek> {
    source: BufReader<R>,
    at: u64,
    len: u64,
}

struct Tensor {
    offset: u64,
    bytes: u64,
}

impl<R: Read + Seek> Reader<R> {
    pub(super) fn new(source: R, len: u64) -> Self {
        Self {
            source: BufReader::with_capacity(64 * 1024, source),
            at: 0,
            len,
        }
    }

    pub(super) fn model(&mut self) -> Result<ModelInfo, GgufError> {
        if self.bytes::<4>()? != *b"GGUF" {
            return Err(GgufError::Magic);
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensors = bounded("tensor count", self.u64()?, TENSORS_MAX)?;
        let entries = bounded("metadata count", self.u64()?, METADATA_MAX)?;
        let metadata = self.metadata(entries)?;
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT_DEFAULT,
            Some(Value::Number(n)) if n.is_power_of_two() && (8..=ALIGNMENT_MAX).contains(n) => *n,
            Some(_) => {
                return Err(GgufError::Malformed(
                    "the alignment is not a power of two from 8 to 65536",
                ));
            }
        };
        let table = self.tensors(tensors, alignment)?;
        describe(version, &metadata, &table)
    }

    fn metadata(&mut self, entries: u64) -> Result<HashMap<String, Value>, GgufError> {
        // Grown as entries arrive, not by what the header promises.
        let mut metadata = HashMap::new();
        for _ in 0..entries {
            let key = self.string("key length", KEY_BYTES_MAX)?;
            let key =
                String::from_utf8(key).map_err(|_| GgufError::Malformed("a key is not UTF-8"))?;
            let kind = self.u32()?;
            let value = if kind == 9 {
                self.array()?
            } else {
                self.scalar(kind)?
            };
            if metadata.insert(key, value).is_some() {
                return Err(GgufError::Malformed("a metadata key appears twice"));
            }
        }
        Ok(metadata)
    }

    fn scalar(&mut self, kind: u32) -> Result<Value, GgufError> {
        let signed = |n: i64| u64::try_from(n).map_or(Value::Other, Value::Number);
        Ok(match kind {
            0 => Value::Number(self.bytes::<1>()?[0].into()),
            1 => signed(i8::from_le_bytes(self.bytes()?).into()),
            2 => Value::Number(u16::from_le_bytes(self.bytes()?).into()),
            3 => signed(i16::from_le_bytes(self.bytes()?).into()),
            4 => Value::Number(self.u32()?.into()),
            5 => signed(i32::from_le_bytes(self.bytes()?).into()),
            7 => match self.bytes::<1>()?[0] {
                0 | 1 => Value::Other,
                _ => return Err(GgufError::Malformed("a boolean is neither 0 nor 1")),
            },
            8 => {
                let bytes = self.string("string length", STRING_BYTES_MAX)?;
                let len = bytes.len() as u64;
                Value::Text {
                    text: kept(bytes),
                    len,
                }
            }
            10 => Value::Number(self.u64()?),
            11 => signed(i64::from_le_bytes(self.bytes()?)),
            6 => {
                self.bytes::<4>()?;
                Value::Other
            }
            12 => {
                self.bytes::<8>()?;
                Value::Other
            }
            _ => return Err(GgufError::Malformed("a metadata value has an unknown type")),
        })
    }

    fn array(&mut self) -> Result<Value, GgufError> {
        let kind = self.u32()?;
        let len = bounded("array length", self.u64()?, ARRAY_MAX)?;
        let width = match kind {
            8 => return self.texts(len),
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            9 => return Err(GgufError::Malformed("an array holds arrays")),
            _ => return Err(GgufError::Malformed("an array has an unknown type")),
        };
        if len <= LAYERS_MAX && matches!(kind, 0..=5 | 10 | 11) {
            let mut sum = 0u64;
            for _ in 0..len {
                if let Value::Number(n) = self.scalar(kind)? {
                    sum = sum.saturating_add(n);
                }
            }
            return Ok(Value::Numbers { len, sum });
        }
        self.skip(len * width)?;
        Ok(Value::Other)
    }

    fn texts(&mut self, len: u64) -> Result<Value, GgufError> {
        let mut first = Vec::new();
        for _ in 0..len {
            if first.len() < LANGUAGES_MAX {
                first.push(kept(self.string("string length", STRING_BYTES_MAX)?));
            } else {
                let bytes = bounded("string length", self.u64()?, STRING_BYTES_MAX)?;
                self.skip(bytes)?;
            }
        }
        Ok(Value::Texts { len, first })
    }

    fn tensors(&mut self, count: u64, alignment: u64) -> Result<Table, GgufError> {
        let mut table = Table::default();
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        for _ in 0..count {
            let name = self.string("tensor name length", TENSOR_NAME_BYTES_MAX)?;
            if !names.insert(name) {
                return Err(GgufError::Malformed("two tensors have the same name"));
            }
            let dimensions = self.u32()?;
            if dimensions > DIMENSIONS_MAX {
                return Err(GgufError::Malformed(
                    "a tensor has more than four dimensions",
                ));
            }
            let mut elements = 1u64;
            let mut row = 1;
            for n in 0..dimensions {
                let size = self.u64()?;
                if size == 0 || i64::try_from(size).is_err() {
                    return Err(GgufError::Malformed(
                        "a tensor has a dimension of zero or less",
                    ));
                }
                if n == 0 {
                    row = size;
                }
                elements = elements
                    .checked_mul(size)
                    .filter(|n| i64::try_from(*n).is_ok())
                    .ok_or(GgufError::Malformed("a tensor's size overflows"))?;
            }
            let id = self.u32()?;
            let kind = tensor_type(id).ok_or(GgufError::TensorType(id))?;
            let bytes = tensor_bytes(kind, elements, row)?;
            let offset = self.u64()?;
            if !offset.is_multiple_of(alignment) {
                return Err(GgufError::Malformed(
                    "a tensor does not begin at the alignment",
                ));
            }
            let overflows = GgufError::Malformed("the tensors' total size overflows");
            table.parameters = table.parameters.checked_add(elements).ok_or(overflows)?;
            let overflows = GgufError::Malformed("the tensors' total size overflows");
            table.bytes = table.bytes.checked_add(bytes).ok_or(overflows)?;
            *table.bytes_by_type.entry(kind.name).or_default() += bytes;
            tensors.push(Tensor { offset, bytes });
        }
        table.count = count;
        let data = self
            .at
            .checked_next_multiple_of(alignment)
            .ok_or(GgufError::Malformed("the header's size overflows"))?;
        self.check_placement(tensors, data)?;
        Ok(table)
    }

    /// Every tensor lies within the file, and none lies on another.
    fn check_placement(&self, mut tensors: Vec<Tensor>, data: u64) -> Result<(), GgufError> {
        tensors.sort_unstable_by_key(|t| t.offset);
        let mut free_from = 0;
        for tensor in tensors {
            if tensor.offset < free_from {
                return Err(GgufError::Malformed("two tensors overlap"));
            }
            let end = tensor.offset.checked_add(tensor.bytes);
            let end = end.ok_or(GgufError::Malformed("a tensor's place overflows"))?;
            if data.checked_add(end).is_none_or(|end| end > self.len) {
                return Err(GgufError::Truncated("a tensor"));
            }
            free_from = end;
        }
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn string(&mut self, what: &'static str, limit: u64) -> Result<Vec<u8>, GgufError> {
        let len = bounded(what, self.u64()?, limit)?;
        self.take(len)?;
        let mut bytes = vec![0; len as usize];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), GgufError> {
        self.take(bytes)?;
        // Below `len`, which a file's length keeps within i64.
        let bytes = i64::try_from(bytes).map_err(|_| GgufError::Truncated("the header"))?;
        Ok(self.source.seek_relative(bytes)?)
    }

    /// Moves on by `bytes`, which must be there. Called before anything is allocated for them.
    fn take(&mut self, bytes: u64) -> Result<(), GgufError> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.len);
        self.at = end.ok_or(GgufError::Truncated("the header"))?;
        bounded("header size", self.at, HEADER_BYTES_MAX).map(|_| ())
    }
}

#[derive(Default)]
struct Table {
    count: u64,
    parameters: u64,
    bytes: u64,
    bytes_by_type: BTreeMap<&'static str, u64>,
}

fn bounded(what: &'static str, found: u64, limit: u64) -> Result<u64, GgufError> {
    if found > limit {
        Err(GgufError::TooLarge { what, found, limit })
    } else {
        Ok(found)
    }
}

fn tensor_bytes(kind: TensorType, elements: u64, row: u64) -> Result<u64, GgufError> {
    if !row.is_multiple_of(kind.block_len) {
        return Err(GgufError::Malformed("a tensor's rows are not whole blocks"));
    }
    let overflows = GgufError::Malformed("a tensor's size overflows");
    (elements / kind.block_len)
        .checked_mul(kind.block_bytes)
        .ok_or(overflows)
}

/// The beginning of a text, made printable.
fn kept(bytes: Vec<u8>) -> String {
    let cut = &bytes[..bytes.len().min(KEPT_BYTES_MAX)];
    String::from_utf8_lossy(cut)
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

fn describe(
    version: u32,
    metadata: &HashMap<String, Value>,
    table: &Table,
) -> Result<ModelInfo, GgufError> {
    let text = |key: &str| match metadata.get(key) {
        Some(Value::Text { text, .. }) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    let architecture =
        text("general.architecture").ok_or(GgufError::Missing("general.architecture"))?;
    let of_architecture = |name: &str| metadata.get(&format!("{architecture}.{name}"));
    let number = |name: &str| match of_architecture(name) {
        Some(Value::Number(n)) => Some(*n),
        _ => None,
    };
    if matches!(metadata.get("split.count"), Some(Value::Number(2..))) {
        return Err(GgufError::Malformed(
            "it is one part of a model in several files, which is not supported",
        ));
    }
    if table.count == 0 {
        return Err(GgufError::Malformed("it holds no tensors"));
    }
    let layers = number("block_count");
    let embedding_length = number("embedding_length");
    let heads = match of_architecture("attention.head_count") {
        Some(Value::Number(n)) => Some(*n),
        // Per layer: the average is enough for the width of a head.
        Some(Value::Numbers { len, sum }) if *len > 0 => Some(sum / len),
        _ => None,
    };
    let head_width = embedding_length
        .zip(heads)
        .and_then(|(width, heads)| width.checked_div(heads));
    // Over all layers.
    let kv_heads = match of_architecture("attention.head_count_kv") {
        Some(Value::Numbers { sum, .. }) => Some(*sum),
        Some(Value::Number(n)) => layers.map(|layers| n.saturating_mul(layers)),
        _ => heads
            .zip(layers)
            .map(|(heads, layers)| heads.saturating_mul(layers)),
    };
    let key_width = number("attention.key_length").or(head_width);
    let value_width = number("attention.value_length").or(head_width);
    let kv_elements_per_token = kv_heads
        .zip(key_width.zip(value_width))
        .map(|(heads, (key, value))| heads.saturating_mul(key.saturating_add(value)));
    let quantization = match metadata.get("general.file_type") {
        Some(Value::Number(n)) => file_type_name(*n),
        _ => None,
    };
    let largest = table
        .bytes_by_type
        .iter()
        .max_by_key(|(_, bytes)| **bytes)
        .map(|(name, _)| *name);
    let vocabulary_size = match metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Texts { len, .. }) => Some(*len),
        _ => number("vocab_size"),
    };
    let languages = match metadata.get("general.languages") {
        Some(Value::Texts { first, .. }) => first.clone(),
        _ => Vec::new(),
    };
    Ok(ModelInfo {
        name: text("general.name"),
        context_tokens_max: number("context_length"),
        parameters: table.parameters,
        quantization: quantization.or(largest).unwrap_or("unknown").to_owned(),
        has_chat_template: matches!(
            metadata.get("tokenizer.chat_template"),
            Some(Value::Text { len: 1.., .. })
        ),
        vocabulary_size,
        license: text("general.license"),
        languages,
        layers,
        embedding_length,
        kv_elements_per_token,
        tensor_bytes: table.bytes,
        tensors: table.count,
        gguf_version: version,
        architecture,
    })
}
