//! How models write calls and reasoning into their text, and the readers that take them out again.
//!
//! The forms are data: [`FORMS`] has a row for each, found by what the model's own chat template and vocabulary say,
//! never by a model's name. A model whose template knows no tools is told of them in words of ours and answers in the
//! first row's form, so that tools work with every model.
//!
//! Marks that are control tokens in the model's vocabulary are taken as marks only when the token itself came: a
//! model that merely spells one out means text.

mod grammar;
mod held;
mod json;
mod parser;
#[cfg(test)]
mod tests;
mod words;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use grammar::{Call, Reasoning, answer, forced, lazy};
pub(crate) use parser::{Parser, Piece, Start};
pub(crate) use words::{call_in_words, result_in_words, tools_in_words};

use crate::job::Token;

/// Stands around the name of a control token in a parser's text. Unicode keeps these two for internal use; a model's
/// own are replaced before.
pub(crate) const CONTROL_OPEN: char = '\u{FDD1}';
/// See [`CONTROL_OPEN`].
pub(crate) const CONTROL_CLOSE: char = '\u{FDD2}';

/// A form of calls.
#[derive(Debug)]
pub(crate) struct Form {
    /// For logs and tests.
    pub name: &'static str,
    /// The template has all texts of one of these lists.
    evidence: &'static [&'static [&'static str]],
    /// What begins calls, and how they are written behind it.
    opens: &'static [(&'static str, Body)],
    /// What ends a call or a list of calls: taken away wherever it stands between calls.
    closes: &'static [&'static str],
    /// Whether an answer that begins with the JSON of a call is one, without any mark.
    bare: bool,
    /// How a call is to be written when the engine enforces it.
    pub written: Written,
}

/// How calls are written behind their mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// JSON objects, one by one or in a list.
    Json,
    /// The same, or the name, a separator and the arguments as JSON.
    Named,
    /// Behind the mark comes the rest of `<function=NAME>` and its parameters in tags of their own.
    Tags {
        /// Whether the mark itself was `<function=`.
        inside: bool,
    },
    /// Behind the mark come the name and keys and values in tags of their own.
    Pairs,
    /// Calls as Python writes them, up to the closing mark.
    Python,
    /// `call:NAME{key:value}`, up to the closing mark.
    Braces,
    /// A header with channel and recipient, a body, an end.
    Channel,
}

/// The text of an enforced call, in order. Marks stand in it by name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Written {
    /// `open`, the calls, `close`; each call is `name.0`, the name, `name.1`, the arguments as JSON, `end`.
    Json {
        open: &'static str,
        name: (&'static str, &'static str),
        end: &'static str,
        between: &'static str,
        close: &'static str,
    },
    /// Tags around each parameter.
    Tags,
    /// Channels of the Harmony format.
    Channel,
}

const TAGGED: Written = Written::Json {
    open: "<tool_call>\n",
    name: ("{\"name\": \"", "\", \"arguments\": "),
    end: "}\n</tool_call>",
    between: "\n<tool_call>\n",
    close: "",
};

