//! A conversation in the words of one model: its own chat template, rendered with bounds.
//!
//! The template comes with the model's file and is treated as a stranger's program: it sees the conversation, the
//! tools and the time, is bounded in steps, depth and output, and can call nothing. (One thing cannot be bounded from
//! outside: a template that doubles a string in a loop takes memory before its steps run out. Models are installed by
//! whoever runs the server, never by its callers.) The conversation is a stranger's too: the name of a special token
//! in a caller's text is marked before rendering and tokenized as plain text afterwards, so that no caller can end
//! their turn and begin a system turn of their own.

mod functions;
mod probe;
mod turns;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use honshu_domain::{Item, Timestamp, Tool};
use minijinja::{Environment, ErrorKind, Value};
use serde_json::json;

use probe::{Arguments, Capabilities};

/// Longest template source, in bytes; the longest known one has 30 kB.
const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Instructions of the template machine for a conversation of no length, about 20 ms.
const FUEL_BASE: u64 = 500_000;
/// Further instructions for each message and tool; real templates need some hundreds.
const FUEL_PER_ENTRY: u64 = 20_000;
/// Nesting of macros and includes.
const RECURSION_MAX: usize = 64;
/// Output beyond the conversation's own text, in bytes.
const OUTPUT_BYTES_BASE: usize = 1 << 20;
/// A template may say each text of the conversation this often, escaped.
const OUTPUT_BYTES_FACTOR: usize = 8;
/// A code point that Unicode keeps for internal use: it marks special tokens' names in callers' text while a
/// template is rendered. Callers' own are dropped.
const MARK: char = '\u{FDD0}';
const NAME: &str = "chat";

/// A conversation cannot be put into the model's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is not one that this engine can run.
    #[error("the model's chat template cannot be used: {0}")]
    Broken(String),
    /// The template itself refuses the conversation, in these words (`raise_exception`).
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template failed on this conversation.
    #[error("the model's chat template failed on the conversation: {0}")]
    Failed(String),
    /// The template ran longer or wrote more than any sound template does.
    #[error("the model's chat template exceeded its limit of {0}")]
    Limit(&'static str),
    /// A kind of content that cannot be written as text.
    #[error("content of type `{0}` cannot be given to this model; send text")]
    Content(String),
}

/// What a template must know of the model's vocabulary.
#[derive(Debug, Clone, Default)]
pub struct SpecialTokens {
    /// The text of the token that begins a text; empty if there is none.
    pub bos: String,
    /// The text of the token that ends a text; empty if there is none.
    pub eos: String,
    /// The names of all tokens that steer the model.
    pub control: Vec<String>,
}

/// What is to be rendered.
#[derive(Debug, Clone, Copy)]
pub struct Chat<'a> {
    /// System text before the items.
    pub instructions: Option<&'a str>,
    /// The conversation.
    pub items: &'a [Item],
    /// Tools; a template that knows none has them told in the system turn.
    pub tools: &'a [Tool],
    /// As sent; `none` turns the reasoning of templates off that know such a switch, everything else on.
    pub reasoning_effort: Option<&'a str>,
    /// What `strftime_now` shows.
    pub now: Timestamp,
}

/// A piece of a rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The text.
    pub text: String,
    /// Whether names of special tokens in it mean those tokens. False for what a caller wrote.
    pub special: bool,
}

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its pieces, in order.
    pub segments: Vec<Segment>,
}

impl Prompt {
    /// The whole prompt in one piece, for people.
    #[must_use]
    pub fn text(&self) -> String {
        self.segments
            .iter()
            .map(|segment| segment.text.as_str())
            .collect()
    }
}

/// A model's chat template, compiled once.
#[derive(Debug)]
pub struct ChatTemplate {
    compiled: Compiled,
    can: Capabilities,
    guard: Guard,
}

impl ChatTemplate {
    /// Compiles a template and finds out what it can do.
    ///
    /// # Errors
    /// [`TemplateError::Broken`] when it does not compile or is longer than 1 MiB.
    pub fn compile(source: &str, tokens: &SpecialTokens) -> Result<Self, TemplateError> {
        let compiled = Compiled::new(source, tokens)?;
        let can = probe::probe(&compiled);
        Ok(Self {
            compiled,
            can,
            guard: Guard::new(&tokens.control),
        })
    }

    /// Whether definitions of tools reach the model.
    #[must_use]
    pub fn knows_tools(&self) -> bool {
        self.can.tools
    }

    /// Whether earlier calls and their results are rendered in the model's own form; otherwise they become words.
    #[must_use]
    pub fn knows_calls(&self) -> bool {
        self.can.arguments != Arguments::Unknown
    }

