//! The events of a run as one whole message.

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    Entropy, Finish, InferenceRequest, Item, Outcome, Part, RunEvent, Status, Timestamp,
};

use super::encode::{open_message, write_usage};
use super::stop::Ending;
use crate::assembly::Assembly;
use crate::head::ResponseHead;
use crate::json::{parse_text, put, put_str};

/// Collects the events of a run into one message. Failed runs are answered by
/// [`crate::error::anthropic_body`] instead.
#[derive(Debug)]
pub struct Collector {
    head: ResponseHead,
    assembly: Assembly,
    finish: Option<Finish>,
}

impl Collector {
    /// A collector for the answer to `request`.
    pub fn new(head: ResponseHead, _request: &InferenceRequest, _entropy: &dyn Entropy) -> Self {
        Self {
            head,
            assembly: Assembly::default(),
            finish: None,
        }
    }

    /// Takes one event.
    pub fn event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Finished(finish) => self.finish = Some(finish.clone()),
            _ => self.assembly.apply(event),
        }
    }

    /// The body.
    pub fn finish(self, outcome: &Outcome, _now: Timestamp) -> Bytes {
        let mut body = BytesMut::with_capacity(1024);
        let out = &mut body;
        open_message(&self.head, out);
        let mut blocks = Blocks {
            first: true,
            ending: Ending::default(),
        };
        for slot in &self.assembly.slots {
            match &slot.item {
                // A call that was cut off is not one: nobody may run it.
                Item::FunctionCall(_)
                    if !slot.done && matches!(outcome.status, Status::Incomplete(_)) => {}
                item => blocks.item(item, out),
            }
        }
        put(out, "],");
        blocks
            .ending
            .write(outcome.status, self.finish.as_ref(), out);
        put(out, ",\"usage\":");
        write_usage(&outcome.usage, out);
        put(out, "}");
        body.freeze()
    }
}

struct Blocks {
    first: bool,
    ending: Ending,
}

impl Blocks {
    fn open(&mut self, text: &str, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.first, false) {
            put(out, ",");
        }
        put(out, text);
    }

    fn item(&mut self, item: &Item, out: &mut BytesMut) {
        match item {
            Item::Message(message) => {
                for part in &message.content {
                    match part {
                        Part::Text { text, .. } if !text.is_empty() => self.text(text, out),
                        Part::Refusal { refusal } => {
                            self.ending.refused = true;
                            self.text(refusal, out);
                        }
                        _ => {}
                    }
                }
            }
            Item::Reasoning(reasoning) => {
                let sealed = reasoning.encrypted_content.as_deref();
                let mut texts = reasoning
                    .summary
                    .iter()
                    .chain(&reasoning.content)
                    .filter(|text| !text.is_empty())
                    .peekable();
                if let (None, Some(sealed)) = (texts.peek(), sealed) {
                    self.open("{\"type\":\"redacted_thinking\",\"data\":", out);
                    put_str(out, sealed);
                    put(out, "}");
                }
                while let Some(text) = texts.next() {
                    self.open("{\"type\":\"thinking\",\"thinking\":", out);
                    put_str(out, text);
                    put(out, ",\"signature\":");
                    // As in a stream, it closes the last block.
                    let is_last = texts.peek().is_none();
                    put_str(out, sealed.filter(|_| is_last).unwrap_or_default());
                    put(out, "}");
                }
            }
            Item::FunctionCall(call) => {
                self.ending.calls = true;
                self.open("{\"type\":\"tool_use\",\"id\":", out);
                put_str(out, &call.call_id);
                put(out, ",\"name\":");
                put_str(out, &call.name);
                put(out, ",\"input\":");
                write_input(&call.arguments, out);
                put(out, "}");
            }
            // The dialect has no custom tools, so that none can have been asked for.
            Item::FunctionCallOutput(_)
            | Item::CustomToolCall(_)
            | Item::CustomToolCallOutput(_)
            | Item::Other { .. } => {}
        }
    }

    fn text(&mut self, text: &str, out: &mut BytesMut) {
        self.open("{\"type\":\"text\",\"text\":", out);
        put_str(out, text);
        put(out, "}");
    }
}

/// A call's arguments as an object. Models err, and what is no object cannot be written here as it is: it goes under
/// the key that the dialect's own guide gives to such text.
fn write_input(arguments: &str, out: &mut BytesMut) {
    let text = arguments.trim();
    if text.is_empty() {
        put(out, "{}");
    } else if parse_text(text).is_ok_and(|node| node.as_object().is_some()) {
        put(out, text);
    } else {
        put(out, "{\"INVALID_JSON\":");
        put_str(out, arguments);
        put(out, "}");
    }
}
