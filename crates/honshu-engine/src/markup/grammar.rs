//! Enforced calls and answers as grammars, in the form that the model itself writes.

use serde_json::{Map, Value, json};

use super::{Body, Markup, Written};
use crate::constraint::{Composition, Part};

/// Further calls of one enforced answer: small models would go on for ever.
const MORE_CALLS_MAX: u32 = 15;
/// Any text.
const ANY: &str = r"/(.|\n)*/";

/// A function that may be called.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub name: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
    /// Refuse schemas that cannot be enforced in full.
    pub strict: bool,
    /// The grammar of the one text that the function takes, as it stands in a JSON string; the parameters then say
    /// nothing more.
    pub input: Option<Part>,
}

/// Whether reasoning may come before an enforced answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reasoning {
    /// The prompt ends inside it.
    Open,
    /// The model may begin with it.
    Possible,
    /// There is none.
    None,
}

/// When a grammar that waits begins to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trigger {
    /// The text, control tokens in it as [`super::control`] writes them.
    pub pattern: String,
    /// Only as the first text of the answer.
    pub at_start: bool,
    /// What must follow.
    pub then: Composition,
}

struct Builder<'a> {
    markup: &'a Markup,
    rules: String,
    parts: Vec<Part>,
}

/// The grammar of an answer that calls one or, with `several`, more of `calls`.
pub(crate) fn forced(
    markup: &Markup,
    calls: &[Call],
    several: bool,
    reasoning: Reasoning,
) -> Composition {
    let mut builder = Builder::new(markup);
    let start = builder.whole_calls(calls, several);
    builder.start(&start, reasoning)
}

/// The grammar of an answer whose text is `part`, or that has calls instead; with the reasoning that may come before.
pub(crate) fn answer(
    markup: &Markup,
    part: Part,
    calls: &[Call],
    several: bool,
    reasoning: Reasoning,
) -> Composition {
    let mut builder = Builder::new(markup);
    let mut start = builder.part(part);
    if markup.has_channels() {
        let open = builder.text("<|channel|>final<|message|>");
        start = format!("{open} {start}");
    }
    if !calls.is_empty() {
        let calls = builder.whole_calls(calls, several);
        start = format!("({start} | {calls})");
    }
    builder.start(&start, reasoning)
}

/// Grammars that begin to hold when the model begins a call by itself. Empty for forms whose calls cannot be written
/// as a grammar.
pub(crate) fn lazy(markup: &Markup, calls: &[Call]) -> Vec<Trigger> {
    let build = |make: &dyn Fn(&mut Builder<'_>) -> String| {
        let mut builder = Builder::new(markup);
        builder.calls(calls);
        let start = make(&mut builder);
        builder.start(&start, Reasoning::None)
    };
    let form = markup.form;
    let mut triggers = Vec::new();
    match form.written {
        Written::Json {
            open,
            between,
            close,
            name,
            ..
        } => {
            let json = |body: &Body| matches!(body, Body::Json | Body::Named);
            for (mark, _) in form.opens.iter().filter(|(_, body)| json(body)) {
                // A form that begins without a mark may begin with one all the same.
                let rest = match open.strip_prefix(mark) {
                    Some(rest) => rest,
                    None if open.is_empty() => "",
                    None => continue,
                };
                let then =
                    build(&|builder| builder.list((rest, between, close), !close.is_empty()));
                triggers.push(Trigger {
                    pattern: markup.pattern(mark).to_owned(),
                    at_start: false,
                    then,
                });
            }
            if open.is_empty() {
                triggers.push(Trigger {
                    pattern: name.0.to_owned(),
                    at_start: true,
                    then: build(&|_| "behind".to_owned()),
                });
            }
        }
        Written::Tags => triggers.push(Trigger {
            pattern: markup.pattern("<tool_call>").to_owned(),
            at_start: false,
            then: build(&|_| "behind".to_owned()),
        }),
        Written::Channel => triggers.push(Trigger {
            pattern: format!("{}commentary to=functions.", markup.pattern("<|channel|>")),
            at_start: false,
            then: build(&|_| "behind".to_owned()),
        }),
    }
    triggers
}

impl<'a> Builder<'a> {
    fn new(markup: &'a Markup) -> Self {
        Self {
            markup,
            rules: String::new(),
            parts: Vec::new(),
        }
    }

