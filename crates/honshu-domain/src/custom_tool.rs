//! Custom tools: tools whose input is a text, not JSON (OpenAI API reference, `tools[].type: "custom"`); and how such
//! a tool is shown to what knows only functions: as a function with one text, from whose calls the text is taken out
//! again while they come.

use std::sync::Arc;

use serde_json::{Value, json};

/// The one parameter of a custom tool that is shown as a function.
const PARAMETER: &str = "input";

/// A tool of the caller's that takes a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomTool {
    /// Its name.
    pub name: Arc<str>,
    /// What it does.
    pub description: Option<String>,
    /// The form of its input.
    pub format: InputFormat,
}

/// The form of a custom tool's input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum InputFormat {
    /// Any text.
    #[default]
    Text,
    /// Text of a grammar.
    Grammar {
        /// How the grammar is written.
        syntax: GrammarSyntax,
        /// The grammar; not empty.
        definition: Arc<str>,
    },
}

/// How the grammar of a custom tool is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrammarSyntax {
    /// Lark's language, as far as constrained decoding knows it.
    Lark,
    /// A regular expression in the syntax of Rust's `regex` that the whole input matches.
    Regex,
}

impl GrammarSyntax {
    /// The wire word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lark => "lark",
            Self::Regex => "regex",
        }
    }
}

impl CustomTool {
    /// The schema of the arguments when the tool is shown as a function. The grammar is told in words: a model that
    /// knows it needs less steering, and where nothing steers it is all that the model has.
    pub fn parameters(&self) -> Value {
        let mut input = json!({"type": "string"});
        if let InputFormat::Grammar { syntax, definition } = &self.format {
            let words = match syntax {
                GrammarSyntax::Lark => "Text of this Lark grammar:\n",
                GrammarSyntax::Regex => "Text that matches this regular expression:\n",
            };
            input["description"] = Value::String(format!("{words}{definition}"));
        }
        json!({
            "type": "object",
            "properties": {PARAMETER: input},
            "required": [PARAMETER],
            "additionalProperties": false,
        })
    }
}

/// The arguments of an earlier call to a custom tool that is shown as a function.
pub fn wrapped_input(input: &str) -> String {
    json!({PARAMETER: input}).to_string()
}

/// Takes the input out of the arguments of a call while they come. Models that err are met half way: arguments that
/// are no object are the input as they stand, and an object without the parameter is its only text or its JSON.
#[derive(Debug)]
pub struct InputReader {
    state: State,
}

#[derive(Debug)]
enum State {
    /// What has come may still turn out to be `{"input": "`.
    Head(String),
    /// Inside the text; what is held is the beginning of an escape.
    Text(String),
    /// Behind the text.
    Behind,
    /// The arguments are the input.
    Plain,
    /// An object of another shape: it is looked at when it is whole.
    Other(String),
}

/// How much of `{"input": "` a text has.
enum Head {
    /// All; the text begins at this byte.
    Whole(usize),
    Begun,
    NoObject,
    OtherObject,
}

impl Default for InputReader {
    fn default() -> Self {
        Self {
            state: State::Head(String::new()),
        }
    }
}

impl InputReader {
    /// Takes more of the arguments; gives the input that came with it.
    pub fn take(&mut self, arguments: &str) -> String {
        let mut out = String::new();
        match &mut self.state {
            State::Head(held) => {
                held.push_str(arguments);
                let held = std::mem::take(held);
                match head(&held) {
                    Head::Begun => self.state = State::Head(held),
                    Head::NoObject => {
                        self.state = State::Plain;
                        out = held;
                    }
                    Head::OtherObject => self.state = State::Other(held),
                    Head::Whole(at) => {
                        self.state = State::Text(String::new());
                        return self.take(&held[at..]);
                    }
                }
            }
            State::Text(held) => {
                held.push_str(arguments);
                let text = std::mem::take(held);
                let (rest, ended) = decode(&text, &mut out);
                self.state = if ended {
                    State::Behind
                } else {
                    State::Text(rest.to_owned())
                };
            }
            State::Behind => {}
            State::Plain => out.push_str(arguments),
            State::Other(held) => held.push_str(arguments),
        }
        out
    }

    /// The arguments are whole, or nothing more of them will come; gives the rest of the input.
    pub fn finish(self) -> String {
        match self.state {
            State::Head(held) | State::Other(held) => input_of(&held),
            State::Text(_) | State::Behind | State::Plain => String::new(),
        }
    }
}

/// The input in arguments that are whole.
pub fn unwrapped_input(arguments: &str) -> String {
    let mut reader = InputReader::default();
    let mut input = reader.take(arguments);
    input.push_str(&reader.finish());
    input
}

fn input_of(arguments: &str) -> String {
    let Ok(Value::Object(members)) = serde_json::from_str(arguments) else {
        return arguments.to_owned();
    };
    let only = members.values().next().filter(|_| members.len() == 1);
    match members.get(PARAMETER).or(only) {
        Some(Value::String(text)) => text.clone(),
        Some(other) if members.contains_key(PARAMETER) => other.to_string(),
        _ if members.is_empty() => String::new(),
        _ => arguments.to_owned(),
    }
}

