//! The events of a run as the SSE frames of the Responses dialect.

mod native;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Entropy, Error, ErrorKind, FinishReason, InferenceRequest, Item, Outcome, Part, PartKind,
    PublicId, Role, RunEvent, Status, Timestamp, TokenLogprob, Usage,
};

use self::native::Native;
use super::items::{self, Form};
use super::object::{Identity, Object, State, TurnFacts};
use crate::assembly::{self, Assembly};
use crate::error::{code, write_error};
use crate::head::ResponseHead;
use crate::json::{put, put_str, put_u64, put_uint};
use crate::padding::Padding;
use crate::sse;

/// Turns the events of a run into frames. Sequence numbers have no gaps, ids do not change, lifecycle events
/// carry the whole response. Backends may leave out parts and item ends; the encoder fills them in.
#[derive(Debug)]
pub struct StreamEncoder {
    object: Object,
    /// The random part of the item ids of this response.
    unique: PublicId,
    logprobs: bool,
    started: bool,
    sequence: u64,
    output: Assembly,
    shown: Vec<Shown>,
    native: Native,
    /// Set for a turn that is kept: frames of an upstream's are then rewritten to be ours.
    identity: Option<Identity>,
    padding: Option<Padding>,
}

/// What the reader of the stream knows of an item.
#[derive(Debug)]
struct Shown {
    output_index: u32,
    id: Arc<str>,
    parts: Vec<(PartKind, u32, bool)>,
    arguments: bool,
    done: bool,
}

impl StreamEncoder {
    /// An encoder for the answer to `request`.
    pub fn new(head: ResponseHead, request: &InferenceRequest, entropy: &dyn Entropy) -> Self {
        Self {
            object: Object::new(&head, request),
            unique: PublicId::generate("", entropy),
            logprobs: request.top_logprobs.is_some(),
            started: false,
            sequence: 0,
            output: Assembly::default(),
            shown: Vec::new(),
            native: Native::default(),
            identity: None,
            padding: Padding::of(request, entropy),
        }
    }

    /// An encoder for a turn of something that is kept. `request` is the one that the caller wrote: what it says
    /// is what the response repeats.
    pub fn of_turn(
        head: ResponseHead,
        request: &InferenceRequest,
        facts: TurnFacts,
        entropy: &dyn Entropy,
    ) -> Self {
        let (object, identity) = Object::of_turn(&head, request, facts);
        let mut encoder = Self::new(head, request, entropy);
        encoder.object = object;
        encoder.identity = Some(identity);
        encoder
    }

    /// The number that the next event will have.
    pub fn next_event(&self) -> u64 {
        self.sequence
    }

    /// Goes on after events that were written before: `response.created` is one of them.
    pub fn resume(&mut self, next_event: u64) {
        self.started = true;
        self.sequence = next_event;
    }

    /// Appends `response.created` and `response.queued`, with which a background response begins.
    pub fn queued(&mut self, out: &mut BytesMut) {
        self.started = true;
        self.lifecycle("response.created", &State::QUEUED, out);
        self.lifecycle("response.queued", &State::QUEUED, out);
    }

    /// Appends `response.in_progress`.
    pub fn in_progress(&mut self, out: &mut BytesMut) {
        self.lifecycle("response.in_progress", &State::RUNNING, out);
    }

