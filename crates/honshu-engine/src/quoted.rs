//! The grammar of a text as the grammar of what stands for that text inside a JSON string.
//!
//! Models write the input of a custom tool as a JSON string. So that the input itself satisfies the caller's grammar,
//! every character that JSON escapes is replaced by its escape wherever a terminal can match it. The replacement is
//! the same for each character, so that what the rules say of terminals holds for them as it stands: the source is
//! copied and only its strings, regular expressions and imports are rewritten, line for line.
//!
//! A grammar is a stranger's program; see [`crate::constraint`]. What would reach beyond a text is refused: tokens,
//! other grammars, JSON schemas, the options of the compiler.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

use crate::constraint::{GRAMMAR_BYTES_MAX, GrammarError};

/// Longest definition, in bytes.
const DEFINITION_BYTES_MAX: usize = 64 << 10;
/// Classes such as `\w` in one definition: some hold hundreds of ranges each.
const LARGE_CLASSES_MAX: usize = 500;
/// Deepest nesting of groups in a regular expression.
const NESTING_MAX: u32 = 100;

/// The terminals of Lark's library `common`.
const COMMON: &[(&str, &str)] = &[
    ("DIGIT", r"[0-9]"),
    ("HEXDIGIT", r"[a-fA-F0-9]"),
    ("INT", r"[0-9]+"),
    ("SIGNED_INT", r"[+-]?[0-9]+"),
    ("DECIMAL", r"[0-9]+\.[0-9]*|\.[0-9]+"),
    ("_EXP", r"[eE][+-]?[0-9]+"),
    (
        "FLOAT",
        r"([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+",
    ),
    (
        "SIGNED_FLOAT",
        r"[+-]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)",
    ),
    ("NUMBER", r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"),
    (
        "SIGNED_NUMBER",
        r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?",
    ),
    ("ESCAPED_STRING", r#""([^"\\\n]|\\.)*""#),
    ("LCASE_LETTER", r"[a-z]"),
    ("UCASE_LETTER", r"[A-Z]"),
    ("LETTER", r"[A-Za-z]"),
    ("WORD", r"[A-Za-z]+"),
    ("CNAME", r"[_A-Za-z][_A-Za-z0-9]*"),
    ("WS_INLINE", r"[ \t]+"),
    ("WS", r"[ \t\f\r\n]+"),
    ("CR", r"\r"),
    ("LF", r"\n"),
    ("NEWLINE", r"(\r?\n)+"),
    ("SH_COMMENT", r"#[^\n]*"),
    ("CPP_COMMENT", r"//[^\n]*"),
    ("C_COMMENT", r"/\*[^*]*\*+([^/*][^*]*\*+)*/"),
    ("SQL_COMMENT", r"--[^\n]*"),
];

/// A regular expression that the whole text matches. `^` at its beginning and `$` at its end say nothing new.
pub(crate) fn regex(pattern: &str) -> Result<String, GrammarError> {
    check_size(pattern)?;
    rewritten(pattern)
}

/// A grammar in Lark's language.
pub(crate) fn lark(source: &str) -> Result<String, GrammarError> {
    check_size(source)?;
    let mut reader = Reader {
        rest: source,
        line: 1,
        out: String::with_capacity(source.len() * 2),
    };
    match reader.read() {
        Ok(()) => Ok(reader.out),
        Err(what) => Err(GrammarError::Unsupported(format!(
            "line {}: {}",
            reader.line,
            words(&what)
        ))),
    }
}

fn check_size(source: &str) -> Result<(), GrammarError> {
    let bytes = source.len();
    if bytes > DEFINITION_BYTES_MAX {
        return Err(GrammarError::Unsupported(format!(
            "it has {bytes} bytes and at most {DEFINITION_BYTES_MAX} are taken"
        )));
    }
    let large = source
        .as_bytes()
        .windows(2)
        .filter(|pair| pair[0] == b'\\' && b"wWdDsSpPbB".contains(&pair[1]))
        .count();
    if large > LARGE_CLASSES_MAX {
        return Err(GrammarError::Unsupported(format!(
            "it has {large} classes such as `\\w` and at most {LARGE_CLASSES_MAX} are taken"
        )));
    }
    Ok(())
}

fn words(error: &GrammarError) -> String {
    match error {
        GrammarError::Unsupported(what) => what.clone(),
        other => other.to_string(),
    }
}

fn unsupported<T>(what: impl Into<String>) -> Result<T, GrammarError> {
    Err(GrammarError::Unsupported(what.into()))
}

struct Reader<'s> {
    rest: &'s str,
    line: usize,
    out: String,
}

impl<'s> Reader<'s> {
    fn read(&mut self) -> Result<(), GrammarError> {
        let mut begins_line = true;
        while let Some(character) = self.rest.chars().next() {
            if self.out.len() > GRAMMAR_BYTES_MAX {
                return unsupported("the grammar becomes too large");
            }
            let at_start = begins_line;
            begins_line &= character.is_ascii_whitespace();
            match character {
                '\n' => {
                    self.copy(1);
                    self.line += 1;
                    begins_line = true;
                }
                '#' => self.comment(),
                '/' if self.rest.starts_with("//") => self.comment(),
                '/' => self.regexp()?,
                '"' => self.string()?,
                '%' => self.directive()?,
                '<' => return unsupported("tokens such as `<...>` cannot stand in a text"),
                '@' => return unsupported("other grammars (`@...`) are not known here"),
                ':' if self.rest.starts_with("::") => {
                    return unsupported("rules with parameters (`::`) are not supported");
                }
                '~' => self.tilde()?,
                _ if at_start && is_word(character) => self.head()?,
                other => self.copy(other.len_utf8()),
            }
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> &'s str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn copy(&mut self, length: usize) {
        let taken = self.take(length);
        self.out.push_str(taken);
    }

    fn comment(&mut self) {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        self.take(end);
    }

    /// The name that a definition begins with.
    fn head(&mut self) -> Result<(), GrammarError> {
        let end = self.rest.find(|c| !is_word(c) && c != '.');
        self.copy(end.unwrap_or(self.rest.len()));
        if self.rest.trim_start_matches([' ', '\t']).starts_with('[') {
            return unsupported("attributes of rules (`[...]`) are not supported");
        }
        Ok(())
    }

    /// Behind `~` stands how often something comes. Before something it would mean all texts but its own, and among
    /// those are texts that are no part of a JSON string.
    fn tilde(&mut self) -> Result<(), GrammarError> {
        self.copy(1);
        let rest = self.rest.trim_start_matches([' ', '\t']);
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            Ok(())
        } else {
            unsupported("`~` stands only before a number: what is not something cannot be told")
        }
    }

    fn regexp(&mut self) -> Result<(), GrammarError> {
        let mut escaped = false;
        let end = self.rest[1..].find(|c| {
            let ends = c == '/' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            return unsupported("a regular expression has no end");
        };
        let body = &self.take(end + 2)[1..=end];
        self.line += body.matches('\n').count();
        let end = self.rest.find(|c| !"imslux".contains(c));
        let flags = self.take(end.unwrap_or(self.rest.len()));
        if flags.contains('l') {
            return unsupported("the flag `l` of a regular expression is not supported");
        }
        let pattern = if flags.is_empty() {
            body.to_owned()
        } else {
            format!("(?{flags}){body}")
        };
        self.push_regex(&pattern)
    }

    fn push_regex(&mut self, pattern: &str) -> Result<(), GrammarError> {
        let written = rewritten(pattern)?;
        self.out.push('/');
        self.out.push_str(&written);
        self.out.push('/');
        Ok(())
    }

    fn string(&mut self) -> Result<(), GrammarError> {
        let (text, folds) = self.literal()?;
        let behind = self.rest.trim_start_matches([' ', '\t']);
        if let Some(rest) = behind.strip_prefix("..") {
            self.rest = rest.trim_start_matches([' ', '\t']);
            let (last, _) = self.literal()?;
            let class = format!(
                "[{}-{}]",
                regex_syntax::escape(&text),
                regex_syntax::escape(&last)
            );
            let is_one = |text: &str| text.chars().count() == 1;
            if !is_one(&text) || !is_one(&last) {
                return unsupported("the ends of a range are single characters");
            }
            return self.push_regex(&class);
        }
        if folds {
            return self.push_regex(&format!("(?i){}", regex_syntax::escape(&text)));
        }
        let inside: String = text.chars().map(in_json).collect();
        // Lark's strings do not take this one as it stands.
        let literal = serde_json::Value::from(inside).to_string();
        self.out.push_str(&literal.replace('\u{7F}', "\\u007f"));
        Ok(())
    }

    /// Reads a string; answers its value and whether upper and lower case are the same.
    fn literal(&mut self) -> Result<(String, bool), GrammarError> {
        if !self.rest.starts_with('"') {
            return unsupported("a string is expected here");
        }
        let mut escaped = false;
        let end = self.rest[1..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            return unsupported("a string has no end");
        };
        let json = with_long_escapes(self.take(end + 2));
        let Ok(text) = serde_json::from_str::<String>(&json) else {
            return unsupported("a string has an escape or a character that it cannot have");
        };
        let folds = self.rest.starts_with('i');
        if folds {
            self.take(1);
        }
        Ok((text, folds))
    }

    fn directive(&mut self) -> Result<(), GrammarError> {
        let end = self.rest[1..].find(|c: char| !c.is_ascii_alphabetic());
        let word = &self.rest[..end.map_or(self.rest.len(), |end| end + 1)];
        match word {
            "%ignore" => self.copy(word.len()),
            "%import" => {
                self.take(word.len());
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                let line = self.take(end);
                self.import(line)?;
            }
            _ => return unsupported(format!("`{word}` is not supported")),
        }
        Ok(())
    }

    /// `common.NAME`, `common.NAME -> OTHER` or `common (A, B)`.
    fn import(&mut self, line: &str) -> Result<(), GrammarError> {
        let line = line.split(['#']).next().unwrap_or_default();
        let line = line.split("//").next().unwrap_or_default().trim();
        let Some(names) = line.strip_prefix("common") else {
            return unsupported("only terminals of the library `common` can be imported");
        };
        let names = names.trim_start();
        let pairs: Vec<(&str, &str)> = if let Some(list) = names.strip_prefix('(') {
            let list = list.strip_suffix(')').unwrap_or(list);
            list.split(',')
                .map(|name| (name.trim(), name.trim()))
                .collect()
        } else {
            let name = names.strip_prefix('.').unwrap_or(names);
            let (name, alias) = name.split_once("->").unwrap_or((name, name));
            vec![(name.trim(), alias.trim())]
        };
        for (index, (name, alias)) in pairs.into_iter().enumerate() {
            let Some((_, pattern)) = COMMON.iter().find(|(known, _)| *known == name) else {
                return unsupported(format!("the library `common` has no terminal `{name}`"));
            };
            if alias.is_empty() || !alias.chars().all(is_word) {
                return unsupported("an import needs a name");
            }
            if index > 0 {
                self.out.push('\n');
            }
            self.out.push_str(alias);
            self.out.push_str(": ");
            self.push_regex(pattern)?;
        }
        Ok(())
    }
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '!' | '?')
}

/// JSON has no `\xHH`.
fn with_long_escapes(literal: &str) -> String {
    let mut out = String::with_capacity(literal.len());
    let mut characters = literal.chars();
    while let Some(character) = characters.next() {
        out.push(character);
        if character == '\\' {
            match characters.next() {
                Some('x') => out.push_str("u00"),
                other => out.extend(other),
            }
        }
    }
    out
}

/// What stands for a character inside a JSON string, one form for each.
fn in_json(character: char) -> String {
    match character {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\0'..='\u{1F}' => format!("\\u{:04x}", u32::from(character)),
        other => other.to_string(),
    }
}

/// The characters that [`in_json`] changes.
static ESCAPED: LazyLock<ClassUnicode> = LazyLock::new(|| {
    ClassUnicode::new(
        [('\0', '\u{1F}'), ('"', '"'), ('\\', '\\')]
            .map(|(first, last)| ClassUnicodeRange::new(first, last)),
    )
});

/// Classes of hundreds of ranges, without the characters that are escaped, and how they are written.
static LARGE: LazyLock<Vec<(ClassUnicode, &str)>> = LazyLock::new(|| {
    [
        (r"\w", r"\w"),
        (r"\W", r"[\W--[\x00-\x1F\x22\x5C]]"),
        (r"\d", r"\d"),
        (r"\D", r"[\D--[\x00-\x1F\x22\x5C]]"),
    ]
    .into_iter()
    .filter_map(|(pattern, written)| {
        let hir = regex_syntax::parse(pattern).ok()?;
        let HirKind::Class(Class::Unicode(class)) = hir.kind() else {
            return None;
        };
        let mut class = class.clone();
        class.difference(&ESCAPED);
        Some((class, written))
    })
    .collect()
});

fn rewritten(pattern: &str) -> Result<String, GrammarError> {
    let hir = regex_syntax::ParserBuilder::new()
        .nest_limit(NESTING_MAX)
        .build()
        .parse(pattern)
        .map_err(|error| GrammarError::Unsupported(in_one_line(&error)))?;
    let mut out = String::with_capacity(pattern.len() * 2);
    write(&hir, (true, true), &mut out)?;
    if out.is_empty() {
        out.push_str("(?:)");
    }
    Ok(out)
}

/// The parser draws the pattern above its reason, which stands on the last line.
fn in_one_line(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    format!("a regular expression is not valid: {reason}")
}

/// Writes `hir` for the compiler of grammars, with `/` escaped as Lark wants it. `edges` says whether this stands at
/// the beginning and at the end of the whole, where anchors say nothing.
fn write(hir: &Hir, edges: (bool, bool), out: &mut String) -> Result<(), GrammarError> {
    if out.len() > GRAMMAR_BYTES_MAX {
        return unsupported("a regular expression becomes too large");
    }
    match hir.kind() {
        HirKind::Empty => Ok(()),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => {
                for character in text.chars() {
                    write_text(&in_json(character), out);
                }
                Ok(())
            }
            Err(_) => unsupported("a regular expression matches bytes that are no text"),
        },
        HirKind::Class(Class::Unicode(class)) => write_class(class, out),
        HirKind::Class(Class::Bytes(class)) => match class.to_unicode_class() {
            Some(class) => write_class(&class, out),
            None => unsupported("a regular expression matches bytes that are no text"),
        },
        HirKind::Look(Look::Start) if edges.0 => Ok(()),
        HirKind::Look(Look::End) if edges.1 => Ok(()),
        HirKind::Look(_) => unsupported(
            "a regular expression has an anchor or a word boundary inside, which cannot be enforced",
        ),
        HirKind::Repetition(repetition) => {
            group(out, |out| write(&repetition.sub, (false, false), out))?;
            write_count(repetition, out);
            Ok(())
        }
        HirKind::Capture(capture) => group(out, |out| write(&capture.sub, edges, out)),
        HirKind::Concat(parts) => {
            let is = |part: &Hir, look| matches!(part.kind(), HirKind::Look(own) if *own == look);
            let first = parts.iter().position(|part| !is(part, Look::Start));
            let last = parts.iter().rposition(|part| !is(part, Look::End));
            for (index, part) in parts.iter().enumerate() {
                let at_start = first.is_none_or(|first| index <= first);
                let at_end = last.is_none_or(|last| index >= last);
                write(part, (edges.0 && at_start, edges.1 && at_end), out)?;
            }
            Ok(())
        }
        HirKind::Alternation(choices) => group(out, |out| {
            for (index, choice) in choices.iter().enumerate() {
                if index > 0 {
                    out.push('|');
                }
                write(choice, edges, out)?;
            }
            Ok(())
        }),
    }
}

