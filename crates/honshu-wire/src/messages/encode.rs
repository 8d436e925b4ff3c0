//! The events of a run as the stream of the Messages dialect.

use std::collections::VecDeque;

use bytes::BytesMut;
use honshu_domain::{
    Entropy, Error, ErrorKind, Finish, InferenceRequest, Item, Outcome, PartKind, RunEvent, Status,
    Timestamp, Usage,
};

use super::stop::Ending;
use crate::assembly;
use crate::error::write_anthropic_error;
use crate::head::ResponseHead;
use crate::json::{put, put_str, put_u64, put_uint};

/// Turns the events of a run into events of this dialect: `message_start`, then content blocks one after the other,
/// each with start, deltas and stop, then `message_delta` with the reason and the counts, then `message_stop`.
///
/// Blocks never overlap here, while the items of a run may. Text and thinking are closed when another item begins and
/// go on in a new block if they must; a call cannot be taken up again, so that others wait until it is whole.
#[derive(Debug)]
pub struct StreamEncoder {
    head: ResponseHead,
    is_started: bool,
    /// Blocks that were opened so far.
    blocks: u32,
    open: Option<Open>,
    items: Vec<Seen>,
    waiting: VecDeque<RunEvent>,
    ending: Ending,
    finish: Option<Finish>,
}

/// The block that is open.
#[derive(Debug)]
struct Open {
    output_index: u32,
    /// Absent for a call.
    part: Option<(PartKind, u32)>,
    /// What came of a call's arguments, to see whether it is whole.
    arguments: String,
}

/// What the reader of the stream knows of an item.
#[derive(Debug, Default)]
struct Seen {
    output_index: u32,
    /// Parts of which something was sent.
    parts: Vec<(PartKind, u32)>,
    is_call: bool,
    has_arguments: bool,
}

impl StreamEncoder {
    /// An encoder for the answer to a request.
    pub fn new(head: ResponseHead, _request: &InferenceRequest, _entropy: &dyn Entropy) -> Self {
        Self {
            head,
            is_started: false,
            blocks: 0,
            open: None,
            items: Vec::new(),
            waiting: VecDeque::new(),
            ending: Ending::default(),
            finish: None,
        }
    }

    /// Appends the frames of one event to `out`.
    pub fn event(&mut self, event: &RunEvent, out: &mut BytesMut) {
        match event {
            RunEvent::Started { input_tokens, .. } => {
                self.start(input_tokens.unwrap_or_default(), out);
            }
            RunEvent::Finished(finish) => self.finish = Some(finish.clone()),
            // No upstream speaks this dialect, and there is one answer.
            RunEvent::Native(_) | RunEvent::ChoiceFinished { .. } => {}
            _ => {
                self.start(0, out);
                if self.must_wait(event) {
                    self.waiting.push_back(event.clone());
                } else {
                    self.take(event, out);
                    self.catch_up(out);
                }
            }
        }
    }

