//! The messages of a request as items.

use std::collections::HashSet;
use std::sync::Arc;

use honshu_domain::{
    Demand, FunctionCall, FunctionCallOutput, ImageDetail, Item, Message, Part, Reasoning, Role,
};

use crate::json::{Node, Path};
use crate::problems::{Findings, UNSUPPORTED, WRONG_VALUE, raw};

/// Reads the `messages` list. A user's message with tool results becomes several items, and so does an
/// assistant's with thinking, text and calls; their order is kept.
pub(super) fn read_list(nodes: &[Node<'_>], path: &Path<'_>, findings: &mut Findings) -> Vec<Item> {
    let mut reader = Reader {
        items: Vec::with_capacity(nodes.len()),
        calls: HashSet::new(),
    };
    for (index, node) in nodes.iter().enumerate() {
        let at = path.index(index);
        if node.as_object().is_none() {
            findings.expected(node, &at, "an object");
            continue;
        }
        let is_last = index + 1 == nodes.len();
        reader.message(node, &at, is_last, findings);
    }
    reader.items
}

/// Reads `system`: a string, or text blocks that follow each other.
pub(super) fn system(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<String> {
    if let Some(text) = node.as_str() {
        return Some(text.to_owned());
    }
    if node.is_null() {
        return None;
    }
    let Some(blocks) = node.as_array() else {
        findings.expected(node, path, "a string or an array of text blocks");
        return None;
    };
    let mut texts = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        let at = path.index(index);
        if block.as_object().is_none() {
            findings.expected(block, &at, "an object");
            continue;
        }
        match findings.required_string(block, "type", &at) {
            Some("text") => texts.extend(text(block, &at, findings)),
            Some(_) => findings.problem(&at.key("type"), WRONG_VALUE, "expected `text`"),
            None => {}
        }
    }
    Some(texts.join("\n\n")).filter(|text| !text.is_empty())
}

struct Reader {
    items: Vec<Item>,
    /// Ids of the calls so far: a result must answer one of them.
    calls: HashSet<Arc<str>>,
}

impl Reader {
    fn message(
        &mut self,
        node: &Node<'_>,
        path: &Path<'_>,
        is_last: bool,
        findings: &mut Findings,
    ) {
        let role = match findings.required_string(node, "role", path) {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system") => Role::System,
            Some(_) => {
                let what = "expected one of `user`, `assistant`, `system`";
                findings.problem(&path.key("role"), WRONG_VALUE, what);
                return;
            }
            None => return,
        };
        if is_last && role == Role::Assistant {
            findings.problem(
                path,
                UNSUPPORTED,
                "the last message is the assistant's, and answers are not continued (prefill); end with a `user` message",
            );
        }
        for (key, value) in node.as_object().unwrap_or_default() {
            if !matches!(key.as_ref(), "role" | "content") {
                findings.hint(&path.key(key), value);
            }
        }
        let at = path.key("content");
        let Some(content) = node.find("content") else {
            findings.missing(&at);
            return;
        };
        if let Some(text) = content.as_str() {
            self.items.push(message(role, vec![Part::text(text)]));
            return;
        }
        let Some(blocks) = content.as_array() else {
            findings.expected(content, &at, "a string or an array of content blocks");
            return;
        };
        if blocks.is_empty() && !is_last {
            // The API lets a final assistant message be empty and no other; agents send them all the same.
            self.items.push(message(role, Vec::new()));
            return;
        }
        let mut parts = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let at = at.index(index);
            if block.as_object().is_none() {
                findings.expected(block, &at, "an object");
                continue;
            }
            match (findings.required_string(block, "type", &at), role) {
                (Some("tool_result"), Role::User) => {
                    self.flush(role, &mut parts);
                    self.tool_result(block, &at, findings);
                }
                (Some("tool_use"), Role::Assistant) => {
                    self.flush(role, &mut parts);
                    self.tool_use(block, &at, findings);
                }
                (Some(kind @ ("thinking" | "redacted_thinking")), Role::Assistant) => {
                    self.flush(role, &mut parts);
                    self.thinking(kind, block, &at, findings);
                }
                (Some(kind), _) => parts.extend(part(kind, block, &at, findings)),
                (None, _) => {}
            }
        }
        self.flush(role, &mut parts);
    }

    fn flush(&mut self, role: Role, parts: &mut Vec<Part>) {
        if !parts.is_empty() {
            self.items.push(message(role, std::mem::take(parts)));
        }
    }

    fn tool_use(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        findings.demand(Demand::ToolHistory, path);
        let id = findings.required_string(node, "id", path);
        let name = findings.required_string(node, "name", path);
        let at = path.key("input");
        let input = match node.find("input") {
            Some(input) if input.as_object().is_some() => Some(input.raw),
            Some(input) => {
                findings.expected(input, &at, "an object");
                None
            }
            None => {
                findings.missing(&at);
                None
            }
        };
        hint_unknown(
            node,
            &["type", "id", "name", "input", "caller"],
            path,
            findings,
        );
        if let (Some(id), Some(name), Some(input)) = (id, name, input) {
            let call_id: Arc<str> = id.into();
            self.calls.insert(Arc::clone(&call_id));
            self.items.push(Item::FunctionCall(FunctionCall {
                id: None,
                call_id,
                name: name.into(),
                arguments: input.to_owned(),
            }));
        }
    }

    fn tool_result(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        findings.demand(Demand::ToolHistory, path);
        let Some(id) = findings.required_string(node, "tool_use_id", path) else {
            return;
        };
        if !self.calls.contains(id) {
            findings.problem(
                &path.key("tool_use_id"),
                WRONG_VALUE,
                "no `tool_use` block with this id comes before",
            );
        }
        let at = path.key("content");
        let mut output = Vec::new();
        if let Some(content) = node.find("content") {
            if let Some(text) = content.as_str() {
                output.push(Part::text(text));
            } else if let Some(blocks) = content.as_array() {
                for (index, block) in blocks.iter().enumerate() {
                    let at = at.index(index);
                    if block.as_object().is_none() {
                        findings.expected(block, &at, "an object");
                    } else if let Some(kind) = findings.required_string(block, "type", &at) {
                        output.extend(part(kind, block, &at, findings));
                    }
                }
            } else {
                findings.expected(content, &at, "a string or an array of content blocks");
            }
        }
        // That a call failed is said by its text in every other dialect.
        hint_unknown(node, &["type", "tool_use_id", "content"], path, findings);
        self.items
            .push(Item::FunctionCallOutput(FunctionCallOutput {
                id: None,
                call_id: id.into(),
                output,
            }));
    }

    fn thinking(&mut self, kind: &str, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        let sealed = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let reasoning = if kind == "thinking" {
            let Some(text) = findings.required_string(node, "thinking", path) else {
                return;
            };
            Reasoning {
                content: vec![text.to_owned()],
                encrypted_content: node.find_str("signature").and_then(sealed),
                ..Reasoning::default()
            }
        } else {
            let Some(data) = findings.required_string(node, "data", path) else {
                return;
            };
            Reasoning {
                encrypted_content: sealed(data),
                ..Reasoning::default()
            }
        };
        self.items.push(Item::Reasoning(reasoning));
    }
}