fn group(
    out: &mut String,
    inner: impl FnOnce(&mut String) -> Result<(), GrammarError>,
) -> Result<(), GrammarError> {
    out.push_str("(?:");
    inner(out)?;
    out.push(')');
    Ok(())
}

fn write_count(repetition: &Repetition, out: &mut String) {
    match (repetition.min, repetition.max) {
        (0, None) => out.push('*'),
        (1, None) => out.push('+'),
        (0, Some(1)) => out.push('?'),
        (min, None) => out.push_str(&format!("{{{min},}}")),
        (min, Some(max)) => out.push_str(&format!("{{{min},{max}}}")),
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&regex_syntax::escape(text).replace('/', "\\/"));
}

fn write_class(class: &ClassUnicode, out: &mut String) -> Result<(), GrammarError> {
    let mut plain = class.clone();
    plain.difference(&ESCAPED);
    let mut escaped = class.clone();
    escaped.intersect(&ESCAPED);
    let mut parts = Vec::new();
    if !plain.ranges().is_empty() {
        parts.push(plain_class(plain));
    }
    for character in escaped.iter().flat_map(|range| range.start()..=range.end()) {
        let mut part = String::new();
        write_text(&in_json(character), &mut part);
        parts.push(part);
    }
    match parts.as_slice() {
        [] => return unsupported("a part of a regular expression matches nothing"),
        [part] => out.push_str(part),
        _ => {
            out.push_str("(?:");
            out.push_str(&parts.join("|"));
            out.push(')');
        }
    }
    Ok(())
}

