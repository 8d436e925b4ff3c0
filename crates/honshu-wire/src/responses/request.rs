//! A Responses request body, read into the domain's words and written for an upstream.

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Demand, Dialect, Error, InferenceRequest, Item, Message, Part, Role, Sampling, TextFormat,
    Tool, ToolChoice,
};

use super::fields::{context_management, metadata};
use super::items::{self, Form};
use super::tools::{Allowed, check_tool_choice, tool_choice, tools, write_tool};
use crate::json::{Node, Path, put, put_bool, put_f32, put_str, put_uint};
use crate::problems::{self, Findings, MISSING, WRONG_VALUE};
use crate::sampling::{self, OUTPUT_TOKENS_MAX};

/// Reads a `POST /responses` body.
///
/// Where OpenAI wants at least 16 for `max_output_tokens` we take 1 and more: no client can be broken by the
/// wider range, and an upstream that insists says so itself.
///
/// State is not this function's business: `store: true` is a hint, and `previous_response_id`, `conversation` and
/// `background` are demands, until [`expand`](super::expand) has put what they stand for in their place.
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
        dialect: Dialect::Responses,
        raw: body,
        model: draft.model.into(),
        instructions: draft.instructions,
        input: draft.input.unwrap_or_default(),
        tools: draft.tools,
        tool_choice: draft.tool_choice,
        parallel_tool_calls: draft.parallel_tool_calls.unwrap_or(true),
        sampling: draft.sampling,
        format: draft.format,
        max_output_tokens: draft.max_output_tokens,
        stop: Vec::new(),
        choices: 1,
        top_logprobs: draft.top_logprobs,
        reasoning_effort: draft.reasoning_effort.map(Into::into),
        stream: draft.stream,
        include_usage: true,
        obfuscates: draft.obfuscates,
        demands: findings.demands,
        hints: findings.hints,
    })
}

#[derive(Default)]
struct Draft {
    model: String,
    instructions: Option<String>,
    input: Option<Vec<Item>>,
    tools: Vec<Tool>,
    tool_choice: ToolChoice,
    allowed: Option<Allowed>,
    parallel_tool_calls: Option<bool>,
    sampling: Sampling,
    format: TextFormat,
    max_output_tokens: Option<u32>,
    top_logprobs: Option<u8>,
    include_logprobs: bool,
    reasoning_effort: Option<String>,
    stream: bool,
    obfuscates: bool,
    previous_response: bool,
    conversation: bool,
    prompt: bool,
    /// The input is a list without items.
    is_empty: bool,
    /// Nothing is to be generated (`generate`, WebSocket mode).
    is_silent: bool,
}

impl Draft {
    fn field(&mut self, key: &str, node: &Node<'_>, findings: &mut Findings) {
        let root = Path::Root;
        let path = root.key(key);
        if sampling::field(key, node, &path, &mut self.sampling, findings) {
            return;
        }
        match key {
            "model" => {
                if let Some(model) = findings.string(node, &path) {
                    model.clone_into(&mut self.model);
                }
            }
            "input" => self.input(node, &path, findings),
            "instructions" => {
                self.instructions = findings.string(node, &path).map(ToOwned::to_owned);
            }
            "stream" => self.stream = findings.boolean(node, &path).unwrap_or_default(),
            "stream_options" => self.stream_options(node, &path, findings),
            "max_output_tokens" => {
                self.max_output_tokens = findings
                    .integer(node, &path, 1, OUTPUT_TOKENS_MAX)
                    .and_then(|n| u32::try_from(n).ok());
            }
            "tools" => self.tools = tools(node, &path, findings),
            "tool_choice" => {
                self.tool_choice = tool_choice(node, &path, &mut self.allowed, findings);
            }
            "parallel_tool_calls" => self.parallel_tool_calls = findings.boolean(node, &path),
            "text" => self.text(node, &path, findings),
            "top_logprobs" => {
                self.top_logprobs = findings
                    .integer(node, &path, 0, 20)
                    .and_then(|n| u8::try_from(n).ok())
                    .filter(|n| *n > 0);
                if self.top_logprobs.is_some() {
                    findings.demand(Demand::Logprobs, &path);
                }
            }
            "include" => self.include(node, &path, findings),
            "reasoning" => self.reasoning(node, &path, findings),
            "store" => {
                if findings.boolean(node, &path) == Some(true) {
                    findings.hint(&path, node);
                }
            }
            "background" => {
                if findings.boolean(node, &path) == Some(true) {
                    findings.demand(Demand::StoredState, &path);
                }
            }
            "previous_response_id" => {
                if findings.string(node, &path).is_some() {
                    self.previous_response = true;
                    findings.demand(Demand::StoredState, &path);
                }
            }
            "conversation" => {
                if !node.is_null() {
                    self.conversation = true;
                    findings.demand(Demand::StoredState, &path);
                }
            }
            "prompt" => {
                if !node.is_null() {
                    self.prompt = true;
                    findings.demand(Demand::StoredState, &path);
                }
            }
            "generate" => {
                self.is_silent = findings.boolean(node, &path) == Some(false);
                findings.hint(&path, node);
            }
            "metadata" => metadata(node, &path, findings),
            "truncation" => {
                findings.one_of(node, &path, &["auto", "disabled"]);
            }
            "service_tier" => {
                if !matches!(
                    findings.string(node, &path),
                    None | Some("auto" | "default")
                ) {
                    findings.hint(&path, node);
                }
            }
            // It counts calls of built-in tools, and none is run here: an upstream that runs its own counts them.
            "max_tool_calls" => {
                findings.integer(node, &path, 1, i64::from(i32::MAX));
            }
            "context_management" => {
                context_management(node, &path, findings);
                findings.hint(&path, node);
            }
            "prompt_cache_key" | "safety_identifier" | "user" => {
                findings.string(node, &path);
                findings.hint(&path, node);
            }
            _ => findings.hint(&path, node),
        }
    }