    /// The whole response object of a response that waits.
    pub fn queued_object(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1_024);
        self.write_response(&State::QUEUED, &mut out);
        out.freeze()
    }

    /// Appends the frames of one event to `out`. A terminal frame of the upstream's is held back until
    /// [`Self::end`], so that the run can be recorded before it leaves.
    pub fn event(&mut self, event: &RunEvent, out: &mut BytesMut) {
        match event {
            RunEvent::Native(frame) => self.native(frame, out),
            // The upstream's own `response.created` opens a native stream; ours must not come before it.
            RunEvent::Started { .. } => {}
            RunEvent::Finished(_) | RunEvent::ChoiceFinished { .. } => {}
            _ => {
                self.open(out);
                self.semantic(event, out);
            }
        }
    }

    /// Appends the one terminal frame and the end marker. `error` says why a run failed. After this nothing
    /// may be written. For a caller that left nothing is written.
    pub fn end(
        &mut self,
        outcome: &Outcome,
        error: Option<&Error>,
        now: Timestamp,
        out: &mut BytesMut,
    ) {
        if outcome.status == Status::Cancelled {
            return;
        }
        self.terminal(outcome, error, now, out);
        out.extend_from_slice(sse::DONE);
    }

    /// [`Self::end`] without the end marker, and with a last frame also for a response that was cancelled: it is
    /// `response.incomplete`, since there is no event of that name, and its status says what happened.
    pub fn terminal(
        &mut self,
        outcome: &Outcome,
        error: Option<&Error>,
        now: Timestamp,
        out: &mut BytesMut,
    ) {
        match outcome.status {
            Status::Cancelled => self.cancelled(outcome, out),
            Status::Failed(_) => self.fail(outcome, error, out),
            Status::Completed | Status::Incomplete(_) if self.native.any => {
                match self.native.terminal.take() {
                    Some(frame) => self.native_frame(&frame, out),
                    // Nobody but the upstream can say that its answer is whole.
                    None => self.fail(outcome, None, out),
                }
            }
            Status::Completed => self.complete(outcome, None, now, out),
            Status::Incomplete(reason) => self.complete(outcome, Some(reason), now, out),
        }
    }

    fn cancelled(&mut self, outcome: &Outcome, out: &mut BytesMut) {
        if !self.native.any {
            self.open(out);
        }
        let known = outcome.usage_exact || outcome.usage != Usage::default();
        let state = State {
            status: "cancelled",
            usage: known.then_some(outcome.usage),
            ..State::RUNNING
        };
        match self.native.response.take() {
            Some(base) => self.native_ended("response.incomplete", &base, &state, out),
            None => self.lifecycle("response.incomplete", &state, out),
        }
    }

    fn complete(
        &mut self,
        outcome: &Outcome,
        incomplete: Option<FinishReason>,
        now: Timestamp,
        out: &mut BytesMut,
    ) {
        self.open(out);
        let status = if incomplete.is_some() {
            "incomplete"
        } else {
            "completed"
        };
        let open: Vec<(u32, Item)> = self
            .output
            .slots
            .iter()
            .filter(|slot| !slot.done)
            .map(|slot| (slot.output_index, slot.item.clone()))
            .collect();
        for (output_index, item) in open {
            self.item_done(output_index, &item, status, out);
        }
        let state = State {
            status,
            completed_at: incomplete.is_none().then(|| now.as_seconds()),
            error: None,
            incomplete,
            usage: Some(outcome.usage),
        };
        let event = if incomplete.is_some() {
            "response.incomplete"
        } else {
            "response.completed"
        };
        self.lifecycle(event, &state, out);
    }

    fn fail(&mut self, outcome: &Outcome, error: Option<&Error>, out: &mut BytesMut) {
        if let Some(frame) = self
            .native
            .terminal
            .take_if(|frame| frame.event.as_deref() == Some("response.failed"))
        {
            self.native_frame(&frame, out);
            return;
        }
        if !self.native.any {
            self.open(out);
        }
        let cut;
        let error = match error {
            Some(error) => error,
            None => {
                cut = Error::new(
                    ErrorKind::Upstream,
                    "the model's answer broke off before its end",
                );
                &cut
            }
        };
        // Flat members for OpenAI's SDKs, the nested object for Open Responses.
        let from = self.frame_open("error", out);
        put(out, ",\"code\":");
        match code(error) {
            Some(code) => put_str(out, code),
            None => put(out, "null"),
        }
        put(out, ",\"message\":");
        put_str(out, error.message());
        put(out, ",\"param\":");
        match error.param() {
            Some(param) => put_str(out, param),
            None => put(out, "null"),
        }
        put(out, ",\"error\":");
        write_error(error, out);
        frame_close(from, out);
        let known = outcome.usage_exact || outcome.usage != Usage::default();
        let state = State {
            status: "failed",
            completed_at: None,
            error: Some(error),
            incomplete: None,
            usage: known.then_some(outcome.usage),
        };
        match self.native.response.take() {
            Some(base) => self.native_ended("response.failed", &base, &state, out),
            None => self.lifecycle("response.failed", &state, out),
        }
    }

    /// `response.created` and `response.in_progress`, once.
    fn open(&mut self, out: &mut BytesMut) {
        if self.started {
            return;
        }
        self.started = true;
        self.lifecycle("response.created", &State::RUNNING, out);
        self.lifecycle("response.in_progress", &State::RUNNING, out);
    }

    fn lifecycle(&mut self, event: &str, state: &State<'_>, out: &mut BytesMut) {
        let from = self.frame_open(event, out);
        put(out, ",\"response\":");
        self.write_response(state, out);
        frame_close(from, out);
    }

    /// Writes the whole response object as it stands.
    pub(super) fn write_response(&self, state: &State<'_>, out: &mut BytesMut) {
        let output = |out: &mut BytesMut| {
            for (index, slot) in self.output.slots.iter().enumerate() {
                if index > 0 {
                    put(out, ",");
                }
                // In an incomplete response only the last item can have been cut short.
                let last = index + 1 == self.output.slots.len();
                let status = match (slot.done, state.status) {
                    (true, "incomplete") if last => "incomplete",
                    (true, _) => "completed",
                    (false, _) => "incomplete",
                };
                let id = self.id(slot.output_index);
                items::write(&slot.item, self.form(&id, status), out);
            }
        };
        self.object.write(state, output, out);
    }

    fn form<'a>(&self, id: &'a str, status: &'a str) -> Form<'a> {
        Form {
            id: Some(id),
            status: Some(status),
            logprobs: self.logprobs,
        }
    }

    fn id(&self, output_index: u32) -> Arc<str> {
        self.shown
            .iter()
            .find(|shown| shown.output_index == output_index)
            .map_or_else(|| "".into(), |shown| Arc::clone(&shown.id))
    }

    fn semantic(&mut self, event: &RunEvent, out: &mut BytesMut) {
        match event {
            RunEvent::ItemStarted {
                output_index,
                choice,
                item,
            } => {
                self.item_started(*output_index, *choice, item, out);
            }
            RunEvent::PartStarted {
                output_index,
                part_index,
                kind,
            } => {
                self.part_started(*output_index, *part_index, *kind, out);
            }
            RunEvent::Delta {
                output_index,
                part_index,
                kind,
                text,
                logprobs,
            } => {
                self.part_started(*output_index, *part_index, *kind, out);
                self.output.apply(event);
                self.delta(*output_index, *part_index, *kind, text, logprobs, out);
            }
            RunEvent::ArgumentsDelta {
                output_index,
                delta,
            } => {
                self.output.apply(event);
                self.arguments_delta(*output_index, delta, out);
            }
            RunEvent::PartDone {
                output_index,
                part_index,
                kind,
            } => {
                self.part_started(*output_index, *part_index, *kind, out);
                self.part_done(*output_index, *part_index, *kind, out);
            }
            RunEvent::ItemDone { output_index, item } => {
                self.item_done(*output_index, item, "completed", out);
            }
            _ => {}
        }
    }

    fn item_started(&mut self, output_index: u32, choice: u32, item: &Item, out: &mut BytesMut) {
        if !self.output.start(output_index, choice, item.clone()) {
            return;
        }
        let (prefix, given) = match item {
            Item::Message(message) => ("msg_", message.id.clone()),
            Item::FunctionCall(call) => ("fc_", call.id.clone()),
            Item::Reasoning(reasoning) => ("rs_", reasoning.id.clone()),
            Item::FunctionCallOutput(output) => ("fco_", output.id.clone()),
            Item::CustomToolCall(call) => ("ctc_", call.id.clone()),
            Item::CustomToolCallOutput(output) => ("ctco_", output.id.clone()),
            Item::Other { .. } => ("item_", None),
        };
        // One draw of randomness serves the whole response: the place makes each id its own.
        let id = given.unwrap_or_else(|| {
            format!("{prefix}{}{output_index:04x}", self.unique.as_str()).into()
        });
        self.shown.push(Shown {
            output_index,
            id: Arc::clone(&id),
            parts: Vec::new(),
            arguments: false,
            done: false,
        });
        let from = self.frame_open("response.output_item.added", out);
        put(out, ",\"output_index\":");
        put_uint(out, output_index);
        put(out, ",\"item\":");
        items::write(item, self.form(&id, "in_progress"), out);
        frame_close(from, out);
        if let Some(text) = item.call_text().filter(|text| !text.is_empty()) {
            self.arguments_delta(output_index, text, out);
        }
    }

    fn shown(&mut self, output_index: u32) -> Option<&mut Shown> {
        self.shown
            .iter_mut()
            .rev()
            .find(|shown| shown.output_index == output_index)
    }

    fn part_started(
        &mut self,
        output_index: u32,
        part_index: u32,
        kind: PartKind,
        out: &mut BytesMut,
    ) {
        self.item_started(output_index, 0, &assembly::empty(kind), out);
        let Some(shown) = self.shown(output_index) else {
            return;
        };
        if shown
            .parts
            .iter()
            .any(|(known, index, _)| same_list(*known, kind) && *index == part_index)
        {
            return;
        }
        shown.parts.push((kind, part_index, false));
        self.output.apply(&RunEvent::PartStarted {
            output_index,
            part_index,
            kind,
        });
        let event = match kind {
            PartKind::ReasoningSummary => "response.reasoning_summary_part.added",
            _ => "response.content_part.added",
        };
        let from = self.part_open(event, output_index, part_index, kind, out);
        put(out, ",\"part\":");
        write_part(kind, "", &[], self.logprobs, out);
        frame_close(from, out);
    }

    fn delta(
        &mut self,
        output_index: u32,
        part_index: u32,
        kind: PartKind,
        text: &str,
        logprobs: &[TokenLogprob],
        out: &mut BytesMut,
    ) {
        let event = match kind {
            PartKind::Text => "response.output_text.delta",
            PartKind::Refusal => "response.refusal.delta",
            PartKind::ReasoningText => "response.reasoning_text.delta",
            PartKind::ReasoningSummary => "response.reasoning_summary_text.delta",
        };
        let from = self.part_open(event, output_index, part_index, kind, out);
        put(out, ",\"delta\":");
        put_str(out, text);
        if kind == PartKind::Text {
            put(out, ",\"logprobs\":");
            items::write_logprobs(logprobs, out);
        }
        self.delta_close(from, out);
    }

    /// [`frame_close`] for a delta.
    fn delta_close(&mut self, from: usize, out: &mut BytesMut) {
        if let Some(padding) = &mut self.padding {
            padding.put(from, out);
        }
        frame_close(from, out);
    }

    fn arguments_delta(&mut self, output_index: u32, delta: &str, out: &mut BytesMut) {
        let Some(shown) = self.shown(output_index) else {
            return;
        };
        shown.arguments = true;
        let event = match self.output.find(output_index).map(|slot| &slot.item) {
            Some(Item::CustomToolCall(_)) => "response.custom_tool_call_input.delta",
            _ => "response.function_call_arguments.delta",
        };
        let from = self.item_open(event, output_index, out);
        put(out, ",\"delta\":");
        put_str(out, delta);
        self.delta_close(from, out);
    }

    fn part_done(
        &mut self,
        output_index: u32,
        part_index: u32,
        kind: PartKind,
        out: &mut BytesMut,
    ) {
        let Some(shown) = self.shown(output_index) else {
            return;
        };
        let Some(part) = shown
            .parts
            .iter_mut()
            .find(|(known, index, done)| same_list(*known, kind) && *index == part_index && !done)
        else {
            return;
        };
        part.2 = true;
        let Some(slot) = self.output.find(output_index) else {
            return;
        };
        let text = assembly::part_text(&slot.item, part_index, kind)
            .unwrap_or_default()
            .to_owned();
        let logprobs = match &slot.item {
            Item::Message(message) => match message.content.get(part_index as usize) {
                Some(Part::Text { logprobs, .. }) => logprobs.clone(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        let (event, key) = match kind {
            PartKind::Text => ("response.output_text.done", ",\"text\":"),
            PartKind::Refusal => ("response.refusal.done", ",\"refusal\":"),
            PartKind::ReasoningText => ("response.reasoning_text.done", ",\"text\":"),
            PartKind::ReasoningSummary => ("response.reasoning_summary_text.done", ",\"text\":"),
        };
        let from = self.part_open(event, output_index, part_index, kind, out);
        put(out, key);
        put_str(out, &text);
        if kind == PartKind::Text {
            put(out, ",\"logprobs\":");
            items::write_logprobs(&logprobs, out);
        }
        frame_close(from, out);
        let event = match kind {
            PartKind::ReasoningSummary => "response.reasoning_summary_part.done",
            _ => "response.content_part.done",
        };
        let from = self.part_open(event, output_index, part_index, kind, out);
        put(out, ",\"part\":");
        write_part(kind, &text, &logprobs, self.logprobs, out);
        frame_close(from, out);
    }

    /// Ends an item: what was not streamed of it is made up for first.
    fn item_done(
        &mut self,
        output_index: u32,
        item: &Item,
        status: &'static str,
        out: &mut BytesMut,
    ) {
        self.item_started(output_index, 0, &bare(item), out);
        if self
            .shown(output_index)
            .is_none_or(|shown| std::mem::replace(&mut shown.done, true))
        {
            return;
        }
        for (kind, part_index) in assembly::parts(item) {
            let text = assembly::part_text(item, part_index, kind).unwrap_or_default();
            let had = self
                .output
                .find(output_index)
                .and_then(|slot| assembly::part_text(&slot.item, part_index, kind))
                .map_or(0, str::len);
            self.part_started(output_index, part_index, kind, out);
            if had == 0 && !text.is_empty() {
                self.delta(output_index, part_index, kind, text, &[], out);
            }
        }
        self.output.apply(&RunEvent::ItemDone {
            output_index,
            item: item.clone(),
        });
        let parts: Vec<_> = self
            .shown(output_index)
            .map(|shown| shown.parts.clone())
            .unwrap_or_default();
        for (kind, part_index, _) in parts {
            self.part_done(output_index, part_index, kind, out);
        }
        if let Some(text) = item.call_text() {
            let streamed = self
                .shown(output_index)
                .is_some_and(|shown| shown.arguments);
            if !streamed && !text.is_empty() {
                self.arguments_delta(output_index, text, out);
            }
            let from = match item {
                Item::FunctionCall(call) => {
                    let event = "response.function_call_arguments.done";
                    let from = self.item_open(event, output_index, out);
                    put(out, ",\"name\":");
                    put_str(out, &call.name);
                    put(out, ",\"arguments\":");
                    from
                }
                _ => {
                    let event = "response.custom_tool_call_input.done";
                    let from = self.item_open(event, output_index, out);
                    put(out, ",\"input\":");
                    from
                }
            };
            put_str(out, text);
            frame_close(from, out);
        }
        let id = self.id(output_index);
        let from = self.frame_open("response.output_item.done", out);
        put(out, ",\"output_index\":");
        put_uint(out, output_index);
        put(out, ",\"item\":");
        items::write(item, self.form(&id, status), out);
        frame_close(from, out);
    }

    /// Begins a frame: event line, `type` and `sequence_number`. Gives the place where its data begins.
    fn frame_open(&mut self, event: &str, out: &mut BytesMut) -> usize {
        put(out, "event: ");
        put(out, event);
        put(out, "\ndata: ");
        let from = out.len();
        put(out, "{\"type\":\"");
        put(out, event);
        put(out, "\",\"sequence_number\":");
        put_u64(out, self.sequence);
        self.sequence += 1;
        from
    }

    fn item_open(&mut self, event: &str, output_index: u32, out: &mut BytesMut) -> usize {
        let from = self.frame_open(event, out);
        put(out, ",\"item_id\":");
        put_str(out, &self.id(output_index));
        put(out, ",\"output_index\":");
        put_uint(out, output_index);
        from
    }

    fn part_open(
        &mut self,
        event: &str,
        output_index: u32,
        part_index: u32,
        kind: PartKind,
        out: &mut BytesMut,
    ) -> usize {
        let from = self.item_open(event, output_index, out);
        put(
            out,
            match kind {
                PartKind::ReasoningSummary => ",\"summary_index\":",
                _ => ",\"content_index\":",
            },
        );
        put_uint(out, part_index);
        from
    }
}

/// Whether an event of this type ends a Responses stream.
pub(crate) fn is_terminal(event: &str) -> bool {
    matches!(
        event,
        "response.completed" | "response.incomplete" | "response.failed"
    )
}

/// Parts of the same list share one row of indexes.
fn same_list(a: PartKind, b: PartKind) -> bool {
    (a == PartKind::ReasoningSummary) == (b == PartKind::ReasoningSummary)
}

fn frame_close(from: usize, out: &mut BytesMut) {
    put(out, "}");
    // Carried JSON may have line breaks between tokens, which would end the data line.
    for byte in &mut out[from..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    put(out, "\n\n");
}

/// The item as it stands when it begins: no content.
fn bare(item: &Item) -> Item {
    let mut bare = item.clone();
    match &mut bare {
        Item::Message(message) => {
            message.content.clear();
            message.role = Role::Assistant;
        }
        Item::Reasoning(reasoning) => {
            reasoning.summary.clear();
            reasoning.content.clear();
        }
        call => {
            if let Some(text) = call.call_text_mut() {
                text.clear();
            }
        }
    }
    bare
}

fn write_part(
    kind: PartKind,
    text: &str,
    logprobs: &[TokenLogprob],
    with_logprobs: bool,
    out: &mut BytesMut,
) {
    match kind {
        PartKind::Text => {
            put(out, "{\"type\":\"output_text\",\"text\":");
            put_str(out, text);
            put(out, ",\"annotations\":[]");
            if with_logprobs {
                put(out, ",\"logprobs\":");
                items::write_logprobs(logprobs, out);
            }
            put(out, "}");
        }
        PartKind::Refusal => {
            put(out, "{\"type\":\"refusal\",\"refusal\":");
            put_str(out, text);
            put(out, "}");
        }
        PartKind::ReasoningText => items::write_text("reasoning_text", text, out),
        PartKind::ReasoningSummary => items::write_text("summary_text", text, out),
    }
}

/// Used by the collector, which needs the same assembly without frames.
impl StreamEncoder {
    /// Takes an event without writing frames.
    pub(super) fn take(&mut self, event: &RunEvent) {
        // Ids are given out where items begin, so the frames are made and thrown away only for those.
        match event {
            RunEvent::ItemStarted { .. } => {
                let mut nowhere = BytesMut::new();
                self.semantic(event, &mut nowhere);
            }
            RunEvent::ItemDone { output_index, item } => {
                let mut nowhere = BytesMut::new();
                self.item_started(*output_index, 0, &bare(item), &mut nowhere);
                self.output.apply(event);
            }
            RunEvent::Delta {
                output_index, kind, ..
            }
            | RunEvent::PartStarted {
                output_index, kind, ..
            } => {
                if self.shown(*output_index).is_none() {
                    let mut nowhere = BytesMut::new();
                    self.item_started(*output_index, 0, &assembly::empty(*kind), &mut nowhere);
                }
                self.output.apply(event);
            }
            _ => self.output.apply(event),
        }
    }

    /// Marks every item as ended.
    pub(super) fn close(&mut self) {
        for slot in &mut self.output.slots {
            slot.done = true;
        }
    }
}