    /// The template's source, as it is run.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.compiled.source
    }

    /// Renders a conversation up to the place where the model's answer begins.
    ///
    /// # Errors
    /// [`TemplateError`]: all but `Broken` are about this conversation.
    pub fn render(&self, chat: &Chat<'_>) -> Result<Prompt, TemplateError> {
        let mut turns = turns::from_items(chat.instructions, chat.items, &self.guard)?;
        let mut tools = self.tools(chat.tools);
        if !self.can.tools
            && let Some(tools) = tools.take()
        {
            let functions: Vec<serde_json::Value> = tools
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|tool| tool.get("function").cloned())
                .collect();
            turns::tell_tools(&mut turns, &functions);
        }
        let turns = turns::adapt(turns, &self.can);
        let messages = turns::to_messages(&turns, &self.can);
        let tools = tools.or_else(|| self.can.empty_tools.then(|| json!([])));
        let effort = chat.reasoning_effort;
        let text = self
            .compiled
            .render_with(messages, tools, effort, Some(chat.now))?;
        Ok(Prompt {
            segments: self.guard.split(&text),
        })
    }

    fn tools(&self, tools: &[Tool]) -> Option<serde_json::Value> {
        let functions: Vec<serde_json::Value> = tools
            .iter()
            .filter_map(|tool| {
                let (name, description, parameters) = match tool {
                    Tool::Function(function) => {
                        let schema = function.parameters.as_ref();
                        let parameters = schema
                            .and_then(|schema| schema.to().ok())
                            .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
                        (&function.name, &function.description, parameters)
                    }
                    // Templates know functions only.
                    Tool::Custom(custom) => {
                        (&custom.name, &custom.description, custom.parameters())
                    }
                    Tool::Other { .. } => return None,
                };
                let mut tool = json!({"type": "function", "function": {
                    "name": &**name,
                    "description": description.as_deref().unwrap_or_default(),
                    "parameters": parameters,
                }});
                self.guard.blunt_json(&mut tool);
                Some(tool)
            })
            .collect();
        (!functions.is_empty()).then_some(serde_json::Value::Array(functions))
    }
}

/// The template machine with one template in it.
struct Compiled {
    env: Environment<'static>,
    source: Arc<str>,
    bos: String,
    eos: String,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled")
            .field("source_bytes", &self.source.len())
            .finish_non_exhaustive()
    }
}

impl Compiled {
    fn new(source: &str, tokens: &SpecialTokens) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::Broken(format!(
                "it has {} bytes and at most {SOURCE_BYTES_MAX} are taken",
                source.len()
            )));
        }
        let source = functions::without_generation_tags(source);
        let mut env = Environment::new();
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_recursion_limit(RECURSION_MAX);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_filter("tojson", functions::tojson);
        env.add_function("raise_exception", functions::raise_exception);
        env.add_template_owned(NAME, source.clone())
            .map_err(|error| TemplateError::Broken(one_line(&error)))?;
        Ok(Self {
            env,
            source: source.into(),
            bos: tokens.bos.clone(),
            eos: tokens.eos.clone(),
        })
    }

    fn render(
        &self,
        messages: serde_json::Value,
        tools: Option<serde_json::Value>,
    ) -> Result<String, TemplateError> {
        self.render_with(messages, tools, None, None)
    }

    fn render_with(
        &self,
        messages: serde_json::Value,
        tools: Option<serde_json::Value>,
        effort: Option<&str>,
        now: Option<Timestamp>,
    ) -> Result<String, TemplateError> {
        let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
        let entries = count(&messages) + tools.as_ref().map_or(0, count);
        let bytes = text_bytes(&messages) + tools.as_ref().map_or(0, text_bytes);
        // The fuel belongs to the environment; a copy of it shares the compiled template.
        let mut env = self.env.clone();
        env.set_fuel(Some(
            FUEL_BASE.saturating_add(FUEL_PER_ENTRY.saturating_mul(entries as u64)),
        ));

        let mut context: Vec<(&str, Value)> = vec![
            ("messages", Value::from_serialize(&messages)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
            ("add_generation_prompt", Value::from(true)),
        ];
        if let Some(tools) = tools {
            context.push(("tools", Value::from_serialize(&tools)));
        }
        if let Some(effort) = effort {
            // Templates know three words; the APIs have more.
            let word = match effort {
                "minimal" => "low",
                "xhigh" => "high",
                other => other,
            };
            context.push(("reasoning_effort", Value::from(word)));
            let thinks = effort != "none";
            context.push(("enable_thinking", Value::from(thinks)));
            context.push(("thinking", Value::from(thinks)));
        }
        let now = now.unwrap_or(Timestamp::from_micros(0));
        context.push((
            "strftime_now",
            Value::from_function(move |format: String| functions::strftime(now, &format)),
        ));
        let context: Value = context.into_iter().collect();

        let mut out = Bounded {
            bytes: Vec::new(),
            max: OUTPUT_BYTES_BASE.saturating_add(bytes.saturating_mul(OUTPUT_BYTES_FACTOR)),
        };
        let template = env
            .get_template(NAME)
            .map_err(|error| TemplateError::Broken(one_line(&error)))?;
        template
            .render_captured_to(context, &mut out)
            .map_err(|error| failure(&error))?;
        String::from_utf8(out.bytes)
            .map_err(|_| TemplateError::Failed("its output is not UTF-8".to_owned()))
    }
}

