//! The messages of a Chat request as items.

use std::collections::HashSet;
use std::sync::Arc;

use honshu_domain::{
    CustomToolCall, Demand, FunctionCall, FunctionCallOutput, Item, Message, Part, Reasoning, Role,
};

use crate::json::{Node, Path};
use crate::problems::{Findings, WRONG_VALUE, raw};
use crate::responses::items::detail;

/// Reads the `messages` list. One message may become several items: reasoning, text and calls.
pub(super) fn read_list(nodes: &[Node<'_>], path: &Path<'_>, findings: &mut Findings) -> Vec<Item> {
    let mut reader = Messages {
        items: Vec::with_capacity(nodes.len()),
        legacy_call: None,
        custom_calls: HashSet::new(),
    };
    for (index, node) in nodes.iter().enumerate() {
        let at = path.index(index);
        if node.as_object().is_none() {
            findings.expected(node, &at, "an object");
            continue;
        }
        reader.message(node, &at, findings);
    }
    reader.items
}

struct Messages {
    items: Vec<Item>,
    /// The id made up for the last old-style `function_call`, which had none.
    legacy_call: Option<Arc<str>>,
    /// The ids of calls of custom tools.
    custom_calls: HashSet<Arc<str>>,
}

impl Messages {
    fn message(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        let role = match findings.required_string(node, "role", path) {
            Some("user") => Role::User,
            Some("system") => Role::System,
            Some("developer") => Role::Developer,
            Some("assistant") => return self.assistant(node, path, findings),
            Some("tool") => return self.tool(node, path, findings),
            Some("function") => return self.function(node, path, findings),
            Some(_) => {
                findings.problem(
                    &path.key("role"),
                    WRONG_VALUE,
                    "expected one of `developer`, `system`, `user`, `assistant`, `tool`, `function`",
                );
                return;
            }
            None => return,
        };
        let content = required_content(node, path, findings);
        name_unknown(node, &["role", "content", "name"], path, findings);
        if let Some(content) = content {
            self.items.push(Item::Message(Message {
                id: None,
                role,
                content,
                phase: None,
                name: name(node, path, findings),
            }));
        }
    }

    fn assistant(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        let at = path.key("content");
        let mut content = node
            .find("content")
            .and_then(|content| self::content(content, &at, findings))
            .unwrap_or_default();
        if let Some(refusal) = node.find("refusal") {
            content.extend(
                findings
                    .string(refusal, &path.key("refusal"))
                    .map(|refusal| Part::Refusal {
                        refusal: refusal.to_owned(),
                    }),
            );
        }
        // Agents send the reasoning of earlier turns back under the name they got it.
        for key in ["reasoning_content", "reasoning"] {
            if let Some(text) = node.find_str(key).filter(|text| !text.is_empty()) {
                self.items.push(Item::Reasoning(Reasoning {
                    content: vec![text.to_owned()],
                    ..Reasoning::default()
                }));
                break;
            }
        }
        let calls = node.find("tool_calls");
        let legacy = node.find("function_call");
        // A turn of calls alone has no text; an empty one without calls is still a turn.
        let only_calls = calls.is_some() || legacy.is_some();
        content.retain(
            |part| !matches!(part, Part::Text { text, .. } if text.is_empty() && only_calls),
        );
        if !content.is_empty() || !only_calls {
            self.items.push(Item::Message(Message {
                id: None,
                role: Role::Assistant,
                content,
                phase: None,
                name: name(node, path, findings),
            }));
        }
        if let Some(calls) = calls {
            self.calls(calls, &path.key("tool_calls"), findings);
        }
        if let Some(call) = legacy {
            let at = path.key("function_call");
            findings.demand(Demand::ToolHistory, &at);
            let id: Arc<str> = format!("call_{}", self.items.len()).into();
            self.legacy_call = Some(Arc::clone(&id));
            self.call(call, id, &at, findings);
        }
        name_unknown(
            node,
            &[
                "role",
                "content",
                "name",
                "refusal",
                "tool_calls",
                "function_call",
                "reasoning_content",
                "reasoning",
                "annotations",
            ],
            path,
            findings,
        );
    }

    fn calls(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        let calls = findings.array(node, path).unwrap_or_default();
        for (index, call) in calls.iter().enumerate() {
            let at = path.index(index);
            if findings.object(call, &at).is_none() {
                continue;
            }
            let id = findings.required_string(call, "id", &at).map(Arc::from);
            match call.find_str("type").unwrap_or("function") {
                "function" => {
                    findings.demand(Demand::ToolHistory, &at);
                    if let (Some(function), Some(id)) = (call.find("function"), id) {
                        self.call(function, id, &at.key("function"), findings);
                    } else if call.find("function").is_none() {
                        findings.missing(&at.key("function"));
                    }
                }
                "custom" => {
                    findings.demand(Demand::ToolHistory, &at);
                    if let (Some(custom), Some(id)) = (call.find("custom"), id) {
                        self.custom(custom, id, &at.key("custom"), findings);
                    } else if call.find("custom").is_none() {
                        findings.missing(&at.key("custom"));
                    }
                }
                kind => {
                    findings.demand(Demand::ForeignItems, &at);
                    self.items.extend(raw(call).map(|raw| Item::Other {
                        kind: format!("{kind}_tool_call").into(),
                        raw,
                    }));
                }
            }
        }
    }

    fn call(
        &mut self,
        node: &Node<'_>,
        call_id: Arc<str>,
        path: &Path<'_>,
        findings: &mut Findings,
    ) {
        let name = findings.required_string(node, "name", path);
        let arguments = findings.required_string(node, "arguments", path);
        if let (Some(name), Some(arguments)) = (name, arguments) {
            self.items.push(Item::FunctionCall(FunctionCall {
                id: None,
                call_id,
                name: name.into(),
                arguments: arguments.to_owned(),
            }));
        }
    }

    fn custom(
        &mut self,
        node: &Node<'_>,
        call_id: Arc<str>,
        path: &Path<'_>,
        findings: &mut Findings,
    ) {
        let name = findings.required_string(node, "name", path);
        let input = findings.required_string(node, "input", path);
        if let (Some(name), Some(input)) = (name, input) {
            self.custom_calls.insert(Arc::clone(&call_id));
            self.items.push(Item::CustomToolCall(CustomToolCall {
                id: None,
                call_id,
                name: name.into(),
                input: input.to_owned(),
            }));
        }
    }

    fn tool(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        findings.demand(Demand::ToolHistory, path);
        let call_id = findings.required_string(node, "tool_call_id", path);
        let output = required_content(node, path, findings);
        name_unknown(
            node,
            &["role", "content", "tool_call_id", "name"],
            path,
            findings,
        );
        if let (Some(call_id), Some(output)) = (call_id, output) {
            self.output(call_id.into(), output);
        }
    }

    fn function(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        findings.demand(Demand::ToolHistory, path);
        let name = findings.required_string(node, "name", path);
        let output = match node.find("content") {
            Some(content) => self::content(content, &path.key("content"), findings),
            None => Some(Vec::new()),
        };
        if let (Some(name), Some(output)) = (name, output) {
            let call_id = self.legacy_call.take().unwrap_or_else(|| name.into());
            self.output(call_id, output);
        }
    }

    /// A result. The dialect does not say of which kind of call it is; the call does.
    fn output(&mut self, call_id: Arc<str>, output: Vec<Part>) {
        let is_custom = self.custom_calls.contains(&call_id);
        let output = FunctionCallOutput {
            id: None,
            call_id,
            output,
        };
        self.items.push(if is_custom {
            Item::CustomToolCallOutput(output)
        } else {
            Item::FunctionCallOutput(output)
        });
    }
}

fn name(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Arc<str>> {
    let name = node.find("name")?;
    findings.string(name, &path.key("name")).map(Into::into)
}

fn name_unknown(node: &Node<'_>, known: &[&str], path: &Path<'_>, findings: &mut Findings) {
    for (key, value) in node.as_object().unwrap_or_default() {
        if !known.contains(&key.as_ref()) {
            findings.hint(&path.key(key), value);
        }
    }
}

fn required_content(
    node: &Node<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<Vec<Part>> {
    let at = path.key("content");
    match node.find("content") {
        Some(node) => content(node, &at, findings),
        None => {
            findings.missing(&at);
            None
        }
    }
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
    if node.as_object().is_none() {
        findings.expected(node, path, "an object");
        return None;
    }
    let kind = findings.required_string(node, "type", path)?;
    let demand = match kind {
        "text" => {
            name_unknown(node, &["type", "text"], path, findings);
            return findings.required_string(node, "text", path).map(Part::text);
        }
        "refusal" => {
            return Some(Part::Refusal {
                refusal: findings.required_string(node, "refusal", path)?.to_owned(),
            });
        }
        "image_url" => return image(node, path, findings),
        "input_audio" => Demand::Audio,
        "file" => Demand::FileInput,
        _ => Demand::ForeignItems,
    };
    findings.demand(demand, path);
    Some(Part::Other {
        kind: kind.into(),
        raw: raw(node)?,
    })
}

fn image(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<Part> {
    findings.demand(Demand::ImageInput, path);
    let at = path.key("image_url");
    let Some(image) = node.find("image_url") else {
        findings.missing(&at);
        return None;
    };
    // Some clients write the URL without the object around it.
    let url = match image.as_str() {
        Some(url) => url,
        None if image.as_object().is_some() => findings.required_string(image, "url", &at)?,
        None => {
            findings.expected(image, &at, "an object with `url`");
            return None;
        }
    };
    crate::images::check(url, &at.key("url"), findings);
    Some(Part::Image {
        url: Some(url.to_owned()),
        file_id: None,
        detail: detail(image, &at, findings),
    })
}
