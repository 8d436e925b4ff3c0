//! What is printed, and how: JSON or tables for data, one-line messages for people.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::args::Format;
use crate::fail::{Failure, Result};
use crate::lang::Lang;

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// JSON or tables.
    pub(crate) format: Format,
    /// The language of messages.
    pub(crate) lang: Lang,
}

impl Output {
    /// Tables unless asked otherwise.
    pub(crate) fn new(format: Option<Format>) -> Self {
        Self {
            format: format.unwrap_or(Format::Table),
            lang: Lang::from_env(),
        }
    }

    /// True when standard error is a terminal that a person watches.
    pub(crate) fn interactive() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Prints one value: as JSON, or as what `table` makes of it.
    pub(crate) fn value<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&mut Vec<(String, String)>),
    ) -> Result<()> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => {
                let mut rows = Vec::new();
                table(&mut rows);
                let width = rows
                    .iter()
                    .map(|(name, _)| display_width(name))
                    .max()
                    .unwrap_or(0);
                let mut out = anstream::stdout().lock();
                for (name, text) in rows {
                    let pad = " ".repeat(width - display_width(&name));
                    writeln!(out, "{name}{pad}  {}", printable(&text)).map_err(closed)?;
                }
                Ok(())
            }
        }
    }

    /// Prints a list: as a JSON array, or as a table.
    pub(crate) fn list<T: Serialize>(
        &self,
        items: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<()> {
        match self.format {
            Format::Json => self.json(&items),
            Format::Table => {
                let mut table = Table::new();
                table
                    .load_style(presets::NOTHING)
                    .set_content_arrangement(ContentArrangement::Disabled)
                    .set_header(header.iter().map(|name| name.to_uppercase()));
                for item in items {
                    table.add_row(row(item).iter().map(|cell| printable(cell)));
                }
                let mut out = anstream::stdout().lock();
                for line in table.lines() {
                    writeln!(out, "{}", line.trim_end().trim_start_matches(' ')).map_err(closed)?;
                }
                Ok(())
            }
        }
    }

    /// Prints a value as JSON whatever the format.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<()> {
        let text = printable_json(&serde_json::to_string_pretty(value)?);
        // Not through the stream that takes escape sequences out: JSON keeps every character.
        writeln!(std::io::stdout().lock(), "{text}").map_err(closed)
    }

    /// Prints text as it is, and flushes: for answers that stream.
    pub(crate) fn text(&self, text: &str) -> Result<()> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(closed)
    }

    /// Says something to the person, on standard error.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        // Nobody to talk to is not a reason to stop.
        let _ = writeln!(anstream::stderr(), "{}", text.as_ref());
    }

    /// Says something in the person's language.
    pub(crate) fn tell(&self, en: &str, ja: &str) {
        self.say(self.lang.pick(en, ja));
    }

    /// Says that something was done which leaves nothing to show: to a person in words, to a program as `value`.
    pub(crate) fn done(&self, value: &Value, en: &str, ja: &str) -> Result<()> {
        self.tell(en, ja);
        match self.format {
            Format::Json => self.json(value),
            Format::Table => Ok(()),
        }
    }

    /// Says why a command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        let message = failure.message.of(self.lang);
        if message.is_empty() {
            return;
        }
        self.say(format!(
            "{} {}",
            self.lang.pick("error:", "エラー:"),
            printable_lines(message)
        ));
        if let Some(id) = &failure.request_id {
            self.say(format!(
                "  {} {}",
                self.lang.pick("request id:", "リクエストID:"),
                printable(id)
            ));
        }
        if let Some(hint) = &failure.hint {
            let hint = hint.of(self.lang);
            self.say(format!("{} {hint}", self.lang.pick("hint:", "ヒント:")));
        }
    }
}

fn closed(error: std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        // `honshu … | head` is no failure worth a word.
        Failure::new(String::new())
    } else {
        Failure::new((
            format!("cannot write to standard output: {error}"),
            format!("標準出力に書き込めません: {error}"),
        ))
    }
}

/// Columns that a text takes in a terminal; East Asian characters take two.
fn display_width(text: &str) -> usize {
    text.chars()
        .map(|c| {
            if ('\u{1100}'..='\u{ffdc}').contains(&c) {
                2
            } else {
                1
            }
        })
        .sum()
}

/// One line without control codes: names and model text come from elsewhere, and a terminal obeys them.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// As [`printable`], but keeps line breaks and tabs, for the text of answers and multi-line errors.
pub(crate) fn printable_lines(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// JSON whose control codes are all escaped: JSON itself asks it of those below the space only, and a terminal obeys
/// more than those. Outside of strings JSON has none of them but line breaks.
fn printable_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// A field of a JSON object as text; empty where it is absent.
pub(crate) fn field(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_codes_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
        assert_eq!(
            printable_lines("a\x1b]0;x\x07b\n\tc\u{9b}d"),
            "a]0;xb\n\tcd"
        );
    }

    #[test]
    fn json_keeps_every_character_and_shows_none_that_a_terminal_obeys() {
        let value = "a\x1b[31m\x7fb\u{9b}2J\n本";
        let text = printable_json(&serde_json::to_string_pretty(&[value]).unwrap());
        assert_eq!(text, "[\n  \"a\\u001b[31m\\u007fb\\u009b2J\\n本\"\n]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [value]);
    }

    #[test]
    fn japanese_takes_two_columns() {
        assert_eq!(display_width("名前ab"), 6);
    }
}
