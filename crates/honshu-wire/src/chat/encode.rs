//! The events of a run as the chunks of the Chat Completions dialect.

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Demand, Entropy, Error, ErrorKind, Finish, FinishReason, InferenceRequest, Item, Outcome,
    PartKind, RunEvent, Status, Timestamp, TokenLogprob, Usage,
};

use super::decode::UpstreamDecoder;
use super::stored::Identity;
use crate::assembly;
use crate::error::write_error;
use crate::head::ResponseHead;
use crate::json::{put, put_str, put_u64, put_uint};
use crate::padding::Padding;
use crate::responses::items::write_logprobs;
use crate::sse;

/// Turns the events of a run into chunks. The first chunk of each choice has the role and empty content, the
/// last one a finish reason; with `include_usage` every chunk has `usage: null` and one more has the counts.
#[derive(Debug)]
pub struct StreamEncoder {
    /// `{"id":…,"object":…,"created":…,"model":…,"choices":[`
    prefix: String,
    include_usage: bool,
    /// Calls are written in the form of the old `functions`: one for each choice.
    legacy: bool,
    choices: Vec<Choice>,
    items: Vec<Shown>,
    finish: Option<Finish>,
    native: bool,
    /// Set for a completion that is kept: an upstream's chunks then get its name.
    identity: Option<Identity>,
    padding: Option<Padding>,
}

#[derive(Debug)]
struct Choice {
    index: u32,
    tools: u32,
    finished: bool,
}

/// What the reader of the stream knows of an item.
#[derive(Debug)]
struct Shown {
    output_index: u32,
    choice: u32,
    /// The place in the choice's `tool_calls`.
    tool: Option<u32>,
    /// Whether it is a call of a custom tool.
    custom: bool,
    /// Which parts have been streamed.
    parts: Vec<(PartKind, u32)>,
    arguments: bool,
}

impl StreamEncoder {
    /// An encoder for the answer to `request`. Chat needs no ids beside the head's.
    pub fn new(head: ResponseHead, request: &InferenceRequest, entropy: &dyn Entropy) -> Self {
        Self {
            prefix: prefix(&head, "chat.completion.chunk"),
            include_usage: request.include_usage,
            legacy: is_legacy(request),
            choices: Vec::new(),
            items: Vec::new(),
            finish: None,
            native: false,
            identity: None,
            padding: Padding::of(request, entropy),
        }
    }

    /// An encoder for a completion that is kept under the head's id.
    pub fn of_kept(head: ResponseHead, request: &InferenceRequest, entropy: &dyn Entropy) -> Self {
        let identity = Identity::new(&head);
        let mut encoder = Self::new(head, request, entropy);
        encoder.identity = Some(identity);
        encoder
    }

    /// Appends the chunks of one event to `out`.
    pub fn event(&mut self, event: &RunEvent, out: &mut BytesMut) {
        match event {
            RunEvent::Native(frame) if frame.whole => {
                // The caller wants a stream and the upstream answered in one piece.
                let mut events = Vec::new();
                if UpstreamDecoder::new()
                    .whole(&frame.json, &mut events)
                    .is_ok()
                {
                    for event in &events {
                        self.event(event, out);
                    }
                }
            }
            RunEvent::Native(frame) => {
                self.native = true;
                self.native_frame(&frame.json, out);
            }
            RunEvent::Started { .. } | RunEvent::PartStarted { .. } | RunEvent::PartDone { .. } => {
            }
            RunEvent::ItemStarted {
                output_index,
                choice,
                item,
            } => {
                self.item_started(*output_index, *choice, item, out);
            }
            RunEvent::Delta {
                output_index,
                part_index,
                kind,
                text,
                logprobs,
            } => {
                self.delta(*output_index, (*kind, *part_index), text, logprobs, out);
            }
            RunEvent::ArgumentsDelta {
                output_index,
                delta,
            } => {
                self.arguments(*output_index, delta, out);
            }
            RunEvent::ItemDone { output_index, item } => self.item_done(*output_index, item, out),
            RunEvent::ChoiceFinished { choice, reason } => {
                self.finish_choice(*choice, *reason, out)
            }
            RunEvent::Finished(finish) => self.finish = Some(finish.clone()),
        }
    }