fn message(role: Role, content: Vec<Part>) -> Item {
    Item::Message(Message {
        id: None,
        role,
        content,
        phase: None,
        name: None,
    })
}

/// A block of text, an image, or a kind that no backend of another dialect understands.
fn part(kind: &str, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Part> {
    match kind {
        "text" => text(node, path, findings).map(Part::text),
        "image" => image(node, path, findings),
        _ => {
            let demand = if kind == "document" {
                Demand::FileInput
            } else {
                Demand::ForeignItems
            };
            findings.demand(demand, path);
            Some(Part::Other {
                kind: kind.into(),
                raw: raw(node)?,
            })
        }
    }
}

fn text<'n>(node: &'n Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<&'n str> {
    hint_unknown(node, &["type", "text", "citations"], path, findings);
    findings.required_string(node, "text", path)
}

fn image(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Part> {
    findings.demand(Demand::ImageInput, path);
    hint_unknown(node, &["type", "source"], path, findings);
    let at = path.key("source");
    let Some(source) = node.find("source") else {
        findings.missing(&at);
        return None;
    };
    if source.as_object().is_none() {
        findings.expected(source, &at, "an object");
        return None;
    }
    let url = match findings.required_string(source, "type", &at)? {
        "base64" => {
            let media_type = findings.required_string(source, "media_type", &at)?;
            if !matches!(
                media_type,
                "image/jpeg" | "image/png" | "image/gif" | "image/webp"
            ) {
                findings.problem(
                    &at.key("media_type"),
                    WRONG_VALUE,
                    "expected one of `image/jpeg`, `image/png`, `image/gif`, `image/webp`",
                );
                return None;
            }
            let data = findings.required_string(source, "data", &at)?;
            let url = format!("data:{media_type};base64,{data}");
            crate::images::check(&url, &at.key("data"), findings);
            url
        }
        "url" => {
            let url = findings.required_string(source, "url", &at)?;
            crate::images::check(url, &at.key("url"), findings);
            url.to_owned()
        }
        _ => {
            findings.problem(
                &at.key("type"),
                WRONG_VALUE,
                "expected `base64` or `url`; stored files are not taken here",
            );
            return None;
        }
    };
    Some(Part::Image {
        url: Some(url),
        file_id: None,
        detail: ImageDetail::Auto,
    })
}

fn hint_unknown(node: &Node<'_>, known: &[&str], path: &Path<'_>, findings: &mut Findings) {
    for (key, value) in node.as_object().unwrap_or_default() {
        if !known.contains(&key.as_ref()) && value.as_bool() != Some(false) {
            findings.hint(&path.key(key), value);
        }
    }
}
