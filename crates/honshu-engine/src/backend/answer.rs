//! From the events of jobs to the events of a run: items with ids, parts, reasoning apart from the answer, several
//! choices beside each other, one end.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use honshu_domain::{
    Entropy, Error, Finish, FinishReason, FunctionCall, Item, Message, Part, PartKind, PublicId,
    Reasoning, Role, RunEvent, TokenLogprob, TopLogprob, Usage,
};

use super::failure;
use crate::events::JobEvents;
use crate::job::{self, JobEvent, JobUsage};
use crate::pool::Lease;

const THINK_OPEN: &str = "<think>";
const THINK_CLOSE: &str = "</think>";

/// What kind of answer is expected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The text is a call as JSON and becomes a function call.
    pub forced_call: bool,
    /// The text has a form, so it has no reasoning in it.
    pub constrained: bool,
    /// The prompt ends inside the model's reasoning.
    pub in_reasoning: bool,
}

/// Accepted jobs and the hold on their model.
pub(super) struct Started {
    pub lease: Arc<Lease>,
    pub jobs: Vec<JobEvents>,
    pub shape: Shape,
}

type Starting = Pin<Box<dyn Future<Output = Result<Started, Error>> + Send>>;

enum Stage {
    Starting(Starting),
    Running(Run),
    Over,
}

/// The stream of a run.
pub(super) struct Answer {
    stage: Stage,
    events: VecDeque<RunEvent>,
    entropy: Arc<dyn Entropy>,
}

impl Answer {
    pub(super) fn new(start: Starting, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            stage: Stage::Starting(start),
            events: VecDeque::new(),
            entropy,
        }
    }
}

impl Stream for Answer {
    type Item = Result<RunEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let step = match &mut this.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Starting(start) => match ready!(start.as_mut().poll(cx)) {
                    Ok(started) => {
                        this.stage = Stage::Running(Run::new(started, Arc::clone(&this.entropy)));
                        continue;
                    }
                    Err(error) => Err(error),
                },
                Stage::Running(run) => ready!(run.poll(cx, &mut this.events)),
            };
            match step {
                Ok(false) => {}
                // Dropping the run here frees the model before the last events are read.
                Ok(true) => this.stage = Stage::Over,
                Err(error) => {
                    this.stage = Stage::Over;
                    this.events.clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

struct Run {
    choices: Vec<Choice>,
    outputs: u32,
    started: bool,
    entropy: Arc<dyn Entropy>,
    // After the jobs: they must be gone before the model may go.
    _lease: Arc<Lease>,
}

struct Choice {
    job: JobEvents,
    writer: Writer,
    end: Option<(FinishReason, JobUsage)>,
    /// The stop text that ended it.
    stop_text: Option<Arc<str>>,
}

impl Run {
    fn new(started: Started, entropy: Arc<dyn Entropy>) -> Self {
        let choices = (0..)
            .zip(started.jobs)
            .map(|(index, job)| Choice {
                job,
                writer: Writer::new(index, started.shape),
                end: None,
                stop_text: None,
            })
            .collect();
        Self {
            choices,
            outputs: 0,
            started: false,
            entropy,
            _lease: started.lease,
        }
    }

    /// Takes what the jobs have. `Ok(true)` when the run is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<RunEvent>,
    ) -> Poll<Result<bool, Error>> {
        let several = self.choices.len() > 1;
        let mut progress = false;
        for choice in &mut self.choices {
            if choice.end.is_some() {
                continue;
            }
            let event = match Pin::new(&mut choice.job).poll_next(cx) {
                Poll::Pending => continue,
                Poll::Ready(Some(event)) => event,
                Poll::Ready(None) => {
                    return Poll::Ready(Err(Error::internal("a job ended without its last event")));
                }
            };
            progress = true;
            let mut out = Out {
                events,
                outputs: &mut self.outputs,
                entropy: &*self.entropy,
            };
            match event {
                JobEvent::Started { prompt_tokens, .. } => {
                    if !std::mem::replace(&mut self.started, true) {
                        out.events.push_back(RunEvent::Started {
                            upstream_request_id: None,
                            input_tokens: Some(prompt_tokens.into()),
                        });
                    }
                }
                JobEvent::Text {
                    text,
                    logprobs,
                    tokens,
                } => choice.writer.take(&text, &logprobs, tokens, &mut out),
                JobEvent::Done { finish, usage } => {
                    let mut reason = match finish {
                        job::FinishReason::Stop => FinishReason::Stop,
                        job::FinishReason::StopString(text) => {
                            choice.stop_text = Some(text.into());
                            FinishReason::Stop
                        }
                        job::FinishReason::Length => FinishReason::Length,
                    };
                    reason = choice.writer.finish(reason, &mut out);
                    if several {
                        out.events.push_back(RunEvent::ChoiceFinished {
                            choice: choice.writer.choice,
                            reason,
                        });
                    }
                    choice.end = Some((reason, usage));
                }
                JobEvent::Failed(error) => return Poll::Ready(Err(failure::engine(error))),
            }
        }
        if self.choices.iter().all(|choice| choice.end.is_some()) {
            events.push_back(RunEvent::Finished(self.end()));
            return Poll::Ready(Ok(true));
        }
        if progress {
            Poll::Ready(Ok(false))
        } else {
            Poll::Pending
        }
    }

    fn end(&self) -> Finish {
        let mut usage = Usage::default();
        let mut reason = None;
        for choice in &self.choices {
            let Some((why, used)) = choice.end else {
                continue;
            };
            reason = reason.or(Some(why));
            // The prompt is one, however many answers it gets, and the later ones find it computed by the first.
            let cached = u64::from(used.cached_tokens);
            usage.cached_input_tokens = if usage.input_tokens == 0 {
                cached
            } else {
                usage.cached_input_tokens.min(cached)
            };
            usage.input_tokens = used.prompt_tokens.into();
            usage.output_tokens += u64::from(used.completion_tokens);
            usage.reasoning_tokens += u64::from(choice.writer.reasoning_tokens);
        }
        usage.reasoning_tokens = usage.reasoning_tokens.min(usage.output_tokens);
        Finish {
            reason: reason.unwrap_or(FinishReason::Stop),
            usage: Some(usage),
            stop_text: self
                .choices
                .first()
                .and_then(|choice| choice.stop_text.clone()),
        }
    }
}

/// Where a writer's events go.
struct Out<'a> {
    events: &'a mut VecDeque<RunEvent>,
    outputs: &'a mut u32,
    entropy: &'a dyn Entropy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It is not known yet whether the answer begins with reasoning.
    Opening,
    Reasoning,
    Text,
    /// A call as JSON, kept until it is whole.
    Call,
}

