//! A Chat Completions request body, read into the domain's words.

use bytes::Bytes;
use honshu_domain::{
    Demand, Dialect, Error, InferenceRequest, Item, Sampling, TextFormat, Tool, ToolChoice,
};

use super::messages;
use super::options::{OptionsDraft, output_tokens, read_option};
use crate::json::{Node, Path};
use crate::problems::{self, Findings, MISSING, WRONG_VALUE, raw};
use crate::responses::fields::metadata;
use crate::responses::tools::{
    Allowed, Nesting, allowed_tools, check_names, check_tool_choice, custom, function,
    other_choice, tool_choice_word,
};
use crate::sampling;

/// Reads a `POST /chat/completions` body.
///
/// # Errors
/// `Invalid` with every problem found and its JSON path.
pub fn parse_request(body: Bytes) -> Result<InferenceRequest, Error> {
    let root = problems::body(&body)?;
    let mut findings = Findings::default();
    let mut draft = Draft::default();
    for (key, node) in root.as_object().unwrap_or_default() {
        draft.field(key, node, &mut findings);
    }
    draft.check(&mut findings);
    findings.check()?;
    drop(root);
    Ok(InferenceRequest {
        dialect: Dialect::ChatCompletions,
        raw: body,
        model: draft.model.into(),
        instructions: None,
        input: draft.input.unwrap_or_default(),
        tools: draft.tools,
        tool_choice: draft.tool_choice,
        parallel_tool_calls: draft.parallel_tool_calls.unwrap_or(true),
        sampling: draft.sampling,
        format: draft.format,
        max_output_tokens: draft.max_completion_tokens.or(draft.options.max_tokens),
        stop: draft.options.stop,
        choices: draft.options.choices.unwrap_or(1),
        top_logprobs: draft.logprobs.then(|| draft.top_logprobs.unwrap_or(0)),
        reasoning_effort: draft.reasoning_effort.map(Into::into),
        stream: draft.options.stream,
        include_usage: draft.options.include_usage,
        obfuscates: draft.options.obfuscates,
        demands: findings.demands,
        hints: findings.hints,
    })
}

#[derive(Default)]
struct Draft {
    model: String,
    input: Option<Vec<Item>>,
    options: OptionsDraft,
    tools: Vec<Tool>,
    tool_choice: ToolChoice,
    allowed: Option<Allowed>,
    parallel_tool_calls: Option<bool>,
    sampling: Sampling,
    format: TextFormat,
    max_completion_tokens: Option<u32>,
    logprobs: bool,
    top_logprobs: Option<u8>,
    reasoning_effort: Option<String>,
}

impl Draft {
    fn field(&mut self, key: &str, node: &Node<'_>, findings: &mut Findings) {
        let root = Path::Root;
        let path = root.key(key);
        if sampling::field(key, node, &path, &mut self.sampling, findings)
            || read_option(
                key,
                node,
                &path,
                &mut self.options,
                &mut self.sampling,
                findings,
            )
        {
            return;
        }
        match key {
            "model" => {
                if let Some(model) = findings.string(node, &path) {
                    model.clone_into(&mut self.model);
                }
            }
            "messages" => {
                if let Some(nodes) = findings.array(node, &path) {
                    if nodes.is_empty() {
                        findings.problem(&path, WRONG_VALUE, "must have at least one message");
                    }
                    self.input = Some(messages::read_list(nodes, &path, findings));
                } else if !node.is_null() {
                    // The problem is noted; it is not missing as well.
                    self.input = Some(Vec::new());
                }
            }
            "max_completion_tokens" => {
                self.max_completion_tokens = output_tokens(node, &path, findings);
            }
            "logprobs" => {
                self.logprobs = findings.boolean(node, &path).unwrap_or_default();
                if self.logprobs {
                    findings.demand(Demand::Logprobs, &path);
                }
            }
            "top_logprobs" => {
                self.top_logprobs = findings
                    .integer(node, &path, 0, 20)
                    .and_then(|n| u8::try_from(n).ok());
            }
            "tools" => tools(node, &path, &mut self.tools, findings),
            "functions" => {
                functions(node, &path, &mut self.tools, findings);
                findings.demand(Demand::LegacyFunctions, &path);
            }
            "tool_choice" | "function_call" => {
                if !node.is_null() {
                    self.tool_choice = tool_choice(key, node, &path, &mut self.allowed, findings);
                }
            }
            "parallel_tool_calls" => self.parallel_tool_calls = findings.boolean(node, &path),
            "response_format" => self.format = format(node, &path, findings),
            "reasoning_effort" => {
                self.reasoning_effort = findings.string(node, &path).map(ToOwned::to_owned);
                findings.hint(&path, node);
            }
            "metadata" => {
                metadata(node, &path, findings);
                findings.hint(&path, node);
            }
            "audio" => {
                if findings.object(node, &path).is_some() {
                    findings.demand(Demand::Audio, &path);
                }
            }
            "prediction" => {
                // A hint at the answer that may make it faster and never changes it.
                findings.object(node, &path);
                findings.hint(&path, node);
            }
            "modalities" => modalities(node, &path, findings),
            "store" => {
                if findings.boolean(node, &path) == Some(true) {
                    findings.hint(&path, node);
                }
            }
            "service_tier" => {
                if !matches!(
                    findings.string(node, &path),
                    None | Some("auto" | "default")
                ) {
                    findings.hint(&path, node);
                }
            }
            "user" | "safety_identifier" | "prompt_cache_key" => {
                findings.string(node, &path);
                findings.hint(&path, node);
            }
            _ => findings.hint(&path, node),
        }
    }

