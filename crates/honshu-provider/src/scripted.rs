//! The scripted model: obeys the last user message to the letter, so that clients, tests and continuous
//! integration can rely on what it says. It is no language model and never runs unless it is configured.
//!
//! | line of the last user message | what it does |
//! |---|---|
//! | `Reply with exactly: X` | answers X |
//! | `Call the tool NAME with {json}` | calls it; several lines are several parallel calls |
//! | `Answer with N words` | answers `word1 word2 … wordN` |
//! | `Reason about: X` | reasons X before the answer |
//! | `Wait N ms between words` | paces the answer |
//! | `Fail at event N`, `Cut at event N`, `Stall at event N` | breaks the answer there, in that way |
//!
//! After a tool's result it answers with a sentence that quotes it. A required or named tool is called with
//! arguments that satisfy its schema, a JSON schema for the answer is filled, JSON mode answers an object. Anything
//! else is answered with a fixed sentence. Tokens are counted as words: a run of characters between white space, with
//! the white space before it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use honshu_domain::{
    Attempt, Backend, BackendKind, Demand, Dialect, Entropy, Error, ErrorKind, Finish,
    FinishReason, FunctionCall, InferenceRequest, Item, Message, Part, PartKind, PublicId,
    Reasoning, Role, RunEvent, RunStream, Support, SystemEntropy, TextFormat, TokenLogprob, Tool,
    ToolChoice, Usage,
};
use serde_json::{Map, Value};
use tokio::time::Sleep;

/// What is said when nothing was asked for in words that are known.
const FIXED: &str = "This is the scripted model of Honshu.";

/// The most words of an answer.
const WORDS_MAX: usize = 100_000;

/// The longest pause between words.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How deep a schema is followed.
const SCHEMA_DEPTH_MAX: usize = 32;

/// The scripted model.
#[derive(Debug)]
pub struct ScriptedProvider {
    name: String,
}

impl ScriptedProvider {
    /// Under the name of the configuration.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

impl Backend for ScriptedProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> BackendKind {
        BackendKind::Scripted
    }

    fn supports(&self, _upstream: &str, _dialect: Dialect, demand: Demand) -> Support {
        match demand {
            // Nothing is stored, and items that nobody knows cannot be obeyed.
            Demand::StoredState | Demand::Audio => Support::No,
            _ => Support::Yes,
        }
    }

    fn passes_through(&self, _upstream: &str, _dialect: Dialect) -> bool {
        false
    }

    fn generate(&self, attempt: Attempt) -> RunStream {
        let script = Script::of(&attempt.request);
        Box::pin(Playing {
            pause: script.pause,
            breaks: script.breaks,
            events: script.events(&attempt.request),
            played: 0,
            sleep: None,
        })
    }
}

/// How an answer breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    Fail,
    Cut,
    Stall,
}

/// What the last user message asks for.
#[derive(Debug, Default)]
struct Script {
    reply: Option<String>,
    calls: Vec<(String, String)>,
    reasoning: Option<String>,
    pause: Duration,
    breaks: Option<(Break, usize)>,
}

