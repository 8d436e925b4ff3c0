//! From a request to the script of its answer: which events, which pauses, which fault.

use std::sync::Arc;
use std::time::Duration;

use honshu_domain::{
    Attempt, CustomToolCall, Error, ErrorKind, Finish, FinishReason, FunctionCall, FunctionTool,
    InferenceRequest, Item, Message, Origin, Part, PartKind, RawJson, Reasoning, Retry, Role,
    RunEvent, TextFormat, TokenLogprob, Tool, ToolChoice, TopLogprob, Usage,
};
use serde_json::Value;

use super::fill::fill;

/// The most words that are written on demand.
const WORDS_MAX: usize = 100_000;
/// Tokens that each item of the input counts beside its words, as chat templates put markers around it.
const TOKENS_PER_ITEM: u64 = 3;

const DEFAULT_ANSWER: &str =
    "This is the scripted model of Honshu. It does what the last message tells it.";
const THOUGHTS: &str = "The last message says what to do, so I do it.";
const WORDS: [&str; 10] = [
    "one",
    "island",
    "of",
    "many",
    "between",
    "the",
    "sea",
    "and",
    "its",
    "mountains",
];

/// What a message that tells something holds.
const TELLING: [&str; 6] = [
    "Refuse with:",
    "Call the tool ",
    "Then call the tool ",
    "Reply with exactly:",
    "Answer with ",
    "[scripted:",
];

/// What is played.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) events: Vec<RunEvent>,
    pub(super) fault: Option<(usize, Fault)>,
    pub(super) first: Duration,
    pub(super) delay: Duration,
}

/// What happens instead of an event.
#[derive(Debug)]
pub(super) enum Fault {
    /// Silence.
    Stall,
    /// The stream ends.
    Cut,
    /// An error comes.
    Fail(Error),
}

/// Writes the script for a request.
pub(super) fn write(attempt: &Attempt) -> Script {
    let request = &*attempt.request;
    let (message, knobs) = read_instructions(request, &attempt.upstream);
    let input_tokens = input_tokens(request);
    let mut writer = Writer {
        request,
        events: vec![RunEvent::Started {
            upstream_request_id: None,
            input_tokens: Some(input_tokens),
        }],
        output_index: 0,
        left: request.max_output_tokens.map_or(u64::MAX, u64::from),
        output_tokens: 0,
        reasoning_tokens: 0,
    };
    let answer = decide(request, &message);
    let choices = request.choices.max(1);
    let mut reason = FinishReason::Stop;
    for choice in 0..choices {
        writer.left = request.max_output_tokens.map_or(u64::MAX, u64::from);
        if knobs.reasoning {
            writer.reasoning(choice);
        }
        reason = match &answer {
            Answer::Text(text) => writer.text(choice, text, PartKind::Text),
            Answer::Refusal(text) => writer.text(choice, text, PartKind::Refusal),
            Answer::Calls(calls) => writer.calls(choice, calls, &attempt.request_id),
        };
        if choices > 1 {
            writer
                .events
                .push(RunEvent::ChoiceFinished { choice, reason });
        }
    }
    let usage = Usage {
        input_tokens,
        output_tokens: writer.output_tokens,
        reasoning_tokens: writer.reasoning_tokens,
        ..Usage::default()
    };
    let stop_text = match &answer {
        Answer::Text(text) if reason == FinishReason::Stop => stop_in(text, &request.stop),
        _ => None,
    };
    writer.events.push(RunEvent::Finished(Finish {
        reason,
        usage: Some(usage),
        stop_text: stop_text.map(|(_, stop)| stop.into()),
    }));
    Script {
        events: writer.events,
        fault: knobs.fault,
        first: knobs.first,
        delay: knobs.delay,
    }
}

enum Answer {
    Text(String),
    Refusal(String),
    Calls(Vec<(Arc<str>, String)>),
}

/// A tool that can be called.
#[derive(Clone, Copy)]
enum Callable<'r> {
    Function(&'r FunctionTool),
    Custom(&'r Arc<str>),
}

impl<'r> Callable<'r> {
    fn name(self) -> &'r Arc<str> {
        match self {
            Self::Function(function) => &function.name,
            Self::Custom(name) => name,
        }
    }

    /// What it is called with when nothing tells.
    fn text(self) -> String {
        match self {
            Self::Function(function) => arguments_for(function),
            Self::Custom(_) => "input".to_owned(),
        }
    }
}