/// Every form, the general one first. Detection goes from the last to the first, as later rows are more special.
///
/// Where the facts are from: the chat templates and the format pages that the models' makers publish (Harmony:
/// "OpenAI Harmony Response Format"; Gemma: "FunctionGemma formatting and best practices", "Function calling with
/// Gemma 4"; Llama: "Llama 3.1 model card and prompt formats").
pub(crate) const FORMS: &[Form] = &[
    // Hermes, Qwen 2.5 and 3, SmolLM3; and every model that is told of tools in our words.
    Form {
        name: "tagged",
        evidence: &[&["<tool_call>", "</tool_call>"]],
        opens: &[("<tool_call>", Body::Json)],
        closes: &["</tool_call>"],
        bare: true,
        written: TAGGED,
    },
    // Llama 3.1 to 3.3.
    Form {
        name: "llama3",
        evidence: &[
            &["<|python_tag|>"],
            &["<|start_header_id|>", "tool_calls", "\"parameters\""],
        ],
        opens: &[("<|python_tag|>", Body::Json)],
        closes: &[],
        bare: true,
        written: Written::Json {
            open: "",
            name: ("{\"name\": \"", "\", \"parameters\": "),
            end: "}",
            between: "; ",
            close: "",
        },
    },
    // Phi 4 mini, Granite 3.
    Form {
        name: "tool_call_token",
        evidence: &[&["<|tool_call|>"]],
        opens: &[("<|tool_call|>", Body::Json)],
        closes: &["<|/tool_call|>"],
        bare: true,
        written: Written::Json {
            open: "<|tool_call|>[",
            name: ("{\"name\": \"", "\", \"arguments\": "),
            end: "}",
            between: ", ",
            close: "]",
        },
    },
    // Apriel, MiniMax M1.
    Form {
        name: "tool_calls",
        evidence: &[&["<tool_calls>", "</tool_calls>"]],
        opens: &[("<tool_calls>", Body::Json)],
        closes: &["</tool_calls>"],
        bare: false,
        written: Written::Json {
            open: "<tool_calls>[",
            name: ("{\"name\": \"", "\", \"arguments\": "),
            end: "}",
            between: ", ",
            close: "]</tool_calls>",
        },
    },
    // Nemotron Nano 2.
    Form {
        name: "toolcall",
        evidence: &[&["<TOOLCALL>", "</TOOLCALL>"]],
        opens: &[("<TOOLCALL>", Body::Json)],
        closes: &["</TOOLCALL>"],
        bare: false,
        written: Written::Json {
            open: "<TOOLCALL>[",
            name: ("{\"name\": \"", "\", \"arguments\": "),
            end: "}",
            between: ", ",
            close: "]</TOOLCALL>",
        },
    },
    // LFM 2.
    Form {
        name: "tool_call_start",
        evidence: &[&["<|tool_call_start|>"]],
        opens: &[
            ("<|tool_call_start|>", Body::Python),
            ("<tool_call>", Body::Json),
        ],
        closes: &["<|tool_call_end|>", "</tool_call>"],
        bare: true,
        written: TAGGED,
    },
    // Mistral, up to the tokenizer's third version.
    Form {
        name: "mistral",
        evidence: &[&["[TOOL_CALLS]"]],
        opens: &[("[TOOL_CALLS]", Body::Named)],
        closes: &["[/TOOL_CALLS]"],
        bare: false,
        written: Written::Json {
            open: "[TOOL_CALLS][",
            name: ("{\"name\": \"", "\", \"arguments\": "),
            end: "}",
            between: ", ",
            close: "]",
        },
    },
    // Mistral, from the eleventh version of the tokenizer.
    Form {
        name: "mistral_named",
        evidence: &[&["[TOOL_CALLS]", "[ARGS]"]],
        opens: &[("[TOOL_CALLS]", Body::Named)],
        closes: &["[/TOOL_CALLS]"],
        bare: false,
        written: Written::Json {
            open: "[TOOL_CALLS]",
            name: ("", "[ARGS]"),
            end: "",
            between: "[TOOL_CALLS]",
            close: "",
        },
    },
    // Gemma 3 with templates that ask for a code block.
    Form {
        name: "tool_code",
        evidence: &[&["```tool_code"]],
        opens: &[("```tool_code", Body::Python), ("<tool_call>", Body::Json)],
        closes: &["```", "</tool_call>"],
        bare: true,
        written: TAGGED,
    },
    // FunctionGemma.
    Form {
        name: "function_gemma",
        evidence: &[&["<start_function_call>"]],
        opens: &[
            ("<start_function_call>", Body::Braces),
            ("<tool_call>", Body::Json),
        ],
        closes: &["<end_function_call>", "</tool_call>"],
        bare: false,
        written: TAGGED,
    },
    // Gemma 4.
    Form {
        name: "gemma4",
        evidence: &[&["<|tool_call>"]],
        opens: &[("<|tool_call>", Body::Braces), ("<tool_call>", Body::Json)],
        closes: &["<tool_call|>", "</tool_call>"],
        bare: false,
        written: TAGGED,
    },
    // Command R and R+.
    Form {
        name: "action",
        evidence: &[&["Action:", "tool_name"], &["Action: ```json"]],
        opens: &[
            ("Action: ```json", Body::Json),
            ("Action:```json", Body::Json),
        ],
        closes: &["```"],
        bare: false,
        written: Written::Json {
            open: "Action: ```json\n[\n    ",
            name: ("{\"tool_name\": \"", "\", \"parameters\": "),
            end: "}",
            between: ",\n    ",
            close: "\n]```",
        },
    },
    // Command R7B and Command A.
    Form {
        name: "command",
        evidence: &[&["<|START_ACTION|>"]],
        opens: &[("<|START_ACTION|>", Body::Json)],
        closes: &[
            "<|END_ACTION|>",
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
            "<|START_TEXT|>",
            "<|END_TEXT|>",
        ],
        bare: false,
        written: Written::Json {
            open: "<|START_ACTION|>[\n    ",
            name: (
                "{\"tool_call_id\": \"0\", \"tool_name\": \"",
                "\", \"parameters\": ",
            ),
            end: "}",
            between: ",\n    ",
            close: "\n]<|END_ACTION|>",
        },
    },
    // DeepSeek V3.1.
    Form {
        name: "deepseek_named",
        evidence: &[&["<｜tool▁call▁begin｜>"]],
        opens: &[
            ("<｜tool▁calls▁begin｜>", Body::Named),
            ("<｜tool▁call▁begin｜>", Body::Named),
        ],
        closes: &["<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"],
        bare: false,
        written: Written::Json {
            open: "<｜tool▁calls▁begin｜>",
            name: ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),
            end: "<｜tool▁call▁end｜>",
            between: "",
            close: "<｜tool▁calls▁end｜>",
        },
    },
    // DeepSeek V3 and R1: the name stands behind the kind, the arguments in a code block.
    Form {
        name: "deepseek",
        evidence: &[&["<｜tool▁call▁begin｜>", "```json"]],
        opens: &[
            ("<｜tool▁calls▁begin｜>", Body::Named),
            ("<｜tool▁call▁begin｜>", Body::Named),
        ],
        closes: &["```", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"],
        bare: false,
        written: Written::Json {
            open: "<｜tool▁calls▁begin｜>",
            name: ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n"),
            end: "\n```<｜tool▁call▁end｜>",
            between: "\n",
            close: "<｜tool▁calls▁end｜>",
        },
    },
    // Kimi K2.
    Form {
        name: "kimi",
        evidence: &[&["<|tool_call_begin|>", "<|tool_call_argument_begin|>"]],
        opens: &[
            ("<|tool_calls_section_begin|>", Body::Named),
            ("<|tool_call_begin|>", Body::Named),
        ],
        closes: &["<|tool_call_end|>", "<|tool_calls_section_end|>"],
        bare: false,
        written: Written::Json {
            open: "<|tool_calls_section_begin|>",
            name: (
                "<|tool_call_begin|>functions.",
                ":0<|tool_call_argument_begin|>",
            ),
            end: "<|tool_call_end|>",
            between: "",
            close: "<|tool_calls_section_end|>",
        },
    },
    // Qwen 3 Coder.
    Form {
        name: "tags",
        evidence: &[&["<function=", "<parameter="]],
        opens: &[
            ("<tool_call>", Body::Tags { inside: false }),
            ("<function=", Body::Tags { inside: true }),
        ],
        closes: &["</tool_call>"],
        bare: false,
        written: Written::Tags,
    },
    // GLM 4.5 to 4.7. Enforced calls are JSON between the same marks.
    Form {
        name: "pairs",
        evidence: &[&["<arg_key>", "<arg_value>"]],
        opens: &[("<tool_call>", Body::Pairs)],
        closes: &["</tool_call>"],
        bare: false,
        written: TAGGED,
    },
    // gpt-oss.
    Form {
        name: "harmony",
        evidence: &[&["<|channel|>", "<|message|>"]],
        opens: &[("<|channel|>", Body::Channel), ("<|start|>", Body::Channel)],
        closes: &[
            "<|end|>",
            "<|call|>",
            "<|return|>",
            "<|message|>",
            "<|constrain|>",
        ],
        bare: false,
        written: Written::Channel,
    },
];