/// Writes the items of one choice.
struct Writer {
    choice: u32,
    mode: Mode,
    /// Text that cannot be sent yet: it may be the beginning of a tag, or belongs to a call.
    held: String,
    held_logprobs: Vec<TokenLogprob>,
    open: Option<OpenItem>,
    /// White space at the start of an item is dropped after a tag.
    trim: bool,
    wrote_message: bool,
    reasoning_tokens: u32,
}

struct OpenItem {
    output_index: u32,
    id: Arc<str>,
    kind: PartKind,
    text: String,
    logprobs: Vec<TokenLogprob>,
}

impl Writer {
    fn new(choice: u32, shape: Shape) -> Self {
        let mode = if shape.forced_call {
            Mode::Call
        } else if shape.constrained {
            Mode::Text
        } else if shape.in_reasoning {
            Mode::Reasoning
        } else {
            Mode::Opening
        };
        Self {
            choice,
            mode,
            held: String::new(),
            held_logprobs: Vec::new(),
            open: None,
            trim: mode == Mode::Reasoning,
            wrote_message: false,
            reasoning_tokens: 0,
        }
    }

    fn take(&mut self, text: &str, logprobs: &[job::TokenLogprob], tokens: u32, out: &mut Out<'_>) {
        let reasoning = self.mode == Mode::Reasoning;
        self.held.push_str(text);
        self.held_logprobs.extend(logprobs.iter().map(to_logprob));
        self.advance(false, out);
        if reasoning || self.mode == Mode::Reasoning {
            self.reasoning_tokens += tokens;
        }
    }

    /// Sends what can be sent. `last` means that no more text comes.
    fn advance(&mut self, last: bool, out: &mut Out<'_>) {
        loop {
            match self.mode {
                Mode::Call => return,
                Mode::Opening => {
                    let begun = self.held.trim_start();
                    if let Some(rest) = begun.strip_prefix(THINK_OPEN) {
                        self.held = rest.to_owned();
                        self.held_logprobs.clear();
                        self.mode = Mode::Reasoning;
                        self.trim = true;
                        continue;
                    }
                    if !last && THINK_OPEN.starts_with(begun) {
                        return;
                    }
                    self.mode = Mode::Text;
                }
                Mode::Reasoning => {
                    if let Some(at) = self.held.find(THINK_CLOSE) {
                        let rest = self.held.split_off(at + THINK_CLOSE.len());
                        self.held.truncate(at);
                        let thought = std::mem::replace(&mut self.held, rest);
                        self.held_logprobs.clear();
                        self.write(PartKind::ReasoningText, thought.trim_end(), Vec::new(), out);
                        self.close(out);
                        self.mode = Mode::Text;
                        self.trim = true;
                        continue;
                    }
                    let keep = if last {
                        0
                    } else {
                        tag_beginning(&self.held, THINK_CLOSE)
                    };
                    let thought: String = self.held.drain(..self.held.len() - keep).collect();
                    self.held_logprobs.clear();
                    self.write(PartKind::ReasoningText, &thought, Vec::new(), out);
                    return;
                }
                Mode::Text => {
                    let text = std::mem::take(&mut self.held);
                    let logprobs = std::mem::take(&mut self.held_logprobs);
                    self.write(PartKind::Text, &text, logprobs, out);
                    return;
                }
            }
        }
    }