fn callables(request: &InferenceRequest) -> Vec<Callable<'_>> {
    let tools = request.tools.iter();
    tools
        .filter_map(|tool| match tool {
            Tool::Function(function) => Some(Callable::Function(function)),
            Tool::Custom(custom) => Some(Callable::Custom(&custom.name)),
            Tool::Other { .. } => None,
        })
        .collect()
}

fn decide(request: &InferenceRequest, message: &str) -> Answer {
    let callables = callables(request);
    let find = |name: &str| {
        let named = |callable: &&Callable<'_>| &**callable.name() == name;
        callables.iter().find(named).copied()
    };
    let results = tool_results(request);
    let told = told_calls(message);

    let forced = match &request.tool_choice {
        ToolChoice::Function(name) | ToolChoice::Custom(name) => find(name),
        ToolChoice::Required => told
            .iter()
            .find_map(|(name, _)| find(name))
            .or_else(|| callables.first().copied()),
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Other(_) => None,
    };
    if let Some(callable) = forced {
        let mut calls: Vec<_> = told
            .into_iter()
            .filter(|(name, _)| match &request.tool_choice {
                ToolChoice::Function(only) | ToolChoice::Custom(only) => name == only,
                _ => find(name).is_some(),
            })
            .collect();
        if calls.is_empty() {
            calls.push((Arc::clone(callable.name()), callable.text()));
        }
        return Answer::Calls(limited(calls, request));
    }
    if !results.is_empty() {
        if let Some(step) = next_step(message, &told, results.len(), request.parallel_tool_calls) {
            return call(step, request, find);
        }
        if let Some(text) = after(message, "Then reply with exactly:") {
            return Answer::Text(text);
        }
        return Answer::Text(format!("The tool said: {}", results.join(" | ")));
    }
    if !told.is_empty() && request.tool_choice != ToolChoice::None {
        return call(told, request, find);
    }
    if let Some(text) = after(message, "Reply with exactly:") {
        return Answer::Text(text);
    }
    if let Some(text) = after(message, "Refuse with:") {
        return Answer::Refusal(text);
    }
    match &request.format {
        TextFormat::JsonSchema { schema, .. } => {
            let schema = schema.to::<Value>().unwrap_or(Value::Bool(true));
            return Answer::Text(fill(&schema, "").to_string());
        }
        TextFormat::JsonObject => {
            return Answer::Text(
                r#"{"answer":"This is the scripted model of Honshu."}"#.to_owned(),
            );
        }
        TextFormat::Text => {}
    }
    if let Some(count) = words_wanted(message) {
        let words: Vec<&str> = WORDS.into_iter().cycle().take(count).collect();
        return Answer::Text(words.join(" "));
    }
    match callables.as_slice() {
        [only] if request.tool_choice == ToolChoice::Auto => {
            Answer::Calls(vec![(Arc::clone(only.name()), only.text())])
        }
        _ => Answer::Text(DEFAULT_ANSWER.to_owned()),
    }
}

/// The calls, if the request has their tools.
fn call<'f>(
    calls: Vec<(Arc<str>, String)>,
    request: &InferenceRequest,
    find: impl Fn(&str) -> Option<Callable<'f>>,
) -> Answer {
    match calls.iter().find(|(name, _)| find(name).is_none()) {
        Some((name, _)) => Answer::Text(format!("There is no tool `{name}` in the request.")),
        None => Answer::Calls(limited(calls, request)),
    }
}

/// The call that a line `Then call the tool …` asks for, when `results` of those before it are there: the first lines
/// are one step, each such line is another.
fn next_step(
    message: &str,
    first: &[(Arc<str>, String)],
    results: usize,
    is_parallel: bool,
) -> Option<Vec<(Arc<str>, String)>> {
    let first = if is_parallel {
        first.len()
    } else {
        first.len().min(1)
    };
    let done = results.checked_sub(first)?;
    let step = lines_of_calls(message, "Then call the tool ").nth(done)?;
    Some(vec![step])
}

fn limited(
    mut calls: Vec<(Arc<str>, String)>,
    request: &InferenceRequest,
) -> Vec<(Arc<str>, String)> {
    if !request.parallel_tool_calls {
        calls.truncate(1);
    }
    calls
}

fn arguments_for(function: &FunctionTool) -> String {
    let schema = function
        .parameters
        .as_ref()
        .and_then(|schema| schema.to::<Value>().ok());
    match schema {
        Some(schema) => match fill(&schema, "") {
            object @ Value::Object(_) => object.to_string(),
            _ => "{}".to_owned(),
        },
        None => "{}".to_owned(),
    }
}

