//! What a GGUF file says of itself, read without trusting a byte of it.
//!
//! A model file is hostile input: it may come from anywhere, and the code that loads it is written in C. So before a
//! file is installed (and before it is loaded) its header, metadata and tensor table are read here in safe Rust, every
//! count and length checked against a limit and against the file, every sum and product checked for overflow. The
//! layout is that of the GGUF specification in the ggml repository, versions 2 and 3, little endian.

mod layout;
mod reader;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use reader::GgufError;

/// What a model file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// `general.architecture`, such as `llama` or `qwen2`.
    pub architecture: String,
    /// `general.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Longest context in tokens that the model was trained for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens_max: Option<u64>,
    /// Numbers in all tensors together.
    pub parameters: u64,
    /// How the weights are stored, such as `Q4_K_M`.
    pub quantization: String,
    /// Whether there is a chat template. Without one the model continues text and does not chat.
    pub has_chat_template: bool,
    /// Tokens in the vocabulary, if it is in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary_size: Option<u64>,
    /// `general.license`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// `general.languages`.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
    /// Width of the residual stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_length: Option<u64>,
    /// Numbers that one token adds to the key-value cache, over all layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_elements_per_token: Option<u64>,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Tensors.
    pub tensors: u64,
    /// GGUF version.
    pub gguf_version: u32,
}

/// Memory that the engine needs for a model, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// The weights.
    pub weights_bytes: u64,
    /// Keys and values of the whole context, in 16 bits.
    pub kv_bytes: u64,
    /// Scratch space and the runtime's own.
    pub compute_bytes: u64,
}

impl MemoryEstimate {
    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes
            .saturating_add(self.kv_bytes)
            .saturating_add(self.compute_bytes)
    }
}

/// Tokens that are computed at once; decides the scratch space.
const BATCH_TOKENS: u64 = 512;
/// What a loaded model costs before its first token: tables, graphs, threads.
const RUNTIME_BYTES: u64 = 32 * 1024 * 1024;

impl ModelInfo {
    /// Memory for `context_tokens` tokens in all sequences together. Errs on the side of more: sliding windows and
    /// layers without a cache are counted in full.
    #[must_use]
    pub fn memory(&self, context_tokens: u64) -> MemoryEstimate {
        let kv_bytes = self
            .kv_elements_per_token
            .unwrap_or(0)
            .saturating_mul(context_tokens)
            .saturating_mul(2);
        let width = self.embedding_length.unwrap_or(0);
        // Scores of a batch over the vocabulary and some layers' worth of activations, in 32 bits.
        let per_token = self
            .vocabulary_size
            .unwrap_or(0)
            .saturating_add(width.saturating_mul(16))
            .saturating_mul(4);
        MemoryEstimate {
            weights_bytes: self.tensor_bytes,
            kv_bytes,
            compute_bytes: per_token
                .saturating_mul(BATCH_TOKENS)
                .saturating_add(RUNTIME_BYTES),
        }
    }
}

/// Reads a model file.
///
/// # Errors
/// See [`GgufError`]; never a panic, and never more than about 64 MiB of memory whatever the file says.
pub fn read_file(path: &Path) -> Result<ModelInfo, GgufError> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    read(file, len)
}

/// Reads a model from anything that can seek. `len` is its whole length in bytes.
///
/// # Errors
/// As [`read_file`].
pub fn read(source: impl Read + Seek, len: u64) -> Result<ModelInfo, GgufError> {
    reader::Reader::new(source, len).model()
}
