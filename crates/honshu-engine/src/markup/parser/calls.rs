//! The states of a parser inside of calls.

use super::super::json::{self, Begin, NAME_BYTES_MAX, Read, StringDecoder, ValueScanner, space};
use super::super::{Body, CONTROL_CLOSE, CONTROL_OPEN, held};
use super::{Arc, Parser, Piece, Section, State, Step};

/// Longest text that is held until its closing mark comes.
const HELD_BYTES_MAX: usize = 64 << 10;

impl Parser {
    /// It was no call: the mark is text, and what follows is looked at anew.
    pub(super) fn no_call(section: Section) -> (State, Step) {
        let next = if section.begun { 0 } else { section.from };
        (State::Text { passed: next }, Step::Again)
    }

    pub(super) fn section(
        &mut self,
        mut section: Section,
        last: bool,
        out: &mut Vec<Piece>,
    ) -> (State, Step) {
        let unread = section;
        let stay = |step| (State::Section(unread), step);
        let (opens, closes) = (Arc::clone(&self.opens), Arc::clone(&self.closes));
        let mut at = section.from;
        // What stands between calls and is none of them. Up to `passed` it is certain, whatever follows.
        let mut passed = 0;
        loop {
            at = space(&self.buffer, at);
            let rest = &self.buffer[at..];
            if let Some((mark, body)) = opens
                .iter()
                .find(|(mark, _)| rest.starts_with(mark.as_str()))
            {
                (at, section.body) = (at + mark.len(), *body);
                continue;
            }
            let close = closes.iter().find(|mark| rest.starts_with(mark.as_str()));
            if let Some(mark) = close.filter(|_| section.begun) {
                at += mark.len();
                passed = at;
                section.list = false;
                continue;
            }
            let glue = match rest.bytes().next() {
                Some(b'[') if !section.list => {
                    section.list = true;
                    true
                }
                Some(b',') if section.list => {
                    passed = if unread.list { at + 1 } else { passed };
                    true
                }
                // One brace too many is a common slip.
                Some(b'}') => section.begun,
                Some(b']') if section.list => {
                    section.list = false;
                    passed = if unread.list { at + 1 } else { passed };
                    true
                }
                Some(b';') => section.begun && self.markup.form.bare,
                _ => false,
            };
            if glue && !matches!(section.body, Body::Python | Body::Braces) {
                at += 1;
                continue;
            }
            if section.fenced && rest.starts_with("```") {
                (at, section.fenced) = (at + 3, false);
                passed = at;
                continue;
            }
            let held = opens
                .iter()
                .map(|(mark, _)| mark.as_str())
                .chain(closes.iter().map(String::as_str))
                .chain(section.fenced.then_some("```"))
                .any(|mark| mark.starts_with(rest));
            if !last && held {
                return stay(Step::Wait);
            }
            break;
        }
        let rest = &self.buffer[at..];
        if rest.is_empty() {
            // The end of the text, as everything else was held.
            if section.begun {
                self.consume(passed);
                self.trim = true;
                return (State::Text { passed: 0 }, Step::Again);
            }
            return Self::no_call(unread);
        }
        let fed = Section {
            from: 0,
            begun: true,
            ..section
        };
        match section.body {
            Body::Python | Body::Braces if !section.begun || at > 0 => {
                return self.held(unread, section, at, last, out);
            }
            Body::Tags { .. } if !rest.starts_with('{') => {
                let inside = matches!(section.body, Body::Tags { inside: true });
                let name = if inside { tag_name(rest) } else { Read::Not };
                match name {
                    Read::More if !last => return stay(Step::Wait),
                    Read::Is((name, length)) => {
                        self.consume(at + length);
                        self.begin(&name, out);
                        let first = true;
                        let section = Section {
                            body: Body::Tags { inside: false },
                            ..fed
                        };
                        return (
                            State::Tags {
                                name,
                                first,
                                section,
                            },
                            Step::Again,
                        );
                    }
                    _ => {}
                }
            }
            Body::Pairs if !rest.starts_with('{') => match pair_name(rest) {
                Read::More if !last => return stay(Step::Wait),
                Read::Is((name, length)) => {
                    self.consume(at + length);
                    self.begin(&name, out);
                    let first = true;
                    return (
                        State::Tags {
                            name,
                            first,
                            section: fed,
                        },
                        Step::Again,
                    );
                }
                _ => {}
            },
            Body::Json | Body::Named | Body::Tags { .. } | Body::Pairs if rest.starts_with('{') => {
                match json::head(rest, false) {
                    Read::More if !last => return stay(Step::Wait),
                    Read::Is(head) => {
                        self.consume(at + head.length);
                        self.begin(&head.name, out);
                        return (
                            self.arguments(head.arguments, head.depth, fed, out),
                            Step::Again,
                        );
                    }
                    _ => {}
                }
            }
            Body::Named => match self.named(rest) {
                Read::More if !last => return stay(Step::Wait),
                Read::Is((name, length)) => {
                    self.consume(at + length);
                    self.begin(&name, out);
                    return (self.arguments(Begin::Value, 0, fed, out), Step::Again);
                }
                _ => {}
            },
            _ => {}
        }
        if section.begun {
            self.consume(passed);
            self.trim = true;
            return (State::Text { passed: 0 }, Step::Again);
        }
        Self::no_call(unread)
    }

