//! Where caller and upstream speak the same dialect nothing is translated: the body goes out as it came with
//! one value replaced, frames come back with one value replaced, and we only look at what the record needs.
//!
//! Frames are walked, not parsed into trees: their grammar is checked to the last byte and nothing is allocated
//! unless something has to change.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use honshu_domain::{Dialect, Error, FinishReason, NativeFrame, Usage};

use crate::chat::{read_finish, read_usage as read_chat_usage};
use crate::error::from_frame;
use crate::json::{elements, members, members_until, parse_text, put, put_str, utf8};
use crate::responses::decode::{incomplete_reason, nonsense, read_usage};
use crate::responses::encode::is_terminal;

/// Replaces the top-level `model` of a request body and, with `want_usage`, makes a Chat upstream report usage
/// in its stream. Everything else stays byte for byte. `raw` is the checked body of an `InferenceRequest`.
pub fn patch_request(
    raw: &Bytes,
    upstream_model: &str,
    dialect: Dialect,
    want_usage: bool,
) -> Bytes {
    let Ok(text) = std::str::from_utf8(raw) else {
        return raw.clone();
    };
    let want_usage =
        want_usage && matches!(dialect, Dialect::ChatCompletions | Dialect::Completions);
    let mut model = None;
    let mut options = None;
    // Most clients write the model first: the prompt behind it need not be read again.
    let _ = members_until(text, |key, place| {
        match key {
            "model" => model = Some(place),
            "stream_options" => options = Some(place),
            _ => {}
        }
        model.is_some() && (!want_usage || options.is_some())
    });
    let mut out = BytesMut::with_capacity(raw.len() + upstream_model.len() + 64);
    let mut edits: Vec<(Range<usize>, String)> = Vec::with_capacity(2);
    let mut quoted = BytesMut::with_capacity(upstream_model.len() + 2);
    put_str(&mut quoted, upstream_model);
    let quoted = String::from_utf8_lossy(&quoted).into_owned();
    // Where `}` ends the body new members can be added.
    let end = text.trim_end().len().saturating_sub(1);
    let mut added = String::new();
    // A checked body always has a model.
    edits.extend(model.map(|place| (place, quoted)));
    if want_usage {
        match options {
            Some(place) => {
                let with = with_usage(&text[place.clone()]);
                edits.push((place, with));
            }
            None => added.push_str(",\"stream_options\":{\"include_usage\":true}"),
        }
    }
    if !added.is_empty() {
        edits.push((end..end, added));
    }
    edits.sort_by_key(|(place, _)| place.start);
    let mut from = 0;
    for (place, with) in &edits {
        put(&mut out, &text[from..place.start]);
        put(&mut out, with);
        from = place.end;
    }
    put(&mut out, &text[from..]);
    out.freeze()
}

/// `stream_options` with `include_usage` set and everything else kept.
fn with_usage(options: &str) -> String {
    let mut text = String::from("{\"include_usage\":true");
    let _ = members(options, |key, place| {
        if key != "include_usage" {
            let mut quoted = BytesMut::new();
            put_str(&mut quoted, key);
            text.push(',');
            text.push_str(&String::from_utf8_lossy(&quoted));
            text.push(':');
            text.push_str(&options[place]);
        }
    });
    text.push('}');
    text
}

/// Choices that are followed in one answer.
const CHOICES_MAX: usize = 128;

/// What a native frame says, for the run's owner.
#[derive(Debug, Clone, Default)]
pub struct FrameFacts {
    /// Counts, where the frame has them.
    pub usage: Option<Usage>,
    /// Why the answer ended, in the frame that says it; in Chat the frame in which the last open choice ends.
    pub finish: Option<FinishReason>,
    /// The upstream's own error; the frame is then not to be passed on.
    pub error: Option<Error>,
    /// After this frame the upstream has nothing more to say: `[DONE]`, a Responses terminal event, a whole
    /// body. In Chat a `finish` alone already makes the answer whole, since many upstreams send no `[DONE]`;
    /// the usage may still follow it.
    pub terminal: bool,
}

/// A frame ready for the caller and its facts.
#[derive(Debug, Clone)]
pub struct Patched {
    /// What goes to the caller; absent for `[DONE]`, for errors, and for a usage chunk that only we asked for.
    pub frame: Option<NativeFrame>,
    /// What it says.
    pub facts: FrameFacts,
}

/// Rewrites the frames of an upstream that speaks the caller's dialect.
#[derive(Debug)]
pub struct FramePatcher {
    dialect: Dialect,
    /// The served model as a JSON string.
    model: String,
    caller_wants_usage: bool,
    last_event: Option<Arc<str>>,
    /// Choices that the caller asked for.
    choices: usize,
    /// Choices seen, each with why it ended.
    ends: Vec<(u32, Option<FinishReason>)>,
}

