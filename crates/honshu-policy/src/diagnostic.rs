//! What is wrong with a text, where, and what would be right.
//!
//! One shape serves the terminal, the API and the editor of the console. A diagnostic never stands
//! for a decision: it speaks of the text only.

use std::fmt;

use serde::Serialize;

use crate::limits::RENDER_COLUMNS_MAX;

/// Whether the text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The text is not a policy statement.
    Error,
    /// The text is accepted, but hardly means what was intended.
    Warning,
}

/// What kind of problem it is. The names are stable: documentation and tests refer to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// Something else was expected here.
    UnexpectedToken,
    /// A character that no statement contains outside quotes.
    IllegalCharacter,
    /// A quote or a pattern that does not end.
    Unterminated,
    /// A backslash before something other than `'` or `\`.
    BadEscape,
    /// A statement begins with another word.
    UnknownStatement,
    /// No such kind of subject.
    UnknownSubject,
    /// No such verb.
    UnknownVerb,
    /// No such resource type.
    UnknownResourceType,
    /// No such permission.
    UnknownPermission,
    /// No such variable.
    UnknownVariable,
    /// No such operation: the comparison never matches.
    UnknownOperation,
    /// The operator does not fit the variable.
    BadOperator,
    /// The value does not fit the variable.
    BadValue,
    /// Not an OCID where one is needed.
    BadOcid,
    /// A name that must be written in quotes.
    UnquotedName,
    /// Conditions joined by something other than `any {…}` and `all {…}`.
    BadGrouping,
    /// The statement is complete, but something follows.
    TrailingText,
    /// One statement was expected, and the text has none or several.
    NotOneStatement,
    /// The verb grants nothing on this resource type.
    GrantsNothing,
    /// The condition can never be true.
    NeverTrue,
    /// Too long, too deep or too many.
    TooLarge,
}

impl Code {
    /// The stable name, such as `unknown-verb`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::UnexpectedToken => "unexpected-token",
            Code::IllegalCharacter => "illegal-character",
            Code::Unterminated => "unterminated",
            Code::BadEscape => "bad-escape",
            Code::UnknownStatement => "unknown-statement",
            Code::UnknownSubject => "unknown-subject",
            Code::UnknownVerb => "unknown-verb",
            Code::UnknownResourceType => "unknown-resource-type",
            Code::UnknownPermission => "unknown-permission",
            Code::UnknownVariable => "unknown-variable",
            Code::UnknownOperation => "unknown-operation",
            Code::BadOperator => "bad-operator",
            Code::BadValue => "bad-value",
            Code::BadOcid => "bad-ocid",
            Code::UnquotedName => "unquoted-name",
            Code::BadGrouping => "bad-grouping",
            Code::TrailingText => "trailing-text",
            Code::NotOneStatement => "not-one-statement",
            Code::GrantsNothing => "grants-nothing",
            Code::NeverTrue => "never-true",
            Code::TooLarge => "too-large",
        }
    }
}

/// Where in the text, as bytes for programs and as line and column for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
    /// Line of the start, from 1.
    pub line: usize,
    /// Column of the start in characters, from 1.
    pub column: usize,
}

impl Span {
    pub(crate) fn new(source: &str, start: usize, end: usize) -> Span {
        let before = source.get(..start).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Span {
            start,
            end,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// A change that would remove the problem, for a button in an editor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// First byte to replace.
    pub start: usize,
    /// The byte after the last one to replace.
    pub end: usize,
    /// The text to put there.
    pub replacement: String,
}

/// One problem of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the text is refused.
    pub severity: Severity,
    /// The kind of problem.
    pub code: Code,
    /// Where it is.
    pub span: Span,
    /// What is wrong, in one clause.
    pub message: String,
    /// What could stand there instead, possibly shortened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The same as an edit, where one is certain enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

impl Diagnostic {
    /// The problem as a terminal shows it: message, place, the line with a caret, hint.
    ///
    /// `name` is what the reader calls the text, such as a file name. Control characters of the
    /// text are shown as `�`, so that a policy cannot steer the reader's terminal.
    #[must_use]
    pub fn render(&self, source: &str, name: &str) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let line_start = source[..self.span.start]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let line_end = source[self.span.start..]
            .find('\n')
            .map_or(source.len(), |newline| self.span.start + newline);
        let before = &source[line_start..self.span.start];
        let marked = &source[self.span.start..self.span.end.clamp(self.span.start, line_end)];
        let after = &source[self.span.start + marked.len()..line_end];

        let after = after.trim_end();
        let whole = columns(before) + columns(marked) + columns(after) <= RENDER_COLUMNS_MAX;
        let side = if whole {
            RENDER_COLUMNS_MAX
        } else {
            RENDER_COLUMNS_MAX / 2
        };
        let (before, cut_before) = keep_last(before, side);
        let (marked, _) = keep_first(marked, RENDER_COLUMNS_MAX);
        let (after, cut_after) = keep_first(after, side);
        let lead = if cut_before { "…" } else { "" };
        let tail = if cut_after { "…" } else { "" };

        let gutter = " ".repeat(self.span.line.to_string().len());
        let indent = " ".repeat(columns(lead) + columns(&before));
        let carets = "^".repeat(columns(&marked).max(1));
        let mut out = format!(
            "{severity}[{code}]: {message}\n{gutter}--> {name}:{line}:{column}\n{gutter} |\n{line} | {lead}{before}{marked}{after}{tail}\n{gutter} | {indent}{carets}\n",
            code = self.code.name(),
            message = visible(&self.message),
            name = visible(name),
            line = self.span.line,
            column = self.span.column,
        );
        if !self.expected.is_empty() {
            out.push_str(&format!(
                "{gutter} = expected: {}\n",
                visible(&self.expected.join(", "))
            ));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("{gutter} = hint: {}\n", visible(hint)));
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}",
            self.span.line, self.span.column, self.message
        )?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// A text was refused: all problems found, errors and warnings, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ParseError {
    /// At least one error.
    pub diagnostics: Vec<Diagnostic>,
}

impl ParseError {
    /// All problems as a terminal shows them, with an empty line between.
    #[must_use]
    pub fn render(&self, source: &str, name: &str) -> String {
        let rendered: Vec<String> = self
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.render(source, name))
            .collect();
        rendered.join("\n")
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut errors = self
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error);
        match errors.next() {
            None => f.write_str("invalid policy statement"),
            Some(first) => {
                write!(f, "{first}")?;
                match errors.count() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

impl std::error::Error for ParseError {}

/// Replaces what a terminal would obey instead of show.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() || is_format_control(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Zero-width and direction marks: they can make a statement look like another one.
pub(crate) fn is_format_control(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
    )
}

/// How many columns a terminal gives to the text: two to each East Asian wide character.
fn columns(text: &str) -> usize {
    text.chars().map(column_width).sum()
}

fn column_width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{3099}' | '\u{309a}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{33ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{a000}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

fn keep_first(text: &str, columns_max: usize) -> (String, bool) {
    let text = visible(text);
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += column_width(c);
        if used > columns_max {
            return (text[..at].to_owned(), true);
        }
    }
    (text, false)
}

fn keep_last(text: &str, columns_max: usize) -> (String, bool) {
    let text = visible(text);
    let mut used = 0;
    for (at, c) in text.char_indices().rev() {
        used += column_width(c);
        if used > columns_max {
            return (text[at + c.len_utf8()..].to_owned(), true);
        }
    }
    (text, false)
}