    /// Appends the end: the reason, the counts and `message_stop`; or one `error` event. After this nothing may be
    /// written. For a caller that left nothing is written.
    pub fn end(
        &mut self,
        outcome: &Outcome,
        error: Option<&Error>,
        _now: Timestamp,
        out: &mut BytesMut,
    ) {
        match outcome.status {
            Status::Cancelled => return,
            Status::Failed(_) => {
                let cut = || {
                    Error::new(
                        ErrorKind::Upstream,
                        "the model's answer broke off before its end",
                    )
                };
                put(out, "event: error\ndata: ");
                write_anthropic_error(error.unwrap_or(&cut()), None, out);
                put(out, "\n\n");
                return;
            }
            Status::Completed | Status::Incomplete(_) => {}
        }
        self.start(outcome.usage.input_tokens, out);
        self.close(out);
        while let Some(event) = self.waiting.pop_front() {
            self.take(&event, out);
        }
        self.close(out);
        put(
            out,
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{",
        );
        self.ending.write(outcome.status, self.finish.as_ref(), out);
        put(out, "},\"usage\":");
        write_usage(&outcome.usage, out);
        put(
            out,
            "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        );
    }

    fn start(&mut self, input_tokens: u64, out: &mut BytesMut) {
        if std::mem::replace(&mut self.is_started, true) {
            return;
        }
        put(
            out,
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":",
        );
        open_message(&self.head, out);
        put(
            out,
            "],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":",
        );
        let usage = Usage {
            input_tokens,
            ..Usage::default()
        };
        write_usage(&usage, out);
        put(out, "}}\n\n");
    }

    /// True while the open block is a call that is not whole and `event` is about another item.
    fn must_wait(&self, event: &RunEvent) -> bool {
        let Some(open) = self.open.as_ref().filter(|open| open.part.is_none()) else {
            return false;
        };
        place_of(event).is_some_and(|place| place != open.output_index)
            && !is_whole(&open.arguments)
    }

    /// What waited goes on, as far as it can.
    fn catch_up(&mut self, out: &mut BytesMut) {
        let mut at = 0;
        while at < self.waiting.len() {
            if self.must_wait(&self.waiting[at]) {
                at += 1;
            } else if let Some(event) = self.waiting.remove(at) {
                self.take(&event, out);
                // A block that closed may let an earlier one go on.
                at = 0;
            }
        }
    }

    fn take(&mut self, event: &RunEvent, out: &mut BytesMut) {
        match event {
            RunEvent::ItemStarted {
                output_index, item, ..
            } => self.item_started(*output_index, item, out),
            RunEvent::Delta {
                output_index,
                part_index,
                kind,
                text,
                ..
            } => self.delta(*output_index, (*kind, *part_index), text, out),
            RunEvent::ArgumentsDelta {
                output_index,
                delta,
            } => self.arguments(*output_index, delta, out),
            RunEvent::PartDone {
                output_index,
                part_index,
                kind,
            } => {
                let part = Some((*kind, *part_index));
                if self.is_open(*output_index, part) {
                    // A sealed form of the thinking comes with the end of its item.
                    if matches!(kind, PartKind::Text | PartKind::Refusal) {
                        self.close(out);
                    }
                }
            }
            RunEvent::ItemDone { output_index, item } => self.item_done(*output_index, item, out),
            _ => {}
        }
    }

    fn is_open(&self, output_index: u32, part: Option<(PartKind, u32)>) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.output_index == output_index && open.part == part)
    }

    fn seen(&mut self, output_index: u32) -> &mut Seen {
        let at = match self
            .items
            .iter()
            .rposition(|seen| seen.output_index == output_index)
        {
            Some(at) => at,
            None => {
                self.items.push(Seen {
                    output_index,
                    ..Seen::default()
                });
                self.items.len() - 1
            }
        };
        &mut self.items[at]
    }

    fn item_started(&mut self, output_index: u32, item: &Item, out: &mut BytesMut) {
        let Item::FunctionCall(call) = item else {
            return;
        };
        let seen = self.seen(output_index);
        if std::mem::replace(&mut seen.is_call, true) {
            return;
        }
        self.close(out);
        self.ending.calls = true;
        self.open_block(output_index, None, out, |out| {
            put(out, "{\"type\":\"tool_use\",\"id\":");
            put_str(out, &call.call_id);
            put(out, ",\"name\":");
            put_str(out, &call.name);
            put(out, ",\"input\":{}}");
        });
        if !call.arguments.is_empty() {
            self.arguments(output_index, &call.arguments, out);
        }
    }

    fn delta(&mut self, output_index: u32, part: (PartKind, u32), text: &str, out: &mut BytesMut) {
        if text.is_empty() {
            return;
        }
        let seen = self.seen(output_index);
        if !seen.parts.contains(&part) {
            seen.parts.push(part);
        }
        let thinks = matches!(part.0, PartKind::ReasoningText | PartKind::ReasoningSummary);
        self.ending.refused |= part.0 == PartKind::Refusal;
        if !self.is_open(output_index, Some(part)) {
            self.close(out);
            self.open_block(output_index, Some(part), out, |out| {
                put(
                    out,
                    if thinks {
                        "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}"
                    } else {
                        "{\"type\":\"text\",\"text\":\"\"}"
                    },
                );
            });
        }
        self.block_delta(
            if thinks {
                "\"thinking_delta\",\"thinking\":"
            } else {
                "\"text_delta\",\"text\":"
            },
            text,
            out,
        );
    }

    fn arguments(&mut self, output_index: u32, delta: &str, out: &mut BytesMut) {
        if !self.is_open(output_index, None) {
            // White space after a call that was whole.
            return;
        }
        self.seen(output_index).has_arguments = true;
        if let Some(open) = &mut self.open {
            open.arguments.push_str(delta);
        }
        self.block_delta("\"input_json_delta\",\"partial_json\":", delta, out);
    }