/// The texts of tool results that came after the message that tells what to do.
fn tool_results(request: &InferenceRequest) -> Vec<String> {
    let after = telling_message(request).map_or(0, |(at, _)| at);
    request.input[after..]
        .iter()
        .filter_map(|item| match item {
            Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
                Some(text_of(&output.output))
            }
            _ => None,
        })
        .collect()
}

/// The message that tells what to do, with its place: the last of the user. One that tells nothing, such as agents add
/// of their own between the turns, leaves an earlier one with `Then` lines in force.
fn telling_message(request: &InferenceRequest) -> Option<(usize, String)> {
    let mut messages = request
        .input
        .iter()
        .enumerate()
        .rev()
        .filter_map(|(at, item)| match item {
            Item::Message(message) if message.role == Role::User => {
                Some((at, text_of(&message.content)))
            }
            _ => None,
        });
    let last = messages.next()?;
    if TELLING.iter().any(|words| last.1.contains(words)) {
        return Some(last);
    }
    let plan = messages.find(|(_, text)| TELLING.iter().any(|words| text.contains(words)));
    Some(plan.filter(|(_, text)| is_plan(text)).unwrap_or(last))
}

/// Whether a message leads through several turns.
fn is_plan(message: &str) -> bool {
    message
        .lines()
        .any(|line| line.trim_start().starts_with("Then call the tool "))
}

/// The lines `Call the tool NAME with {json}`. Arguments that are not JSON are passed on as they are: a model may
/// err as well.
fn told_calls(message: &str) -> Vec<(Arc<str>, String)> {
    lines_of_calls(message, "Call the tool ").collect()
}

fn lines_of_calls<'m>(
    message: &'m str,
    start: &'static str,
) -> impl Iterator<Item = (Arc<str>, String)> + 'm {
    message.lines().filter_map(move |line| {
        let rest = line.trim().strip_prefix(start)?;
        let (name, arguments) = rest.split_once(" with ").unwrap_or((rest, "{}"));
        Some((
            Arc::from(name.trim().trim_matches('`')),
            arguments.trim().to_owned(),
        ))
    })
}

fn after(message: &str, prefix: &str) -> Option<String> {
    let start = message.find(prefix)? + prefix.len();
    let rest = &message[start..];
    let line = rest.lines().next().unwrap_or_default().trim();
    Some(if line.is_empty() {
        rest.trim().to_owned()
    } else {
        line.to_owned()
    })
}

fn words_wanted(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("Answer with ")?;
    let (number, rest) = rest.split_once(' ')?;
    let count = number.parse::<usize>().ok()?;
    rest.starts_with("word").then_some(count.min(WORDS_MAX))
}

#[derive(Debug, Default)]
struct Knobs {
    reasoning: bool,
    first: Duration,
    delay: Duration,
    fault: Option<(usize, Fault)>,
}

/// The telling message without its knobs, and the knobs of the upstream's name, the request and the message.
fn read_instructions(request: &InferenceRequest, upstream: &str) -> (String, Knobs) {
    let message = telling_message(request).map_or_else(String::new, |(_, text)| text);
    let mut settings = Vec::new();
    if let Some((_, query)) = upstream.split_once('?') {
        settings.extend(query.split('&').map(str::to_owned));
    }
    let mut plain = String::with_capacity(message.len());
    let mut rest = message.as_str();
    while let Some((before, inner)) = rest.split_once("[scripted:") {
        plain.push_str(before);
        match inner.split_once(']') {
            Some((knobs, after)) => {
                settings.extend(knobs.split_whitespace().map(str::to_owned));
                rest = after;
            }
            None => rest = inner,
        }
    }
    plain.push_str(rest);

    let mut knobs = Knobs {
        reasoning: request
            .reasoning_effort
            .as_deref()
            .is_some_and(|effort| effort != "none"),
        ..Knobs::default()
    };
    let mut status = 500;
    let mut fault: Option<(usize, &str)> = None;
    for setting in &settings {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let number = value.parse::<u32>().unwrap_or_default();
        let place = || usize::try_from(number).unwrap_or(usize::MAX);
        match name {
            "reasoning" => knobs.reasoning = value != "off",
            "delay-ms" => knobs.delay = Duration::from_millis(number.into()),
            "first-ms" => knobs.first = Duration::from_millis(number.into()),
            "status" => status = u16::try_from(number).unwrap_or(500),
            "stall-at" | "cut-at" | "fail-at" => fault = Some((place(), name)),
            _ => {}
        }
    }
    knobs.fault = fault.map(|(at, name)| {
        let fault = match name {
            "stall-at" => Fault::Stall,
            "cut-at" => Fault::Cut,
            _ => Fault::Fail(failure(status)),
        };
        (at, fault)
    });
    (plain, knobs)
}