/// Marks around reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thought {
    pub open: &'static str,
    pub close: &'static str,
}

/// Marks around reasoning, the commonest first; a template that has none of them gets the first, whose opening mark
/// no answer begins with by chance.
const THOUGHTS: &[Thought] = &[
    Thought {
        open: "<think>",
        close: "</think>",
    },
    Thought {
        open: "<|START_THINKING|>",
        close: "<|END_THINKING|>",
    },
    Thought {
        open: "[THINK]",
        close: "[/THINK]",
    },
    Thought {
        open: "<seed:think>",
        close: "</seed:think>",
    },
    Thought {
        open: "<|channel>thought",
        close: "<channel|>",
    },
];

/// How one model writes.
#[derive(Debug)]
pub(crate) struct Markup {
    pub form: &'static Form,
    /// The form that the model was trained on, where its template does not show tools: it may answer in either.
    also: Option<&'static Form>,
    pub thought: Thought,
    /// The template or the vocabulary has the marks of reasoning, so the model may reason.
    pub reasons: bool,
    /// The marks as a parser finds them, by name.
    patterns: HashMap<&'static str, String>,
    /// Control tokens that a parser must see, with their names.
    controls: Vec<(Token, &'static str)>,
}

impl Markup {
    /// Finds out how a model writes. `template` is the source of its chat template, `knows_tools` whether that one
    /// shows tools to the model; `token` answers a name's token and whether it is a control token.
    pub(crate) fn detect(
        template: &str,
        knows_tools: bool,
        token: impl Fn(&str) -> Option<(Token, bool)>,
    ) -> Self {
        let shows = |lists: &&[&[&str]]| {
            lists
                .iter()
                .any(|texts| texts.iter().all(|text| template.contains(text)))
        };
        let has = |lists: &&[&[&str]]| {
            lists
                .iter()
                .any(|texts| texts.iter().all(|text| token(text).is_some()))
        };
        // Some templates leave it to the vocabulary how calls are written.
        let found = FORMS
            .iter()
            .rev()
            .find(|form| shows(&form.evidence))
            .or_else(|| FORMS.iter().rev().find(|form| has(&form.evidence)));
        let form = match found {
            Some(form) if knows_tools || form.name == "harmony" => form,
            _ => &FORMS[0],
        };
        let also = found.filter(|found| found.name != form.name);
        let thought = THOUGHTS
            .iter()
            .find(|thought| template.contains(thought.open) || template.contains(thought.close));
        let thought = thought.or_else(|| {
            THOUGHTS
                .iter()
                .find(|thought| token(thought.open).is_some_and(|(_, control)| control))
        });
        let reasons = thought.is_some() || form.name == "harmony";
        let thought = *thought.unwrap_or(&THOUGHTS[0]);
        let mut markup = Self {
            form,
            also,
            thought,
            reasons,
            patterns: HashMap::new(),
            controls: Vec::new(),
        };
        let opens: Vec<&str> = markup.opens().map(|(name, _)| *name).collect();
        let closes: Vec<&str> = markup.closes().copied().collect();
        let inner = INNER_MARKS.iter().copied();
        let names = opens
            .into_iter()
            .chain(closes)
            .chain(inner)
            .chain([thought.open, thought.close]);
        for name in names {
            markup.learn(name, &token);
        }
        markup
    }

