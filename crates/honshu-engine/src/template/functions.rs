//! The functions that chat templates expect from their host beside Jinja itself: `tojson` as Python writes it,
//! `strftime_now`, `raise_exception`. They must never read anything but their arguments and the clock they are given.

use std::fmt::{self, Write as _};

use honshu_domain::Timestamp;
use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};

/// Deepest nesting that `tojson` writes; deeper than any JSON that a request may hold.
const JSON_DEPTH_MAX: usize = 200;

/// What a template said in `raise_exception`: the caller's mistake in the words of the model's author.
#[derive(Debug)]
pub(super) struct Raised(pub String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// `raise_exception(message)`.
pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// `strftime_now(format)`, in UTC so that an answer does not depend on the machine's place.
pub(super) fn strftime(now: Timestamp, format: &str) -> Result<String, Error> {
    jiff::Timestamp::from_microsecond(now.as_micros())
        .map(|instant| instant.to_zoned(jiff::tz::TimeZone::UTC))
        .and_then(|zoned| jiff::fmt::strtime::format(format, &zoned))
        .map_err(|error| {
            Error::new(
                ErrorKind::InvalidOperation,
                format!("strftime_now cannot format `{format}`: {error}"),
            )
        })
}

struct Layout {
    indent: Option<usize>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
    ensure_ascii: bool,
}

/// `tojson`: what Python's `json.dumps(value, ensure_ascii=False)` writes. Models were trained on exactly these
/// spaces; nothing is escaped for HTML and keys keep their order.
pub(super) fn tojson(value: &Value, arguments: Rest<Value>) -> Result<Value, Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(&arguments)?;
    let number = |value: Value| value.as_usize();
    let indent = positional
        .first()
        .cloned()
        .and_then(number)
        .or(named.get::<Option<Value>>("indent")?.and_then(number));
    let mut layout = Layout {
        item_separator: if indent.is_some() { "," } else { ", " }.to_owned(),
        key_separator: ": ".to_owned(),
        sort_keys: named.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ensure_ascii: named.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
    };
    if let Some(separators) = named.get::<Option<Value>>("separators")?
        && let (Ok(item), Ok(key)) = (
            separators.get_item_by_index(0),
            separators.get_item_by_index(1),
        )
        && let (Some(item), Some(key)) = (item.as_str(), key.as_str())
    {
        layout.item_separator = item.to_owned();
        layout.key_separator = key.to_owned();
    }
    let mut out = String::new();
    write_json(value, &layout, 0, &mut out)?;
    Ok(Value::from(out))
}

fn write_json(value: &Value, layout: &Layout, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > JSON_DEPTH_MAX {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "value is nested too deeply for tojson",
        ));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write_number(value, out),
        ValueKind::String => write_text(value.as_str().unwrap_or_default(), layout, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_list('[', ']', items.len(), layout, depth, out, |at, out| {
                write_json(&items[at], layout, depth + 1, out)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if layout.sort_keys {
                keys.sort();
            }
            write_list('{', '}', keys.len(), layout, depth, out, |at, out| {
                let key = &keys[at];
                match key.as_str() {
                    Some(text) => write_text(text, layout, out),
                    None => write_text(&key.to_string(), layout, out),
                }
                out.push_str(&layout.key_separator);
                write_json(&value.get_item(key)?, layout, depth + 1, out)
            })?;
        }
        other => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("tojson cannot write a value of type {other}"),
            ));
        }
    }
    Ok(())
}

fn write_list(
    open: char,
    close: char,
    count: usize,
    layout: &Layout,
    depth: usize,
    out: &mut String,
    mut item: impl FnMut(usize, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(open);
    let new_line = |depth: usize, out: &mut String| {
        if let Some(width) = layout.indent.filter(|_| count > 0) {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width.min(16) * depth));
        }
    };
    for at in 0..count {
        if at > 0 {
            out.push_str(&layout.item_separator);
        }
        new_line(depth + 1, out);
        item(at, out)?;
    }
    new_line(depth, out);
    out.push(close);
    Ok(())
}

