//! Calls in forms that are no JSON, read as a whole: as Python writes them, and with braces as newer Gemma models do.
//! Whatever is not wholly understood is no call.

use serde_json::{Map, Number, Value};

use super::json::NAME_BYTES_MAX;

/// Nesting of lists and mappings.
const DEPTH_MAX: u32 = 32;
/// What stands on both sides of a text in the form with braces.
const QUOTES: [&str; 2] = ["<escape>", "<|\"|>"];

type Calls = Vec<(String, String)>;

/// `f(a=1, b='x')`, several in a list or below each other; or the JSON of calls.
pub(super) fn python(text: &str) -> Option<Calls> {
    let text = text.trim();
    if let Ok(json) = serde_json::from_str::<Value>(text) {
        return json_calls(&json);
    }
    let mut reader = Reader { rest: text };
    let list = reader.eat("[");
    let mut calls = Calls::new();
    loop {
        reader.space();
        if reader.rest.is_empty() || (list && reader.eat("]")) {
            break;
        }
        let name = reader.name()?;
        reader.eat("(").then_some(())?;
        // A call inside of `print` is meant to be made all the same.
        let (name, printed) = match name {
            "print" => {
                let name = reader.name()?;
                reader.eat("(").then_some(())?;
                (name, true)
            }
            name => (name, false),
        };
        let arguments = reader.members(")", "=", 0)?;
        if printed {
            reader.eat(")").then_some(())?;
        }
        calls.push((name.to_owned(), Value::Object(arguments).to_string()));
        let _ = reader.eat(",") || reader.eat(";");
    }
    reader.rest.is_empty().then_some(calls)
}

/// `call:NAME{key:value}`, one or several.
pub(super) fn braces(text: &str) -> Option<Calls> {
    let mut reader = Reader { rest: text.trim() };
    let mut calls = Calls::new();
    while !reader.rest.is_empty() {
        reader.eat("call:").then_some(())?;
        let name = reader.name()?;
        reader.eat("{").then_some(())?;
        let arguments = reader.members("}", ":", 0)?;
        calls.push((name.to_owned(), Value::Object(arguments).to_string()));
        let _ = reader.eat(",");
        reader.space();
    }
    Some(calls)
}

fn json_calls(json: &Value) -> Option<Calls> {
    let one = |call: &Value| {
        let name = call.get("name")?.as_str()?;
        let arguments = call.get("arguments").or_else(|| call.get("parameters"))?;
        Some((name.to_owned(), arguments.to_string()))
    };
    match json {
        Value::Array(calls) => calls.iter().map(one).collect(),
        call => Some(vec![one(call)?]),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, what: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        self.space();
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
        let length = self.rest.find(|c| !word(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then_some(name)
    }

    /// Members up to `end`, their names bare or quoted.
    fn members(&mut self, end: &str, joint: &str, depth: u32) -> Option<Map<String, Value>> {
        let mut members = Map::new();
        while !self.eat(end) {
            let key = match self.text() {
                Some(key) => key?,
                None => self.name()?.to_owned(),
            };
            self.eat(joint).then_some(())?;
            members.insert(key, self.value(depth + 1)?);
            if !self.eat(",") {
                self.eat(end).then_some(())?;
                break;
            }
        }
        Some(members)
    }

    fn list(&mut self, end: &str, depth: u32) -> Option<Value> {
        let mut values = Vec::new();
        while !self.eat(end) {
            values.push(self.value(depth + 1)?);
            if !self.eat(",") {
                self.eat(end).then_some(())?;
                break;
            }
        }
        Some(Value::Array(values))
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        if let Some(text) = self.text() {
            return text.map(Value::String);
        }
        if self.eat("{") {
            return self.members("}", ":", depth).map(Value::Object);
        }
        if self.eat("[") {
            return self.list("]", depth);
        }
        if self.eat("(") {
            return self.list(")", depth);
        }
        self.space();
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        let length = self.rest.find(|c| !word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        match word {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            "None" | "null" => Some(Value::Null),
            word => word.parse::<Number>().ok().map(Value::Number),
        }
    }

    /// A text in quotes, if one begins here; the inner `None` is one that does not end.
    fn text(&mut self) -> Option<Option<String>> {
        self.space();
        for quote in QUOTES {
            if let Some(rest) = self.rest.strip_prefix(quote) {
                let text = rest.split_once(quote).map(|(text, rest)| {
                    self.rest = rest;
                    text.to_owned()
                });
                return Some(text);
            }
        }
        for quote in ["\"\"\"", "'''", "\"", "'"] {
            if let Some(rest) = self.rest.strip_prefix(quote) {
                return Some(self.quoted(rest, quote));
            }
        }
        None
    }

    fn quoted(&mut self, text: &'a str, quote: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        loop {
            if let Some(behind) = rest.strip_prefix(quote) {
                self.rest = behind;
                return Some(out);
            }
            let mut chars = rest.chars();
            match chars.next()? {
                '\\' => {
                    let c = chars.next()?;
                    match c {
                        'n' => out.push('\n'),
                        't' => out.push('\t'),
                        'r' => out.push('\r'),
                        '\\' | '\'' | '"' => out.push(c),
                        'u' => {
                            let digits = chars.as_str().get(..4)?;
                            let code = u32::from_str_radix(digits, 16).ok()?;
                            out.push(char::from_u32(code).unwrap_or('\u{FFFD}'));
                            rest = chars.as_str().get(4..)?;
                            continue;
                        }
                        other => out.extend(['\\', other]),
                    }
                }
                c => out.push(c),
            }
            rest = chars.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(calls: Option<Calls>) -> String {
        calls.map_or("none".to_owned(), |calls| {
            let calls: Vec<String> = calls.into_iter().map(|(n, a)| format!("{n}{a}")).collect();
            calls.join(" ")
        })
    }

    #[test]
    fn calls_in_python_are_read_or_left() {
        for (text, expected) in [
            ("f()", "f{}"),
            (
                "f(a=1, b='it\\'s', c=\"x\\n\")",
                r#"f{"a":1,"b":"it's","c":"x\n"}"#,
            ),
            (
                "[f(a=True), g(b=[1, 2.5, None], c={'k': (1,)})]",
                r#"f{"a":true} g{"b":[1,2.5,null],"c":{"k":[1]}}"#,
            ),
            ("f(a=-1)\ng(b='''x'y''')", r#"f{"a":-1} g{"b":"x'y"}"#),
            ("print(f(a=1))", r#"f{"a":1}"#),
            (r#"{"name": "f", "parameters": {"a": 1}}"#, r#"f{"a":1}"#),
            ("f(1)", "none"),
            ("f(a=1", "none"),
            ("x = f(a=1)", "none"),
            ("f(a=g(1))", "none"),
            ("f(a='open)", "none"),
        ] {
            assert_eq!(shown(python(text)), expected, "{text}");
        }
        assert_eq!(python(&format!("f(a={})", "[".repeat(10_000))), None);
    }

    #[test]
    fn calls_with_braces_are_read_or_left() {
        for (text, expected) in [
            ("call:f{}", "f{}"),
            (
                "call:f{city:<escape>São {Paulo}<escape>,n:3}",
                r#"f{"city":"São {Paulo}","n":3}"#,
            ),
            (
                "call:f{a:<|\"|>x<|\"|>,b:[true,{c:1.5}]}call:g{}",
                r#"f{"a":"x","b":[true,{"c":1.5}]} g{}"#,
            ),
            ("call:f{a:x}", "none"),
            ("f{}", "none"),
        ] {
            assert_eq!(shown(braces(text)), expected, "{text}");
        }
    }
}