impl FramePatcher {
    /// `caller_wants_usage`: the caller set `stream_options.include_usage` itself. It has no meaning for
    /// Responses, where usage is part of the response.
    pub fn new(dialect: Dialect, served_model: Arc<str>, caller_wants_usage: bool) -> Self {
        let mut quoted = BytesMut::new();
        put_str(&mut quoted, &served_model);
        Self {
            dialect,
            model: String::from_utf8_lossy(&quoted).into_owned(),
            caller_wants_usage,
            last_event: None,
            choices: 1,
            ends: Vec::new(),
        }
    }

    /// How many choices the caller asked for (`n` in Chat): the answer is whole when so many have ended.
    #[must_use]
    pub fn with_choices(mut self, choices: u32) -> Self {
        self.choices = choices as usize;
        self
    }

    /// Takes the data of one SSE event, `[DONE]` included.
    ///
    /// # Errors
    /// `Upstream` for data that is not a JSON object. An error of the upstream's own comes in the facts.
    pub fn frame(&mut self, data: Bytes) -> Result<Patched, Error> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Patched {
                frame: None,
                facts: FrameFacts {
                    terminal: true,
                    ..FrameFacts::default()
                },
            });
        }
        let text = utf8(&data).map_err(|_| nonsense())?;
        match self.dialect {
            // The old Completions differ from Chat in nothing that is looked at.
            Dialect::ChatCompletions | Dialect::Completions => self.chat(text, &data, false),
            Dialect::Responses => self.responses_event(text, &data),
            Dialect::Messages | Dialect::Embeddings => Err(nonsense()),
        }
    }

    /// Takes the whole body of an answer that was not streamed.
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub fn whole(&mut self, body: Bytes) -> Result<Patched, Error> {
        let text = utf8(&body).map_err(|_| nonsense())?;
        match self.dialect {
            Dialect::ChatCompletions | Dialect::Completions => self.chat(text, &body, true),
            Dialect::Embeddings => self.embeddings(text, &body),
            // No upstream is asked in it.
            Dialect::Messages => Err(nonsense()),
            Dialect::Responses => {
                let mut edits = Edits::default();
                let mut facts = FrameFacts {
                    terminal: true,
                    ..FrameFacts::default()
                };
                let status = response(text, 0, &mut edits, &mut facts)?;
                // A body without a status word is not a response; `failed` is in `facts.error`.
                if status.is_none() && facts.error.is_none() {
                    return Err(nonsense());
                }
                Ok(self.patched(&body, text, &edits, facts, None, true))
            }
        }
    }

    fn chat(&mut self, text: &str, data: &Bytes, whole: bool) -> Result<Patched, Error> {
        let mut edits = Edits::default();
        let mut facts = FrameFacts {
            terminal: whole,
            ..FrameFacts::default()
        };
        let (mut error, mut usage, mut choices) = (None, None, None);
        members(text, |key, place| {
            let value = &text[place.clone()];
            match key {
                "model" => edits.model = Some(place),
                "usage" if value != "null" => usage = Some(value),
                "choices" => choices = Some(value),
                "error" if value != "null" => error = Some(value),
                _ => {}
            }
        })
        .map_err(|_| nonsense())?;
        if error.is_some() {
            facts.error = Some(from_frame(&parse_text(text).map_err(|_| nonsense())?));
            return Ok(Patched { frame: None, facts });
        }
        let choices = choices.unwrap_or("[]");
        let mut count = 0_usize;
        let mut walk = Ok(());
        let mut ended = false;
        elements(choices, |choice| {
            count += 1;
            let (mut index, mut reason) = (0, None);
            let inner = members(choice, |key, place| {
                let word = choice[place].trim_matches('"');
                match key {
                    "index" => index = word.parse().unwrap_or_default(),
                    "finish_reason" if word != "null" => reason = Some(read_finish(word)),
                    _ => {}
                }
            });
            if inner.is_err() {
                walk = inner;
            }
            ended |= reason.is_some();
            let room = self.ends.len() < CHOICES_MAX;
            match self.ends.iter_mut().find(|(known, _)| *known == index) {
                Some((_, end)) => *end = end.or(reason),
                None if room => self.ends.push((index, reason)),
                None => {}
            }
        })
        .and(walk)
        .map_err(|_| nonsense())?;
        let all_ended = self.ends.iter().all(|(_, end)| end.is_some());
        if ended && all_ended && self.ends.len() >= self.choices {
            self.ends.sort_unstable_by_key(|(index, _)| *index);
            facts.finish = self.ends.first().and_then(|(_, end)| *end);
        }
        if whole && count == 0 {
            return Err(nonsense());
        }
        if let Some(usage) = usage {
            let node = parse_text(usage).map_err(|_| nonsense())?;
            facts.usage = Some(read_chat_usage(&node));
            // The chunk with the counts and nothing else exists only because we asked.
            if count == 0 && !whole && !self.caller_wants_usage {
                return Ok(Patched { frame: None, facts });
            }
        }
        Ok(self.patched(data, text, &edits, facts, None, whole))
    }

    /// A list of vectors has no reason for its end: there all is.
    fn embeddings(&self, text: &str, body: &Bytes) -> Result<Patched, Error> {
        let mut edits = Edits::default();
        let mut facts = FrameFacts {
            terminal: true,
            finish: Some(FinishReason::Stop),
            ..FrameFacts::default()
        };
        let (mut usage, mut data, mut error) = (None, false, false);
        members(text, |key, place| {
            let value = &text[place.clone()];
            match key {
                "model" => edits.model = Some(place),
                "usage" if value != "null" => usage = Some(value),
                "data" => data = value.starts_with('['),
                "error" => error = value != "null",
                _ => {}
            }
        })
        .map_err(|_| nonsense())?;
        if error {
            facts.error = Some(from_frame(&parse_text(text).map_err(|_| nonsense())?));
            return Ok(Patched { frame: None, facts });
        }
        if !data {
            return Err(nonsense());
        }
        if let Some(usage) = usage {
            let node = parse_text(usage).map_err(|_| nonsense())?;
            facts.usage = Some(read_chat_usage(&node));
        }
        Ok(self.patched(body, text, &edits, facts, None, true))
    }

    fn responses_event(&mut self, text: &str, data: &Bytes) -> Result<Patched, Error> {
        let mut edits = Edits::default();
        let mut facts = FrameFacts::default();
        let (mut kind, mut error, mut response_at) = (None, false, None);
        members(text, |key, place| {
            let value = &text[place.clone()];
            match key {
                "type" => kind = Some(value.trim_matches('"')),
                "error" => error = value != "null",
                "response" if value.starts_with('{') => response_at = Some(place),
                _ => {}
            }
        })
        .map_err(|_| nonsense())?;
        let kind = kind.ok_or_else(nonsense)?;
        if kind == "error" || error {
            facts.error = Some(from_frame(&parse_text(text).map_err(|_| nonsense())?));
            return Ok(Patched { frame: None, facts });
        }
        facts.terminal = is_terminal(kind);
        if let Some(place) = response_at {
            response(&text[place.clone()], place.start, &mut edits, &mut facts)?;
        }
        let event = match &self.last_event {
            Some(last) if last.as_ref() == kind => Arc::clone(last),
            _ => {
                let event: Arc<str> = kind.into();
                self.last_event = Some(Arc::clone(&event));
                event
            }
        };
        let mut patched = self.patched(data, text, &edits, facts, Some(event), false);
        if patched.facts.error.is_some() {
            // The encoder says it in our words, since the error may name the upstream's account.
            patched.frame = None;
        }
        Ok(patched)
    }

    fn patched(
        &self,
        data: &Bytes,
        text: &str,
        edits: &Edits,
        facts: FrameFacts,
        event: Option<Arc<str>>,
        whole: bool,
    ) -> Patched {
        let json = match &edits.model {
            Some(place) if text[place.clone()] != self.model => {
                let mut out = BytesMut::with_capacity(data.len() + self.model.len());
                put(&mut out, &text[..place.start]);
                put(&mut out, &self.model);
                put(&mut out, &text[place.end..]);
                out.freeze()
            }
            _ => data.clone(),
        };
        Patched {
            frame: facts.error.is_none().then_some(NativeFrame {
                dialect: self.dialect,
                json,
                event,
                whole,
            }),
            facts,
        }
    }
}