    fn write(
        &mut self,
        kind: PartKind,
        text: &str,
        logprobs: Vec<TokenLogprob>,
        out: &mut Out<'_>,
    ) {
        let text = if self.trim { text.trim_start() } else { text };
        if text.is_empty() && logprobs.is_empty() {
            return;
        }
        if !text.is_empty() {
            self.trim = false;
        }
        let open = self
            .open
            .get_or_insert_with(|| start_item(kind, self.choice, out));
        self.wrote_message |= kind == PartKind::Text;
        open.text.push_str(text);
        open.logprobs.extend(logprobs.iter().cloned());
        out.events.push_back(RunEvent::Delta {
            output_index: open.output_index,
            part_index: 0,
            kind,
            text: text.to_owned(),
            logprobs,
        });
    }

    fn close(&mut self, out: &mut Out<'_>) {
        let Some(open) = self.open.take() else { return };
        let OpenItem {
            output_index,
            id,
            kind,
            text,
            logprobs,
        } = open;
        out.events.push_back(RunEvent::PartDone {
            output_index,
            part_index: 0,
            kind,
        });
        let item = match kind {
            PartKind::Text | PartKind::Refusal => message(
                id,
                vec![Part::Text {
                    text,
                    annotations: Vec::new(),
                    logprobs,
                }],
            ),
            PartKind::ReasoningText | PartKind::ReasoningSummary => Item::Reasoning(Reasoning {
                id: Some(id),
                content: vec![text],
                ..Reasoning::default()
            }),
        };
        out.events
            .push_back(RunEvent::ItemDone { output_index, item });
    }

    /// Ends the choice; says why it ended.
    fn finish(&mut self, reason: FinishReason, out: &mut Out<'_>) -> FinishReason {
        if self.mode == Mode::Call {
            if let Some((name, arguments)) = parse_call(&self.held) {
                write_call(&name, arguments, self.choice, out);
                return FinishReason::ToolCalls;
            }
            // Cut off by a limit: what there is, as text.
            self.mode = Mode::Text;
        }
        self.advance(true, out);
        self.close(out);
        if !self.wrote_message && self.mode != Mode::Reasoning {
            // An empty answer is still an answer.
            self.open = Some(start_item(PartKind::Text, self.choice, out));
            self.close(out);
        }
        reason
    }
}

fn start_item(kind: PartKind, choice: u32, out: &mut Out<'_>) -> OpenItem {
    let output_index = *out.outputs;
    *out.outputs += 1;
    let reasoning = matches!(kind, PartKind::ReasoningText | PartKind::ReasoningSummary);
    let id: Arc<str> = PublicId::generate(if reasoning { "rs_" } else { "msg_" }, out.entropy)
        .as_str()
        .into();
    let item = if reasoning {
        Item::Reasoning(Reasoning {
            id: Some(Arc::clone(&id)),
            ..Reasoning::default()
        })
    } else {
        message(Arc::clone(&id), Vec::new())
    };
    out.events.push_back(RunEvent::ItemStarted {
        output_index,
        choice,
        item,
    });
    out.events.push_back(RunEvent::PartStarted {
        output_index,
        part_index: 0,
        kind,
    });
    OpenItem {
        output_index,
        id,
        kind,
        text: String::new(),
        logprobs: Vec::new(),
    }
}

fn message(id: Arc<str>, content: Vec<Part>) -> Item {
    Item::Message(Message {
        id: Some(id),
        role: Role::Assistant,
        content,
        phase: None,
        name: None,
    })
}

fn parse_call(text: &str) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let name = value.get("name")?.as_str()?.to_owned();
    Some((name, value.get("arguments")?.to_string()))
}