    fn opens(&self) -> impl Iterator<Item = &'static (&'static str, Body)> + use<> {
        let also = self.also.map_or(&[][..], |form| form.opens);
        self.form.opens.iter().chain(also)
    }

    fn closes(&self) -> impl Iterator<Item = &'static &'static str> + use<> {
        let also = self.also.map_or(&[][..], |form| form.closes);
        self.form.closes.iter().chain(also)
    }

    fn learn(&mut self, name: &'static str, token: impl Fn(&str) -> Option<(Token, bool)>) {
        // Gemma's mark of reasoning is a token and a word behind it.
        let token_name = name.strip_suffix("thought").unwrap_or(name);
        let pattern = match token(token_name) {
            Some((token, true)) => {
                if !self.controls.iter().any(|(known, _)| *known == token) {
                    self.controls.push((token, token_name));
                }
                let rest = &name[token_name.len()..];
                format!("{}{rest}", control(token_name))
            }
            _ => name.to_owned(),
        };
        self.patterns.insert(name, pattern);
    }

    /// The mark as it stands in a parser's text.
    fn pattern(&self, name: &'static str) -> &str {
        self.patterns.get(name).map_or(name, String::as_str)
    }

    /// The control tokens that must be shown, for [`Job::shown_controls`](crate::Job::shown_controls).
    pub(crate) fn controls(&self) -> Arc<[Token]> {
        self.controls.iter().map(|(token, _)| *token).collect()
    }

