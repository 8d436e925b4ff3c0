//! A Messages request body, read into the domain's words.

use bytes::Bytes;
use honshu_domain::{
    Demand, Dialect, Error, FunctionTool, InferenceRequest, Item, Sampling, TextFormat, Tool,
    ToolChoice,
};

use super::content;
use crate::json::{Node, Path};
use crate::problems::{self, Findings, MISSING, WRONG_VALUE, raw};
use crate::responses::tools::{callable, check_tool_choice};
use crate::sampling::{self, OUTPUT_TOKENS_MAX};

/// Stop texts of one request: each is looked for at every token.
const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 10_000;

/// Thinking budgets in tokens up to which the effort is called low and medium. Other dialects know words and no
/// numbers; the bounds are those that gateways commonly use.
const BUDGET_LOW_MAX: i64 = 2_048;
const BUDGET_MEDIUM_MAX: i64 = 8_192;

/// Reads a `POST /messages` body.
///
/// # Errors
/// `Invalid` with every problem found and its JSON path.
pub fn parse_request(body: Bytes) -> Result<InferenceRequest, Error> {
    parse(body, true)
}

/// Reads a `POST /messages/count_tokens` body: the same without a limit and without a stream.
///
/// # Errors
/// As [`parse_request`].
pub fn parse_count_request(body: Bytes) -> Result<InferenceRequest, Error> {
    parse(body, false)
}

fn parse(body: Bytes, generates: bool) -> Result<InferenceRequest, Error> {
    let root = problems::body(&body)?;
    let mut findings = Findings::default();
    let mut draft = Draft::default();
    for (key, node) in root.as_object().unwrap_or_default() {
        draft.field(key, node, &mut findings);
    }
    draft.check(generates, &mut findings);
    findings.check()?;
    drop(root);
    Ok(InferenceRequest {
        dialect: Dialect::Messages,
        raw: body,
        model: draft.model.into(),
        instructions: draft.system,
        input: draft.input.unwrap_or_default(),
        tools: draft.tools,
        tool_choice: draft.tool_choice,
        parallel_tool_calls: !draft.one_call,
        sampling: draft.sampling,
        format: draft.format,
        max_output_tokens: draft.max_tokens,
        stop: draft.stop,
        choices: 1,
        top_logprobs: None,
        reasoning_effort: draft.effort.or(draft.thinking).map(Into::into),
        stream: draft.stream,
        include_usage: false,
        obfuscates: false,
        demands: findings.demands,
        hints: findings.hints,
    })
}

#[derive(Default)]
struct Draft {
    model: String,
    system: Option<String>,
    input: Option<Vec<Item>>,
    tools: Vec<Tool>,
    tool_choice: ToolChoice,
    one_call: bool,
    sampling: Sampling,
    format: TextFormat,
    max_tokens: Option<u32>,
    has_max_tokens: bool,
    stop: Vec<String>,
    thinking: Option<String>,
    effort: Option<String>,
    stream: bool,
}

impl Draft {
    fn field(&mut self, key: &str, node: &Node<'_>, findings: &mut Findings) {
        let root = Path::Root;
        let path = root.key(key);
        match key {
            "model" => {
                if let Some(model) = findings.string(node, &path) {
                    model.clone_into(&mut self.model);
                }
            }
            "max_tokens" => {
                self.has_max_tokens = !node.is_null();
                self.max_tokens = findings
                    .integer(node, &path, 1, OUTPUT_TOKENS_MAX)
                    .and_then(|n| u32::try_from(n).ok());
            }
            "messages" => {
                if let Some(nodes) = findings.array(node, &path) {
                    if nodes.is_empty() {
                        findings.problem(&path, WRONG_VALUE, "must have at least one message");
                    }
                    self.input = Some(content::read_list(nodes, &path, findings));
                } else if !node.is_null() {
                    // The problem is noted; it is not missing as well.
                    self.input = Some(Vec::new());
                }
            }
            "system" => self.system = content::system(node, &path, findings),
            "stream" => self.stream = findings.boolean(node, &path).unwrap_or_default(),
            "stop_sequences" => self.stop_sequences(node, &path, findings),
            "temperature" | "top_p" | "top_k" => {
                sampling::field(key, node, &path, &mut self.sampling, findings);
            }
            "tools" => tools(node, &path, &mut self.tools, findings),
            "tool_choice" => self.tool_choice(node, &path, findings),
            "thinking" => self.thinking(node, &path, findings),
            "output_config" => self.output_config(node, &path, findings),
            "metadata" => {
                findings.object(node, &path);
                findings.hint(&path, node);
            }
            "service_tier" => {
                if !matches!(
                    findings.string(node, &path),
                    None | Some("auto" | "standard_only")
                ) {
                    findings.hint(&path, node);
                }
            }
            _ => findings.hint(&path, node),
        }
    }

