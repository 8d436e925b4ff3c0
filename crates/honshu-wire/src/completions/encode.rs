//! The events of a run as a text completion, in chunks or whole.

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Entropy, Error, ErrorKind, Finish, FinishReason, InferenceRequest, Outcome, PartKind, RunEvent,
    Status, Timestamp, TokenLogprob,
};

use crate::chat::{finish_word, prefix, write_usage};
use crate::error::write_error;
use crate::head::ResponseHead;
use crate::json::{put, put_f32, put_str, put_u64, put_uint};
use crate::padding::Padding;
use crate::sse;

/// What is known of the answers so far.
#[derive(Debug, Default)]
struct Choices {
    /// Choices by index.
    list: Vec<Choice>,
    /// Which choice an item belongs to.
    items: Vec<(u32, u32)>,
    finish: Option<Finish>,
}

#[derive(Debug, Default)]
struct Choice {
    index: u32,
    text: String,
    logprobs: Vec<TokenLogprob>,
    /// Characters that were given out with log probabilities: the offset of the next token.
    offset: u64,
    reason: Option<FinishReason>,
}

impl Choices {
    fn choice(&mut self, index: u32) -> &mut Choice {
        let at = match self.list.iter().position(|choice| choice.index == index) {
            Some(at) => at,
            None => {
                self.list.push(Choice {
                    index,
                    ..Choice::default()
                });
                self.list.len() - 1
            }
        };
        &mut self.list[at]
    }

    fn of_item(&self, output_index: u32) -> u32 {
        self.items
            .iter()
            .find(|(item, _)| *item == output_index)
            .map_or(0, |(_, choice)| *choice)
    }

    fn reason(&self, choice: &Choice, status: Status) -> FinishReason {
        choice.reason.unwrap_or(match status {
            Status::Incomplete(reason) => reason,
            _ => self
                .finish
                .as_ref()
                .map_or(FinishReason::Stop, |finish| finish.reason),
        })
    }

    /// Notes what is not text. Reasoning and calls have no place in this dialect, and a raw prompt brings none.
    fn note(&mut self, event: &RunEvent) {
        match event {
            RunEvent::ItemStarted {
                output_index,
                choice,
                ..
            } => {
                self.items.push((*output_index, *choice));
                self.choice(*choice);
            }
            RunEvent::ChoiceFinished { choice, reason } => {
                self.choice(*choice).reason = Some(*reason);
            }
            RunEvent::Finished(finish) => self.finish = Some(finish.clone()),
            _ => {}
        }
    }
}

/// Turns the events of a run into chunks, the last of each choice with its reason.
#[derive(Debug)]
pub struct StreamEncoder {
    prefix: String,
    include_usage: bool,
    choices: Choices,
    native: bool,
    padding: Option<Padding>,
}

impl StreamEncoder {
    /// An encoder for the answer to `request`.
    pub fn new(head: ResponseHead, request: &InferenceRequest, entropy: &dyn Entropy) -> Self {
        Self {
            prefix: prefix(&head, "text_completion"),
            include_usage: request.include_usage,
            choices: Choices::default(),
            native: false,
            padding: Padding::of(request, entropy),
        }
    }

    /// Appends the chunks of one event to `out`.
    pub fn event(&mut self, event: &RunEvent, out: &mut BytesMut) {
        match event {
            RunEvent::Native(frame) => {
                // A whole answer in a stream is a chunk as well: the forms are the same.
                self.native = true;
                match &mut self.padding {
                    Some(padding) => sse::encode_frame(None, &padding.pad(&frame.json), out),
                    None => sse::encode_frame(None, &frame.json, out),
                }
            }
            RunEvent::Delta {
                output_index,
                kind: PartKind::Text,
                text,
                logprobs,
                ..
            } => {
                let index = self.choices.of_item(*output_index);
                let offset = self.choices.choice(index).offset;
                self.chunk(index, text, logprobs, offset, None, out);
                self.choices.choice(index).offset += length(logprobs);
            }
            event => self.choices.note(event),
        }
    }

