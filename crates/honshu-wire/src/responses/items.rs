//! Items of a conversation as they stand in a Responses body: read from callers and upstreams, written to both.

use std::sync::Arc;

use bytes::BytesMut;
use honshu_domain::{
    CustomToolCall, Demand, FunctionCall, FunctionCallOutput, ImageDetail, Item, Message, Part,
    Reasoning, Role, TokenLogprob, TopLogprob,
};

use crate::json::{Node, Path, put, put_f32, put_str, put_uint};
use crate::problems::{Findings, WRONG_VALUE, raw};

/// Reads the item list of a request, or of a whole answer.
pub(super) fn read_list(nodes: &[Node<'_>], path: &Path<'_>, findings: &mut Findings) -> Vec<Item> {
    let mut items = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        items.extend(read(node, &path.index(index), findings));
    }
    items
}

/// Reads one item. Kinds that we do not interpret are carried and become a demand, since only an upstream of
/// the same dialect understands them.
pub(crate) fn read(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Item> {
    findings.object(node, path)?;
    let kind = match node.find("type") {
        Some(kind) => findings.string(kind, &path.key("type"))?,
        // Many clients leave the type of plain messages out.
        None if node.find("role").is_some() => "message",
        // An object with nothing but an id can only refer to an item.
        None if node.find("id").is_some() => "item_reference",
        None => {
            findings.missing(&path.key("type"));
            return None;
        }
    };
    match kind {
        "message" => message(node, path, findings).map(Item::Message),
        "function_call" => function_call(node, path, findings).map(Item::FunctionCall),
        "function_call_output" => call_output(node, path, findings).map(Item::FunctionCallOutput),
        "custom_tool_call" => custom_tool_call(node, path, findings).map(Item::CustomToolCall),
        "custom_tool_call_output" => {
            call_output(node, path, findings).map(Item::CustomToolCallOutput)
        }
        "reasoning" => reasoning(node, path, findings).map(Item::Reasoning),
        other => {
            if other == "compaction" {
                findings.required_string(node, "encrypted_content", path)?;
            }
            findings.demand(Demand::ForeignItems, path);
            Some(Item::Other {
                kind: other.into(),
                raw: raw(node)?,
            })
        }
    }
}

fn id(node: &Node<'_>) -> Option<Arc<str>> {
    node.find_str("id")
        .filter(|id| !id.is_empty())
        .map(Into::into)
}

fn name_unknown(node: &Node<'_>, known: &[&str], path: &Path<'_>, findings: &mut Findings) {
    for (key, value) in node.as_object().unwrap_or_default() {
        if !known.contains(&key.as_ref()) {
            findings.hint(&path.key(key), value);
        }
    }
}

fn message(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Message> {
    let role = match findings.required_string(node, "role", path)? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        "developer" => Role::Developer,
        _ => {
            findings.problem(
                &path.key("role"),
                WRONG_VALUE,
                "expected one of `user`, `assistant`, `system`, `developer`",
            );
            return None;
        }
    };
    let at = path.key("content");
    let content = match node.find("content") {
        Some(content) => self::content(content, &at, findings)?,
        // Agents send assistant turns that were nothing but calls with `null`.
        None if role == Role::Assistant => Vec::new(),
        None => {
            findings.missing(&at);
            return None;
        }
    };
    name_unknown(
        node,
        &["type", "id", "role", "content", "status", "phase"],
        path,
        findings,
    );
    Some(Message {
        id: id(node),
        role,
        content,
        phase: node.find_str("phase").map(Into::into),
        name: None,
    })
}

/// Content as a string or as parts.
fn content(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Vec<Part>> {
    if let Some(text) = node.as_str() {
        return Some(vec![Part::text(text)]);
    }
    let Some(nodes) = node.as_array() else {
        findings.expected(node, path, "a string or an array of content parts");
        return None;
    };
    let mut parts = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        parts.extend(part(node, &path.index(index), findings));
    }
    Some(parts)
}

fn part(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Part> {
    findings.object(node, path)?;
    let kind = findings.required_string(node, "type", path)?;
    match kind {
        "input_text" | "output_text" | "text" => {
            let text = findings.required_string(node, "text", path)?;
            let annotations = node
                .find("annotations")
                .and_then(Node::as_array)
                .unwrap_or_default();
            name_unknown(
                node,
                &["type", "text", "annotations", "logprobs"],
                path,
                findings,
            );
            Some(Part::Text {
                text: text.to_owned(),
                annotations: annotations.iter().filter_map(raw).collect(),
                logprobs: node.find("logprobs").map(read_logprobs).unwrap_or_default(),
            })
        }
        "refusal" => Some(Part::Refusal {
            refusal: findings.required_string(node, "refusal", path)?.to_owned(),
        }),
        "input_image" => image(node, path, findings),
        "input_file" => {
            findings.demand(Demand::FileInput, path);
            other_part(kind, node)
        }
        "input_audio" => {
            findings.demand(Demand::Audio, path);
            other_part(kind, node)
        }
        _ => {
            findings.demand(Demand::ForeignItems, path);
            other_part(kind, node)
        }
    }
}

fn other_part(kind: &str, node: &Node<'_>) -> Option<Part> {
    Some(Part::Other {
        kind: kind.into(),
        raw: raw(node)?,
    })
}

fn image(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Part> {
    findings.demand(Demand::ImageInput, path);
    let url = node
        .find("image_url")
        .map(|url| findings.string(url, &path.key("image_url")));
    let file_id = node
        .find("file_id")
        .map(|file| findings.string(file, &path.key("file_id")));
    if let Some(Some(url)) = url {
        crate::images::check(url, &path.key("image_url"), findings);
    }
    if url.is_none() && file_id.is_none() {
        findings.missing(&path.key("image_url"));
    }
    name_unknown(
        node,
        &["type", "image_url", "file_id", "detail"],
        path,
        findings,
    );
    Some(Part::Image {
        url: url.flatten().map(ToOwned::to_owned),
        file_id: file_id.flatten().map(ToOwned::to_owned),
        detail: detail(node, path, findings),
    })
}

/// The `detail` of an image, in either dialect.
pub(crate) fn detail(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> ImageDetail {
    let Some(detail) = node.find("detail") else {
        return ImageDetail::Auto;
    };
    let words = ["auto", "low", "high", "original"];
    match findings.one_of(detail, &path.key("detail"), &words) {
        Some("low") => ImageDetail::Low,
        Some("high") => ImageDetail::High,
        Some("original") => ImageDetail::Original,
        _ => ImageDetail::Auto,
    }
}

/// The wire word of an image's `detail`.
pub(crate) const fn detail_word(detail: ImageDetail) -> &'static str {
    match detail {
        ImageDetail::Auto => "auto",
        ImageDetail::Low => "low",
        ImageDetail::High => "high",
        ImageDetail::Original => "original",
    }
}

fn function_call(
    node: &Node<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<FunctionCall> {
    findings.demand(Demand::ToolHistory, path);
    let call_id = findings.required_string(node, "call_id", path);
    let name = findings.required_string(node, "name", path);
    let arguments = findings.required_string(node, "arguments", path);
    name_unknown(
        node,
        &["type", "id", "call_id", "name", "arguments", "status"],
        path,
        findings,
    );
    Some(FunctionCall {
        id: id(node),
        call_id: call_id?.into(),
        name: name?.into(),
        arguments: arguments?.to_owned(),
    })
}

fn custom_tool_call(
    node: &Node<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<CustomToolCall> {
    findings.demand(Demand::ToolHistory, path);
    let call_id = findings.required_string(node, "call_id", path);
    let name = findings.required_string(node, "name", path);
    let input = findings.required_string(node, "input", path);
    name_unknown(
        node,
        &["type", "id", "call_id", "name", "input", "status"],
        path,
        findings,
    );
    Some(CustomToolCall {
        id: id(node),
        call_id: call_id?.into(),
        name: name?.into(),
        input: input?.to_owned(),
    })
}

fn call_output(
    node: &Node<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<FunctionCallOutput> {
    findings.demand(Demand::ToolHistory, path);
    let call_id = findings.required_string(node, "call_id", path);
    let at = path.key("output");
    let output = match node.find("output") {
        Some(output) => content(output, &at, findings),
        None => {
            findings.missing(&at);
            None
        }
    };
    name_unknown(
        node,
        &["type", "id", "call_id", "output", "status", "name"],
        path,
        findings,
    );
    Some(FunctionCallOutput {
        id: id(node),
        call_id: call_id?.into(),
        output: output?,
    })
}

fn reasoning(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Reasoning> {
    let mut texts = |key: &str| -> Vec<String> {
        let at = path.key(key);
        let Some(list) = node.find(key).and_then(|list| findings.array(list, &at)) else {
            return Vec::new();
        };
        list.iter()
            .enumerate()
            .filter_map(|(index, part)| {
                findings
                    .required_string(part, "text", &at.index(index))
                    .map(ToOwned::to_owned)
            })
            .collect()
    };
    let summary = texts("summary");
    let content = texts("content");
    let encrypted_content = node
        .find("encrypted_content")
        .and_then(|sealed| findings.string(sealed, &path.key("encrypted_content")))
        .map(ToOwned::to_owned);
    Some(Reasoning {
        id: id(node),
        summary,
        content,
        encrypted_content,
    })
}

/// Log probabilities as both dialects write them in a list. Entries without the known fields are skipped.
pub(crate) fn read_logprobs(node: &Node<'_>) -> Vec<TokenLogprob> {
    let list = node.as_array().unwrap_or_default();
    list.iter()
        .filter_map(|entry| {
            let top = entry.find("top_logprobs").and_then(Node::as_array);
            let (token, bytes, likelihood) = one_logprob(entry)?;
            Some(TokenLogprob {
                token,
                bytes,
                logprob: likelihood,
                top: top
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|entry| {
                        let (token, bytes, likelihood) = one_logprob(entry)?;
                        Some(TopLogprob {
                            token,
                            bytes,
                            logprob: likelihood,
                        })
                    })
                    .collect(),
            })
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "log probabilities are single precision"
)]
fn one_logprob(entry: &Node<'_>) -> Option<(String, Vec<u8>, f32)> {
    let token = entry.find_str("token")?.to_owned();
    let bytes = match entry.find("bytes").and_then(Node::as_array) {
        Some(bytes) => bytes
            .iter()
            .filter_map(|byte| u8::try_from(byte.count()).ok())
            .collect(),
        None => token.clone().into_bytes(),
    };
    Some((token, bytes, entry.find("logprob")?.as_f64()? as f32))
}

/// Writes log probabilities as a list.
pub(crate) fn write_logprobs(logprobs: &[TokenLogprob], out: &mut BytesMut) {
    put(out, "[");
    for (index, entry) in logprobs.iter().enumerate() {
        if index > 0 {
            put(out, ",");
        }
        write_logprob(&entry.token, &entry.bytes, entry.logprob, out);
        put(out, ",\"top_logprobs\":[");
        for (index, top) in entry.top.iter().enumerate() {
            if index > 0 {
                put(out, ",");
            }
            write_logprob(&top.token, &top.bytes, top.logprob, out);
            put(out, "}");
        }
        put(out, "]}");
    }
    put(out, "]");
}

/// Writes the common members and leaves the object open.
fn write_logprob(token: &str, bytes: &[u8], logprob: f32, out: &mut BytesMut) {
    put(out, "{\"token\":");
    put_str(out, token);
    put(out, ",\"logprob\":");
    put_f32(out, logprob);
    put(out, ",\"bytes\":[");
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            put(out, ",");
        }
        put_uint(out, u32::from(*byte));
    }
    put(out, "]");
}

/// How an item is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form<'a> {
    /// The id; absent leaves the key out, as input items may.
    pub(super) id: Option<&'a str>,
    /// `in_progress`, `completed` or `incomplete`; absent leaves the key out.
    pub(super) status: Option<&'a str>,
    /// Whether output texts list their log probabilities.
    pub(super) logprobs: bool,
}

/// Writes one item. Keys without a value are left out, never `null`.
pub(super) fn write(item: &Item, form: Form<'_>, out: &mut BytesMut) {
    let open = |kind: &str, out: &mut BytesMut| {
        put(out, "{\"type\":\"");
        put(out, kind);
        put(out, "\"");
        if let Some(id) = form.id {
            put(out, ",\"id\":");
            put_str(out, id);
        }
        if let Some(status) = form.status {
            put(out, ",\"status\":\"");
            put(out, status);
            put(out, "\"");
        }
    };
    match item {
        Item::Message(message) => {
            open("message", out);
            put(out, ",\"role\":\"");
            put(out, message.role.as_str());
            put(out, "\",\"content\":");
            write_content(&message.content, message.role, form.logprobs, out);
            if let Some(phase) = &message.phase {
                put(out, ",\"phase\":");
                put_str(out, phase);
            }
            put(out, "}");
        }
        Item::FunctionCall(call) => {
            open("function_call", out);
            put(out, ",\"call_id\":");
            put_str(out, &call.call_id);
            put(out, ",\"name\":");
            put_str(out, &call.name);
            put(out, ",\"arguments\":");
            put_str(out, &call.arguments);
            put(out, "}");
        }
        Item::CustomToolCall(call) => {
            open("custom_tool_call", out);
            put(out, ",\"call_id\":");
            put_str(out, &call.call_id);
            put(out, ",\"name\":");
            put_str(out, &call.name);
            put(out, ",\"input\":");
            put_str(out, &call.input);
            put(out, "}");
        }
        Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
            let kind = match item {
                Item::FunctionCallOutput(_) => "function_call_output",
                _ => "custom_tool_call_output",
            };
            open(kind, out);
            put(out, ",\"call_id\":");
            put_str(out, &output.call_id);
            put(out, ",\"output\":");
            if let [Part::Text { text, .. }] = output.output.as_slice() {
                put_str(out, text);
            } else {
                write_content(&output.output, Role::User, false, out);
            }
            put(out, "}");
        }
        Item::Reasoning(reasoning) => {
            open("reasoning", out);
            put(out, ",\"summary\":");
            write_texts(&reasoning.summary, "summary_text", out);
            if !reasoning.content.is_empty() {
                put(out, ",\"content\":");
                write_texts(&reasoning.content, "reasoning_text", out);
            }
            if let Some(sealed) = &reasoning.encrypted_content {
                put(out, ",\"encrypted_content\":");
                put_str(out, sealed);
            }
            put(out, "}");
        }
        Item::Other { raw, .. } => put(out, raw.get()),
    }
}

fn write_texts(texts: &[String], kind: &str, out: &mut BytesMut) {
    put(out, "[");
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            put(out, ",");
        }
        write_text(kind, text, out);
    }
    put(out, "]");
}

/// Writes `{"type":kind,"text":text}`.
pub(super) fn write_text(kind: &str, text: &str, out: &mut BytesMut) {
    put(out, "{\"type\":\"");
    put(out, kind);
    put(out, "\",\"text\":");
    put_str(out, text);
    put(out, "}");
}

fn write_content(parts: &[Part], role: Role, logprobs: bool, out: &mut BytesMut) {
    put(out, "[");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            put(out, ",");
        }
        write_part(part, role, logprobs, out);
    }
    put(out, "]");
}