    pub(super) fn begin(&mut self, name: &str, out: &mut Vec<Piece>) {
        self.open_call = true;
        out.push(Piece::CallBegan {
            name: name.to_owned(),
        });
    }

    pub(super) fn end(&mut self, out: &mut Vec<Piece>) {
        self.open_call = false;
        out.push(Piece::CallEnded);
        self.over |= self.one_call;
    }

    fn arguments(
        &mut self,
        begin: Begin,
        depth: u32,
        section: Section,
        out: &mut Vec<Piece>,
    ) -> State {
        match begin {
            Begin::Value => State::Value {
                scanner: ValueScanner::default(),
                section,
                depth,
            },
            Begin::Quoted => State::Quoted {
                decoder: StringDecoder::default(),
                section,
                depth,
            },
            Begin::Known(arguments) => {
                out.push(Piece::Arguments(arguments));
                self.behind_arguments(section, depth, out)
            }
        }
    }

    fn behind_arguments(&mut self, section: Section, depth: u32, out: &mut Vec<Piece>) -> State {
        if depth > 0 {
            let scanner = ValueScanner::inside(depth);
            return State::Rest { scanner, section };
        }
        self.end(out);
        State::Section(section)
    }

    pub(super) fn value(
        &mut self,
        mut scanner: ValueScanner,
        section: Section,
        depth: u32,
        out: &mut Vec<Piece>,
    ) -> (State, Step) {
        let taken = scanner.take(&self.buffer);
        let text = self.consume(taken.length);
        if !text.is_empty() {
            out.push(Piece::Arguments(text));
        }
        if scanner.broken {
            self.end(out);
            return (State::Section(section), Step::Again);
        }
        if taken.ended {
            return (self.behind_arguments(section, depth, out), Step::Again);
        }
        (
            State::Value {
                scanner,
                section,
                depth,
            },
            Step::Wait,
        )
    }

    pub(super) fn quoted(
        &mut self,
        mut decoder: StringDecoder,
        section: Section,
        depth: u32,
        out: &mut Vec<Piece>,
    ) -> (State, Step) {
        let mut text = String::new();
        let taken = decoder.take(&self.buffer, &mut text);
        self.consume(taken.length);
        if !text.is_empty() {
            out.push(Piece::Arguments(text));
        }
        if decoder.broken {
            self.end(out);
            return (State::Section(section), Step::Again);
        }
        if taken.ended {
            return (self.behind_arguments(section, depth, out), Step::Again);
        }
        (
            State::Quoted {
                decoder,
                section,
                depth,
            },
            Step::Wait,
        )
    }

