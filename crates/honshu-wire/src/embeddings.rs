//! OpenAI's embeddings: texts in, vectors out. One answer, never a stream; it runs as any other request does, so that
//! failover, clocks and the usage row are the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Demand, Dialect, Error, InferenceRequest, Sampling, TextFormat, ToolChoice, Usage,
};

use crate::json::{Node, Path, put, put_f32, put_str, put_u64, put_uint};
use crate::problems::{self, Findings, MISSING, WRONG_VALUE};

/// Entries of one request (OpenAI API reference).
const ENTRIES_MAX: usize = 2_048;
/// Token ids of one entry (OpenAI API reference).
const ENTRY_TOKENS_MAX: usize = 8_192;
/// Tokens of all entries of a request (OpenAI API reference).
pub const TOKENS_MAX: usize = 300_000;
/// More dimensions than any model has.
const DIMENSIONS_MAX: i64 = 65_536;

/// What is to be turned into vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingRequest {
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// How many numbers each vector is to have; absent means as many as the model gives.
    pub dimensions: Option<u32>,
    /// Vectors as base64 of little-endian `f32`, rather than as lists of numbers.
    pub base64: bool,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A text.
    Text(String),
    /// Token ids of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// Reads a `POST /embeddings` body. What it asks for is read again from the body by the backend that needs it, with
/// [`read`].
///
/// # Errors
/// `Invalid` with every problem found and its JSON path.
pub fn parse_request(body: Bytes) -> Result<InferenceRequest, Error> {
    let mut findings = Findings::default();
    let (model, _) = parse(&body, &mut findings)?;
    findings.check()?;
    findings.demand(Demand::Embeddings, &Path::Root);
    Ok(InferenceRequest {
        dialect: Dialect::Embeddings,
        raw: body,
        model: model.into(),
        instructions: None,
        input: Vec::new(),
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        sampling: Sampling::default(),
        format: TextFormat::Text,
        max_output_tokens: None,
        stop: Vec::new(),
        choices: 1,
        top_logprobs: None,
        reasoning_effort: None,
        stream: false,
        include_usage: false,
        obfuscates: false,
        demands: findings.demands,
        hints: findings.hints,
    })
}

/// Reads the checked body of a request again.
///
/// # Errors
/// As [`parse_request`].
pub fn read(body: &[u8]) -> Result<EmbeddingRequest, Error> {
    let mut findings = Findings::default();
    let (_, request) = parse(body, &mut findings)?;
    findings.check()?;
    Ok(request)
}

fn parse(body: &[u8], findings: &mut Findings) -> Result<(String, EmbeddingRequest), Error> {
    let root = problems::body(body)?;
    let mut model = String::new();
    let mut request = EmbeddingRequest {
        entries: Vec::new(),
        dimensions: None,
        base64: false,
    };
    let top = Path::Root;
    for (key, node) in root.as_object().unwrap_or_default() {
        let path = top.key(key);
        match key.as_ref() {
            "model" => {
                if let Some(name) = findings.string(node, &path) {
                    name.clone_into(&mut model);
                }
            }
            "input" => request.entries = entries(node, &path, findings),
            "encoding_format" => {
                request.base64 =
                    findings.one_of(node, &path, &["float", "base64"]) == Some("base64");
            }
            "dimensions" => {
                request.dimensions = findings
                    .integer(node, &path, 1, DIMENSIONS_MAX)
                    .and_then(|n| u32::try_from(n).ok());
            }
            _ => findings.hint(&path, node),
        }
    }
    if model.is_empty() {
        findings.problem(&top.key("model"), MISSING, "required: the name of a model");
    }
    if root.find("input").is_none() {
        findings.problem(&top.key("input"), MISSING, "required: a text or several");
    }
    Ok((model, request))
}

fn entries(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Vec<Entry> {
    if let Some(text) = node.as_str() {
        return text_entry(text, path, findings).into_iter().collect();
    }
    let Some(list) = node.as_array() else {
        if !node.is_null() {
            findings.expected(node, path, "a string or an array");
        }
        return Vec::new();
    };
    if list.is_empty() {
        findings.problem(path, WRONG_VALUE, "must have at least one entry");
        return Vec::new();
    }
    if list[0].as_i64().is_some() {
        return tokens(node, path, findings).into_iter().collect();
    }
    if list.len() > ENTRIES_MAX {
        let what = format!("at most {ENTRIES_MAX} entries, got {}", list.len());
        findings.problem(path, WRONG_VALUE, what);
        return Vec::new();
    }
    let mut total = 0;
    let mut entries = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let at = path.index(index);
        if let Some(text) = entry.as_str() {
            entries.extend(text_entry(text, &at, findings));
        } else if entry.as_array().is_some() {
            let ids = tokens(entry, &at, findings);
            if let Some(Entry::Tokens(ids)) = &ids {
                total += ids.len();
            }
            entries.extend(ids);
        } else {
            findings.expected(entry, &at, "a string or an array of token ids");
        }
    }
    if total > TOKENS_MAX {
        let what = format!("at most {TOKENS_MAX} token ids in all, got {total}");
        findings.problem(path, WRONG_VALUE, what);
    }
    entries
}

fn text_entry(text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<Entry> {
    if text.is_empty() {
        findings.problem(path, WRONG_VALUE, "must not be empty");
        return None;
    }
    Some(Entry::Text(text.to_owned()))
}

fn tokens(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Entry> {
    let list = node.as_array().unwrap_or_default();
    if list.is_empty() || list.len() > ENTRY_TOKENS_MAX {
        let what = format!(
            "expected 1 to {ENTRY_TOKENS_MAX} token ids, got {}",
            list.len()
        );
        findings.problem(path, WRONG_VALUE, what);
        return None;
    }
    let mut ids = Vec::with_capacity(list.len());
    for (index, id) in list.iter().enumerate() {
        let id = findings.integer(id, &path.index(index), 0, i64::from(u32::MAX))?;
        ids.push(u32::try_from(id).unwrap_or_default());
    }
    Some(Entry::Tokens(ids))
}

/// The body of an answer.
pub fn list(model: &str, vectors: &[Vec<f32>], base64: bool, usage: &Usage) -> Bytes {
    let mut body =
        BytesMut::with_capacity(256 + vectors.iter().map(|v| v.len() * 12).sum::<usize>());
    let out = &mut body;
    put(out, "{\"object\":\"list\",\"data\":[");
    for (index, vector) in (0_u32..).zip(vectors) {
        if index > 0 {
            put(out, ",");
        }
        put(out, "{\"object\":\"embedding\",\"index\":");
        put_uint(out, index);
        put(out, ",\"embedding\":");
        if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|n| n.to_le_bytes()).collect();
            put_str(out, &STANDARD.encode(bytes));
        } else {
            put(out, "[");
            for (at, number) in vector.iter().enumerate() {
                if at > 0 {
                    put(out, ",");
                }
                put_f32(out, *number);
            }
            put(out, "]");
        }
        put(out, "}");
    }
    put(out, "],\"model\":");
    put_str(out, model);
    put(out, ",\"usage\":{\"prompt_tokens\":");
    put_u64(out, usage.input_tokens);
    put(out, ",\"total_tokens\":");
    put_u64(out, usage.input_tokens);
    put(out, "}}");
    body.freeze()
}