fn write_call(name: &str, arguments: String, choice: u32, out: &mut Out<'_>) {
    let output_index = *out.outputs;
    *out.outputs += 1;
    let mut call = FunctionCall {
        id: Some(PublicId::generate("fc_", out.entropy).as_str().into()),
        call_id: PublicId::generate("call_", out.entropy).as_str().into(),
        name: name.into(),
        arguments: String::new(),
    };
    out.events.push_back(RunEvent::ItemStarted {
        output_index,
        choice,
        item: Item::FunctionCall(call.clone()),
    });
    out.events.push_back(RunEvent::ArgumentsDelta {
        output_index,
        delta: arguments.clone(),
    });
    call.arguments = arguments;
    out.events.push_back(RunEvent::ItemDone {
        output_index,
        item: Item::FunctionCall(call),
    });
}

/// How many bytes at the end of `text` may be the beginning of `tag`.
fn tag_beginning(text: &str, tag: &str) -> usize {
    (1..tag.len())
        .rev()
        .find(|length| text.ends_with(&tag[..*length]))
        .unwrap_or(0)
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

    struct Zeros;
    impl Entropy for Zeros {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    const PLAIN: Shape = Shape {
        forced_call: false,
        constrained: false,
        in_reasoning: false,
    };

    /// Writes `pieces` and returns the items that were done, as `kind:text`, after checking the order of events.
    fn items(shape: Shape, pieces: &[&str]) -> Vec<String> {
        let (mut events, mut outputs) = (VecDeque::new(), 0);
        let mut out = Out {
            events: &mut events,
            outputs: &mut outputs,
            entropy: &Zeros,
        };
        let mut writer = Writer::new(0, shape);
        for piece in pieces {
            writer.take(piece, &[], 1, &mut out);
        }
        writer.finish(FinishReason::Stop, &mut out);
        let mut sent = String::new();
        let mut done = Vec::new();
        for event in events {
            match event {
                RunEvent::ItemStarted { .. } => sent.clear(),
                RunEvent::Delta { text, .. } => sent.push_str(&text),
                RunEvent::ArgumentsDelta { delta, .. } => sent.push_str(&delta),
                RunEvent::ItemDone { item, .. } => {
                    let (kind, text) = match item {
                        Item::Message(message) => match &message.content[..] {
                            [Part::Text { text, .. }] => ("message", text.clone()),
                            other => panic!("{other:?}"),
                        },
                        Item::Reasoning(reasoning) => ("reasoning", reasoning.content.concat()),
                        Item::FunctionCall(call) => ("call", call.arguments),
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(sent, text, "deltas and the whole must agree");
                    done.push(format!("{kind}:{text}"));
                }
                _ => {}
            }
        }
        done
    }

    #[test]
    fn reasoning_and_answer_become_items_however_the_text_is_cut() {
        let inside = Shape {
            in_reasoning: true,
            ..PLAIN
        };
        let constrained = Shape {
            constrained: true,
            ..PLAIN
        };
        let call = Shape {
            forced_call: true,
            constrained: true,
            ..PLAIN
        };
        let cases: &[(Shape, &str, &[&str])] = &[
            (PLAIN, "Hello <think>", &["message:Hello <think>"]),
            (
                PLAIN,
                "<think>\nhm </b>\n</think>\n\nYes.",
                &["reasoning:hm </b>\n", "message:Yes."],
            ),
            (PLAIN, "<th", &["message:<th"]),
            (PLAIN, "  spaced", &["message:  spaced"]),
            (PLAIN, "", &["message:"]),
            (PLAIN, "<think>cut", &["reasoning:cut"]),
            (PLAIN, "<think></think>x", &["message:x"]),
            (inside, "hm</think>日本", &["reasoning:hm", "message:日本"]),
            (constrained, "<think>\"a\"", &["message:<think>\"a\""]),
            (
                call,
                r#"{"name": "f", "arguments": {"b": 1, "a": 2}}"#,
                &[r#"call:{"b":1,"a":2}"#],
            ),
            (
                call,
                r#"{"name": "f", "argu"#,
                &[r#"message:{"name": "f", "argu"#],
            ),
        ];
        for (shape, text, expected) in cases {
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
            let trimmed = |items: Vec<String>| {
                items
                    .iter()
                    .map(|item| item.trim_end().to_owned())
                    .collect::<Vec<_>>()
            };
            let expected: Vec<String> = expected
                .iter()
                .map(|item| item.trim_end().to_string())
                .collect();
            assert_eq!(trimmed(items(*shape, &[text])), expected, "{text}");
            assert_eq!(
                trimmed(items(*shape, &chars)),
                expected,
                "{text} by characters"
            );
        }
    }

    #[test]
    fn the_beginning_of_a_tag_is_held_back() {
        for (text, length) in [("a</", 2), ("a</think", 7), ("a<b", 0), ("", 0), ("<", 1)] {
            assert_eq!(tag_beginning(text, THINK_CLOSE), length, "{text}");
        }
    }
}