    /// What of the item was not streamed comes now.
    fn item_done(&mut self, output_index: u32, item: &Item, out: &mut BytesMut) {
        self.item_started(output_index, item, out);
        for (kind, part_index) in assembly::parts(item) {
            let part = (kind, part_index);
            let text = assembly::part_text(item, part_index, kind).unwrap_or_default();
            if !self.seen(output_index).parts.contains(&part) {
                self.delta(output_index, part, text, out);
            }
        }
        match item {
            Item::FunctionCall(call)
                if !self.seen(output_index).has_arguments && !call.arguments.is_empty() =>
            {
                self.arguments(output_index, &call.arguments, out);
            }
            Item::Reasoning(reasoning) => {
                if let Some(sealed) = &reasoning.encrypted_content {
                    self.sealed(output_index, sealed, out);
                }
            }
            _ => {}
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.output_index == output_index)
        {
            self.close(out);
        }
    }

    /// The sealed form of thinking: the signature of its block, or a block of its own where nothing was shown.
    fn sealed(&mut self, output_index: u32, sealed: &str, out: &mut BytesMut) {
        let is_thinking_open = self
            .open
            .as_ref()
            .is_some_and(|open| open.output_index == output_index && open.part.is_some());
        if is_thinking_open {
            self.block_delta("\"signature_delta\",\"signature\":", sealed, out);
        } else if self.seen(output_index).parts.is_empty() {
            self.close(out);
            self.open_block(
                output_index,
                Some((PartKind::ReasoningText, 0)),
                out,
                |out| {
                    put(out, "{\"type\":\"redacted_thinking\",\"data\":");
                    put_str(out, sealed);
                    put(out, "}");
                },
            );
            self.close(out);
        }
    }

    fn open_block(
        &mut self,
        output_index: u32,
        part: Option<(PartKind, u32)>,
        out: &mut BytesMut,
        write: impl FnOnce(&mut BytesMut),
    ) {
        put(
            out,
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
        );
        put_uint(out, self.blocks);
        put(out, ",\"content_block\":");
        write(out);
        put(out, "}\n\n");
        self.blocks += 1;
        self.open = Some(Open {
            output_index,
            part,
            arguments: String::new(),
        });
    }

    fn block_delta(&self, kind: &str, text: &str, out: &mut BytesMut) {
        put(
            out,
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
        );
        put_uint(out, self.blocks.saturating_sub(1));
        put(out, ",\"delta\":{\"type\":");
        put(out, kind);
        put_str(out, text);
        put(out, "}}\n\n");
    }

    fn close(&mut self, out: &mut BytesMut) {
        if self.open.take().is_none() {
            return;
        }
        put(
            out,
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":",
        );
        put_uint(out, self.blocks.saturating_sub(1));
        put(out, "}\n\n");
    }
}

/// Which item an event is about.
fn place_of(event: &RunEvent) -> Option<u32> {
    match event {
        RunEvent::ItemStarted { output_index, .. }
        | RunEvent::PartStarted { output_index, .. }
        | RunEvent::Delta { output_index, .. }
        | RunEvent::ArgumentsDelta { output_index, .. }
        | RunEvent::PartDone { output_index, .. }
        | RunEvent::ItemDone { output_index, .. } => Some(*output_index),
        _ => None,
    }
}

/// Whether a call's arguments are a whole object: nothing but white space can follow.
fn is_whole(arguments: &str) -> bool {
    // Cheap first: this is asked at every event of a second call.
    arguments.trim_end().ends_with('}')
        && crate::json::parse_text(arguments).is_ok_and(|node| node.as_object().is_some())
}

/// Writes a message up to the elements of its content.
pub(super) fn open_message(head: &ResponseHead, out: &mut BytesMut) {
    put(out, "{\"id\":");
    put_str(out, &head.id);
    put(
        out,
        ",\"type\":\"message\",\"role\":\"assistant\",\"model\":",
    );
    put_str(out, &head.model);
    put(out, ",\"content\":[");
}

/// Writes the counts. Here the input's tokens are those that came from no cache and went into none.
pub(super) fn write_usage(usage: &Usage, out: &mut BytesMut) {
    let cached = usage
        .cached_input_tokens
        .saturating_add(usage.cache_write_tokens);
    put(out, "{\"input_tokens\":");
    put_u64(out, usage.input_tokens.saturating_sub(cached));
    put(out, ",\"cache_creation_input_tokens\":");
    put_u64(out, usage.cache_write_tokens);
    put(out, ",\"cache_read_input_tokens\":");
    put_u64(out, usage.cached_input_tokens);
    put(out, ",\"output_tokens\":");
    put_u64(out, usage.output_tokens);
    put(out, ",\"output_tokens_details\":{\"thinking_tokens\":");
    put_u64(out, usage.reasoning_tokens);
    put(out, "}}");
}