impl Script {
    fn of(request: &InferenceRequest) -> Self {
        let mut script = Self::default();
        // A tool's result after the last user message is quoted.
        let mut after_tool = None;
        let mut asked = String::new();
        for item in &request.input {
            match item {
                Item::Message(message) if message.role == Role::User => {
                    asked = text_of(&message.content);
                    after_tool = None;
                }
                Item::FunctionCallOutput(output) => {
                    after_tool = Some(text_of(&output.output));
                }
                _ => {}
            }
        }
        script.read(&asked);
        if let Some(result) = after_tool {
            script.calls.clear();
            script.reply = Some(format!("The tool answered: {result}"));
            return script;
        }
        if script.calls.is_empty()
            && let Some((name, parameters)) = forced_tool(request)
        {
            script.calls.push((name, satisfying(parameters).to_string()));
        }
        if !script.calls.is_empty() && matches!(request.tool_choice, ToolChoice::None) {
            script.calls.clear();
        }
        if script.reply.is_none() {
            script.reply = match &request.format {
                TextFormat::Text => None,
                TextFormat::JsonObject => Some(r#"{"answer":"scripted"}"#.to_owned()),
                TextFormat::JsonSchema { schema, .. } => {
                    Some(satisfying(schema.to().ok()).to_string())
                }
            };
        }
        script
    }

    fn read(&mut self, text: &str) {
        // An exact reply may have several lines: it goes on to the end of the message.
        if let Some((before, exact)) = text.split_once("Reply with exactly: ") {
            self.reply = Some(exact.to_owned());
            return self.read(before);
        }
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("Call the tool ") {
                if let Some((name, arguments)) = rest.split_once(" with ") {
                    self.calls.push((name.to_owned(), arguments.to_owned()));
                }
            } else if let Some(rest) = line.strip_prefix("Reason about: ") {
                self.reasoning = Some(rest.to_owned());
            } else if let Some(words) = between(line, "Answer with ", " words") {
                let words: Vec<String> = (1..=words.min(WORDS_MAX)).map(|n| format!("word{n}")).collect();
                self.reply = Some(words.join(" "));
            } else if let Some(pause) = between(line, "Wait ", " ms between words") {
                self.pause = Duration::from_millis(pause as u64).min(PAUSE_MAX);
            } else {
                for (how, prefix) in [
                    (Break::Fail, "Fail at event "),
                    (Break::Cut, "Cut at event "),
                    (Break::Stall, "Stall at event "),
                ] {
                    if let Some(place) = between(line, prefix, "") {
                        self.breaks = Some((how, place));
                    }
                }
            }
        }
    }

    /// The whole answer as events.
    fn events(&self, request: &InferenceRequest) -> VecDeque<RunEvent> {
        let mut out = Answer::new(input_tokens(request), request);
        if let Some(reasoning) = &self.reasoning {
            out.reason(reasoning);
        }
        if self.calls.is_empty() {
            let reply = self.reply.as_deref().unwrap_or(FIXED);
            for choice in 0..request.choices.max(1) {
                out.say(choice, reply);
            }
        } else {
            if let Some(reply) = &self.reply {
                out.say(0, reply);
            }
            for (name, arguments) in &self.calls {
                out.call(name, arguments);
            }
        }
        out.finish()
    }
}

/// Builds the events of an answer.
struct Answer<'a> {
    request: &'a InferenceRequest,
    events: VecDeque<RunEvent>,
    next_index: u32,
    usage: Usage,
    reason: FinishReason,
}

impl<'a> Answer<'a> {
    fn new(input_tokens: u64, request: &'a InferenceRequest) -> Self {
        Self {
            request,
            events: VecDeque::from([RunEvent::Started {
                upstream_request_id: None,
                input_tokens: Some(input_tokens),
            }]),
            next_index: 0,
            usage: Usage {
                input_tokens,
                ..Usage::default()
            },
            reason: FinishReason::Stop,
        }
    }

