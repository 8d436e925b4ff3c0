//! The events of a run as one whole chat completion.

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Entropy, FinishReason, InferenceRequest, Item, Outcome, Part, RunEvent, Status, Timestamp,
    TokenLogprob,
};

use super::decode::UpstreamDecoder;
use super::encode::{
    is_legacy, legacy_finish_word, prefix, write_call, write_choice_logprobs, write_usage,
};
use super::stored::Identity;
use crate::assembly::Assembly;
use crate::head::ResponseHead;
use crate::json::{put, put_str, put_uint};

/// Collects the events of a run into one chat completion. Failed runs are answered by
/// [`crate::error::openai_body`] instead.
#[derive(Debug)]
pub struct Collector {
    prefix: String,
    legacy: bool,
    assembly: Assembly,
    /// Streams replace whole items by what the backend says at their end; log probabilities it may not repeat.
    logprobs: Vec<(u32, Vec<TokenLogprob>)>,
    reasons: Vec<(u32, FinishReason)>,
    reason: Option<FinishReason>,
    whole: Option<Bytes>,
    decoder: UpstreamDecoder,
    /// Set for a completion that is kept: an upstream's body then gets its name.
    identity: Option<Identity>,
}

impl Collector {
    /// A collector for the answer to `request`.
    pub fn new(head: ResponseHead, request: &InferenceRequest, _entropy: &dyn Entropy) -> Self {
        Self {
            prefix: prefix(&head, "chat.completion"),
            legacy: is_legacy(request),
            assembly: Assembly::default(),
            logprobs: Vec::new(),
            reasons: Vec::new(),
            reason: None,
            whole: None,
            decoder: UpstreamDecoder::new(),
            identity: None,
        }
    }

    /// A collector for a completion that is kept under the head's id.
    pub fn of_kept(head: ResponseHead, request: &InferenceRequest, entropy: &dyn Entropy) -> Self {
        let identity = Identity::new(&head);
        let mut collector = Self::new(head, request, entropy);
        collector.identity = Some(identity);
        collector
    }

    /// Takes one event.
    pub fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Native(frame) if frame.whole => self.whole = Some(frame.json.clone()),
            RunEvent::Native(frame) => {
                // The upstream streamed although the caller does not: put the chunks together.
                let mut events = Vec::new();
                if self.decoder.frame(&frame.json, &mut events).is_ok() {
                    for event in &events {
                        self.event(event);
                    }
                }
            }
            RunEvent::ChoiceFinished { choice, reason } => self.reasons.push((*choice, *reason)),
            RunEvent::Finished(finish) => self.reason = Some(finish.reason),
            RunEvent::Delta {
                output_index,
                logprobs,
                ..
            } if !logprobs.is_empty() => {
                match self
                    .logprobs
                    .iter_mut()
                    .find(|(index, _)| index == output_index)
                {
                    Some((_, list)) => list.extend_from_slice(logprobs),
                    None => self.logprobs.push((*output_index, logprobs.clone())),
                }
                self.assembly.apply(event);
            }
            _ => self.assembly.apply(event),
        }
    }

    /// The body.
    pub fn finish(mut self, outcome: &Outcome, _now: Timestamp) -> Bytes {
        if let Some(body) = self.whole.take() {
            return match &self.identity {
                Some(identity) => identity.rename(&body),
                None => body,
            };
        }
        let mut events = Vec::new();
        if self.decoder.end(&mut events).is_ok() {
            for event in &events {
                self.event(event);
            }
        }
        let mut body = BytesMut::with_capacity(1024);
        let out = &mut body;
        put(out, &self.prefix);
        let mut choices: Vec<u32> = self.assembly.slots.iter().map(|slot| slot.choice).collect();
        choices.push(0);
        choices.sort_unstable();
        choices.dedup();
        for (at, choice) in choices.into_iter().enumerate() {
            if at > 0 {
                put(out, ",");
            }
            self.choice(choice, outcome, out);
        }
        put(out, "],\"usage\":");
        // Programs read the counts without asking whether they are there.
        write_usage(&outcome.usage, out);
        put(out, "}");
        body.freeze()
    }

    fn choice(&self, index: u32, outcome: &Outcome, out: &mut BytesMut) {
        let mut text: Option<String> = None;
        let mut refusal: Option<String> = None;
        let mut reasoning = String::new();
        let mut calls = Vec::new();
        let mut logprobs: &[TokenLogprob] = &[];
        for slot in self
            .assembly
            .slots
            .iter()
            .filter(|slot| slot.choice == index)
        {
            match &slot.item {
                Item::Message(message) => {
                    for part in &message.content {
                        match part {
                            Part::Text { text: more, .. } => {
                                text.get_or_insert_default().push_str(more)
                            }
                            Part::Refusal { refusal: more } => {
                                refusal.get_or_insert_default().push_str(more);
                            }
                            _ => {}
                        }
                    }
                    if let Some((_, list)) =
                        self.logprobs.iter().find(|(i, _)| *i == slot.output_index)
                    {
                        logprobs = list;
                    } else if let Some(Part::Text { logprobs: list, .. }) = message.content.first()
                    {
                        logprobs = list;
                    }
                }
                // As a stream has them: summaries, then the reasoning itself.
                Item::Reasoning(item) => {
                    let texts = item.summary.iter().chain(&item.content);
                    texts.for_each(|more| reasoning.push_str(more));
                }
                call if call.call_id().is_some() => calls.push(call),
                _ => {}
            }
        }
        put(out, "{\"index\":");
        put_uint(out, index);
        put(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
        match &text {
            Some(text) => put_str(out, text),
            // Without calls and refusal an answer that says nothing is an empty text, not none.
            None if calls.is_empty() && refusal.is_none() => put(out, "\"\""),
            None => put(out, "null"),
        }
        put(out, ",\"refusal\":");
        match &refusal {
            Some(refusal) => put_str(out, refusal),
            None => put(out, "null"),
        }
        if !reasoning.is_empty() {
            put(out, ",\"reasoning_content\":");
            put_str(out, &reasoning);
        }
        if let (true, Some(Item::FunctionCall(call))) = (self.legacy, calls.first()) {
            // That form holds one call.
            put(out, ",\"function_call\":{\"name\":");
            put_str(out, &call.name);
            put(out, ",\"arguments\":");
            put_str(out, &call.arguments);
            put(out, "}");
        }
        let listed = if self.legacy { &[][..] } else { &calls[..] };
        for (at, call) in listed.iter().enumerate() {
            put(out, if at == 0 { ",\"tool_calls\":[" } else { "," });
            put(out, "{");
            write_call(call, out);
            put(out, "}");
        }
        if !listed.is_empty() {
            put(out, "]");
        }
        put(out, "},\"logprobs\":");
        write_choice_logprobs(logprobs, refusal.is_some(), out);
        let natural = if calls.is_empty() {
            FinishReason::Stop
        } else {
            FinishReason::ToolCalls
        };
        let own = self
            .reasons
            .iter()
            .find(|(choice, _)| *choice == index)
            .map(|(_, reason)| *reason);
        let reason = own.unwrap_or(match outcome.status {
            Status::Incomplete(reason) => reason,
            _ => self.reason.unwrap_or(natural),
        });
        put(out, ",\"finish_reason\":\"");
        put(out, legacy_finish_word(reason, self.legacy));
        put(out, "\"}");
    }
}