    /// Writes a chunk of an upstream's.
    fn native_frame(&mut self, json: &Bytes, out: &mut BytesMut) {
        let renamed = self.identity.as_ref().map(|identity| identity.rename(json));
        let json = renamed.as_ref().unwrap_or(json);
        match &mut self.padding {
            Some(padding) => sse::encode_frame(None, &padding.pad(json), out),
            None => sse::encode_frame(None, json, out),
        }
    }

    /// Appends the end: finish reasons, usage if asked for, `[DONE]`; or one error frame. After this nothing
    /// may be written. For a caller that left nothing is written.
    pub fn end(
        &mut self,
        outcome: &Outcome,
        error: Option<&Error>,
        _now: Timestamp,
        out: &mut BytesMut,
    ) {
        let reason = match outcome.status {
            Status::Cancelled => return,
            Status::Failed(_) => {
                let cut = || {
                    Error::new(
                        ErrorKind::Upstream,
                        "the model's answer broke off before its end",
                    )
                };
                put(out, "data: {\"error\":");
                write_error(error.unwrap_or(&cut()), out);
                put(out, "}\n\n");
                return;
            }
            Status::Completed => self.finish.as_ref().map(|finish| finish.reason),
            Status::Incomplete(reason) => Some(reason),
        };
        if !self.native {
            self.choice(0, out);
            for at in 0..self.choices.len() {
                let Choice {
                    index,
                    tools,
                    finished,
                } = self.choices[at];
                if !finished {
                    let natural = if tools > 0 {
                        FinishReason::ToolCalls
                    } else {
                        FinishReason::Stop
                    };
                    self.finish_choice(index, reason.unwrap_or(natural), out);
                }
            }
            if self.include_usage {
                put(out, "data: ");
                put(out, &self.prefix);
                put(out, "],\"usage\":");
                write_usage(&outcome.usage, out);
                put(out, "}\n\n");
            }
        }
        out.extend_from_slice(sse::DONE);
    }

    /// Begins a choice with its role.
    fn choice(&mut self, index: u32, out: &mut BytesMut) {
        if self.choices.iter().any(|choice| choice.index == index) {
            return;
        }
        self.choices.push(Choice {
            index,
            tools: 0,
            finished: false,
        });
        let from = self.open(index, out);
        put(out, "{\"role\":\"assistant\",\"content\":\"\"}");
        self.close(from, None, &[], false, out);
    }

    /// Opens a chunk up to the value of `delta`. Gives the place where its data begins.
    fn open(&self, index: u32, out: &mut BytesMut) -> usize {
        put(out, "data: ");
        let from = out.len();
        put(out, &self.prefix);
        put(out, "{\"index\":");
        put_uint(out, index);
        put(out, ",\"delta\":");
        from
    }

    fn close(
        &mut self,
        from: usize,
        finish: Option<FinishReason>,
        logprobs: &[TokenLogprob],
        refusal: bool,
        out: &mut BytesMut,
    ) {
        put(out, ",\"logprobs\":");
        write_choice_logprobs(logprobs, refusal, out);
        put(out, ",\"finish_reason\":");
        match finish {
            Some(reason) => {
                put(out, "\"");
                put(out, legacy_finish_word(reason, self.legacy));
                put(out, "\"");
            }
            None => put(out, "null"),
        }
        put(out, "}]");
        if self.include_usage {
            put(out, ",\"usage\":null");
        }
        if let Some(padding) = &mut self.padding {
            padding.put(from, out);
        }
        put(out, "}\n\n");
    }

    fn finish_choice(&mut self, index: u32, reason: FinishReason, out: &mut BytesMut) {
        self.choice(index, out);
        if let Some(choice) = self.choices.iter_mut().find(|choice| choice.index == index)
            && !std::mem::replace(&mut choice.finished, true)
        {
            let from = self.open(index, out);
            put(out, "{}");
            self.close(from, Some(reason), &[], false, out);
        }
    }