    pub(super) fn rest(
        &mut self,
        mut scanner: ValueScanner,
        section: Section,
        out: &mut Vec<Piece>,
    ) -> (State, Step) {
        let taken = scanner.take(&self.buffer);
        self.consume(taken.length);
        if taken.ended || scanner.broken {
            self.end(out);
            return (State::Section(section), Step::Again);
        }
        (State::Rest { scanner, section }, Step::Wait)
    }

    /// Reads `NAME`, separators and what else stands before the arguments.
    fn named(&self, rest: &str) -> Read<(String, usize)> {
        let Some(at) = rest.find('{') else {
            let cut = rest.len() > 2 * NAME_BYTES_MAX || rest.contains("\n\n");
            return if cut { Read::Not } else { Read::More };
        };
        let header = &rest[..at];
        let inner = |name: &'static str| self.markup.pattern(name);
        let parts = header.split_once(inner("<｜tool▁sep｜>"));
        let name = match parts {
            // The kind of the tool stands first, the name behind it.
            Some(("function", name)) => name,
            Some((name, _)) => name,
            None => {
                let marks = ["[CALL_ID]", "[ARGS]", "<|tool_call_argument_begin|>"];
                let end = marks
                    .iter()
                    .filter_map(|mark| header.find(inner(mark)))
                    .min();
                match end {
                    Some(end) => &header[..end],
                    None => return Read::Not,
                }
            }
        };
        let name = name.lines().next().unwrap_or_default().trim();
        let name = name.strip_prefix("functions.").unwrap_or(name);
        let name = match name.rsplit_once(':') {
            Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => name,
        };
        if !is_name(name) {
            return Read::Not;
        }
        Read::Is((name.to_owned(), at))
    }

    fn held(
        &mut self,
        unread: Section,
        section: Section,
        at: usize,
        last: bool,
        out: &mut Vec<Piece>,
    ) -> (State, Step) {
        let close = self
            .markup
            .form
            .closes
            .first()
            .map_or("", |name| self.markup.pattern(name));
        let (end, behind) = match self.buffer[at..].find(close) {
            Some(length) => (at + length, at + length + close.len()),
            None if last => (self.buffer.len(), self.buffer.len()),
            None if self.buffer.len() > HELD_BYTES_MAX => return Self::no_call(unread),
            None => return (State::Section(unread), Step::Wait),
        };
        let text = self.buffer[at..end].replace([CONTROL_OPEN, CONTROL_CLOSE], "");
        let calls = match section.body {
            Body::Python => held::python(&text),
            _ => held::braces(&text),
        };
        let Some(calls) = calls.filter(|calls| !calls.is_empty()) else {
            return Self::no_call(unread);
        };
        self.consume(behind);
        for (name, arguments) in calls {
            if self.over {
                break;
            }
            self.begin(&name, out);
            out.push(Piece::Arguments(arguments));
            self.end(out);
        }
        let section = Section {
            from: 0,
            begun: true,
            body: Body::Json,
            ..section
        };
        (State::Section(section), Step::Again)
    }