    fn stop_sequences(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        let nodes = findings.array(node, path).unwrap_or_default();
        if nodes.len() > STOPS_MAX {
            let what = format!("at most {STOPS_MAX} texts, got {}", nodes.len());
            findings.problem(path, WRONG_VALUE, what);
        }
        for (index, node) in nodes.iter().enumerate().take(STOPS_MAX) {
            let at = path.index(index);
            match node.as_str() {
                None => findings.expected(node, &at, "a string"),
                Some(text) if text.len() > STOP_BYTES_MAX => {
                    let what = format!("at most {STOP_BYTES_MAX} bytes");
                    findings.problem(&at, WRONG_VALUE, what);
                }
                // An empty text stands everywhere; nobody can mean that.
                Some("") => findings.hint_text(at.to_string()),
                Some(text) => self.stop.push(text.to_owned()),
            }
        }
    }

    fn tool_choice(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        if findings.object(node, path).is_none() {
            return;
        }
        if let Some(flag) = node.find("disable_parallel_tool_use") {
            let at = path.key("disable_parallel_tool_use");
            self.one_call = findings.boolean(flag, &at).unwrap_or_default();
        }
        self.tool_choice = match findings.required_string(node, "type", path) {
            Some("auto") | None => ToolChoice::Auto,
            Some("none") => ToolChoice::None,
            Some("any") => ToolChoice::Required,
            Some("tool") => match findings.required_string(node, "name", path) {
                Some(name) => ToolChoice::Function(name.into()),
                None => ToolChoice::Auto,
            },
            Some(_) => {
                let what = "expected one of `auto`, `any`, `tool`, `none`";
                findings.problem(&path.key("type"), WRONG_VALUE, what);
                ToolChoice::Auto
            }
        };
    }

    fn thinking(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        if findings.object(node, path).is_none() {
            return;
        }
        self.thinking = match findings.required_string(node, "type", path) {
            Some("enabled") => {
                let at = path.key("budget_tokens");
                let budget = match node.find("budget_tokens") {
                    Some(budget) => findings.integer(budget, &at, 1_024, OUTPUT_TOKENS_MAX),
                    None => {
                        findings.missing(&at);
                        None
                    }
                };
                budget.map(|budget| {
                    let effort = if budget <= BUDGET_LOW_MAX {
                        "low"
                    } else if budget <= BUDGET_MEDIUM_MAX {
                        "medium"
                    } else {
                        "high"
                    };
                    effort.to_owned()
                })
            }
            // The model decides how much: that is what no effort at all says as well.
            Some("adaptive" | "between_tools") => None,
            Some("disabled") => Some("none".to_owned()),
            Some(_) => {
                let what = "expected one of `enabled`, `disabled`, `adaptive`, `between_tools`";
                findings.problem(&path.key("type"), WRONG_VALUE, what);
                None
            }
            None => None,
        };
        findings.hint(path, node);
    }

    fn output_config(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        for (key, value) in findings.object(node, path).unwrap_or_default() {
            let at = path.key(key);
            match key.as_ref() {
                "effort" => {
                    self.effort = findings.string(value, &at).map(ToOwned::to_owned);
                    findings.hint(&at, value);
                }
                "format" => self.format(value, &at, findings),
                _ => findings.hint(&at, value),
            }
        }
    }

    fn format(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        if findings.object(node, path).is_none() {
            return;
        }
        match findings.required_string(node, "type", path) {
            Some("json_schema") => {
                findings.demand(Demand::JsonSchema, path);
                let at = path.key("schema");
                match node.find("schema") {
                    Some(schema) if schema.as_object().is_some() => {
                        if let Some(schema) = raw(schema) {
                            self.format = TextFormat::JsonSchema {
                                // The dialect has no name for it and others must have one.
                                name: "answer".to_owned(),
                                description: None,
                                schema,
                                strict: Some(true),
                            };
                        }
                    }
                    Some(schema) => findings.expected(schema, &at, "a JSON schema object"),
                    None => findings.missing(&at),
                }
            }
            Some(_) => {
                findings.problem(&path.key("type"), WRONG_VALUE, "expected `json_schema`");
            }
            None => {}
        }
    }

    fn check(&mut self, generates: bool, findings: &mut Findings) {
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
        if generates && !self.has_max_tokens {
            findings.problem(
                &root.key("max_tokens"),
                MISSING,
                "required: the most tokens to generate",
            );
        }
        check_tool_choice(&self.tool_choice, &self.tools, findings);
    }
}

fn tools(node: &Node<'_>, path: &Path<'_>, tools: &mut Vec<Tool>, findings: &mut Findings) {
    for (index, node) in findings.tools(node, path).iter().enumerate() {
        let at = path.index(index);
        if node.as_object().is_none() {
            findings.expected(node, &at, "an object");
            continue;
        }
        match node.find_str("type") {
            None | Some("custom") => tools.extend(custom(node, &at, findings).map(Tool::Function)),
            Some(kind) => {
                // Tools of the provider's own servers, or with schemas that only its models know.
                findings.hint_text(at.to_string());
                tools.extend(raw(node).map(|raw| Tool::Other {
                    kind: kind.into(),
                    raw,
                }));
            }
        }
    }
}

fn custom(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Option<FunctionTool> {
    let tool = callable(node, path, "input_schema", "tool", findings)?;
    if node.find("input_schema").is_none() {
        findings.problem(
            &path.key("input_schema"),
            MISSING,
            "required: the JSON schema of the tool's input",
        );
    }
    Some(tool)
}