/// The failure that an upstream's status stands for.
fn failure(status: u16) -> Error {
    let (kind, retry) = match status {
        400 => (ErrorKind::Invalid, Retry::Never),
        429 => (ErrorKind::RateLimited, Retry::After(Duration::from_secs(1))),
        503 => (ErrorKind::Unavailable, Retry::Now),
        401 | 403 | 404 => (ErrorKind::Upstream, Retry::Never),
        _ => (ErrorKind::Upstream, Retry::Now),
    };
    Error::new(kind, "the scripted model failed as it was told")
        .with_origin(Origin::Upstream)
        .with_retry(retry)
        .with_upstream_status(status)
}

fn text_of(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        if let Part::Text { text: piece, .. } = part {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(piece);
        }
    }
    text
}

fn count_words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

pub(super) fn input_tokens(request: &InferenceRequest) -> u64 {
    let of_item = |item: &Item| {
        TOKENS_PER_ITEM
            + match item {
                Item::Message(message) => count_words(&text_of(&message.content)),
                Item::FunctionCall(call) => count_words(&call.name) + count_words(&call.arguments),
                Item::CustomToolCall(call) => count_words(&call.name) + count_words(&call.input),
                Item::FunctionCallOutput(output) | Item::CustomToolCallOutput(output) => {
                    count_words(&text_of(&output.output))
                }
                Item::Reasoning(reasoning) => reasoning
                    .content
                    .iter()
                    .chain(&reasoning.summary)
                    .map(|text| count_words(text))
                    .sum(),
                Item::Other { .. } => 0,
            }
    };
    let instructions = request
        .instructions
        .as_deref()
        .map_or(0, |text| TOKENS_PER_ITEM + count_words(text));
    instructions + request.input.iter().map(of_item).sum::<u64>()
}

/// The tokens of a text: words, each with the white space before it; what stands after the last word goes with it.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut in_word = false;
    for (at, char) in text.char_indices() {
        if char.is_whitespace() {
            if in_word {
                tokens.push(&text[start..at]);
                start = at;
            }
            in_word = false;
        } else {
            in_word = true;
        }
    }
    if start < text.len() {
        match tokens.last_mut() {
            Some(last) if !in_word => *last = &text[start - last.len()..],
            _ => tokens.push(&text[start..]),
        }
    }
    tokens
}

struct Writer<'a> {
    request: &'a InferenceRequest,
    events: Vec<RunEvent>,
    output_index: u32,
    /// Output tokens that this choice may still have.
    left: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
}