    fn shown(&mut self, output_index: u32) -> Option<&mut Shown> {
        self.items
            .iter_mut()
            .rev()
            .find(|shown| shown.output_index == output_index)
    }

    fn item_started(&mut self, output_index: u32, choice: u32, item: &Item, out: &mut BytesMut) {
        if self.shown(output_index).is_some() {
            return;
        }
        self.choice(choice, out);
        let mut shown = Shown {
            output_index,
            choice,
            tool: None,
            custom: matches!(item, Item::CustomToolCall(_)),
            parts: Vec::new(),
            arguments: false,
        };
        if let Some(text) = item.call_text() {
            let tool = self
                .choices
                .iter_mut()
                .find(|known| known.index == choice)
                .map_or(0, |known| {
                    known.tools += 1;
                    known.tools - 1
                });
            shown.tool = Some(tool);
            shown.arguments = !text.is_empty();
            if self.legacy && tool > 0 {
                // That form holds one call.
                shown.tool = None;
            } else {
                let from = self.open(choice, out);
                if let (true, Item::FunctionCall(call)) = (self.legacy, item) {
                    put(out, "{\"function_call\":{\"name\":");
                    put_str(out, &call.name);
                    put(out, ",\"arguments\":");
                    put_str(out, &call.arguments);
                    put(out, "}}");
                } else {
                    put(out, "{\"tool_calls\":[{\"index\":");
                    put_uint(out, tool);
                    put(out, ",");
                    write_call(item, out);
                    put(out, "}]}");
                }
                self.close(from, None, &[], false, out);
            }
        }
        self.items.push(shown);
    }

    fn delta(
        &mut self,
        output_index: u32,
        part: (PartKind, u32),
        text: &str,
        logprobs: &[TokenLogprob],
        out: &mut BytesMut,
    ) {
        if self.shown(output_index).is_none() {
            self.item_started(output_index, 0, &assembly::empty(part.0), out);
        }
        let Some(shown) = self.shown(output_index) else {
            return;
        };
        if !shown.parts.contains(&part) {
            shown.parts.push(part);
        }
        let choice = shown.choice;
        let from = self.open(choice, out);
        put(
            out,
            match part.0 {
                PartKind::Text => "{\"content\":",
                PartKind::Refusal => "{\"refusal\":",
                PartKind::ReasoningText | PartKind::ReasoningSummary => "{\"reasoning_content\":",
            },
        );
        put_str(out, text);
        put(out, "}");
        self.close(from, None, logprobs, part.0 == PartKind::Refusal, out);
    }

    fn arguments(&mut self, output_index: u32, delta: &str, out: &mut BytesMut) {
        let Some(shown) = self.shown(output_index) else {
            return;
        };
        let (choice, custom, Some(tool)) = (shown.choice, shown.custom, shown.tool) else {
            return;
        };
        shown.arguments = true;
        let from = self.open(choice, out);
        let legacy = self.legacy && !custom;
        if legacy {
            put(out, "{\"function_call\":{\"arguments\":");
        } else {
            put(out, "{\"tool_calls\":[{\"index\":");
            put_uint(out, tool);
            put(
                out,
                if custom {
                    ",\"custom\":{\"input\":"
                } else {
                    ",\"function\":{\"arguments\":"
                },
            );
        }
        put_str(out, delta);
        put(out, if legacy { "}}" } else { "}}]}" });
        self.close(from, None, &[], false, out);
    }