fn head(text: &str) -> Head {
    let space = |at: usize| at + text[at..].len() - text[at..].trim_start().len();
    let mut at = space(0);
    for (part, otherwise) in [
        ("{", Head::NoObject),
        ("\"input\"", Head::OtherObject),
        (":", Head::OtherObject),
        ("\"", Head::OtherObject),
    ] {
        let rest = &text[at..];
        if !rest.starts_with(part) {
            return if part.starts_with(rest) {
                Head::Begun
            } else {
                otherwise
            };
        }
        at += part.len();
        if part != "\"" {
            at = space(at);
        }
    }
    Head::Whole(at)
}

/// Decodes the inside of a JSON string; gives what must wait for more and whether the string has ended.
fn decode<'t>(text: &'t str, out: &mut String) -> (&'t str, bool) {
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('"') {
            return ("", true);
        }
        let Some((character, length)) = escape(rest) else {
            return (rest, false);
        };
        out.push(character);
        rest = &rest[length..];
    }
    out.push_str(rest);
    ("", false)
}

/// The character of the escape at the start of `text` and its length; none while it is only begun.
fn escape(text: &str) -> Option<(char, usize)> {
    let kind = text[1..].chars().next()?;
    let plain = match kind {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => return unicode(text),
        // The rest stand for themselves, also where JSON knows no such escape.
        other => other,
    };
    Some((plain, 1 + kind.len_utf8()))
}

fn unicode(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<Option<u32>> {
        // Without four bytes behind it the escape has only begun.
        let digits = text.as_bytes().get(at..at + 4)?;
        let digits = std::str::from_utf8(digits).ok();
        Some(digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()))
    };
    let broken = Some((char::REPLACEMENT_CHARACTER, 2));
    let Some(first) = unit(2)? else {
        return broken;
    };
    if !(0xD800..0xDC00).contains(&first) {
        let character = char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER);
        return Some((character, 6));
    }
    // The first half of a pair: the second one decides.
    let behind = &text[6..];
    if !behind.starts_with("\\u") {
        return if "\\u".starts_with(behind) {
            None
        } else {
            Some((char::REPLACEMENT_CHARACTER, 6))
        };
    }
    let second = unit(8)?.filter(|second| (0xDC00..0xE000).contains(second));
    Some(match second {
        Some(second) => {
            let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            (character, 12)
        }
        None => (char::REPLACEMENT_CHARACTER, 6),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    #[test]
    fn the_input_comes_out_of_the_arguments_however_they_are_cut() {
        let cases = [
            (r#"{"input": "a\nb \"q\" \\ é"}"#, "a\nb \"q\" \\ é"),
            (
                "{ \"input\" :\n\"日本\\u672C\\ud83d\\uDE00\" } ",
                "日本本😀",
            ),
            (r#"{"input":""}"#, ""),
            // Models err.
            ("*** Begin Patch", "*** Begin Patch"),
            (r#"{"patch": "p\n"}"#, "p\n"),
            (r#"{"input": {"a": 1}}"#, r#"{"a":1}"#),
            (r#"{"note": 1, "input": "x"}"#, "x"),
            (r#"{"a": 1, "b": 2}"#, r#"{"a": 1, "b": 2}"#),
            ("{}", ""),
            (
                r#"{"input": "lone \ud83d half \ud83d\u0041"}"#,
                "lone \u{FFFD} half \u{FFFD}A",
            ),
            (r#"{"input": "bad \uZZZZ"}"#, "bad \u{FFFD}ZZZZ"),
            // Cut off by a limit.
            (r#"{"input": "half a te"#, "half a te"),
            (r#"{"input": "half an escape \u67"#, "half an escape "),
            ("", ""),
        ];
        for (arguments, input) in cases {
            assert_eq!(unwrapped_input(arguments), input, "{arguments}");
            let mut reader = InputReader::default();
            let mut pieces = String::new();
            for character in arguments.chars() {
                pieces.push_str(&reader.take(&character.to_string()));
            }
            pieces.push_str(&reader.finish());
            assert_eq!(pieces, input, "{arguments}, character by character");
        }
    }

    #[test]
    fn the_input_streams_and_is_wrapped_as_it_was() {
        let mut reader = InputReader::default();
        assert_eq!(reader.take("{\"input\": \"*** Be"), "*** Be");
        assert_eq!(reader.take("gin\\"), "gin");
        assert_eq!(reader.take("n+x\"}"), "\n+x");
        for text in ["", "a\n\"b\"\\ \u{1} 日本😀", "{\"input\": 1}"] {
            assert_eq!(unwrapped_input(&wrapped_input(text)), text);
        }
    }

    #[test]
    fn a_tool_is_shown_with_its_grammar() {
        let mut tool = CustomTool {
            name: "sql".into(),
            description: None,
            format: InputFormat::Text,
        };
        let input = |tool: &CustomTool| tool.parameters()["properties"]["input"].clone();
        assert_eq!(input(&tool), json!({"type": "string"}));
        tool.format = InputFormat::Grammar {
            syntax: GrammarSyntax::Regex,
            definition: "SELECT .+".into(),
        };
        let told = input(&tool)["description"].as_str().unwrap().to_owned();
        assert!(told.ends_with("expression:\nSELECT .+"), "{told}");
    }
}
