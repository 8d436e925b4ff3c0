//! Writes the output items of one choice: messages, reasoning and calls, with ids, parts and deltas.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use honshu_domain::{
    CustomToolCall, Entropy, FinishReason, FunctionCall, InputReader, Item, Message, Part,
    PartKind, PublicId, Reasoning, Role, RunEvent, TokenLogprob, TopLogprob,
};

use super::answer::Shape;
use crate::job::{self, Token};
use crate::markup::{Markup, Parser, Piece};

/// Where a writer's events go.
pub(super) struct Out<'a> {
    pub events: &'a mut VecDeque<RunEvent>,
    pub outputs: &'a mut u32,
    pub entropy: &'a dyn Entropy,
}

/// Writes the items of one choice.
pub(super) struct Writer {
    choice: u32,
    markup: Arc<Markup>,
    parser: Parser,
    /// The names of custom tools, which the model takes for functions.
    custom: Arc<HashSet<String>>,
    pieces: Vec<Piece>,
    /// Log probabilities that were not sent, with the places of their tokens in the model's text.
    logprobs: VecDeque<(usize, TokenLogprob)>,
    open: Option<Open>,
    /// Of the next message.
    phase: Option<&'static str>,
    wrote_message: bool,
    wrote_call: bool,
    reasoning_tokens: u32,
}

enum Open {
    Part(OpenPart),
    Call {
        output_index: u32,
        item: Item,
        /// What takes the input of a custom tool out of the arguments that the model writes.
        reader: Option<InputReader>,
    },
}

struct OpenPart {
    output_index: u32,
    id: Arc<str>,
    kind: PartKind,
    phase: Option<&'static str>,
    text: String,
    logprobs: Vec<TokenLogprob>,
}

impl Writer {
    pub(super) fn new(choice: u32, shape: &Shape) -> Self {
        let (markup, tools) = (Arc::clone(&shape.markup), Arc::clone(&shape.tools));
        Self {
            choice,
            parser: Parser::new(Arc::clone(&markup), tools, shape.start),
            markup,
            custom: Arc::clone(&shape.custom),
            pieces: Vec::new(),
            logprobs: VecDeque::new(),
            open: None,
            phase: None,
            wrote_message: false,
            wrote_call: false,
            reasoning_tokens: 0,
        }
    }

    pub(super) fn choice(&self) -> u32 {
        self.choice
    }

    pub(super) fn reasoning_tokens(&self) -> u32 {
        self.reasoning_tokens
    }

    /// Whether all that was wanted has come, so that the model need not go on.
    pub(super) fn is_over(&self) -> bool {
        self.parser.is_over()
    }

    pub(super) fn take(
        &mut self,
        text: &str,
        logprobs: &[job::TokenLogprob],
        tokens: u32,
        out: &mut Out<'_>,
    ) {
        let start = self.parser.position();
        let mut place = start;
        for logprob in logprobs {
            // A token of which only a part of a character has come belongs to the text all the same.
            let last = (start + text.len()).saturating_sub(1).max(start);
            self.logprobs
                .push_back((place.min(last), to_logprob(logprob)));
            place += logprob.bytes.len();
        }
        let reasoning = self.parser.is_reasoning();
        self.parser.feed(text, &mut self.pieces);
        self.count(reasoning, tokens);
        self.write_pieces(out);
    }

    pub(super) fn take_control(&mut self, token: Token, tokens: u32, out: &mut Out<'_>) {
        let reasoning = self.parser.is_reasoning();
        if let Some(name) = self.markup.control_name(token) {
            self.parser.feed_control(name, &mut self.pieces);
        }
        self.count(reasoning, tokens);
        self.write_pieces(out);
    }

    fn count(&mut self, reasoning: bool, tokens: u32) {
        if reasoning || self.parser.is_reasoning() {
            self.reasoning_tokens += tokens;
        }
    }

    fn write_pieces(&mut self, out: &mut Out<'_>) {
        let mut pieces = std::mem::take(&mut self.pieces);
        for piece in pieces.drain(..) {
            match piece {
                Piece::Text { text, at } => self.write_text(&text, at, out),
                Piece::Reasoning(text) => {
                    self.write_part(PartKind::ReasoningText, &text, Vec::new(), out);
                }
                Piece::Message { phase } => {
                    self.close(out);
                    self.phase = Some(phase);
                }
                Piece::CallBegan { name } => self.begin_call(&name, out),
                Piece::Arguments(delta) => {
                    if let Some(Open::Call {
                        output_index,
                        item,
                        reader,
                    }) = &mut self.open
                    {
                        let delta = match reader {
                            Some(reader) => reader.take(&delta),
                            None => delta,
                        };
                        write_call(*output_index, item, delta, out);
                    }
                }
                Piece::CallEnded => self.close(out),
            }
        }
        self.pieces = pieces;
    }

