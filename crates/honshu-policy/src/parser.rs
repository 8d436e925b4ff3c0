//! Text to statements, with every problem of the text at once.
//!
//! Written by hand as a recursive descent over an on-demand lexer and not with a combinator library:
//! keywords are contextual, a good message depends on what stands around the slip (a missing `to`,
//! `and` between conditions, an unquoted name of two words), and after a problem the parser must go
//! on at the next part of the same statement. Names are resolved here, against the table and the
//! variables, so that a [`Statement`] needs no second check.

mod action;
mod condition;
mod statement;
mod subject;

use crate::ast::Statement;
use crate::diagnostic::{Code, Diagnostic, Fix, ParseError, Severity, Span};
use crate::lexer::{self, Kind, Slip, Token};
use crate::limits::DIAGNOSTICS_MAX;

/// What a text holds, with its problems.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The statements that are valid, in order; those with errors are missing.
    pub statements: Vec<Statement>,
    /// Errors and warnings, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Checked {
    /// Whether the whole text is valid.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Reads a text of any number of statements and reports every problem, warnings among them.
#[must_use]
pub fn check(text: &str) -> Checked {
    let mut parser = Parser::new(text);
    let statements = parser.statements();
    parser
        .diagnostics
        .sort_by_key(|diagnostic| diagnostic.span.start);
    Checked {
        statements,
        diagnostics: parser.diagnostics,
    }
}

/// Reads a text of any number of statements.
///
/// # Errors
/// All problems of the text, if at least one is an error.
pub fn parse(text: &str) -> Result<Vec<Statement>, ParseError> {
    let checked = check(text);
    if checked.is_valid() {
        Ok(checked.statements)
    } else {
        Err(ParseError {
            diagnostics: checked.diagnostics,
        })
    }
}

/// Reads a text of exactly one statement, which is what an element of a policy's `statements` is,
/// and reports every problem.
#[must_use]
pub fn check_statement(text: &str) -> Checked {
    let mut checked = check(text);
    if checked.is_valid() && checked.statements.len() != 1 {
        let message = match checked.statements.len() {
            0 => "a statement was expected, and there is none".to_owned(),
            count => format!("one statement was expected, and there are {count}"),
        };
        let start = text.len() - text.trim_start().len();
        checked.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: Code::NotOneStatement,
            span: Span::new(text, start, text.len()),
            message,
            expected: Vec::new(),
            hint: Some("put each statement into its own element".to_owned()),
            fix: None,
        });
    }
    checked
}

/// Reads a text of exactly one statement.
///
/// # Errors
/// All problems of the text, if at least one is an error.
pub fn parse_statement(text: &str) -> Result<Statement, ParseError> {
    let mut checked = check_statement(text);
    match checked.statements.pop() {
        Some(statement) if checked.is_valid() => Ok(statement),
        _ => Err(ParseError {
            diagnostics: checked.diagnostics,
        }),
    }
}

impl std::str::FromStr for Statement {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_statement(text)
    }
}

/// A part could not be read; the problem is reported already.
struct Reported;

type Part<T> = Result<T, Reported>;

const STARTERS: [&str; 5] = ["allow", "deny", "define", "admit", "endorse"];