    fn check(&mut self, findings: &mut Findings) {
        let root = Path::Root;
        if self.model.is_empty() {
            findings.problem(&root.key("model"), MISSING, "required: the name of a model");
        }
        if self.input.is_none() {
            findings.problem(
                &root.key("messages"),
                MISSING,
                "required: an array of messages",
            );
        }
        if self.top_logprobs.is_some_and(|top| top > 0) && !self.logprobs {
            findings.problem(
                &root.key("top_logprobs"),
                WRONG_VALUE,
                "needs `logprobs: true`",
            );
        }
        if let Some(allowed) = self.allowed.take() {
            allowed.narrow(&mut self.tools, findings);
        }
        check_tool_choice(&self.tool_choice, &self.tools, findings);
    }
}

fn modalities(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
    for (index, kind) in findings
        .array(node, path)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let at = path.index(index);
        match findings.string(kind, &at) {
            Some("text") | None => {}
            Some("audio") => findings.demand(Demand::Audio, &at),
            Some(_) => findings.hint_text(at.to_string()),
        }
    }
}

fn tools(node: &Node<'_>, path: &Path<'_>, tools: &mut Vec<Tool>, findings: &mut Findings) {
    for (index, node) in findings.tools(node, path).iter().enumerate() {
        let at = path.index(index);
        if node.as_object().is_none() {
            findings.expected(node, &at, "an object");
            continue;
        }
        match findings.required_string(node, "type", &at) {
            Some("function") => match node.find("function") {
                Some(inner) => {
                    tools
                        .extend(function(inner, &at.key("function"), findings).map(Tool::Function));
                }
                None => findings.missing(&at.key("function")),
            },
            Some("custom") => match node.find("custom") {
                Some(inner) => {
                    tools.extend(custom(inner, &at.key("custom"), Nesting::Nested, findings));
                }
                None => findings.missing(&at.key("custom")),
            },
            Some(kind) => {
                findings.hint_text(at.to_string());
                tools.extend(raw(node).map(|raw| Tool::Other {
                    kind: kind.into(),
                    raw,
                }));
            }
            None => {}
        }
    }
    check_names(tools, path, Nesting::Nested, findings);
}

/// The old form of tools.
fn functions(node: &Node<'_>, path: &Path<'_>, tools: &mut Vec<Tool>, findings: &mut Findings) {
    let nodes = findings.array(node, path).unwrap_or_default();
    if nodes.len() > 128 {
        findings.problem(path, WRONG_VALUE, "at most 128 functions");
    }
    for (index, node) in nodes.iter().enumerate() {
        tools.extend(function(node, &path.index(index), findings).map(Tool::Function));
    }
}

fn tool_choice(
    key: &str,
    node: &Node<'_>,
    path: &Path<'_>,
    allowed: &mut Option<Allowed>,
    findings: &mut Findings,
) -> ToolChoice {
    if let Some(word) = node.as_str() {
        return tool_choice_word(word, path, findings);
    }
    if node.as_object().is_none() {
        findings.expected(node, path, "a string or an object");
        return ToolChoice::Auto;
    }
    let named = |owner: &Node<'_>, path: &Path<'_>, findings: &mut Findings| match findings
        .required_string(owner, "name", path)
    {
        Some(name) => ToolChoice::Function(name.into()),
        None => ToolChoice::Auto,
    };
    if key == "function_call" {
        return named(node, path, findings);
    }
    match findings.required_string(node, "type", path) {
        Some("function") => match node.find("function") {
            Some(inner) => named(inner, &path.key("function"), findings),
            None => {
                findings.missing(&path.key("function"));
                ToolChoice::Auto
            }
        },
        Some("custom") => match node.find("custom") {
            Some(inner) => {
                let at = path.key("custom");
                match findings.required_string(inner, "name", &at) {
                    Some(name) => ToolChoice::Custom(name.into()),
                    None => ToolChoice::Auto,
                }
            }
            None => {
                findings.missing(&path.key("custom"));
                ToolChoice::Auto
            }
        },
        Some("allowed_tools") => match node.find("allowed_tools") {
            Some(inner) => allowed_tools(inner, &path.key("allowed_tools"), allowed, findings),
            None => {
                findings.missing(&path.key("allowed_tools"));
                ToolChoice::Auto
            }
        },
        Some(_) => {
            findings.demand(Demand::ForeignItems, path);
            other_choice(node)
        }
        None => ToolChoice::Auto,
    }
}

/// Reads `response_format`.
fn format(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> TextFormat {
    if findings.object(node, path).is_none() {
        return TextFormat::Text;
    }
    match findings.required_string(node, "type", path) {
        Some("json_object") => {
            findings.demand(Demand::JsonObject, path);
            TextFormat::JsonObject
        }
        Some("json_schema") => {
            findings.demand(Demand::JsonSchema, path);
            let at = path.key("json_schema");
            match node.find("json_schema") {
                Some(inner) => {
                    if findings.object(inner, &at).is_none() {
                        return TextFormat::Text;
                    }
                    sampling::json_schema(inner, &at, false, findings).unwrap_or_default()
                }
                None => {
                    findings.missing(&at);
                    TextFormat::Text
                }
            }
        }
        Some("text") | None => TextFormat::Text,
        Some(_) => {
            findings.problem(
                &path.key("type"),
                WRONG_VALUE,
                "expected one of `text`, `json_object`, `json_schema`",
            );
            TextFormat::Text
        }
    }
}
