//! Text to tokens, a token at a time.
//!
//! The parser asks for the next token because the language has contexts: a slash separates a domain
//! from a name, or opens a pattern. Characters that do not belong are reported and stand for what
//! was most likely meant, so that one slip does not hide the next.

use crate::diagnostic::{Code, is_format_control};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    /// The text without quotes and escapes.
    Quoted(String),
    Comma,
    Colon,
    Slash,
    LeftBrace,
    RightBrace,
    LeftParenthesis,
    RightParenthesis,
    Equals,
    NotEquals,
    End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether nothing but spaces stands before it on its line.
    pub(crate) first_on_line: bool,
}

/// A problem found while reading a token.
#[derive(Debug, Clone)]
pub(crate) struct Slip {
    pub(crate) code: Code,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) replacement: Option<String>,
}

/// Punctuation that an input method or a word processor puts in place of ours.
const LOOKALIKES: [(char, &str); 22] = [
    ('\u{ff0c}', ","),
    ('\u{3001}', ","),
    ('\u{ff1a}', ":"),
    ('\u{ff0f}', "/"),
    ('\u{ff5b}', "{"),
    ('\u{ff5d}', "}"),
    ('\u{ff08}', "("),
    ('\u{ff09}', ")"),
    ('\u{ff1d}', "="),
    ('\u{ff01}', "!"),
    ('\u{ff07}', "'"),
    ('\u{2018}', "'"),
    ('\u{2019}', "'"),
    ('\u{201c}', "'"),
    ('\u{201d}', "'"),
    ('"', "'"),
    ('`', "'"),
    ('\u{ff02}', "'"),
    ('\u{300c}', "'"),
    ('\u{300d}', "'"),
    ('\u{2260}', "!="),
    ('\u{ff0a}', "*"),
];

fn lookalike(c: char) -> Option<&'static str> {
    LOOKALIKES
        .iter()
        .find(|(other, _)| *other == c)
        .map(|(_, ours)| *ours)
}

fn begins_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || is_foreign_letter(c)
}

fn continues_word(c: char) -> bool {
    begins_word(c) || c == '.' || c == '-'
}

/// Any character beyond ASCII that shows and is not one of the look-alikes: names may be written in
/// every script.
fn is_foreign_letter(c: char) -> bool {
    !c.is_ascii()
        && !c.is_whitespace()
        && !c.is_control()
        && !is_format_control(c)
        && lookalike(c).is_none()
        && !matches!(
            c,
            '\u{3002}' | '\u{ff1b}' | '\u{ff0e}' | '\u{ff0d}' | '\u{2212}' | '\u{2010}'
                ..='\u{2015}'
        )
}

/// Whether the text can stand as a name or value without quotes.
pub(crate) fn is_plain_word(text: &str) -> bool {
    text.chars().next().is_some_and(begins_word) && text.chars().all(continues_word)
}

/// The next token at or after `from`, with what was wrong on the way.
pub(crate) fn next(source: &str, from: usize) -> (Token, Vec<Slip>) {
    let mut slips = Vec::new();
    let mut at = from;
    loop {
        let Some(c) = source[at..].chars().next() else {
            return (token(source, Kind::End, at, at), slips);
        };
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if begins_word(c) {
            let length = source[at..]
                .find(|c| !continues_word(c))
                .unwrap_or(source.len() - at);
            return (token(source, Kind::Word, at, at + length), slips);
        }
        if let Some(ours) = lookalike(c) {
            // The opening quote decides how the whole quoted text is reported.
            if ours == "'" {
                let quoted = quoted(source, at, &mut slips);
                return (quoted, slips);
            }
            let end = at + c.len_utf8();
            slips.push(Slip {
                code: Code::IllegalCharacter,
                start: at,
                end,
                message: format!("`{c}` is not used in statements"),
                hint: Some(format!("write `{ours}`")),
                replacement: Some(ours.to_owned()),
            });
            match punctuation(ours) {
                Some(kind) => return (token(source, kind, at, end), slips),
                None => {
                    at = end;
                    continue;
                }
            }
        }
        let end = at + c.len_utf8();
        match c {
            '\'' => {
                let quoted = quoted(source, at, &mut slips);
                return (quoted, slips);
            }
            '=' if source[end..].starts_with('=') => {
                slips.push(Slip {
                    code: Code::IllegalCharacter,
                    start: at,
                    end: end + 1,
                    message: "`==` is not an operator".to_owned(),
                    hint: Some("write `=`".to_owned()),
                    replacement: Some("=".to_owned()),
                });
                return (token(source, Kind::Equals, at, end + 1), slips);
            }
            '!' if source[end..].starts_with('=') => {
                return (token(source, Kind::NotEquals, at, end + 1), slips);
            }
            '<' if source[end..].starts_with('>') => {
                slips.push(Slip {
                    code: Code::IllegalCharacter,
                    start: at,
                    end: end + 1,
                    message: "`<>` is not an operator".to_owned(),
                    hint: Some("write `!=`".to_owned()),
                    replacement: Some("!=".to_owned()),
                });
                return (token(source, Kind::NotEquals, at, end + 1), slips);
            }
            _ => {}
        }
        if let Some(kind) = punctuation(&source[at..end]) {
            return (token(source, kind, at, end), slips);
        }
        let hint = match c {
            ';' => Some("statements need no mark at their end".to_owned()),
            '#' => Some("statements have no comments".to_owned()),
            '*' => Some("a pattern stands between slashes, as in `= /xai.*/`".to_owned()),
            '&' | '|' => Some("join conditions as `all {…, …}` or `any {…, …}`".to_owned()),
            '@' | '+' | '$' | '%' => {
                Some("write names with this character in single quotes".to_owned())
            }
            _ => None,
        };
        let message = if c.is_control() || is_format_control(c) {
            format!(
                "the invisible character U+{:04X} is not allowed",
                u32::from(c)
            )
        } else {
            format!("`{c}` is not used in statements")
        };
        // A comment is one problem, not one for each of its words.
        let end = if c == '#' {
            source[at..]
                .find('\n')
                .map_or(source.len(), |length| at + length)
        } else {
            end
        };
        slips.push(Slip {
            code: Code::IllegalCharacter,
            start: at,
            end,
            message,
            hint,
            replacement: Some(String::new()),
        });
        at = end;
    }
}