fn failure(error: &minijinja::Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(raised) = current.downcast_ref::<functions::Raised>() {
            return TemplateError::Refused(raised.0.clone());
        }
        if let Some(inner) = current.downcast_ref::<minijinja::Error>() {
            match inner.kind() {
                ErrorKind::OutOfFuel => return TemplateError::Limit("steps"),
                ErrorKind::WriteFailure => return TemplateError::Limit("output"),
                _ => {}
            }
        }
        cause = current.source();
    }
    TemplateError::Failed(one_line(error))
}

/// The error without the template's source around it.
fn one_line(error: &minijinja::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn text_bytes(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(items) => items.iter().map(text_bytes).sum(),
        serde_json::Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| key.len() + text_bytes(value))
            .sum(),
        _ => 8,
    }
}

struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + buffer.len() > self.max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "output limit"));
        }
        self.bytes.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the power from special tokens' names in a caller's text: marks them before rendering, and splits the
/// rendered text so that they are tokenized as plain text.
#[derive(Debug, Default)]
struct Guard {
    /// Names by their first character, longest first.
    names: HashMap<char, Vec<String>>,
}

impl Guard {
    fn new(control: &[String]) -> Self {
        let mut names: HashMap<char, Vec<String>> = HashMap::new();
        for name in control {
            let mut chars = name.chars();
            // A name of one character would make every use of that character a border; none is known.
            if let (Some(first), Some(_)) = (chars.next(), chars.next()) {
                names.entry(first).or_default().push(name.clone());
            }
        }
        for list in names.values_mut() {
            list.sort_by_key(|name| std::cmp::Reverse(name.len()));
        }
        Self { names }
    }

    fn name_at<'a>(&self, text: &'a str) -> Option<&'a str> {
        let list = self.names.get(&text.chars().next()?)?;
        list.iter()
            .find(|name| text.starts_with(name.as_str()))
            .map(|name| &text[..name.len()])
    }

    /// Puts a mark after the first character of every special token's name.
    fn blunt(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let width = c.len_utf8();
            if c != MARK {
                out.push(c);
                if self.name_at(rest).is_some() {
                    out.push(MARK);
                }
            }
            rest = &rest[width..];
        }
        out
    }

    fn blunt_json(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = self.blunt(text),
            serde_json::Value::Array(items) => {
                items.iter_mut().for_each(|item| self.blunt_json(item))
            }
            serde_json::Value::Object(fields) => {
                let old = std::mem::take(fields);
                for (key, mut value) in old {
                    self.blunt_json(&mut value);
                    fields.insert(self.blunt(&key), value);
                }
            }
            _ => {}
        }
    }

    /// Splits a rendered text into what the template says and the names that a caller wrote.
    fn split(&self, text: &str) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut template = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(MARK) {
            let first = rest[..at]
                .char_indices()
                .next_back()
                .map_or(at, |(at, _)| at);
            template.push_str(&rest[..first]);
            // The name without its mark; if the template took it apart, only its first character is left alone.
            let whole: String = rest[first..]
                .chars()
                .filter(|c| *c != MARK)
                .take(256)
                .collect();
            let name = self.name_at(&whole).unwrap_or(&rest[first..at]);
            if !template.is_empty() {
                segments.push(Segment {
                    text: std::mem::take(&mut template),
                    special: true,
                });
            }
            segments.push(Segment {
                text: name.to_owned(),
                special: false,
            });
            let mut left = name.len();
            let skip = rest[first..]
                .char_indices()
                .find_map(|(at, c)| {
                    if left == 0 && c != MARK {
                        return Some(at);
                    }
                    left = left.saturating_sub(if c == MARK { 0 } else { c.len_utf8() });
                    None
                })
                .unwrap_or(rest.len() - first);
            rest = &rest[first + skip..];
        }
        template.push_str(rest);
        if !template.is_empty() || segments.is_empty() {
            segments.push(Segment {
                text: template,
                special: true,
            });
        }
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_special_tokens_in_a_callers_text_become_plain_text() {
        let guard = Guard::new(&[
            "<|im_end|>".to_owned(),
            "<s>".to_owned(),
            "<|im_start|>".to_owned(),
        ]);
        for text in [
            "a<|im_end|>b",
            "<s>",
            "<s><s>x",
            "plain < text",
            "<|im_start|><|im_end|>",
            "",
            "日本<s>語",
        ] {
            let split = guard.split(&guard.blunt(text));
            assert_eq!(
                split.iter().map(|s| s.text.as_str()).collect::<String>(),
                text
            );
            for segment in split.iter().filter(|segment| segment.special) {
                assert!(
                    !["<|im_end|>", "<s>", "<|im_start|>"]
                        .iter()
                        .any(|name| segment.text.contains(name))
                );
            }
        }
        let own = guard.split("<|im_start|>user\n");
        assert_eq!(
            own,
            [Segment {
                text: "<|im_start|>user\n".to_owned(),
                special: true
            }]
        );
    }
}
