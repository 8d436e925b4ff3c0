//! An upstream's Chat answer as events, for callers of another dialect.

use std::collections::HashSet;
use std::sync::Arc;

use honshu_domain::{
    CustomToolCall, Error, Finish, FinishReason, FunctionCall, InputReader, Item, Message, Part,
    PartKind, Reasoning, Role, RunEvent, TokenLogprob, Usage, unwrapped_input,
};

use crate::assembly::{Assembly, empty, replay};
use crate::error::from_frame;
use crate::json::{self, Node};
use crate::responses::decode::{cut, nonsense};
use crate::responses::items::read_logprobs;

/// Choices in one answer; more is an upstream's mistake.
const CHOICES_MAX: u64 = 128;

/// Tool calls in one choice.
const CALLS_MAX: u64 = 1_024;

/// Turns the answer of an upstream that speaks Chat Completions into events. Deltas of text, reasoning and
/// calls become items in the order in which they appear.
#[derive(Debug, Default)]
pub struct UpstreamDecoder {
    started: bool,
    finished: bool,
    /// The answer's id, from which ids of calls are made where the upstream gives none.
    id: String,
    items: Assembly,
    next_index: u32,
    choices: Vec<Choice>,
    /// Choices that were asked for; 0 counts as one.
    wanted: usize,
    usage: Option<Usage>,
    /// Names of custom tools that the upstream was shown as functions.
    custom_tools: HashSet<Arc<str>>,
    /// What takes the inputs out of the arguments of open calls, by output index.
    readers: Vec<(u32, InputReader)>,
}

#[derive(Debug, Default)]
struct Choice {
    index: u32,
    reasoning: Option<u32>,
    message: Option<u32>,
    /// Tool calls by the upstream's index, with our output index.
    calls: Vec<(u64, u32)>,
    reason: Option<FinishReason>,
}

impl UpstreamDecoder {
    /// A decoder for one answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many choices were asked for (`n`): the answer is whole when so many have ended.
    #[must_use]
    pub fn with_choices(mut self, choices: u32) -> Self {
        self.wanted = choices as usize;
        self
    }

    /// Names of custom tools that the upstream was shown as functions: calls of them become custom again.
    #[must_use]
    pub fn with_custom_tools(mut self, names: HashSet<Arc<str>>) -> Self {
        self.custom_tools = names;
        self
    }