    fn write_text(&mut self, text: &str, at: usize, out: &mut Out<'_>) {
        while self.logprobs.front().is_some_and(|(place, _)| *place < at) {
            self.logprobs.pop_front();
        }
        let mut logprobs = Vec::new();
        while let Some((_, logprob)) = self
            .logprobs
            .pop_front_if(|(place, _)| *place < at + text.len())
        {
            logprobs.push(logprob);
        }
        self.write_part(PartKind::Text, text, logprobs, out);
    }

    fn write_part(
        &mut self,
        kind: PartKind,
        text: &str,
        logprobs: Vec<TokenLogprob>,
        out: &mut Out<'_>,
    ) {
        if !matches!(&self.open, Some(Open::Part(part)) if part.kind == kind) {
            self.close(out);
            self.open_part(kind, out);
        }
        self.wrote_message |= kind == PartKind::Text;
        let Some(Open::Part(part)) = &mut self.open else {
            return;
        };
        part.text.push_str(text);
        part.logprobs.extend(logprobs.iter().cloned());
        out.events.push_back(RunEvent::Delta {
            output_index: part.output_index,
            part_index: 0,
            kind,
            text: text.to_owned(),
            logprobs,
        });
    }

    fn open_part(&mut self, kind: PartKind, out: &mut Out<'_>) {
        let reasoning = kind == PartKind::ReasoningText;
        let phase = self.phase.filter(|_| !reasoning);
        let id: Arc<str> = PublicId::generate(if reasoning { "rs_" } else { "msg_" }, out.entropy)
            .as_str()
            .into();
        let item = if reasoning {
            Item::Reasoning(Reasoning {
                id: Some(Arc::clone(&id)),
                ..Reasoning::default()
            })
        } else {
            message(Arc::clone(&id), phase, Vec::new())
        };
        let output_index = self.start_item(item, out);
        out.events.push_back(RunEvent::PartStarted {
            output_index,
            part_index: 0,
            kind,
        });
        self.open = Some(Open::Part(OpenPart {
            output_index,
            id,
            kind,
            phase,
            text: String::new(),
            logprobs: Vec::new(),
        }));
    }

    fn begin_call(&mut self, name: &str, out: &mut Out<'_>) {
        self.close(out);
        self.wrote_call = true;
        let new_id = |prefix| Arc::from(PublicId::generate(prefix, out.entropy).as_str());
        let is_custom = self.custom.contains(name);
        let item = if is_custom {
            Item::CustomToolCall(CustomToolCall {
                id: Some(new_id("ctc_")),
                call_id: new_id("call_"),
                name: name.into(),
                input: String::new(),
            })
        } else {
            Item::FunctionCall(FunctionCall {
                id: Some(new_id("fc_")),
                call_id: new_id("call_"),
                name: name.into(),
                arguments: String::new(),
            })
        };
        let output_index = self.start_item(item.clone(), out);
        self.open = Some(Open::Call {
            output_index,
            item,
            reader: is_custom.then(InputReader::default),
        });
    }

    fn start_item(&self, item: Item, out: &mut Out<'_>) -> u32 {
        let output_index = *out.outputs;
        *out.outputs += 1;
        out.events.push_back(RunEvent::ItemStarted {
            output_index,
            choice: self.choice,
            item,
        });
        output_index
    }

    fn close(&mut self, out: &mut Out<'_>) {
        let (output_index, item) = match self.open.take() {
            None => return,
            Some(Open::Call {
                output_index,
                mut item,
                reader,
            }) => {
                if let Some(reader) = reader {
                    write_call(output_index, &mut item, reader.finish(), out);
                }
                (output_index, item)
            }
            Some(Open::Part(part)) => {
                let OpenPart {
                    output_index, kind, ..
                } = part;
                out.events.push_back(RunEvent::PartDone {
                    output_index,
                    part_index: 0,
                    kind,
                });
                let item = if kind == PartKind::ReasoningText {
                    Item::Reasoning(Reasoning {
                        id: Some(part.id),
                        content: vec![part.text],
                        ..Reasoning::default()
                    })
                } else {
                    let content = Part::Text {
                        text: part.text,
                        annotations: Vec::new(),
                        logprobs: part.logprobs,
                    };
                    message(part.id, part.phase, vec![content])
                };
                (output_index, item)
            }
        };
        out.events
            .push_back(RunEvent::ItemDone { output_index, item });
    }