    fn input(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        if let Some(text) = node.as_str() {
            if text.is_empty() {
                findings.problem(path, WRONG_VALUE, "must not be empty");
            }
            self.input = Some(vec![Item::Message(Message {
                id: None,
                role: Role::User,
                content: vec![Part::text(text)],
                phase: None,
                name: None,
            })]);
        } else if let Some(nodes) = node.as_array() {
            self.is_empty = nodes.is_empty();
            let items = items::read_list(nodes, path, findings);
            // Problems leave items out, and then the places would not match.
            if items.len() == nodes.len() {
                self.answers_belong_to_calls(&items, path, findings);
            }
            self.input = Some(items);
        } else if !node.is_null() {
            findings.expected(node, path, "a string or an array of items");
            self.input = Some(Vec::new());
        }
    }

    /// A result must name a call of the same input, unless the call may be in state that an
    /// upstream keeps or in an item that we do not interpret.
    fn answers_belong_to_calls(&self, items: &[Item], path: &Path<'_>, findings: &mut Findings) {
        if items.iter().any(|item| matches!(item, Item::Other { .. })) {
            return;
        }
        let calls: std::collections::HashSet<&str> = items
            .iter()
            .filter_map(|item| Some(item.call_id()?.as_ref()))
            .collect();
        for (index, item) in items.iter().enumerate() {
            if let Some(output) = item.call_output()
                && !calls.contains(output.call_id.as_ref())
            {
                findings
                    .orphans
                    .push(format!("{}.call_id", path.index(index)));
            }
        }
    }

    fn stream_options(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        for (key, value) in findings.object(node, path).unwrap_or_default() {
            let at = path.key(key);
            match key.as_ref() {
                "include_obfuscation" => {
                    self.obfuscates = findings.boolean(value, &at).unwrap_or_default();
                }
                _ => findings.hint(&at, value),
            }
        }
    }

    fn text(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        for (key, value) in findings.object(node, path).unwrap_or_default() {
            let at = path.key(key);
            match key.as_ref() {
                "format" => self.format = format(value, &at, findings),
                "verbosity" => {
                    if findings.one_of(value, &at, &["low", "medium", "high"]) != Some("medium") {
                        findings.hint(&at, value);
                    }
                }
                _ => findings.hint(&at, value),
            }
        }
    }

    fn include(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        for (index, value) in findings
            .array(node, path)
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let at = path.index(index);
            match findings.string(value, &at) {
                Some("message.output_text.logprobs") => {
                    self.include_logprobs = true;
                    findings.demand(Demand::Logprobs, &at);
                }
                Some(_) => findings.hint_text(at.to_string()),
                None if value.is_null() => findings.expected(value, &at, "a string"),
                None => {}
            }
        }
    }

    fn reasoning(&mut self, node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) {
        for (key, value) in findings.object(node, path).unwrap_or_default() {
            let at = path.key(key);
            if key == "effort" {
                self.reasoning_effort = findings.string(value, &at).map(ToOwned::to_owned);
            }
            findings.hint(&at, value);
        }
    }

    fn check(&mut self, findings: &mut Findings) {
        let root = Path::Root;
        if self.model.is_empty() {
            findings.problem(&root.key("model"), MISSING, "required: the name of a model");
        }
        if self.input.is_none() && !self.prompt && !self.previous_response && !self.conversation {
            findings.problem(
                &root.key("input"),
                MISSING,
                "required: a string or an array of items",
            );
        }
        if self.is_empty && !self.is_silent && !self.previous_response && !self.conversation {
            let what = "must have at least one item";
            findings.problem(&root.key("input"), WRONG_VALUE, what);
        }
        if self.previous_response && self.conversation {
            findings.problem(
                &root.key("conversation"),
                WRONG_VALUE,
                "cannot be given together with `previous_response_id`",
            );
        }
        if self.include_logprobs && self.top_logprobs.is_none() {
            self.top_logprobs = Some(0);
        }
        let orphans = std::mem::take(&mut findings.orphans);
        if !self.previous_response && !self.conversation && !self.prompt {
            for path in orphans {
                let what = "no call of this input has this id";
                findings.problem_at(path, WRONG_VALUE, what);
            }
        }
        if let Some(allowed) = self.allowed.take() {
            allowed.narrow(&mut self.tools, findings);
        }
        check_tool_choice(&self.tool_choice, &self.tools, findings);
    }
}