    /// Takes the data of one SSE event (`[DONE]` included).
    ///
    /// # Errors
    /// The upstream's own error, or `Upstream` for data that is not a JSON object.
    pub fn frame(&mut self, data: &[u8], out: &mut Vec<RunEvent>) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        if data.trim_ascii() == b"[DONE]" {
            return self.end(out);
        }
        let node = json::parse(data).map_err(|_| nonsense())?;
        if node.as_object().is_none() {
            return Err(nonsense());
        }
        if node.find("error").is_some() {
            return Err(from_frame(&node));
        }
        self.start(&node, out);
        if let Some(usage) = node.find("usage") {
            self.usage = Some(read_usage(usage));
        }
        for choice in node
            .find("choices")
            .and_then(Node::as_array)
            .unwrap_or_default()
        {
            let at = self.choice(choice.find("index").map_or(0, Node::count))?;
            if let Some(delta) = choice.find("delta") {
                self.delta(at, choice, delta, out)?;
            }
            if let Some(reason) = choice.find_str("finish_reason") {
                self.choices[at].reason.get_or_insert(read_finish(reason));
            }
        }
        Ok(())
    }

    /// Takes the whole body of an answer that was not streamed, up to and with `Finished`.
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<RunEvent>) -> Result<(), Error> {
        let node = json::parse(body).map_err(|_| nonsense())?;
        if node.find("error").is_some() {
            return Err(from_frame(&node));
        }
        let choices = node
            .find("choices")
            .and_then(Node::as_array)
            .ok_or_else(nonsense)?;
        self.start(&node, out);
        self.usage = node.find("usage").map(read_usage);
        for (place, choice) in choices.iter().enumerate() {
            let index = choice.find("index").map_or(place as u64, Node::count);
            let at = self.choice(index)?;
            let index = self.choices[at].index;
            for item in self.message_items(choice) {
                let output_index = self.next();
                replay(item, output_index, index, out);
            }
            self.choices[at].reason = Some(
                choice
                    .find_str("finish_reason")
                    .map_or(FinishReason::Stop, read_finish),
            );
        }
        self.end(out)
    }

    /// The upstream closed the stream, or said `[DONE]`.
    ///
    /// # Errors
    /// `Upstream` if a choice has not said why it ended: then the answer was cut.
    pub fn end(&mut self, out: &mut Vec<RunEvent>) -> Result<(), Error> {
        if self.finished {
            return Ok(());
        }
        let open = self.choices.iter().any(|choice| choice.reason.is_none());
        if open || self.choices.len() < self.wanted.max(1) {
            return Err(cut());
        }
        self.finished = true;
        let open: Vec<u32> = self
            .items
            .slots
            .iter()
            .filter(|slot| !slot.done)
            .map(|slot| slot.output_index)
            .collect();
        for output_index in open {
            self.close(output_index, out);
        }
        let several = self.choices.len() > 1;
        let mut reason = FinishReason::Stop;
        for choice in &self.choices {
            let own = choice.reason.unwrap_or(FinishReason::Stop);
            if choice.index == 0 || !several {
                reason = own;
            }
            if several {
                out.push(RunEvent::ChoiceFinished {
                    choice: choice.index,
                    reason: own,
                });
            }
        }
        out.push(RunEvent::Finished(Finish {
            reason,
            usage: self.usage,
            stop_text: None,
        }));
        Ok(())
    }

    /// True once `Finished` was given out.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    fn start(&mut self, node: &Node<'_>, out: &mut Vec<RunEvent>) {
        if !std::mem::replace(&mut self.started, true) {
            self.id = node.find_str("id").unwrap_or("0").to_owned();
            out.push(RunEvent::Started {
                upstream_request_id: node.find_str("id").map(Into::into),
                input_tokens: None,
            });
        }
    }

    fn next(&mut self) -> u32 {
        let index = self.next_index;
        self.next_index += 1;
        index
    }

    fn choice(&mut self, index: u64) -> Result<usize, Error> {
        let index = u32::try_from(index)
            .ok()
            .filter(|index| u64::from(*index) < CHOICES_MAX)
            .ok_or_else(nonsense)?;
        if let Some(at) = self.choices.iter().position(|choice| choice.index == index) {
            return Ok(at);
        }
        self.choices.push(Choice {
            index,
            ..Choice::default()
        });
        Ok(self.choices.len() - 1)
    }

    fn delta(
        &mut self,
        at: usize,
        choice: &Node<'_>,
        delta: &Node<'_>,
        out: &mut Vec<RunEvent>,
    ) -> Result<(), Error> {
        let text = |key: &str| delta.find_str(key).filter(|text| !text.is_empty());
        if let Some(text) = text("reasoning_content").or_else(|| text("reasoning")) {
            self.text(at, PartKind::ReasoningText, text, Vec::new(), out);
        }
        if let Some(text) = text("content") {
            let logprobs = logprobs(choice, "content");
            self.text(at, PartKind::Text, text, logprobs, out);
        }
        if let Some(text) = text("refusal") {
            let logprobs = logprobs(choice, "refusal");
            self.text(at, PartKind::Refusal, text, logprobs, out);
        }
        let calls = delta
            .find("tool_calls")
            .and_then(Node::as_array)
            .unwrap_or_default();
        for (place, call) in calls.iter().enumerate() {
            // Some servers leave the index out when there is one call a chunk.
            let index = call.find("index").map_or(place as u64, Node::count);
            self.call(at, index, call, out)?;
        }
        Ok(())
    }

    fn text(
        &mut self,
        at: usize,
        kind: PartKind,
        text: &str,
        logprobs: Vec<TokenLogprob>,
        out: &mut Vec<RunEvent>,
    ) {
        let reasoning = kind == PartKind::ReasoningText;
        let known = if reasoning {
            self.choices[at].reasoning
        } else {
            self.choices[at].message
        };
        let output_index = match known {
            Some(output_index) => output_index,
            None => {
                let output_index = self.next();
                // Reasoning ends where the answer begins.
                if reasoning {
                    self.choices[at].reasoning = Some(output_index);
                } else {
                    self.choices[at].message = Some(output_index);
                    if let Some(earlier) = self.choices[at].reasoning.take() {
                        self.close(earlier, out);
                    }
                }
                self.emit(
                    RunEvent::ItemStarted {
                        output_index,
                        choice: self.choices[at].index,
                        item: empty(kind),
                    },
                    out,
                );
                output_index
            }
        };
        // A refusal after text is a second part.
        let (part_index, fresh) = match self.items.find(output_index).map(|slot| &slot.item) {
            Some(Item::Message(message)) => {
                let place = message.content.iter().position(|part| {
                    matches!(part, Part::Refusal { .. }) == (kind == PartKind::Refusal)
                });
                (place.unwrap_or(message.content.len()), place.is_none())
            }
            Some(Item::Reasoning(reasoning)) => (0, reasoning.content.is_empty()),
            _ => (0, false),
        };
        let part_index = u32::try_from(part_index).unwrap_or_default();
        if fresh {
            self.emit(
                RunEvent::PartStarted {
                    output_index,
                    part_index,
                    kind,
                },
                out,
            );
        }
        self.emit(
            RunEvent::Delta {
                output_index,
                part_index,
                kind,
                text: text.to_owned(),
                logprobs,
            },
            out,
        );
    }

    fn call(
        &mut self,
        at: usize,
        index: u64,
        node: &Node<'_>,
        out: &mut Vec<RunEvent>,
    ) -> Result<(), Error> {
        if index >= CALLS_MAX {
            return Err(nonsense());
        }
        let custom = node.find("custom");
        let function = node.find("function").or(custom);
        let known = self.choices[at]
            .calls
            .iter()
            .find(|(known, _)| *known == index)
            .map(|(_, o)| *o);
        let output_index = match known {
            Some(output_index) => output_index,
            None => {
                let name = function
                    .and_then(|function| function.find_str("name"))
                    .ok_or_else(nonsense)?;
                let output_index = self.next();
                self.choices[at].calls.push((index, output_index));
                if let Some(earlier) = self.choices[at].reasoning.take() {
                    self.close(earlier, out);
                }
                let call_id = self.call_id(node, output_index);
                let item = self.call_item(call_id, name, String::new(), custom.is_some());
                if custom.is_none() && matches!(item, Item::CustomToolCall(_)) {
                    self.readers.push((output_index, InputReader::default()));
                }
                let choice = self.choices[at].index;
                self.emit(
                    RunEvent::ItemStarted {
                        output_index,
                        choice,
                        item,
                    },
                    out,
                );
                output_index
            }
        };
        let key = if custom.is_some() {
            "input"
        } else {
            "arguments"
        };
        let text = function.and_then(|function| function.find_str(key));
        let delta = match self.reader(output_index) {
            Some((_, reader)) => reader.take(text.unwrap_or_default()),
            None => text.unwrap_or_default().to_owned(),
        };
        self.call_text(output_index, delta, out);
        Ok(())
    }

    fn reader(&mut self, output_index: u32) -> Option<&mut (u32, InputReader)> {
        self.readers
            .iter_mut()
            .find(|(place, _)| *place == output_index)
    }

    fn call_text(&mut self, output_index: u32, delta: String, out: &mut Vec<RunEvent>) {
        if !delta.is_empty() {
            let event = RunEvent::ArgumentsDelta {
                output_index,
                delta,
            };
            self.emit(event, out);
        }
    }

    /// A call with its arguments, or, for a custom tool, its input.
    fn call_item(&self, call_id: Arc<str>, name: &str, text: String, is_custom: bool) -> Item {
        let (id, name): (_, Arc<str>) = (None, name.into());
        if is_custom || self.custom_tools.contains(&name) {
            Item::CustomToolCall(CustomToolCall {
                id,
                call_id,
                name,
                input: text,
            })
        } else {
            Item::FunctionCall(FunctionCall {
                id,
                call_id,
                name,
                arguments: text,
            })
        }
    }

    fn call_id(&self, node: &Node<'_>, output_index: u32) -> Arc<str> {
        match node.find_str("id").filter(|id| !id.is_empty()) {
            Some(id) => id.into(),
            None => format!("call_{}_{output_index}", self.id).into(),
        }
    }

    fn emit(&mut self, event: RunEvent, out: &mut Vec<RunEvent>) {
        self.items.apply(&event);
        out.push(event);
    }

    /// Ends an item and its parts.
    fn close(&mut self, output_index: u32, out: &mut Vec<RunEvent>) {
        if let Some(at) = self
            .readers
            .iter()
            .position(|(place, _)| *place == output_index)
        {
            let (_, reader) = self.readers.swap_remove(at);
            self.call_text(output_index, reader.finish(), out);
        }
        let Some(slot) = self.items.find(output_index).filter(|slot| !slot.done) else {
            return;
        };
        slot.done = true;
        for (kind, part_index) in crate::assembly::parts(&slot.item) {
            out.push(RunEvent::PartDone {
                output_index,
                part_index,
                kind,
            });
        }
        out.push(RunEvent::ItemDone {
            output_index,
            item: slot.item.clone(),
        });
    }

    /// The items of a whole choice.
    fn message_items(&self, choice: &Node<'_>) -> Vec<Item> {
        let mut items = Vec::new();
        let Some(message) = choice.find("message") else {
            return items;
        };
        let text = |key: &str| message.find_str(key).filter(|text| !text.is_empty());
        if let Some(text) = text("reasoning_content").or_else(|| text("reasoning")) {
            items.push(Item::Reasoning(Reasoning {
                content: vec![text.to_owned()],
                ..Reasoning::default()
            }));
        }
        let calls = message
            .find("tool_calls")
            .and_then(Node::as_array)
            .unwrap_or_default();
        let mut content = Vec::new();
        let silent = calls.is_empty() && message.find("refusal").is_none();
        if let Some(text) = message.find_str("content")
            && (!text.is_empty() || silent)
        {
            content.push(Part::Text {
                text: text.to_owned(),
                annotations: Vec::new(),
                logprobs: logprobs(choice, "content"),
            });
        }
        if let Some(refusal) = text("refusal") {
            content.push(Part::Refusal {
                refusal: refusal.to_owned(),
            });
        }
        if !content.is_empty() {
            items.push(Item::Message(Message {
                id: None,
                role: Role::Assistant,
                content,
                phase: None,
                name: None,
            }));
        }
        for call in calls {
            let custom = call.find("custom");
            let Some(function) = call.find("function").or(custom) else {
                continue;
            };
            let place = self.next_index + u32::try_from(items.len()).unwrap_or_default();
            let name = function.find_str("name").unwrap_or_default();
            let key = if custom.is_some() {
                "input"
            } else {
                "arguments"
            };
            let text = function.find_str(key).unwrap_or_default();
            let text = if custom.is_none() && self.custom_tools.contains(name) {
                unwrapped_input(text)
            } else {
                text.to_owned()
            };
            items.push(self.call_item(self.call_id(call, place), name, text, custom.is_some()));
        }
        items
    }
}

fn logprobs(choice: &Node<'_>, list: &str) -> Vec<TokenLogprob> {
    choice
        .find("logprobs")
        .and_then(|logprobs| logprobs.find(list))
        .map(read_logprobs)
        .unwrap_or_default()
}

/// Why a choice ended; words that we do not know are a stop.
pub(crate) fn read_finish(word: &str) -> FinishReason {
    match word {
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

/// Reads a usage object of this dialect.
pub(crate) fn read_usage(node: &Node<'_>) -> Usage {
    let count = |node: Option<&Node<'_>>| node.map_or(0, Node::count);
    let input = node.find("prompt_tokens_details");
    let output = node.find("completion_tokens_details");
    Usage {
        input_tokens: count(node.find("prompt_tokens")),
        cached_input_tokens: count(input.and_then(|details| details.find("cached_tokens"))),
        cache_write_tokens: count(input.and_then(|details| details.find("cache_write_tokens"))),
        output_tokens: count(node.find("completion_tokens")),
        reasoning_tokens: count(output.and_then(|details| details.find("reasoning_tokens"))),
    }
}