    /// Ends the choice; says why it ended.
    pub(super) fn finish(&mut self, reason: FinishReason, out: &mut Out<'_>) -> FinishReason {
        if !self.parser.is_over() {
            self.parser.finish(&mut self.pieces);
            self.write_pieces(out);
        }
        let rest: Vec<TokenLogprob> = self
            .logprobs
            .drain(..)
            .map(|(_, logprob)| logprob)
            .collect();
        let in_text = matches!(&self.open, Some(Open::Part(part)) if part.kind == PartKind::Text);
        if in_text && !rest.is_empty() {
            self.write_part(PartKind::Text, "", rest, out);
        }
        self.close(out);
        if !self.wrote_message && !self.wrote_call && !self.parser.is_reasoning() {
            // An empty answer is still an answer.
            self.open_part(PartKind::Text, out);
            self.close(out);
        }
        match reason {
            FinishReason::Stop if self.wrote_call => FinishReason::ToolCalls,
            other => other,
        }
    }
}

/// Adds to the arguments or the input of a call.
fn write_call(output_index: u32, item: &mut Item, delta: String, out: &mut Out<'_>) {
    if delta.is_empty() {
        return;
    }
    if let Some(text) = item.call_text_mut() {
        text.push_str(&delta);
    }
    out.events.push_back(RunEvent::ArgumentsDelta {
        output_index,
        delta,
    });
}

fn message(id: Arc<str>, phase: Option<&'static str>, content: Vec<Part>) -> Item {
    Item::Message(Message {
        id: Some(id),
        role: Role::Assistant,
        content,
        phase: phase.map(Into::into),
        name: None,
    })
}