    /// The name of a control token that is a mark.
    pub(crate) fn control_name(&self, token: Token) -> Option<&'static str> {
        self.controls
            .iter()
            .find(|(known, _)| *known == token)
            .map(|(_, name)| *name)
    }

    /// The token of a mark, if it is a control token.
    fn control_token(&self, name: &str) -> Option<Token> {
        self.controls
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(token, _)| *token)
    }

    /// Whether the model's answer has channels.
    pub(crate) fn has_channels(&self) -> bool {
        self.form.written.is_channel()
    }

    /// Whether a prompt that ends like this leaves the model inside its reasoning.
    pub(crate) fn ends_in_reasoning(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.thought.open)
    }

    /// Whether a prompt that ends like this has the model's reasoning behind it, so that none will follow.
    pub(crate) fn ends_behind_reasoning(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(self.thought.close)
    }
}

impl Written {
    fn is_channel(self) -> bool {
        matches!(self, Self::Channel)
    }
}

/// Marks inside of calls: between a name and its arguments where no JSON object is around both, and around texts.
const INNER_MARKS: &[&str] = &[
    "[ARGS]",
    "[CALL_ID]",
    "<｜tool▁sep｜>",
    "<|tool_call_argument_begin|>",
    "<escape>",
    "<|\"|>",
];

/// A control token's name as it stands in a parser's text.
pub(crate) fn control(name: &str) -> String {
    format!("{CONTROL_OPEN}{name}{CONTROL_CLOSE}")
}

/// What readers must know of the tools of a request: forms that do not write JSON give every value as text, and the
/// schema says which of them are meant as text.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    /// The properties of each function's arguments, by the function's name.
    functions: HashMap<String, Value>,
}

impl Tools {
    pub(crate) fn new(tools: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self {
            functions: tools.into_iter().collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    fn has(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// The value of a parameter that was written without JSON's quotes.
    fn value(&self, function: &str, parameter: &str, text: &str) -> Value {
        let schema = self
            .functions
            .get(function)
            .and_then(|schema| schema.get("properties")?.get(parameter));
        let json = serde_json::from_str::<Value>(text.trim());
        match json {
            Ok(value) if !takes_text(schema) => value,
            _ => Value::String(text.to_owned()),
        }
    }
}

/// Whether a schema asks for a string. Without a schema, what is JSON is taken as JSON.
fn takes_text(schema: Option<&Value>) -> bool {
    let Some(schema) = schema else { return false };
    match schema.get("type") {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => schema
            .get("enum")
            .and_then(Value::as_array)
            .is_some_and(|values| values.iter().all(Value::is_string)),
    }
}