/// Reads `text.format`.
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
            sampling::json_schema(node, path, true, findings).unwrap_or_default()
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

/// The body for an upstream that speaks Responses, when the caller did not. What the caller's dialect cannot
/// say is left to the upstream's defaults; nothing is stored there.
pub fn build_request(request: &InferenceRequest, upstream: &str, stream: bool) -> Bytes {
    let mut body = BytesMut::with_capacity(request.raw.len() + 256);
    let out = &mut body;
    put(out, "{\"model\":");
    put_str(out, upstream);
    put(out, ",\"input\":[");
    let mut first = true;
    for item in &request.input {
        // A carried item of another dialect means nothing here; the plan has refused it before.
        if matches!(item, Item::Other { .. }) && request.dialect != Dialect::Responses {
            continue;
        }
        if !std::mem::take(&mut first) {
            put(out, ",");
        }
        let form = Form {
            id: None,
            status: None,
            logprobs: false,
        };
        items::write(item, form, out);
    }
    put(out, "],\"store\":false");
    if stream {
        put(out, ",\"stream\":true");
    }
    if let Some(instructions) = &request.instructions {
        put(out, ",\"instructions\":");
        put_str(out, instructions);
    }
    if !request.tools.is_empty() {
        put(out, ",\"tools\":[");
        let mut first = true;
        for tool in &request.tools {
            if matches!(tool, Tool::Other { .. }) && request.dialect != Dialect::Responses {
                continue;
            }
            if !std::mem::take(&mut first) {
                put(out, ",");
            }
            write_tool(tool, out);
        }
        put(out, "]");
        put(out, ",\"parallel_tool_calls\":");
        put_bool(out, request.parallel_tool_calls);
    }
    match &request.tool_choice {
        ToolChoice::Auto => {}
        ToolChoice::None => put(out, ",\"tool_choice\":\"none\""),
        ToolChoice::Required => put(out, ",\"tool_choice\":\"required\""),
        ToolChoice::Function(name) => {
            put(out, ",\"tool_choice\":{\"type\":\"function\",\"name\":");
            put_str(out, name);
            put(out, "}");
        }
        ToolChoice::Custom(name) => {
            put(out, ",\"tool_choice\":{\"type\":\"custom\",\"name\":");
            put_str(out, name);
            put(out, "}");
        }
        ToolChoice::Other(raw) if request.dialect == Dialect::Responses => {
            put(out, ",\"tool_choice\":");
            put(out, raw.get());
        }
        ToolChoice::Other(_) => {}
    }
    write_options(request, out);
    put(out, "}");
    body.freeze()
}

fn write_options(request: &InferenceRequest, out: &mut BytesMut) {
    let sampling = &request.sampling;
    if let Some(n) = request.max_output_tokens {
        put(out, ",\"max_output_tokens\":");
        put_uint(out, n);
    }
    for (key, value) in [
        (",\"temperature\":", sampling.temperature),
        (",\"top_p\":", sampling.top_p),
        (",\"presence_penalty\":", sampling.penalties.presence),
        (",\"frequency_penalty\":", sampling.penalties.frequency),
    ] {
        if let Some(value) = value {
            put(out, key);
            put_f32(out, value);
        }
    }
    if let Some(effort) = &request.reasoning_effort {
        put(out, ",\"reasoning\":{\"effort\":");
        put_str(out, effort);
        put(out, "}");
    }
    if let Some(top) = request.top_logprobs {
        put(
            out,
            ",\"include\":[\"message.output_text.logprobs\"],\"top_logprobs\":",
        );
        put_uint(out, u32::from(top));
    }
    match &request.format {
        TextFormat::Text => {}
        TextFormat::JsonObject => put(out, ",\"text\":{\"format\":{\"type\":\"json_object\"}}"),
        TextFormat::JsonSchema {
            name,
            description,
            schema,
            strict,
        } => {
            put(
                out,
                ",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":",
            );
            put_str(out, name);
            if let Some(description) = description {
                put(out, ",\"description\":");
                put_str(out, description);
            }
            put(out, ",\"schema\":");
            put(out, schema.get());
            if let Some(strict) = strict {
                put(out, ",\"strict\":");
                put_bool(out, *strict);
            }
            put(out, "}}");
        }
    }
}