    /// What of the item was not streamed comes now.
    fn item_done(&mut self, output_index: u32, item: &Item, out: &mut BytesMut) {
        if self.shown(output_index).is_none() {
            self.item_started(output_index, 0, item, out);
        }
        for (kind, part_index) in assembly::parts(item) {
            let streamed = self
                .shown(output_index)
                .is_some_and(|shown| shown.parts.contains(&(kind, part_index)));
            let text = assembly::part_text(item, part_index, kind).unwrap_or_default();
            if !streamed && !text.is_empty() {
                self.delta(output_index, (kind, part_index), text, &[], out);
            }
        }
        if let Some(text) = item.call_text().filter(|text| !text.is_empty())
            && self
                .shown(output_index)
                .is_some_and(|shown| !shown.arguments)
        {
            self.arguments(output_index, text, out);
        }
    }
}

/// Writes the members of a call: `id`, `type` and what the type has.
pub(super) fn write_call(item: &Item, out: &mut BytesMut) {
    let (call_id, kind, name, key, text) = match item {
        Item::FunctionCall(call) => (
            &call.call_id,
            "function",
            &call.name,
            "arguments",
            &call.arguments,
        ),
        Item::CustomToolCall(call) => (&call.call_id, "custom", &call.name, "input", &call.input),
        _ => return,
    };
    put(out, "\"id\":");
    put_str(out, call_id);
    for part in [",\"type\":\"", kind, "\",\"", kind, "\":{\"name\":"] {
        put(out, part);
    }
    put_str(out, name);
    for part in [",\"", key, "\":"] {
        put(out, part);
    }
    put_str(out, text);
    put(out, "}");
}

/// Everything of an answer or chunk up to the elements of `choices`.
pub(crate) fn prefix(head: &ResponseHead, object: &str) -> String {
    let mut out = BytesMut::with_capacity(160);
    put(&mut out, "{\"id\":");
    put_str(&mut out, &head.id);
    put(&mut out, ",\"object\":\"");
    put(&mut out, object);
    put(&mut out, "\",\"created\":");
    put(
        &mut out,
        itoa::Buffer::new().format(head.created.as_seconds()),
    );
    put(&mut out, ",\"model\":");
    put_str(&mut out, &head.model);
    if let Some(tier) = &head.service_tier {
        put(&mut out, ",\"service_tier\":");
        put_str(&mut out, tier);
    }
    put(&mut out, ",\"choices\":[");
    String::from_utf8_lossy(&out).into_owned()
}

/// The dialect's word for why a choice ended.
pub(crate) const fn finish_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

/// [`finish_word`], where calls may be in the form of the old `functions`.
pub(super) const fn legacy_finish_word(reason: FinishReason, legacy: bool) -> &'static str {
    match reason {
        FinishReason::ToolCalls if legacy => "function_call",
        reason => finish_word(reason),
    }
}

/// Whether the caller declared its tools as `functions` and reads calls in that form.
pub(super) fn is_legacy(request: &InferenceRequest) -> bool {
    request
        .demands
        .iter()
        .any(|(demand, _)| *demand == Demand::LegacyFunctions)
}

/// Writes a choice's `logprobs`.
pub(super) fn write_choice_logprobs(logprobs: &[TokenLogprob], refusal: bool, out: &mut BytesMut) {
    if logprobs.is_empty() {
        put(out, "null");
        return;
    }
    put(
        out,
        if refusal {
            "{\"content\":null,\"refusal\":"
        } else {
            "{\"refusal\":null,\"content\":"
        },
    );
    write_logprobs(logprobs, out);
    put(out, "}");
}

/// Writes the usage with its details.
pub(crate) fn write_usage(usage: &Usage, out: &mut BytesMut) {
    put(out, "{\"prompt_tokens\":");
    put_u64(out, usage.input_tokens);
    put(out, ",\"completion_tokens\":");
    put_u64(out, usage.output_tokens);
    put(out, ",\"total_tokens\":");
    put_u64(out, usage.total_tokens());
    put(out, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    put_u64(out, usage.cached_input_tokens);
    put(out, ",\"cache_write_tokens\":");
    put_u64(out, usage.cache_write_tokens);
    put(
        out,
        "},\"completion_tokens_details\":{\"reasoning_tokens\":",
    );
    put_u64(out, usage.reasoning_tokens);
    put(out, "}}");
}