fn write_number(value: &Value, out: &mut String) {
    if value.is_integer() {
        // Writing to a string cannot fail.
        let _ = write!(out, "{value}");
        return;
    }
    match f64::try_from(value.clone()) {
        Ok(number) if number.is_finite() => {
            out.push_str(&serde_json::Value::from(number).to_string())
        }
        Ok(number) if number.is_nan() => out.push_str("NaN"),
        Ok(number) => out.push_str(if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }),
        Err(_) => out.push_str("null"),
    }
}

fn write_text(text: &str, layout: &Layout, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c if layout.ensure_ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Blanks out the `{% generation %}` tags by which templates mark answers for training. They become a condition that
/// is always true, so that the tags' own white-space control keeps its meaning.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let tag = &rest[start + 2..start + length];
        let inner = tag
            .trim_start_matches(['-', '+'])
            .trim_end_matches(['-', '+']);
        let replacement = match inner.trim() {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => "",
        };
        out.push_str(&rest[..start + 2]);
        if replacement.is_empty() {
            out.push_str(tag);
        } else {
            out.push_str(&tag.replacen(inner.trim(), replacement, 1));
        }
        out.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(expression: &str, value: serde_json::Value) -> String {
        let mut env = minijinja::Environment::new();
        env.add_filter("tojson", tojson);
        env.render_str(
            &format!("{{{{ {expression} }}}}"),
            minijinja::context! { v => value },
        )
        .unwrap()
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        let value: serde_json::Value = serde_json::from_str(
            r#"{"b": "<a href='x'>東京</a>", "a": [1, 2.5, true, null, {}], "c": []}"#,
        )
        .unwrap();
        for (expression, expected) in [
            (
                "v|tojson",
                r#"{"b": "<a href='x'>東京</a>", "a": [1, 2.5, true, null, {}], "c": []}"#,
            ),
            (
                "v|tojson(sort_keys=true)",
                r#"{"a": [1, 2.5, true, null, {}], "b": "<a href='x'>東京</a>", "c": []}"#,
            ),
            (
                "v|tojson(separators=(',', ':'))",
                r#"{"b":"<a href='x'>東京</a>","a":[1,2.5,true,null,{}],"c":[]}"#,
            ),
            (
                "v.b|tojson(ensure_ascii=true)",
                r#""<a href='x'>\u6771\u4eac</a>""#,
            ),
            (
                "v.a|tojson(indent=2)",
                "[\n  1,\n  2.5,\n  true,\n  null,\n  {}\n]",
            ),
            (
                "v.a|tojson(2)",
                "[\n  1,\n  2.5,\n  true,\n  null,\n  {}\n]",
            ),
            ("\"q\\\"\\n\"|tojson", r#""q\"\n""#),
        ] {
            assert_eq!(json(expression, value.clone()), expected, "{expression}");
        }
    }

    #[test]
    fn generation_tags_lose_their_meaning_and_keep_their_white_space_control() {
        for (source, expected) in [
            (
                "a {%- generation -%} b {% endgeneration %} c",
                "a {%- if true -%} b {% endif %} c",
            ),
            ("{%generation%}x{%endgeneration%}", "{%if true%}x{%endif%}"),
            ("{% set generation = 1 %}", "{% set generation = 1 %}"),
            ("{% unfinished", "{% unfinished"),
        ] {
            assert_eq!(without_generation_tags(source), expected);
        }
    }

    #[test]
    fn dates_come_from_the_given_clock() {
        let now = Timestamp::parse_rfc3339("2026-01-05T23:30:00Z").unwrap();
        assert_eq!(strftime(now, "%d %b %Y").unwrap(), "05 Jan 2026");
        assert!(strftime(now, "%").is_err());
    }
}