struct Parser<'a> {
    source: &'a str,
    /// Where the next token is looked for.
    at: usize,
    /// The next token, if it was looked at already.
    ahead: Option<(Token, Vec<Slip>)>,
    /// End of the token taken last.
    last_end: usize,
    diagnostics: Vec<Diagnostic>,
    full: bool,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Self {
        Parser {
            source,
            at: 0,
            ahead: None,
            last_end: 0,
            diagnostics: Vec::new(),
            full: false,
        }
    }

    // ---- reporting ----

    fn push(
        &mut self,
        severity: Severity,
        code: Code,
        (start, end): (usize, usize),
        message: impl Into<String>,
    ) -> Option<&mut Diagnostic> {
        if self.full || self.end_is_told(severity, start, end) {
            return None;
        }
        if self.diagnostics.len() >= DIAGNOSTICS_MAX {
            self.full = true;
            let span = Span::new(self.source, start, end);
            self.diagnostics.push(Diagnostic {
                severity: Severity::Error,
                code: Code::TooLarge,
                span,
                message: format!("more than {DIAGNOSTICS_MAX} problems; the rest is not shown"),
                expected: Vec::new(),
                hint: None,
                fix: None,
            });
            return None;
        }
        self.diagnostics.push(Diagnostic {
            severity,
            code,
            span: Span::new(self.source, start, end),
            message: message.into(),
            expected: Vec::new(),
            hint: None,
            fix: None,
        });
        self.diagnostics.last_mut()
    }

    /// Whether it is said already that something is missing at the end of the text. Everything after
    /// that is missing too, which is no news.
    fn end_is_told(&self, severity: Severity, start: usize, end: usize) -> bool {
        let here = |diagnostic: &Diagnostic| {
            diagnostic.severity == Severity::Error
                && (diagnostic.span.start, diagnostic.span.end) == (start, end)
        };
        severity == Severity::Error
            && start == end
            && self.diagnostics.last().is_some_and(here)
            && self
                .ahead
                .as_ref()
                .is_some_and(|(token, _)| token.kind == Kind::End)
    }

    fn error(
        &mut self,
        code: Code,
        span: (usize, usize),
        message: impl Into<String>,
        expected: &[&str],
        hint: Option<String>,
    ) {
        if let Some(diagnostic) = self.push(Severity::Error, code, span, message) {
            diagnostic.expected = expected.iter().map(|text| (*text).to_owned()).collect();
            diagnostic.hint = hint;
        }
    }

    fn warning(
        &mut self,
        code: Code,
        span: (usize, usize),
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        if let Some(diagnostic) = self.push(Severity::Warning, code, span, message) {
            diagnostic.hint = hint;
        }
    }

    /// An error about an unknown word, with the nearest known one as hint and fix.
    fn unknown(
        &mut self,
        code: Code,
        span: (usize, usize),
        message: String,
        guess: Option<&str>,
        expected: &[&str],
        hint: Option<String>,
    ) {
        if let Some(diagnostic) = self.push(Severity::Error, code, span, message) {
            diagnostic.expected = expected.iter().map(|text| (*text).to_owned()).collect();
            match guess {
                Some(guess) => {
                    diagnostic.hint = Some(format!("did you mean `{guess}`?"));
                    diagnostic.fix = Some(Fix {
                        start: span.0,
                        end: span.1,
                        replacement: guess.to_owned(),
                    });
                }
                None => diagnostic.hint = hint,
            }
        }
    }

    // ---- tokens ----

    fn peek(&mut self) -> &Token {
        let (source, at) = (self.source, self.at);
        &self.ahead.get_or_insert_with(|| lexer::next(source, at)).0
    }

    fn take(&mut self) -> Token {
        let (token, slips) = match self.ahead.take() {
            Some(ahead) => ahead,
            None => lexer::next(self.source, self.at),
        };
        for slip in slips {
            self.slip(slip);
        }
        self.at = token.end;
        if token.kind != Kind::End {
            self.last_end = token.end;
        }
        token
    }

    fn slip(&mut self, slip: Slip) {
        if let Some(diagnostic) = self.push(
            Severity::Error,
            slip.code,
            (slip.start, slip.end),
            slip.message,
        ) {
            diagnostic.hint = slip.hint;
            diagnostic.fix = slip.replacement.map(|replacement| Fix {
                start: slip.start,
                end: slip.end,
                replacement,
            });
        }
    }

    fn text(&self, token: &Token) -> &'a str {
        &self.source[token.start..token.end]
    }

    /// The next word, if the next token is one.
    fn peek_word(&mut self) -> Option<&'a str> {
        let token = self.peek().clone();
        (token.kind == Kind::Word).then(|| self.text(&token))
    }

    fn at_word(&mut self, word: &str) -> bool {
        self.peek_word()
            .is_some_and(|next| next.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.take();
        }
        found
    }

    fn take_kind(&mut self, kind: &Kind) -> bool {
        let found = self.peek().kind == *kind;
        if found {
            self.take();
        }
        found
    }

    /// Where to point when something is missing: at the next token, or just after the last one.
    fn here(&mut self) -> (usize, usize) {
        let token = self.peek().clone();
        if token.kind == Kind::End {
            (self.last_end, self.last_end)
        } else {
            (token.start, token.end)
        }
    }

    /// What stands next, as a message names it.
    fn found(&mut self) -> String {
        let token = self.peek().clone();
        if token.kind == Kind::End {
            "the text ends".to_owned()
        } else {
            format!("found `{}`", self.text(&token))
        }
    }

    fn at_statement_start(&mut self) -> bool {
        let starter = self.peek_word().is_some_and(|word| {
            STARTERS
                .iter()
                .any(|starter| starter.eq_ignore_ascii_case(word))
        });
        starter && self.peek().first_on_line
    }

    fn at_boundary(&mut self) -> bool {
        self.peek().kind == Kind::End || self.at_statement_start()
    }

    /// Skips to one of the words, or to the end of the statement.
    fn skip_to(&mut self, words: &[&str]) {
        while !self.at_boundary() {
            if words.iter().any(|word| self.at_word(word)) {
                return;
            }
            self.take();
        }
    }

    /// Takes a keyword. A near miss is taken for it; anything else stays where it is, so that only
    /// the keyword counts as missing.
    fn keyword(&mut self, keyword: &str, after: &str) {
        if self.take_word(keyword) {
            return;
        }
        let here = self.here();
        let found = self.found();
        let near = self.peek_word().filter(|word| {
            keyword.len() > 1
                && word.len() <= keyword.len() + 2
                && crate::nearest::distance(word, keyword) == 1
        });
        let message = format!("expected `{keyword}` after {after}, {found}");
        match near {
            Some(_) => {
                self.unknown(
                    Code::UnexpectedToken,
                    here,
                    message,
                    Some(keyword),
                    &[keyword],
                    None,
                );
                self.take();
            }
            None => {
                if let Some(diagnostic) =
                    self.push(Severity::Error, Code::UnexpectedToken, here, message)
                {
                    diagnostic.expected = vec![format!("`{keyword}`")];
                    diagnostic.hint = Some(format!("add `{keyword}`"));
                    diagnostic.fix = Some(Fix {
                        start: here.0,
                        end: here.0,
                        replacement: format!("{keyword} "),
                    });
                }
            }
        }
    }
}