fn plain_class(mut class: ClassUnicode) -> String {
    let mut out = "[".to_owned();
    let mut ranges = class.ranges().len();
    for (large, written) in LARGE.iter() {
        let mut missing = large.clone();
        missing.difference(&class);
        let mut rest = class.clone();
        rest.difference(large);
        if missing.ranges().is_empty() && rest.ranges().len() < ranges {
            out.push_str(written);
            ranges = rest.ranges().len();
            class = rest;
        }
    }
    for range in class.iter() {
        write_end(range.start(), &mut out);
        if range.start() < range.end() {
            out.push('-');
            write_end(range.end(), &mut out);
        }
    }
    out.push(']');
    out
}

fn write_end(character: char, out: &mut String) {
    if character.is_ascii_alphanumeric() {
        out.push(character);
    } else {
        out.push_str(&format!("\\x{{{:X}}}", u32::from(character)));
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed test is a panic"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_character_that_json_escapes_is_escaped() {
        for (pattern, written) in [
            (
                r"a.c",
                r"a(?:[\x{20}-\x{21}\x{23}-\x{5B}\x{5D}-\x{10FFFF}]|",
            ),
            (r"^a$", "a"),
            (r"^(a|^b)$", "(?:(?:a|b))"),
            (r#"say "hi"\n"#, r#"say \\"hi\\"\\n"#),
            (r"a/b", r"a\/b"),
            (r"\\", r"\\\\"),
            (r"x{2,5}?", "(?:x){2,5}"),
            (r"\w", r"[\w]"),
            (r"[\w.-]", r"[\w\x{2D}-\x{2E}]"),
            (r"[\n]", r"\\n"),
            (r"\x01", r"\\u0001"),
            ("", "(?:)"),
        ] {
            let got = regex(pattern).unwrap();
            assert!(got.starts_with(written), "{pattern}: {got}");
        }
    }

    #[test]
    fn lark_keeps_its_lines_and_loses_its_comments() {
        let source = "// a patch\nstart: begin line+ # the end\nbegin: \"*** \\\"x\\\"\" LF\nline: /[+-](.*)/ LF\n\
                      %import common.LF\nRANGE: \"a\"..\"z\" | \"yes\"i | A~2..3\n%ignore \" \"\n";
        let got = lark(source).unwrap();
        let lines: Vec<&str> = got.lines().collect();
        assert_eq!(lines[0], "");
        assert_eq!(lines[1], "start: begin line+ ");
        assert_eq!(lines[2], r#"begin: "*** \\\"x\\\"" LF"#);
        assert!(
            lines[3].starts_with(r"line: /[\x{2B}\x{2D}](?:(?:"),
            "{got}"
        );
        assert_eq!(lines[4], r"LF: /\\n/");
        assert_eq!(lines[5], "RANGE: /[a-z]/ | /[Yy][Ee][Ss\\x{17F}]/ | A~2..3");
        assert_eq!(lines[6], "%ignore \" \"");
    }

    #[test]
    fn what_reaches_beyond_a_text_is_refused_with_its_line() {
        for (source, what) in [
            ("start: <|im_end|>", "line 1: tokens"),
            ("start: <[5]>", "line 1: tokens"),
            ("start: a\na: @other", "line 2: other grammars"),
            ("start: %json {\"type\": \"object\"}", "line 1: `%json`"),
            (
                "%llguidance {\"no_forcing\": true}\nstart: \"a\"",
                "line 1: `%llguidance`",
            ),
            (
                "start: %regex {\"substring_words\": \"a\"}",
                "line 1: `%regex`",
            ),
            ("start[max_tokens=5]: /a/", "line 1: attributes"),
            ("start: x\nx::_ : \"a\"", "line 2: rules with parameters"),
            ("start: A\nA: ~\"b\"", "line 2: `~`"),
            ("start: /a", "line 1: a regular expression has no end"),
            (
                "start: /(/",
                "line 1: a regular expression is not valid: unclosed group",
            ),
            (
                "start: /a\\bc/",
                "line 1: a regular expression has an anchor",
            ),
            ("start: \"a", "line 1: a string has no end"),
            ("start: \"\\q\"", "line 1: a string has an escape"),
            ("start: \"ab\"..\"c\"", "line 1: the ends of a range"),
            ("%import python.NAME", "line 1: only terminals"),
            ("%import common.NOPE", "line 1: the library"),
        ] {
            let error = lark(source).unwrap_err().to_string();
            assert!(error.starts_with(what), "{source}: {error}");
        }
        for (pattern, what) in [
            ("(", "a regular expression is not valid"),
            ("(?=a)b", "a regular expression is not valid"),
            ("a^b", "a regular expression has an anchor"),
            (r"(?-u:\xFF)", "a regular expression is not valid"),
            (&"(".repeat(200), "a regular expression is not valid"),
            (&"x".repeat(70_000), "it has 70000 bytes"),
            (&r"\w".repeat(600), "it has 600 classes"),
        ] {
            let error = regex(pattern).unwrap_err().to_string();
            assert!(error.starts_with(what), "{pattern:.40}: {error}");
        }
    }

    proptest! {
        /// The rewritten expression matches the inside of a JSON string exactly when the first one matches the text.
        #[test]
        fn rewritten_expressions_match_what_they_should(
            pattern in prop::sample::select(vec![
                r"[^a]*", r"(?s:.*)", r"[\w\s]+", r"\W*", r"[\D\n]{0,9}", r#"("|\\|/)+x?"#, r"(?i)[a-z\n]+|é+", r"\S+\n\S*",
                r"[\x00-\x7F]*", r"[^\\]*\\n",
            ]),
            text in r#"[ab \n\t"\\/x9é日\x01\x7F]{0,6}"#,
        ) {
            let matches = |pattern: &str, text: &str| {
                regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(text)
            };
            let inside: String = text.chars().map(in_json).collect();
            let written = regex(pattern).unwrap();
            prop_assert_eq!(matches(&written, &inside), matches(pattern, &text), "{} {}", written, inside);
        }
    }
}