fn to_logprob(logprob: &job::TokenLogprob) -> TokenLogprob {
    TokenLogprob {
        token: String::from_utf8_lossy(&logprob.bytes).into_owned(),
        bytes: logprob.bytes.clone(),
        logprob: logprob.logprob,
        top: logprob
            .top
            .iter()
            .map(|top| TopLogprob {
                token: String::from_utf8_lossy(&top.bytes).into_owned(),
                bytes: top.bytes.clone(),
                logprob: top.logprob,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markup::{Start, Tools};

    struct Zeros;
    impl Entropy for Zeros {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    fn shape(template: &str, start: Start) -> Shape {
        let tools = [
            ("f".to_owned(), serde_json::json!({})),
            ("patch".to_owned(), serde_json::json!({})),
        ];
        Shape {
            markup: Arc::new(Markup::detect(template, true, |_| None)),
            tools: Arc::new(Tools::new(tools)),
            custom: Arc::new(["patch".to_owned()].into()),
            start,
        }
    }

    /// Writes `pieces` of two tokens each and answers the items, after checking that deltas and items agree.
    fn items(
        shape: &Shape,
        pieces: &[&str],
        reason: FinishReason,
    ) -> (Vec<String>, FinishReason, u32) {
        let (mut events, mut outputs) = (VecDeque::new(), 0);
        let mut out = Out {
            events: &mut events,
            outputs: &mut outputs,
            entropy: &Zeros,
        };
        let mut writer = Writer::new(0, shape);
        for piece in pieces {
            writer.take(piece, &[], 2, &mut out);
        }
        let reason = writer.finish(reason, &mut out);
        let mut sent = String::new();
        let mut done = Vec::new();
        for event in events {
            match event {
                RunEvent::ItemStarted { .. } => sent.clear(),
                RunEvent::Delta { text, .. } => sent.push_str(&text),
                RunEvent::ArgumentsDelta { delta, .. } => sent.push_str(&delta),
                RunEvent::ItemDone { item, .. } => {
                    let (kind, text) = match item {
                        Item::Message(message) => {
                            let text = match &message.content[..] {
                                [Part::Text { text, .. }] => text.clone(),
                                other => panic!("{other:?}"),
                            };
                            (
                                message.phase.as_deref().unwrap_or("message").to_owned(),
                                text,
                            )
                        }
                        Item::Reasoning(item) => ("reasoning".to_owned(), item.content.concat()),
                        Item::FunctionCall(call) => (format!("call {}", call.name), call.arguments),
                        Item::CustomToolCall(call) => (format!("custom {}", call.name), call.input),
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(sent, text, "deltas and the whole must agree");
                    done.push(format!("{kind}:{text}"));
                }
                _ => {}
            }
        }
        (done, reason, writer.reasoning_tokens())
    }

    #[test]
    fn answers_become_items_with_a_reason_and_a_count_of_reasoning() {
        let inside = Start {
            in_reasoning: true,
            ..Start::default()
        };
        let plain = Start::default();
        let channels = "<|channel|><|message|>";
        use FinishReason::{Length, Stop, ToolCalls};
        type Case<'a> = (
            &'a str,
            Start,
            FinishReason,
            &'a [&'a str],
            &'a [&'a str],
            FinishReason,
            u32,
        );
        let cases: &[Case<'_>] = &[
            (
                "",
                plain,
                Stop,
                &["Hello ", "you"],
                &["message:Hello you"],
                Stop,
                0,
            ),
            ("", plain, Stop, &[], &["message:"], Stop, 0),
            (
                "",
                plain,
                Stop,
                &["<think>", "hm", "</think>", "Yes."],
                &["reasoning:hm", "message:Yes."],
                Stop,
                6,
            ),
            (
                "",
                inside,
                Stop,
                &["hm", "</think>", "日本"],
                &["reasoning:hm", "message:日本"],
                Stop,
                4,
            ),
            ("", inside, Length, &["hm"], &["reasoning:hm"], Length, 2),
            (
                "",
                plain,
                Stop,
                &["<think></think>"],
                &["message:"],
                Stop,
                0,
            ),
            (
                "",
                plain,
                Stop,
                &[
                    "Look: ",
                    r#"<tool_call>{"name": "f", "argu"#,
                    r#"ments": {"a": 1}}</tool_call>"#,
                ],
                &["message:Look:", r#"call f:{"a": 1}"#],
                ToolCalls,
                0,
            ),
            (
                "",
                plain,
                Length,
                &[r#"<tool_call>{"name": "f", "arguments": {"a"#],
                &[r#"call f:{"a"#],
                Length,
                0,
            ),
            (
                "",
                plain,
                Stop,
                &[
                    r#"<tool_call>{"name": "patch", "arguments": {"input": "*** Be"#,
                    r#"gin\"#,
                    r#"n+\"a\""}}</tool_call>"#,
                ],
                &["custom patch:*** Begin\n+\"a\""],
                ToolCalls,
                0,
            ),
            (
                "",
                plain,
                Stop,
                &[
                    r#"<tool_call>{"name": "patch", "arguments": {"text": "#,
                    r#""a"}}</tool_call>"#,
                ],
                &["custom patch:a"],
                ToolCalls,
                0,
            ),
            (
                channels,
                plain,
                Stop,
                &[
                    "<|channel|>analysis<|message|>hm<|end|>",
                    "<|start|>assistant<|channel|>final<|message|>Yes.",
                ],
                &["reasoning:hm", "final_answer:Yes."],
                Stop,
                0,
            ),
        ];
        for (template, start, ended, pieces, expected, reason, reasoning) in cases {
            let got = items(&shape(template, *start), pieces, *ended);
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            assert_eq!(got, (expected, *reason, *reasoning), "{pieces:?}");
        }
    }

    #[test]
    fn log_probabilities_go_with_the_text_of_their_tokens() {
        let (mut events, mut outputs) = (VecDeque::new(), 0);
        let mut out = Out {
            events: &mut events,
            outputs: &mut outputs,
            entropy: &Zeros,
        };
        let logprob = |text: &str| job::TokenLogprob {
            token: 0,
            bytes: text.as_bytes().to_vec(),
            logprob: -1.0,
            top: Vec::new(),
        };
        let mut writer = Writer::new(0, &shape("", Start::default()));
        for tokens in [
            &["<think>", "a"][..],
            &["</think>", "\n", "b"],
            &[" c", "\n"],
            &["<tool_call>"],
            &["x"],
        ] {
            let logprobs: Vec<_> = tokens.iter().map(|text| logprob(text)).collect();
            writer.take(&tokens.concat(), &logprobs, 1, &mut out);
        }
        writer.finish(FinishReason::Stop, &mut out);
        let mut shown = Vec::new();
        for event in events {
            if let RunEvent::Delta { text, logprobs, .. } = event {
                let tokens: Vec<String> =
                    logprobs.into_iter().map(|logprob| logprob.token).collect();
                shown.push((text, tokens.concat()));
            }
        }
        let texts: String = shown.iter().map(|(text, _)| text.as_str()).collect();
        let tokens: String = shown.iter().map(|(_, tokens)| tokens.as_str()).collect();
        assert_eq!(texts, "ab c\n<tool_call>x");
        assert_eq!(tokens, "b c\n<tool_call>x");
    }
}