fn token(source: &str, kind: Kind, start: usize, end: usize) -> Token {
    let line_start = source[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let first_on_line = source[line_start..start].chars().all(char::is_whitespace);
    Token {
        kind,
        start,
        end,
        first_on_line,
    }
}

fn punctuation(text: &str) -> Option<Kind> {
    Some(match text {
        "," => Kind::Comma,
        ":" => Kind::Colon,
        "/" => Kind::Slash,
        "{" => Kind::LeftBrace,
        "}" => Kind::RightBrace,
        "(" => Kind::LeftParenthesis,
        ")" => Kind::RightParenthesis,
        "=" => Kind::Equals,
        "!=" => Kind::NotEquals,
        _ => return None,
    })
}

/// Reads a quoted text from its opening quote, of whatever kind.
fn quoted(source: &str, start: usize, slips: &mut Vec<Slip>) -> Token {
    let mut chars = source[start..].char_indices();
    let opening = chars.next().map_or('\'', |(_, c)| c);
    let closes = |c: char| {
        c == opening
            || (opening != '\'' && opening != '"' && lookalike(c) == Some("'"))
            || (opening != '\'' && c == '\'')
    };
    let mut text = String::new();
    let mut end = source.len();
    let mut closed = false;
    while let Some((offset, c)) = chars.next() {
        let at = start + offset;
        if closes(c) {
            end = at + c.len_utf8();
            closed = true;
            break;
        }
        match c {
            '\n' | '\r' => {
                end = at;
                break;
            }
            '\\' => match chars.next() {
                Some((_, escaped @ ('\'' | '\\'))) => text.push(escaped),
                other => {
                    let length = 1 + other.map_or(0, |(_, c)| c.len_utf8());
                    slips.push(Slip {
                        code: Code::BadEscape,
                        start: at,
                        end: at + length,
                        message: "a backslash in quotes stands before `'` or another backslash"
                            .to_owned(),
                        hint: Some(r"write `\\` for a backslash".to_owned()),
                        replacement: Some(format!(r"\{}", &source[at..at + length])),
                    });
                    if let Some((_, c)) = other {
                        text.push(c);
                    }
                }
            },
            c if c.is_control() || is_format_control(c) => {
                slips.push(Slip {
                    code: Code::IllegalCharacter,
                    start: at,
                    end: at + c.len_utf8(),
                    message: format!(
                        "the invisible character U+{:04X} is not allowed",
                        u32::from(c)
                    ),
                    hint: None,
                    replacement: Some(String::new()),
                });
            }
            c => text.push(c),
        }
    }
    if !closed {
        slips.push(Slip {
            code: Code::Unterminated,
            start,
            end,
            message: "the quote does not end on its line".to_owned(),
            hint: Some("close it with `'`".to_owned()),
            replacement: None,
        });
    } else if opening != '\'' {
        slips.push(Slip {
            code: Code::IllegalCharacter,
            start,
            end,
            message: format!("`{opening}` does not quote"),
            hint: Some(format!("write {}", crate::print::quote(&text))),
            replacement: Some(crate::print::quote(&text)),
        });
    }
    token(source, Kind::Quoted(text), start, end)
}

/// Reads a pattern from its opening slash: the text between the slashes and where it ends.
pub(crate) fn pattern(source: &str, start: usize) -> Result<(String, usize), Slip> {
    let body = start + 1;
    let mut escaped = false;
    let mut end = source.len();
    for (offset, c) in source[body..].char_indices() {
        let at = body + offset;
        if escaped {
            escaped = false;
            continue;
        }
        match c {
            '\\' => escaped = true,
            '/' => return Ok((source[body..at].to_owned(), at + 1)),
            '\n' | '\r' | '\'' => {
                end = at;
                break;
            }
            c if c.is_control() || is_format_control(c) => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    Err(Slip {
        code: Code::Unterminated,
        start,
        end,
        message: "the pattern does not end".to_owned(),
        hint: Some("close it with `/`".to_owned()),
        replacement: None,
    })
}
