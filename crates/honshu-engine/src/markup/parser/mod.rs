//! The incremental reader of a model's text: text in, pieces of an answer out.
//!
//! What it answers depends on the text, never on how it was cut into pieces: text that could still become a mark is
//! held back, and what only looked like one is given on as text.

mod calls;
mod channels;

use std::sync::Arc;

use super::json::{self, Read, StringDecoder, ValueScanner, space};
use super::{Body, CONTROL_CLOSE, CONTROL_OPEN, Markup, Tools, control};

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// More of the answer's text; `at` is its place in all that was fed, in bytes.
    Text { text: String, at: usize },
    /// More reasoning.
    Reasoning(String),
    /// The text that follows is a message of its own, of this phase.
    Message { phase: &'static str },
    /// A call begins.
    CallBegan { name: String },
    /// More of the arguments of the call that began last.
    Arguments(String),
    /// The call is over.
    CallEnded,
}

/// Where an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Start {
    /// The prompt ends inside the model's reasoning.
    pub in_reasoning: bool,
    /// Only one call is wanted.
    pub one_call: bool,
    /// The prompt had no template, so that nothing in the answer is a mark.
    pub plain: bool,
}

#[derive(Debug)]
enum State {
    /// At the start of an answer or behind reasoning: a mark of reasoning or a bare call may come.
    Lead,
    Reasoning,
    /// The first `passed` bytes are no mark.
    Text {
        passed: usize,
    },
    /// A call must follow, or text. The first `from` bytes are the mark; no call has begun unless `begun`.
    Section(Section),
    Value {
        scanner: ValueScanner,
        section: Section,
        depth: u32,
    },
    Quoted {
        decoder: StringDecoder,
        section: Section,
        depth: u32,
    },
    /// The rest of a call's object.
    Rest {
        scanner: ValueScanner,
        section: Section,
    },
    Tags {
        name: String,
        first: bool,
        section: Section,
    },
    /// The header of a channel.
    Header,
    Channel(Channel),
}

#[derive(Debug, Clone, Copy)]
struct Section {
    from: usize,
    body: Body,
    begun: bool,
    list: bool,
    fenced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Reasoning,
    Text,
    Call,
}

enum Step {
    Again,
    Wait,
}

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct Parser {
    markup: Arc<Markup>,
    tools: Arc<Tools>,
    one_call: bool,
    plain: bool,
    state: State,
    /// The marks that begin a call, and those that end one.
    opens: Arc<[(String, Body)]>,
    closes: Arc<[String]>,
    buffer: String,
    /// Bytes that were fed before those in the buffer.
    taken: usize,
    /// White space at the start is dropped.
    trim: bool,
    over: bool,
    /// A call has begun and not ended.
    open_call: bool,
}

impl Parser {
    pub(crate) fn new(markup: Arc<Markup>, tools: Arc<Tools>, start: Start) -> Self {
        let calls = !start.plain && (!tools.is_empty() || markup.has_channels());
        let opens = markup.opens().filter(|_| calls);
        let closes = markup.closes();
        Self {
            opens: opens
                .map(|(name, body)| (markup.pattern(name).to_owned(), *body))
                .collect(),
            closes: closes.map(|name| markup.pattern(name).to_owned()).collect(),
            markup,
            tools,
            one_call: start.one_call,
            plain: start.plain,
            state: if start.plain {
                State::Text { passed: 0 }
            } else if start.in_reasoning {
                State::Reasoning
            } else {
                State::Lead
            },
            buffer: String::new(),
            taken: 0,
            trim: start.in_reasoning,
            over: false,
            open_call: false,
        }
    }

    /// Takes more text of the model's.
    pub(crate) fn feed(&mut self, text: &str, out: &mut Vec<Piece>) {
        if text.contains([CONTROL_OPEN, CONTROL_CLOSE]) {
            let plain = text.replace([CONTROL_OPEN, CONTROL_CLOSE], "\u{FFFD}");
            self.buffer.push_str(&plain);
        } else {
            self.buffer.push_str(text);
        }
        self.run(false, out);
    }

    /// Takes a control token.
    pub(crate) fn feed_control(&mut self, name: &str, out: &mut Vec<Piece>) {
        self.buffer.push_str(&control(name));
        self.run(false, out);
    }

