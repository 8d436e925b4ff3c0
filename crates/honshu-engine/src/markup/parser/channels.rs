//! The states of a parser in answers that have channels (Harmony).

use super::super::json::space;
use super::super::{CONTROL_CLOSE, CONTROL_OPEN};
use super::{Channel, Parser, Piece, State, Step, beginning, without_controls};

/// Longest header of a channel.
const HEADER_BYTES_MAX: usize = 1 << 10;

impl Parser {
    pub(super) fn header(&mut self, last: bool, out: &mut Vec<Piece>) -> (State, Step) {
        let mark = self.markup.pattern("<|message|>");
        let Some(at) = self.buffer.find(mark) else {
            if last {
                self.consume(self.buffer.len());
                return (State::Text { passed: 0 }, Step::Wait);
            }
            if self.buffer.len() > HEADER_BYTES_MAX {
                return (
                    State::Text {
                        passed: self.buffer.len(),
                    },
                    Step::Again,
                );
            }
            return (State::Header, Step::Wait);
        };
        let length = at + mark.len();
        let header = self.consume(length);
        let header = header.replace([CONTROL_OPEN, CONTROL_CLOSE], " ");
        let header = header.replace("<|", " <|").replace("|>", "|> ");
        let mut words = header.split_whitespace();
        let recipient = words.clone().find_map(|word| word.strip_prefix("to="));
        let channel = words
            .by_ref()
            .skip_while(|word| *word != "<|channel|>")
            .nth(1)
            .unwrap_or("final");
        self.trim = true;
        if let Some(recipient) = recipient {
            let name = recipient.strip_prefix("functions.").unwrap_or(recipient);
            self.begin(name, out);
            return (State::Channel(Channel::Call), Step::Again);
        }
        let next = match channel {
            "analysis" => Channel::Reasoning,
            "commentary" => {
                out.push(Piece::Message {
                    phase: "commentary",
                });
                Channel::Text
            }
            _ => {
                out.push(Piece::Message {
                    phase: "final_answer",
                });
                Channel::Text
            }
        };
        (State::Channel(next), Step::Again)
    }

    pub(super) fn channel(
        &mut self,
        channel: Channel,
        last: bool,
        out: &mut Vec<Piece>,
    ) -> (State, Step) {
        let ends = [
            "<|end|>",
            "<|call|>",
            "<|return|>",
            "<|start|>",
            "<|channel|>",
        ];
        let ends = ends.map(|name| self.markup.pattern(name).to_owned());
        let found = ends
            .iter()
            .enumerate()
            .filter_map(|(index, mark)| Some((self.buffer.find(mark.as_str())?, index)))
            .min();
        let mut length = found.map_or(self.buffer.len(), |(at, _)| at);
        if found.is_none() && !last {
            let held = ends.iter().map(|mark| beginning(&self.buffer, mark)).max();
            length -= held.unwrap_or(0);
        }
        if found.is_some() || !last {
            length = self.buffer[..length].trim_end().len();
        }
        match channel {
            Channel::Reasoning => self.send_reasoning(length, out),
            Channel::Text => self.send_text(length, out),
            Channel::Call => {
                let raw = self.consume(length);
                let text = without_controls(&raw);
                let text = if self.trim { text.trim_start() } else { &text };
                if !text.is_empty() {
                    self.trim = false;
                    out.push(Piece::Arguments(text.to_owned()));
                }
            }
        }
        let Some((_, index)) = found else {
            if last && channel == Channel::Call {
                self.end_channel_call(out);
            }
            return (State::Channel(channel), Step::Wait);
        };
        // A start or a channel begins the next header; an end mark is done with.
        let rest = space(&self.buffer, 0) + if index < 3 { ends[index].len() } else { 0 };
        self.consume(rest);
        if channel == Channel::Call {
            self.end_channel_call(out);
        }
        self.trim = true;
        (State::Lead, Step::Again)
    }

    fn end_channel_call(&mut self, out: &mut Vec<Piece>) {
        if self.trim {
            // Nothing was written.
            out.push(Piece::Arguments("{}".to_owned()));
            self.trim = false;
        }
        self.end(out);
    }
}