impl Writer<'_> {
    /// As many of `pieces` as the limit leaves, and whether that was all.
    fn take<'t>(&mut self, pieces: &[&'t str]) -> (Vec<&'t str>, bool) {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let taken: Vec<&str> = pieces.iter().copied().take(room).collect();
        let count = taken.len() as u64;
        self.left = self.left.saturating_sub(count);
        self.output_tokens += count;
        (taken, pieces.len() <= room)
    }

    fn place(&mut self) -> u32 {
        let place = self.output_index;
        self.output_index += 1;
        place
    }

    fn reasoning(&mut self, choice: u32) {
        let pieces = tokens(THOUGHTS);
        let (taken, _) = self.take(&pieces);
        self.reasoning_tokens += taken.len() as u64;
        let output_index = self.place();
        let kind = PartKind::ReasoningSummary;
        let mut reasoning = Reasoning::default();
        self.events.push(RunEvent::ItemStarted {
            output_index,
            choice,
            item: Item::Reasoning(reasoning.clone()),
        });
        self.part(output_index, kind, &taken, false);
        reasoning.summary = vec![taken.concat()];
        self.events.push(RunEvent::ItemDone {
            output_index,
            item: Item::Reasoning(reasoning),
        });
    }

    fn text(&mut self, choice: u32, text: &str, kind: PartKind) -> FinishReason {
        let text = up_to_stop(text, &self.request.stop);
        let pieces = tokens(text);
        let (taken, is_all) = self.take(&pieces);
        let output_index = self.place();
        let mut message = Message {
            id: None,
            role: Role::Assistant,
            content: Vec::new(),
            phase: None,
            name: None,
        };
        self.events.push(RunEvent::ItemStarted {
            output_index,
            choice,
            item: Item::Message(message.clone()),
        });
        let wants_logprobs = self.request.top_logprobs.is_some() && kind == PartKind::Text;
        self.part(output_index, kind, &taken, wants_logprobs);
        let logprobs = if wants_logprobs {
            taken.iter().map(|piece| self.logprob(piece)).collect()
        } else {
            Vec::new()
        };
        message.content.push(match kind {
            PartKind::Refusal => Part::Refusal {
                refusal: taken.concat(),
            },
            _ => Part::Text {
                text: taken.concat(),
                annotations: Vec::<RawJson>::new(),
                logprobs,
            },
        });
        self.events.push(RunEvent::ItemDone {
            output_index,
            item: Item::Message(message),
        });
        if is_all {
            FinishReason::Stop
        } else {
            FinishReason::Length
        }
    }

    fn part(&mut self, output_index: u32, kind: PartKind, pieces: &[&str], wants_logprobs: bool) {
        self.events.push(RunEvent::PartStarted {
            output_index,
            part_index: 0,
            kind,
        });
        for piece in pieces {
            let logprobs = if wants_logprobs {
                vec![self.logprob(piece)]
            } else {
                Vec::new()
            };
            self.events.push(RunEvent::Delta {
                output_index,
                part_index: 0,
                kind,
                text: (*piece).to_owned(),
                logprobs,
            });
        }
        self.events.push(RunEvent::PartDone {
            output_index,
            part_index: 0,
            kind,
        });
    }

    /// The scripted model is sure of every token.
    fn logprob(&self, piece: &str) -> TokenLogprob {
        let top = TopLogprob {
            token: piece.to_owned(),
            bytes: piece.as_bytes().to_vec(),
            logprob: 0.0,
        };
        let wanted = self.request.top_logprobs.unwrap_or_default() > 0;
        TokenLogprob {
            token: top.token.clone(),
            bytes: top.bytes.clone(),
            logprob: 0.0,
            top: if wanted { vec![top] } else { Vec::new() },
        }
    }

    fn calls(
        &mut self,
        choice: u32,
        calls: &[(Arc<str>, String)],
        request_id: &str,
    ) -> FinishReason {
        for (index, (name, text)) in calls.iter().enumerate() {
            let mut callables = callables(self.request).into_iter();
            let is_custom =
                callables.any(|callable| matches!(callable, Callable::Custom(own) if own == name));
            let decoded = serde_json::from_str::<String>(text).ok();
            let text = match decoded.as_deref().filter(|_| is_custom) {
                Some(input) => input,
                None => text,
            };
            let pieces = tokens(text);
            let (taken, is_all) = self.take(&pieces);
            let output_index = self.place();
            let (id, call_id, name) = (None, call_id(request_id, choice, index), Arc::clone(name));
            let mut item = if is_custom {
                Item::CustomToolCall(CustomToolCall {
                    id,
                    call_id,
                    name,
                    input: String::new(),
                })
            } else {
                Item::FunctionCall(FunctionCall {
                    id,
                    call_id,
                    name,
                    arguments: String::new(),
                })
            };
            self.events.push(RunEvent::ItemStarted {
                output_index,
                choice,
                item: item.clone(),
            });
            for piece in &taken {
                self.events.push(RunEvent::ArgumentsDelta {
                    output_index,
                    delta: (*piece).to_owned(),
                });
            }
            if !is_all {
                // A call whose arguments are cut off is not done: nobody may run it.
                return FinishReason::Length;
            }
            if let Some(whole) = item.call_text_mut() {
                *whole = taken.concat();
            }
            self.events.push(RunEvent::ItemDone { output_index, item });
        }
        FinishReason::ToolCalls
    }
}

/// Ids differ between requests and are the same for the same request id.
fn call_id(request_id: &str, choice: u32, index: usize) -> Arc<str> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in request_id.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("call_{hash:016x}{choice:02x}{index:04x}").into()
}

fn up_to_stop<'t>(text: &'t str, stops: &[String]) -> &'t str {
    stop_in(text, stops).map_or(text, |(end, _)| &text[..end])
}

/// Where the first of the stop texts begins, and which it is.
fn stop_in<'s>(text: &str, stops: &'s [String]) -> Option<(usize, &'s str)> {
    stops
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| Some((text.find(stop.as_str())?, stop.as_str())))
        .min_by_key(|(at, _)| *at)
}