    /// No more text comes.
    pub(crate) fn finish(&mut self, out: &mut Vec<Piece>) {
        self.run(true, out);
        if self.open_call {
            self.open_call = false;
            out.push(Piece::CallEnded);
        }
        self.over = true;
    }

    /// The place behind all that was fed, in bytes.
    pub(crate) fn position(&self) -> usize {
        self.taken + self.buffer.len()
    }

    /// Whether the model is reasoning now.
    pub(crate) fn is_reasoning(&self) -> bool {
        matches!(
            self.state,
            State::Reasoning | State::Channel(Channel::Reasoning)
        )
    }

    /// Whether all that was wanted has come.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    fn run(&mut self, last: bool, out: &mut Vec<Piece>) {
        while !self.over {
            let state = std::mem::replace(&mut self.state, State::Lead);
            let (next, step) = match state {
                State::Lead => self.lead(last),
                State::Reasoning => self.reasoning(last, out),
                State::Text { passed } => self.text(passed, last, out),
                State::Section(section) => self.section(section, last, out),
                State::Value {
                    scanner,
                    section,
                    depth,
                } => self.value(scanner, section, depth, out),
                State::Quoted {
                    decoder,
                    section,
                    depth,
                } => self.quoted(decoder, section, depth, out),
                State::Rest { scanner, section } => self.rest(scanner, section, out),
                State::Tags {
                    name,
                    first,
                    section,
                } => self.tags(name, first, section, last, out),
                State::Header => self.header(last, out),
                State::Channel(channel) => self.channel(channel, last, out),
            };
            self.state = next;
            if matches!(step, Step::Wait) {
                return;
            }
        }
    }

    fn consume(&mut self, length: usize) -> String {
        self.taken += length;
        self.buffer.drain(..length).collect()
    }

    /// Gives on text of the answer, without the names of control tokens.
    fn send_text(&mut self, length: usize, out: &mut Vec<Piece>) {
        let mut at = self.taken;
        let raw = self.consume(length);
        for (index, part) in raw.split(CONTROL_OPEN).enumerate() {
            let part = if index == 0 {
                part
            } else {
                at += CONTROL_OPEN.len_utf8();
                match part.split_once(CONTROL_CLOSE) {
                    Some((name, text)) => {
                        at += name.len() + CONTROL_CLOSE.len_utf8();
                        text
                    }
                    None => part,
                }
            };
            let shown = if self.trim { part.trim_start() } else { part };
            if !shown.is_empty() {
                self.trim = false;
                out.push(Piece::Text {
                    text: shown.to_owned(),
                    at: at + part.len() - shown.len(),
                });
            }
            at += part.len();
        }
    }

    fn send_reasoning(&mut self, length: usize, out: &mut Vec<Piece>) {
        let raw = self.consume(length);
        let text = without_controls(&raw);
        let shown = if self.trim { text.trim_start() } else { &text };
        if !shown.is_empty() {
            self.trim = false;
            out.push(Piece::Reasoning(shown.to_owned()));
        }
    }

    fn lead(&mut self, last: bool) -> (State, Step) {
        let start = space(&self.buffer, 0);
        let rest = &self.buffer[start..];
        let wait = |rest: &str, mark: &str| !last && mark.starts_with(rest);
        if rest.is_empty() && !last {
            return (State::Lead, Step::Wait);
        }
        if self.markup.has_channels() {
            let opens = Arc::clone(&self.opens);
            let begins = |text: &str| {
                opens
                    .iter()
                    .any(|(mark, _)| text.starts_with(mark.as_str()))
            };
            if begins(rest) || rest.starts_with("to=") {
                return (State::Header, Step::Again);
            }
            if opens.iter().any(|(mark, _)| wait(rest, mark)) || wait(rest, "to=") {
                return (State::Lead, Step::Wait);
            }
            return (State::Text { passed: 0 }, Step::Again);
        }
        let think = self.markup.pattern(self.markup.thought.open);
        if rest.starts_with(think) {
            let length = start + think.len();
            self.consume(length);
            self.trim = true;
            return (State::Reasoning, Step::Again);
        }
        if wait(rest, think) {
            return (State::Lead, Step::Wait);
        }
        if self.markup.form.bare && !self.tools.is_empty() {
            match bare(rest, last) {
                Read::More => return (State::Lead, Step::Wait),
                Read::Is((at, section)) => {
                    if let Read::Is(head) = json::head(&rest[at..], true)
                        && self.tools.has(&head.name)
                    {
                        let from = start + at;
                        let section = Section { from, ..section };
                        return (State::Section(section), Step::Again);
                    }
                }
                Read::Not => {}
            }
        }
        (State::Text { passed: 0 }, Step::Again)
    }

    fn reasoning(&mut self, last: bool, out: &mut Vec<Piece>) -> (State, Step) {
        let close = self.markup.pattern(self.markup.thought.close).to_owned();
        if let Some(at) = self.buffer.find(&close) {
            let thought = self.buffer[..at].trim_end().len();
            self.send_reasoning(thought, out);
            self.consume(at - thought + close.len());
            self.trim = true;
            return (State::Lead, Step::Again);
        }
        let mut length = self.buffer.len();
        if !last {
            length -= beginning(&self.buffer, &close);
            length = self.buffer[..length].trim_end().len();
        }
        self.send_reasoning(length, out);
        (State::Reasoning, Step::Wait)
    }

    fn text(&mut self, passed: usize, last: bool, out: &mut Vec<Piece>) -> (State, Step) {
        let opens = Arc::clone(&self.opens);
        let think = self.markup.pattern(self.markup.thought.open).to_owned();
        let think_is_control = !self.plain && think.starts_with(CONTROL_OPEN);
        let searched = &self.buffer[passed.min(self.buffer.len())..];
        let found = opens
            .iter()
            .filter_map(|(mark, body)| {
                Some((
                    passed + searched.find(mark.as_str())?,
                    mark.len(),
                    Some(*body),
                ))
            })
            .chain(
                think_is_control
                    .then(|| Some((passed + searched.find(&think)?, think.len(), None)))
                    .flatten(),
            )
            .min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)));
        if let Some((at, length, body)) = found {
            let shown = self.buffer[..at].trim_end().len().max(passed);
            self.send_text(shown, out);
            // White space before a call goes with it, and stays with a mark that is none.
            let length = at - shown + length;
            let next = match body {
                Some(Body::Channel) => State::Header,
                Some(body) => State::Section(Section {
                    from: length,
                    body,
                    begun: false,
                    list: false,
                    fenced: false,
                }),
                None => {
                    self.consume(length);
                    self.trim = true;
                    State::Reasoning
                }
            };
            return (next, Step::Again);
        }
        let mut length = self.buffer.len();
        if !last {
            let held = opens
                .iter()
                .map(|(mark, _)| beginning(searched, mark))
                .max()
                .unwrap_or(0);
            length -= held;
            if !opens.is_empty() {
                length = self.buffer[..length].trim_end().len();
            }
        }
        let length = length.max(passed.min(self.buffer.len()));
        self.send_text(length, out);
        (State::Text { passed: 0 }, Step::Wait)
    }
}

/// Where the JSON of a call without a mark begins: at once, in a list, or in a block of code.
fn bare(rest: &str, last: bool) -> Read<(usize, Section)> {
    const FENCE: &str = "```json";
    let mut section = Section {
        from: 0,
        body: Body::Json,
        begun: true,
        list: false,
        fenced: false,
    };
    let mut at = 0;
    if rest.starts_with(FENCE) {
        section.fenced = true;
        at = space(rest, FENCE.len());
    } else if !last && FENCE.starts_with(rest) {
        return Read::More;
    }
    if rest[at..].starts_with('[') {
        at = space(rest, at + 1);
        section.list = true;
    }
    match json::head(&rest[at..], true) {
        Read::More if last => Read::Not,
        Read::More => Read::More,
        Read::Not => Read::Not,
        Read::Is(_) => Read::Is((at, section)),
    }
}

fn without_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match c {
            CONTROL_OPEN => inside = true,
            CONTROL_CLOSE => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// How many bytes at the end of `text` may be the beginning of `mark`.
fn beginning(text: &str, mark: &str) -> usize {
    mark.char_indices()
        .map(|(at, _)| at)
        .rev()
        .find(|length| *length > 0 && text.ends_with(&mark[..*length]))
        .unwrap_or(0)
}