#[derive(Debug, Default)]
struct Edits {
    model: Option<Range<usize>>,
}

/// Looks into a response object that stands at `base`. Gives its status, if it has one.
fn response(
    text: &str,
    base: usize,
    edits: &mut Edits,
    facts: &mut FrameFacts,
) -> Result<Option<FinishReason>, Error> {
    let (mut usage, mut status, mut details, mut output, mut error) =
        (None, None, None, None, None);
    members(text, |key, place| {
        let value = &text[place.clone()];
        match key {
            "model" => edits.model = Some(base + place.start..base + place.end),
            "usage" if value != "null" => usage = Some(value),
            "status" => status = Some(value.trim_matches('"')),
            "incomplete_details" if value != "null" => details = Some(value),
            "output" => output = Some(value),
            "error" if value != "null" => error = Some(value),
            _ => {}
        }
    })
    .map_err(|_| nonsense())?;
    if let Some(usage) = usage {
        facts.usage = Some(read_usage(&parse_text(usage).map_err(|_| nonsense())?));
    }
    facts.finish = match status {
        Some("completed") if output.is_some_and(has_calls) => Some(FinishReason::ToolCalls),
        Some("completed") => Some(FinishReason::Stop),
        Some("incomplete") => {
            let node = details
                .map(parse_text)
                .transpose()
                .map_err(|_| nonsense())?;
            let reason = node.as_ref().and_then(|node| node.find_str("reason"));
            Some(incomplete_reason(reason))
        }
        _ => None,
    };
    if status == Some("failed") || (status.is_none() && error.is_some()) {
        facts.error = Some(from_frame(&parse_text(text).map_err(|_| nonsense())?));
    }
    Ok(facts.finish)
}

/// Whether an output list asks for tools.
fn has_calls(output: &str) -> bool {
    let mut found = false;
    let _ = elements(output, |item| {
        let _ = members(item, |key, place| {
            let value = &item[place];
            found |= key == "type" && matches!(value, "\"function_call\"" | "\"custom_tool_call\"");
        });
    });
    found
}