/// Writes one content part; text is output text in the assistant's mouth and input text elsewhere.
pub(super) fn write_part(part: &Part, role: Role, with_logprobs: bool, out: &mut BytesMut) {
    match part {
        Part::Text { text, .. } if role != Role::Assistant => write_text("input_text", text, out),
        Part::Text {
            text,
            annotations,
            logprobs,
        } => {
            put(out, "{\"type\":\"output_text\",\"text\":");
            put_str(out, text);
            put(out, ",\"annotations\":[");
            for (index, annotation) in annotations.iter().enumerate() {
                if index > 0 {
                    put(out, ",");
                }
                put(out, annotation.get());
            }
            put(out, "]");
            if with_logprobs {
                put(out, ",\"logprobs\":");
                write_logprobs(logprobs, out);
            }
            put(out, "}");
        }
        Part::Refusal { refusal } => {
            put(out, "{\"type\":\"refusal\",\"refusal\":");
            put_str(out, refusal);
            put(out, "}");
        }
        Part::Image {
            url,
            file_id,
            detail,
        } => {
            put(out, "{\"type\":\"input_image\",\"detail\":\"");
            put(out, detail_word(*detail));
            put(out, "\"");
            if let Some(url) = url {
                put(out, ",\"image_url\":");
                put_str(out, url);
            }
            if let Some(file_id) = file_id {
                put(out, ",\"file_id\":");
                put_str(out, file_id);
            }
            put(out, "}");
        }
        Part::Other { raw, .. } => put(out, raw.get()),
    }
}