    pub(super) fn tags(
        &mut self,
        name: String,
        mut first: bool,
        section: Section,
        last: bool,
        out: &mut Vec<Piece>,
    ) -> (State, Step) {
        let tagging = if section.body == Body::Pairs {
            &PAIRS
        } else {
            &PARAMETERS
        };
        let stay = |name, first| {
            let state = State::Tags {
                name,
                first,
                section,
            };
            (state, Step::Wait)
        };
        loop {
            let at = space(&self.buffer, 0);
            let rest = &self.buffer[at..];
            let begin = if first { "{" } else { ", " };
            if let Some(parameter) = rest.strip_prefix(tagging.open) {
                let (key, length) = match tagging.key(parameter) {
                    Read::Is(read) => read,
                    Read::More if !last => return stay(name, first),
                    _ => break,
                };
                let key_json = serde_json::Value::from(key.as_str());
                let value = &parameter[length..];
                let Some(end) = value.find(tagging.close) else {
                    if !last {
                        return stay(name, first);
                    }
                    // Cut off: the caller sees arguments that are cut off too.
                    let value = value.strip_prefix('\n').unwrap_or(value);
                    let text = serde_json::Value::from(value).to_string();
                    let cut = text.strip_suffix('"').unwrap_or(&text);
                    out.push(Piece::Arguments(format!("{begin}{key_json}: {cut}")));
                    self.consume(self.buffer.len());
                    self.end(out);
                    return (State::Section(section), Step::Again);
                };
                let text = &value[..end];
                let text = text.strip_prefix('\n').unwrap_or(text);
                let text = text.strip_suffix('\n').unwrap_or(text);
                let value = self.tools.value(&name, &key, text);
                out.push(Piece::Arguments(format!("{begin}{key_json}: {value}")));
                first = false;
                self.consume(at + tagging.open.len() + length + end + tagging.close.len());
                continue;
            }
            if rest.starts_with(tagging.end) {
                self.consume(at + tagging.end.len());
                break;
            }
            let may_come = tagging.open.starts_with(rest) || tagging.end.starts_with(rest);
            if !last && may_come {
                return stay(name, first);
            }
            break;
        }
        out.push(Piece::Arguments(if first { "{}" } else { "}" }.to_owned()));
        self.end(out);
        (State::Section(section), Step::Again)
    }
}

/// The tags around a parameter: `open`, the key, `key_end`, `value`, the value, `close`; `end` ends the call.
struct Tagging {
    open: &'static str,
    key_end: &'static str,
    value: &'static str,
    close: &'static str,
    end: &'static str,
}

const PARAMETERS: Tagging = Tagging {
    open: "<parameter=",
    key_end: ">",
    value: "",
    close: "</parameter>",
    end: "</function>",
};
const PAIRS: Tagging = Tagging {
    open: "<arg_key>",
    key_end: "</arg_key>",
    value: "<arg_value>",
    close: "</arg_value>",
    end: "</tool_call>",
};

impl Tagging {
    /// Reads the key and what stands between it and the value.
    fn key(&self, text: &str) -> Read<(String, usize)> {
        let Some(at) = text.find(self.key_end) else {
            let longest = NAME_BYTES_MAX + self.key_end.len();
            return if text.len() > longest || text.contains('\n') {
                Read::Not
            } else {
                Read::More
            };
        };
        let key = text[..at].trim();
        if key.is_empty() || key.len() > NAME_BYTES_MAX || key.contains(['\n', '<']) {
            return Read::Not;
        }
        let behind = at + self.key_end.len();
        if self.value.is_empty() {
            return Read::Is((key.to_owned(), behind));
        }
        let behind = space(text, behind);
        let rest = &text[behind..];
        if rest.starts_with(self.value) {
            Read::Is((key.to_owned(), behind + self.value.len()))
        } else if self.value.starts_with(rest) {
            Read::More
        } else {
            Read::Not
        }
    }
}

/// Reads the name that stands alone before pairs of keys and values.
fn pair_name(text: &str) -> Read<(String, usize)> {
    let Some(at) = text.find(['\n', '<']) else {
        return if text.len() > NAME_BYTES_MAX {
            Read::Not
        } else {
            Read::More
        };
    };
    let name = text[..at].trim();
    let behind = space(text, at);
    let rest = &text[behind..];
    let marks = [PAIRS.open, PAIRS.end];
    if !is_name(name) {
        Read::Not
    } else if marks.iter().any(|mark| rest.starts_with(mark)) {
        Read::Is((name.to_owned(), behind))
    } else if marks.iter().any(|mark| mark.starts_with(rest)) {
        Read::More
    } else {
        Read::Not
    }
}

/// Reads `NAME>`.
fn tag_name(text: &str) -> Read<(String, usize)> {
    match text.find(['>', '\n', '<']) {
        Some(at) if text[at..].starts_with('>') && is_name(text[..at].trim()) => {
            Read::Is((text[..at].trim().to_owned(), at + 1))
        }
        None if text.len() <= NAME_BYTES_MAX => Read::More,
        _ => Read::Not,
    }
}

/// Whether a text that stands where a function's name is expected can be one.
fn is_name(text: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(word)
}