    fn index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index - 1
    }

    /// Whether one more token fits under the limit.
    fn takes_token(&mut self) -> bool {
        let limit = self.request.max_output_tokens.map_or(u64::MAX, u64::from);
        if self.usage.output_tokens >= limit {
            self.reason = FinishReason::Length;
            return false;
        }
        self.usage.output_tokens += 1;
        true
    }

    fn reason(&mut self, text: &str) {
        let output_index = self.index();
        let id = id("rs_");
        let item = |content: Vec<String>| {
            Item::Reasoning(Reasoning {
                id: Some(Arc::clone(&id)),
                content,
                ..Reasoning::default()
            })
        };
        self.events.push_back(RunEvent::ItemStarted {
            output_index,
            choice: 0,
            item: item(Vec::new()),
        });
        let said = self.part(output_index, PartKind::ReasoningText, text);
        self.usage.reasoning_tokens = self.usage.output_tokens;
        self.events.push_back(RunEvent::ItemDone {
            output_index,
            item: item(vec![said]),
        });
    }

    fn say(&mut self, choice: u32, text: &str) {
        let output_index = self.index();
        let id = id("msg_");
        let item = |content| {
            Item::Message(Message {
                id: Some(Arc::clone(&id)),
                role: Role::Assistant,
                content,
                phase: None,
                name: None,
            })
        };
        self.events.push_back(RunEvent::ItemStarted {
            output_index,
            choice,
            item: item(Vec::new()),
        });
        let text = self.until_stop(text).to_owned();
        let said = self.part(output_index, PartKind::Text, &text);
        let reason = self.reason;
        let logprobs = self.logprobs(&said);
        self.events.push_back(RunEvent::ItemDone {
            output_index,
            item: item(vec![Part::Text {
                text: said,
                annotations: Vec::new(),
                logprobs,
            }]),
        });
        if self.request.choices > 1 {
            self.events
                .push_back(RunEvent::ChoiceFinished { choice, reason });
        }
    }

    /// The text up to the first stop text.
    fn until_stop<'t>(&self, text: &'t str) -> &'t str {
        let end = self
            .request
            .stop
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| text.find(stop.as_str()))
            .min()
            .unwrap_or(text.len());
        &text[..end]
    }

    fn part(&mut self, output_index: u32, kind: PartKind, text: &str) -> String {
        self.events.push_back(RunEvent::PartStarted {
            output_index,
            part_index: 0,
            kind,
        });
        let mut said = String::new();
        for word in words(text) {
            if !self.takes_token() {
                break;
            }
            said.push_str(word);
            let logprobs = if kind == PartKind::Text {
                self.logprobs(word)
            } else {
                Vec::new()
            };
            self.events.push_back(RunEvent::Delta {
                output_index,
                part_index: 0,
                kind,
                text: word.to_owned(),
                logprobs,
            });
        }
        self.events.push_back(RunEvent::PartDone {
            output_index,
            part_index: 0,
            kind,
        });
        said
    }

    /// Certain of every word.
    fn logprobs(&self, text: &str) -> Vec<TokenLogprob> {
        if self.request.top_logprobs.is_none() {
            return Vec::new();
        }
        words(text)
            .map(|word| TokenLogprob {
                token: word.to_owned(),
                bytes: word.as_bytes().to_vec(),
                logprob: 0.0,
                top: Vec::new(),
            })
            .collect()
    }

    fn call(&mut self, name: &str, arguments: &str) {
        let output_index = self.index();
        let (id, call_id) = (id("fc_"), id("call_"));
        let item = |arguments: &str| {
            Item::FunctionCall(FunctionCall {
                id: Some(Arc::clone(&id)),
                call_id: Arc::clone(&call_id),
                name: name.into(),
                arguments: arguments.to_owned(),
            })
        };
        self.events.push_back(RunEvent::ItemStarted {
            output_index,
            choice: 0,
            item: item(""),
        });
        for word in words(arguments) {
            self.usage.output_tokens += 1;
            self.events.push_back(RunEvent::ArgumentsDelta {
                output_index,
                delta: word.to_owned(),
            });
        }
        self.reason = FinishReason::ToolCalls;
        self.events.push_back(RunEvent::ItemDone {
            output_index,
            item: item(arguments),
        });
    }

    fn finish(mut self) -> VecDeque<RunEvent> {
        self.events.push_back(RunEvent::Finished(Finish {
            reason: self.reason,
            usage: Some(self.usage),
        }));
        self.events
    }
}

/// An answer being played.
struct Playing {
    events: VecDeque<RunEvent>,
    pause: Duration,
    breaks: Option<(Break, usize)>,
    played: usize,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stream for Playing {
    type Item = Result<RunEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some((how, place)) = this.breaks
            && this.played >= place
        {
            return match how {
                Break::Stall => Poll::Pending,
                Break::Cut => Poll::Ready(None),
                Break::Fail => {
                    this.breaks = Some((Break::Cut, 0));
                    Poll::Ready(Some(Err(Error::new(
                        ErrorKind::Upstream,
                        "the scripted model failed, as it was told to",
                    ))))
                }
            };
        }
        if !this.pause.is_zero() && matches!(this.events.front(), Some(RunEvent::Delta { .. })) {
            let pause = this.pause;
            let sleep = this
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(sleep.as_mut().poll(cx));
            this.sleep = None;
        }
        this.played += 1;
        Poll::Ready(this.events.pop_front().map(Ok))
    }
}

fn id(prefix: &str) -> Arc<str> {
    PublicId::generate(prefix, &SystemEntropy as &dyn Entropy)
        .as_str()
        .into()
}

fn between(line: &str, before: &str, after: &str) -> Option<usize> {
    line.strip_prefix(before)?.strip_suffix(after)?.trim().parse().ok()
}

/// Words with the white space before them; white space at the end is a word of its own.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let end = rest[start..]
            .find(char::is_whitespace)
            .map_or(rest.len(), |length| start + length);
        let (word, more) = rest.split_at(end);
        rest = more;
        Some(word)
    })
}