    /// Appends the end, as in Chat.
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
                put(out, "data: {\"error\":");
                write_error(error.unwrap_or(&cut()), out);
                put(out, "}\n\n");
                return;
            }
            Status::Completed | Status::Incomplete(_) => {}
        }
        if !self.native {
            self.choices.choice(0);
            for at in 0..self.choices.list.len() {
                let choice = &self.choices.list[at];
                let (index, reason) = (choice.index, self.choices.reason(choice, outcome.status));
                self.chunk(index, "", &[], 0, Some(reason), out);
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

    fn chunk(
        &mut self,
        index: u32,
        text: &str,
        logprobs: &[TokenLogprob],
        offset: u64,
        reason: Option<FinishReason>,
        out: &mut BytesMut,
    ) {
        put(out, "data: ");
        let from = out.len();
        put(out, &self.prefix);
        write_choice(index, text, logprobs, offset, reason, out);
        put(out, "]");
        if self.include_usage {
            put(out, ",\"usage\":null");
        }
        if let Some(padding) = &mut self.padding {
            padding.put(from, out);
        }
        put(out, "}\n\n");
    }
}

/// Collects the events of a run into one completion.
#[derive(Debug)]
pub struct Collector {
    prefix: String,
    choices: Choices,
    whole: Option<Bytes>,
}

impl Collector {
    /// A collector for the answer to `request`.
    pub fn new(head: ResponseHead, _request: &InferenceRequest, _entropy: &dyn Entropy) -> Self {
        Self {
            prefix: prefix(&head, "text_completion"),
            choices: Choices::default(),
            whole: None,
        }
    }

    /// Takes one event.
    pub fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Native(frame) => self.whole = Some(frame.json.clone()),
            RunEvent::Delta {
                output_index,
                kind: PartKind::Text,
                text,
                logprobs,
                ..
            } => {
                let index = self.choices.of_item(*output_index);
                let choice = self.choices.choice(index);
                choice.text.push_str(text);
                choice.logprobs.extend_from_slice(logprobs);
            }
            event => self.choices.note(event),
        }
    }

    /// The body.
    pub fn finish(mut self, outcome: &Outcome, _now: Timestamp) -> Bytes {
        if let Some(body) = self.whole.take() {
            return body;
        }
        self.choices.choice(0);
        self.choices
            .list
            .sort_unstable_by_key(|choice| choice.index);
        let mut body = BytesMut::with_capacity(512);
        let out = &mut body;
        put(out, &self.prefix);
        for (at, choice) in self.choices.list.iter().enumerate() {
            if at > 0 {
                put(out, ",");
            }
            let reason = self.choices.reason(choice, outcome.status);
            write_choice(
                choice.index,
                &choice.text,
                &choice.logprobs,
                0,
                Some(reason),
                out,
            );
        }
        put(out, "],\"usage\":");
        write_usage(&outcome.usage, out);
        put(out, "}");
        body.freeze()
    }
}

fn cut() -> Error {
    Error::new(
        ErrorKind::Upstream,
        "the model's answer broke off before its end",
    )
}

/// Offsets count characters, as the lists of strings that they belong to do.
fn length(logprobs: &[TokenLogprob]) -> u64 {
    logprobs
        .iter()
        .map(|entry| entry.token.chars().count() as u64)
        .sum()
}

fn write_choice(
    index: u32,
    text: &str,
    logprobs: &[TokenLogprob],
    mut offset: u64,
    reason: Option<FinishReason>,
    out: &mut BytesMut,
) {
    put(out, "{\"index\":");
    put_uint(out, index);
    put(out, ",\"text\":");
    put_str(out, text);
    put(out, ",\"logprobs\":");
    if logprobs.is_empty() {
        put(out, "null");
    } else {
        let list =
            |key: &str, out: &mut BytesMut, write: &mut dyn FnMut(&TokenLogprob, &mut BytesMut)| {
                put(out, key);
                for (at, entry) in logprobs.iter().enumerate() {
                    if at > 0 {
                        put(out, ",");
                    }
                    write(entry, out);
                }
                put(out, "]");
            };
        list("{\"tokens\":[", out, &mut |entry, out| {
            put_str(out, &entry.token);
        });
        list(",\"token_logprobs\":[", out, &mut |entry, out| {
            put_f32(out, entry.logprob);
        });
        list(",\"top_logprobs\":[", out, &mut |entry, out| {
            put(out, "{");
            let mut seen: Vec<&str> = Vec::new();
            for top in &entry.top {
                // Different bytes can look the same as text; a key may stand once.
                if seen.contains(&top.token.as_str()) {
                    continue;
                }
                if !seen.is_empty() {
                    put(out, ",");
                }
                seen.push(&top.token);
                put_str(out, &top.token);
                put(out, ":");
                put_f32(out, top.logprob);
            }
            put(out, "}");
        });
        list(",\"text_offset\":[", out, &mut |entry, out| {
            put_u64(out, offset);
            offset += entry.token.chars().count() as u64;
        });
        put(out, "}");
    }
    put(out, ",\"finish_reason\":");
    match reason {
        Some(reason) => {
            put(out, "\"");
            put(out, finish_word(reason));
            put(out, "\"");
        }
        None => put(out, "null"),
    }
    put(out, "}");
}