    fn rule(&mut self, name: &str, body: &str) {
        self.rules.push_str(&format!("{name}: {body}\n"));
    }

    fn part(&mut self, part: Part) -> String {
        let name = format!("@p{}", self.parts.len());
        self.parts.push(part);
        name
    }

    /// A text in Lark's words, with control tokens as tokens.
    fn text(&self, text: &str) -> String {
        let mut out = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let control = self
                .markup
                .controls
                .iter()
                .filter_map(|(token, name)| Some((rest.find(name)?, *name, *token)))
                .min_by_key(|(at, name, _)| (*at, std::cmp::Reverse(name.len())));
            let plain = control.map_or(rest.len(), |(at, ..)| at);
            if plain > 0 {
                out.push(Value::from(&rest[..plain]).to_string());
            }
            let Some((at, name, token)) = control else {
                break;
            };
            out.push(format!("<[{token}]>"));
            rest = &rest[at + name.len()..];
        }
        if out.is_empty() {
            "\"\"".to_owned()
        } else {
            out.join(" ")
        }
    }

    /// An answer of calls and nothing else.
    fn whole_calls(&mut self, calls: &[Call], several: bool) -> String {
        self.calls(calls);
        match self.markup.form.written {
            Written::Json {
                open,
                between,
                close,
                ..
            } => self.list((open, between, close), several),
            Written::Tags if several => format!("call (\"\\n\" call){{0,{MORE_CALLS_MAX}}}"),
            Written::Tags | Written::Channel => "call".to_owned(),
        }
    }

    fn list(&mut self, (open, between, close): (&str, &str, &str), several: bool) -> String {
        let mut list = format!("{} call", self.text(open));
        if several {
            let between = self.text(between);
            list.push_str(&format!(" ({between} call){{0,{MORE_CALLS_MAX}}}"));
        }
        format!("{list} {}", self.text(close))
    }

    /// Rules for the calls: `call` is a whole one, `behind` what follows the mark that begins one.
    fn calls(&mut self, calls: &[Call]) {
        let (mut whole, mut behind) = (Vec::new(), Vec::new());
        for (index, call) in calls.iter().enumerate() {
            let (first, rest) = match self.markup.form.written {
                Written::Json { name, end, .. } => {
                    let arguments = self.arguments(call);
                    let written = if name.0.ends_with('"') {
                        let quoted = Value::from(call.name.as_str()).to_string();
                        quoted[1..quoted.len() - 1].to_owned()
                    } else {
                        call.name.clone()
                    };
                    let head = self.text(&format!("{written}{}", name.1));
                    (
                        self.text(name.0),
                        format!("{head} {arguments} {}", self.text(end)),
                    )
                }
                // A text with a grammar cannot stand between tags, as nothing says where it ends; in a JSON string the
                // quote does, and the form's readers take both.
                Written::Tags if call.input.is_some() => {
                    let arguments = self.arguments(call);
                    let name = Value::from(call.name.as_str());
                    let head = self.text(&format!("\n{{\"name\": {name}, \"arguments\": "));
                    let end = self.text("}\n</tool_call>");
                    (
                        self.text("<tool_call>"),
                        format!("{head} {arguments} {end}"),
                    )
                }
                Written::Tags => {
                    let parameters = self.parameters(index, call);
                    let head = self.text(&format!("\n<function={}>\n", call.name));
                    let end = self.text("</function>\n</tool_call>");
                    (
                        self.text("<tool_call>"),
                        format!("{head} {parameters} {end}"),
                    )
                }
                Written::Channel => {
                    let arguments = self.arguments(call);
                    let head = self.text(&format!("{} <|constrain|>json<|message|>", call.name));
                    (
                        self.text("<|channel|>commentary to=functions."),
                        format!("{head} {arguments}"),
                    )
                }
            };
            self.rule(&format!("b{index}"), &rest);
            whole.push(format!("{first} b{index}"));
            behind.push(format!("b{index}"));
        }
        self.rule("call", &whole.join(" | "));
        self.rule("behind", &behind.join(" | "));
    }

    fn arguments(&mut self, call: &Call) -> String {
        if let Some(input) = &call.input {
            let (open, input) = (self.text("{\"input\": \""), self.part(input.clone()));
            return format!("{open} {input} {}", self.text("\"}"));
        }
        self.part(Part::Schema {
            schema: call.parameters.clone(),
            strict: call.strict,
        })
    }

    /// The parameters of a call in tags: in the schema's order, those that are not required may be left out.
    fn parameters(&mut self, index: usize, call: &Call) -> String {
        let empty = Map::new();
        let properties = call.parameters.get("properties").and_then(Value::as_object);
        let required = call.parameters.get("required").and_then(Value::as_array);
        let mut out = Vec::new();
        for (at, (key, schema)) in properties.unwrap_or(&empty).iter().enumerate() {
            let name = format!("t{index}x{at}");
            let open = self.text(&format!("<parameter={key}>\n"));
            let close = self.text("\n</parameter>\n");
            let texts = schema.get("enum").and_then(Value::as_array).map(|values| {
                let texts = values.iter().filter_map(Value::as_str);
                texts
                    .map(|text| self.text(text))
                    .collect::<Vec<_>>()
                    .join(" | ")
            });
            if let Some(texts) = texts.filter(|texts| !texts.is_empty()) {
                self.rule(&name, &format!("{open} ({texts}) {close}"));
            } else if super::takes_text(Some(schema)) {
                let pattern = schema.get("pattern").and_then(Value::as_str);
                let whole = pattern.and_then(|p| p.strip_prefix('^')?.strip_suffix('$'));
                if let Some(whole) = whole {
                    let value = self.part(Part::Regex(whole.to_owned()));
                    self.rule(&name, &format!("{open} {value} {close}"));
                } else {
                    let value = format!("v{index}x{at}");
                    self.rule(&format!("{value}[suffix={close}]"), &text_of_length(schema));
                    self.rule(&name, &format!("{open} {value}"));
                }
            } else {
                let mut schema = schema.clone();
                for shared in ["$defs", "definitions"] {
                    if let (Some(members), Some(types)) =
                        (schema.as_object_mut(), call.parameters.get(shared))
                    {
                        members.insert(shared.to_owned(), types.clone());
                    }
                }
                let strict = call.strict;
                let value = self.part(Part::Schema { schema, strict });
                self.rule(&name, &format!("{open} {value} {close}"));
            }
            let needed = required.is_some_and(|names| names.contains(&json!(key)));
            out.push(if needed { name } else { format!("{name}?") });
        }
        out.join(" ")
    }

    fn start(mut self, body: &str, reasoning: Reasoning) -> Composition {
        let thought = self.thought(reasoning);
        let start = match reasoning {
            Reasoning::None => body.to_owned(),
            Reasoning::Open => format!("{thought} {body}"),
            Reasoning::Possible => format!("({thought})? {body}"),
        };
        let lark = format!("start: {start}\n{}", self.rules);
        Composition {
            lark,
            parts: self.parts,
        }
    }

    /// Reasoning up to the place where the answer begins.
    fn thought(&mut self, reasoning: Reasoning) -> String {
        if reasoning == Reasoning::None {
            return String::new();
        }
        let (open, close, behind) = if self.markup.has_channels() {
            (
                "<|channel|>analysis<|message|>",
                "<|end|>",
                "<|start|>assistant",
            )
        } else {
            (self.markup.thought.open, self.markup.thought.close, "")
        };
        let open = match reasoning {
            Reasoning::Open => String::new(),
            _ => self.text(open),
        };
        if self.markup.control_token(close).is_some() {
            let close = self.text(close);
            self.rules.push_str(&format!("THOUGHT: {ANY}\n"));
            self.rule("thought", &format!("THOUGHT {close}"));
        } else {
            let close = Value::from(close).to_string();
            self.rule(&format!("thought[suffix={close}]"), ANY);
        }
        let behind = if behind.is_empty() {
            r"(/[ \n]{1,4}/)?".to_owned()
        } else {
            self.text(behind)
        };
        format!("{open} thought {behind}")
    }
}

/// Any text of the length that a schema allows.
fn text_of_length(schema: &Value) -> String {
    let bound = |name| schema.get(name).and_then(Value::as_u64);
    match (bound("minLength"), bound("maxLength")) {
        (None, None) => ANY.to_owned(),
        (min, None) => format!(r"/(.|\n){{{},}}/", min.unwrap_or(0)),
        (min, Some(max)) => format!(r"/(.|\n){{{},{max}}}/", min.unwrap_or(0)),
    }
}