fn text_of(parts: &[Part]) -> String {
    parts
        .iter()
        .filter_map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn input_tokens(request: &InferenceRequest) -> u64 {
    let count = |text: &str| words(text).count() as u64;
    let items: u64 = request
        .input
        .iter()
        .map(|item| match item {
            Item::Message(message) => count(&text_of(&message.content)),
            Item::FunctionCall(call) => count(&call.arguments),
            Item::FunctionCallOutput(output) => count(&text_of(&output.output)),
            Item::Reasoning(_) | Item::Other { .. } => 0,
        })
        .sum();
    items + request.instructions.as_deref().map_or(0, count)
}

/// The tool that has to be called: the named one, or the first where one is required.
fn forced_tool(request: &InferenceRequest) -> Option<(String, Option<Value>)> {
    let mut functions = request.tools.iter().filter_map(|tool| match tool {
        Tool::Function(function) => Some(function),
        Tool::Other { .. } => None,
    });
    let function = match &request.tool_choice {
        ToolChoice::Required => functions.next(),
        ToolChoice::Function(name) => functions.find(|function| function.name == *name),
        _ => None,
    }?;
    let parameters = function
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.to().ok());
    Some((function.name.as_ref().to_owned(), parameters))
}

/// A small value that satisfies a schema.
fn satisfying(schema: Option<Value>) -> Value {
    let schema = schema.unwrap_or(Value::Null);
    fill(&schema, &schema, 0)
}

fn fill(root: &Value, schema: &Value, depth: usize) -> Value {
    if depth > SCHEMA_DEPTH_MAX {
        return Value::Null;
    }
    for key in ["const", "default"] {
        if let Some(value) = schema.get(key) {
            return value.clone();
        }
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    if let Some(target) = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix('#'))
        .and_then(|pointer| root.pointer(pointer))
    {
        return fill(root, target, depth + 1);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(key).and_then(|schemas| schemas.get(0)) {
            return fill(root, first, depth + 1);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ => "object",
    };
    match kind {
        "string" => {
            let length = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
            let text = "scripted";
            let missing = usize::try_from(length).unwrap_or(0).min(10_000).saturating_sub(text.len());
            Value::from(format!("{text}{}", "x".repeat(missing)))
        }
        "integer" => Value::from(schema.get("minimum").and_then(Value::as_i64).unwrap_or(1)),
        "number" => schema
            .get("minimum")
            .filter(|value| value.is_number())
            .cloned()
            .unwrap_or_else(|| Value::from(1)),
        "boolean" => Value::from(true),
        "null" => Value::Null,
        "array" => {
            let length = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).min(100);
            let item = schema.get("items").cloned().unwrap_or(Value::Null);
            (0..length).map(|_| fill(root, &item, depth + 1)).collect()
        }
        _ => {
            let mut object = Map::new();
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (name, property) in properties {
                    object.insert(name.clone(), fill(root, property, depth + 1));
                }
            }
            Value::Object(object)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_keep_every_byte() {
        for text in ["one two  three\n", "", " a", "本州 です", "x"] {
            assert_eq!(words(text).collect::<String>(), text);
        }
        assert_eq!(words("one two").count(), 2);
    }

    #[test]
    fn schemas_are_filled_with_values_that_satisfy_them() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["c", "f"]},
                "days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "minItems": 2},
            },
            "$defs": {"day": {"type": "integer", "minimum": 3}},
        });
        assert_eq!(
            satisfying(Some(schema)),
            json!({"city": "scripted", "unit": "c", "days": [3, 3]})
        );
    }

    #[test]
    fn the_script_is_read_line_by_line() {
        let mut script = Script::default();
        script.read("Reason about: islands\nWait 5 ms between words\nReply with exactly: a\nb");
        assert_eq!(script.reply.as_deref(), Some("a\nb"));
        assert_eq!(script.reasoning.as_deref(), Some("islands"));
        assert_eq!(script.pause, Duration::from_millis(5));
        let mut calls = Script::default();
        calls.read("Call the tool f with {\"a\": 1}\nCall the tool g with {}\nCut at event 3");
        assert_eq!(calls.calls.len(), 2);
        assert_eq!(calls.breaks, Some((Break::Cut, 3)));
    }
}
