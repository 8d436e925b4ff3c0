//! Text to statements, with every problem of the text at once.
//!
//! Written by hand as a recursive descent over an on-demand lexer and not with a combinator library:
//! keywords are contextual, a good message depends on what stands around the slip (a missing `to`,
//! `and` between conditions, an unquoted name of two words), and after a problem the parser must go
//! on at the next part of the same statement. Names are resolved here, against the table and the
//! variables, so that a [`Statement`] needs no second check.

mod condition;

use crate::ast::{
    Action, Admit, Condition, Define, DefineKind, Effect, Endorse, EndorseAction, EndorseScope,
    Grant, Location, OtherTenancy, QualifiedName, Statement, Subject,
};
use crate::diagnostic::{Code, Diagnostic, Fix, ParseError, Severity, Span};
use crate::lexer::{self, Kind, Slip, Token};
use crate::limits::{DIAGNOSTICS_MAX, TEXT_BYTES_MAX};
use crate::nearest::nearest;
use crate::print::RESERVED;
use crate::table::{Permission, ResourceType, Verb};

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
        if self.full {
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

    // ---- statements ----

    fn statements(&mut self) -> Vec<Statement> {
        let mut statements = Vec::new();
        if self.source.len() > TEXT_BYTES_MAX {
            self.error(
                Code::TooLarge,
                (0, 0),
                format!(
                    "the text has {} bytes, and at most {TEXT_BYTES_MAX} are read",
                    self.source.len()
                ),
                &[],
                None,
            );
            return statements;
        }
        while self.peek().kind != Kind::End && !self.full {
            let before = self.diagnostics.len();
            let statement = self.statement();
            let errors = self.diagnostics[before..]
                .iter()
                .any(|diagnostic| diagnostic.severity == Severity::Error);
            if let (Ok(statement), false) = (statement, errors) {
                statements.push(statement);
            }
        }
        // Characters that do not belong may stand after the last statement.
        self.take();
        statements
    }

    fn statement(&mut self) -> Part<Statement> {
        let token = self.take();
        let span = (token.start, token.end);
        let word = if token.kind == Kind::Word {
            self.text(&token)
        } else {
            ""
        };
        let statement = match word.to_ascii_lowercase().as_str() {
            "allow" => self.grant(Effect::Allow).map(Statement::Grant),
            "deny" if self.take_word("admit") => self.admit(Effect::Deny).map(Statement::Admit),
            "deny" if self.take_word("endorse") => {
                self.endorse(Effect::Deny).map(Statement::Endorse)
            }
            "deny" => self.grant(Effect::Deny).map(Statement::Grant),
            "define" => self.define().map(Statement::Define),
            "admit" => self.admit(Effect::Allow).map(Statement::Admit),
            "endorse" => self.endorse(Effect::Allow).map(Statement::Endorse),
            _ => {
                let guess = nearest(word, STARTERS.into_iter()).filter(|_| !word.is_empty());
                let found = if word.is_empty() {
                    self.source[token.start..token.end].to_owned()
                } else {
                    word.to_owned()
                };
                self.unknown(
                    Code::UnknownStatement,
                    span,
                    format!("a statement cannot begin with `{found}`"),
                    guess,
                    &["allow", "deny", "define", "admit", "endorse"],
                    Some("begin with `allow`".to_owned()),
                );
                match guess {
                    // The rest is worth reading: it shows the other problems.
                    Some("allow" | "deny") => self.grant(Effect::Allow).map(Statement::Grant),
                    _ => Err(Reported),
                }
            }
        };
        if statement.is_err() {
            self.skip_to(&[]);
            return Err(Reported);
        }
        if !self.at_end_of_statement() {
            self.trailing();
        }
        statement
    }

    /// Whether a statement may end here: at the end of the text, or before a word that begins
    /// another one.
    fn at_end_of_statement(&mut self) -> bool {
        self.peek().kind == Kind::End
            || self.peek_word().is_some_and(|word| {
                STARTERS
                    .iter()
                    .any(|starter| starter.eq_ignore_ascii_case(word))
            })
    }

    fn trailing(&mut self) {
        let here = self.here();
        let found = self.found();
        let word = self.peek_word().unwrap_or_default().to_ascii_lowercase();
        if word.starts_with("request.")
            || word.starts_with("target.")
            || word == "any"
            || word == "all"
            || word == "when"
            || word == "if"
        {
            self.error(
                Code::UnexpectedToken,
                here,
                format!("expected `where` before the condition, {found}"),
                &["`where`"],
                Some("add `where`".to_owned()),
            );
            if word == "when" || word == "if" {
                self.take();
            }
            if self.condition(0).is_ok() && self.at_end_of_statement() {
                return;
            }
        } else {
            self.error(
                Code::TrailingText,
                here,
                format!("the statement is complete, but {found} follows").replace("found ", ""),
                &["`where`", "the end of the statement"],
                None,
            );
        }
        self.skip_to(&[]);
    }

    fn grant(&mut self, effect: Effect) -> Part<Grant> {
        let subject = self.subject();
        if subject.is_err() {
            self.skip_to(&["to"]);
        }
        self.keyword("to", "the subject");
        let action = self.action();
        if action.is_err() {
            self.skip_to(&["in", "where"]);
        }
        let (location, condition) = self.location_and_condition();
        Ok(Grant {
            effect,
            subject: subject?,
            action: action?,
            location: location?,
            condition: condition?,
        })
    }

    fn location_and_condition(&mut self) -> (Part<Location>, Part<Option<Condition>>) {
        self.keyword("in", "the resource type");
        let location = self.location();
        if location.is_err() {
            self.skip_to(&["where"]);
        }
        (location, self.optional_condition())
    }

    fn optional_condition(&mut self) -> Part<Option<Condition>> {
        if self.take_word("where") {
            self.where_clause().map(Some)
        } else {
            Ok(None)
        }
    }

    fn subject(&mut self) -> Part<Subject> {
        const KINDS: [&str; 5] = ["any-user", "any-group", "group", "dynamic-group", "service"];
        let here = self.here();
        let Some(word) = self.peek_word() else {
            let found = self.found();
            self.error(
                Code::UnknownSubject,
                here,
                format!("expected a subject, {found}"),
                &KINDS,
                Some("for example `group Developers` or `any-user`".to_owned()),
            );
            return Err(Reported);
        };
        match word.to_ascii_lowercase().as_str() {
            "any-user" => {
                self.take();
                Ok(Subject::AnyUser)
            }
            "any-group" => {
                self.take();
                Ok(Subject::AnyGroup)
            }
            "group" => {
                self.take();
                self.group_subject("group", Subject::Groups, Subject::GroupIds)
            }
            "dynamic-group" => {
                self.take();
                self.group_subject(
                    "dynamic-group",
                    Subject::DynamicGroups,
                    Subject::DynamicGroupIds,
                )
            }
            "service" => {
                self.take();
                let mut names = vec![self.name("a service name")?];
                while self.take_kind(&Kind::Comma) {
                    names.push(self.name("a service name")?);
                }
                self.end_of_name("to");
                Ok(Subject::Services(names))
            }
            lower => {
                let (guess, hint) = match lower {
                    "user" | "users" => (None, Some("statements name groups; for one user write `any-user … where request.user.id = 'ocid1.user…'`".to_owned())),
                    "groups" => (Some("group"), None),
                    "anyuser" | "any" | "anyone" | "everyone" => (Some("any-user"), None),
                    "to" => (None, Some("for example `group Developers` or `any-user`".to_owned())),
                    _ => (nearest(lower, KINDS.into_iter()), Some("for example `group Developers` or `any-user`".to_owned())),
                };
                let message = if lower == "to" {
                    "the subject is missing".to_owned()
                } else {
                    format!("no subject begins with `{word}`")
                };
                self.unknown(Code::UnknownSubject, here, message, guess, &KINDS, hint);
                Err(Reported)
            }
        }
    }

    fn group_subject(
        &mut self,
        word: &str,
        by_name: fn(Vec<QualifiedName>) -> Subject,
        by_id: fn(Vec<String>) -> Subject,
    ) -> Part<Subject> {
        if !self.at_word("id") {
            let mut names = vec![self.qualified_name("a group name")?];
            while self.take_kind(&Kind::Comma) {
                if self.at_word("id") {
                    let here = self.here();
                    self.error(
                        Code::UnexpectedToken,
                        here,
                        "names and OCIDs cannot stand in one list",
                        &["a group name"],
                        Some("use names only, or `id` before each".to_owned()),
                    );
                    return Err(Reported);
                }
                names.push(self.qualified_name("a group name")?);
            }
            self.end_of_name("to");
            return Ok(by_name(names));
        }
        self.take();
        let mut ids = vec![self.ocid("a group")?];
        while self.take_kind(&Kind::Comma) {
            // Two forms are documented: `group id a, id b` and `group id a, group id b`.
            let repeated = self.take_word(word);
            if !self.take_word("id") {
                let here = self.here();
                let found = self.found();
                self.error(
                    Code::UnexpectedToken,
                    here,
                    format!("expected `id` before each OCID, {found}"),
                    &["`id`"],
                    Some("write `group id ocid1.group…, id ocid1.group…`".to_owned()),
                );
                if repeated {
                    return Err(Reported);
                }
            }
            ids.push(self.ocid("a group")?);
        }
        Ok(by_id(ids))
    }

    fn qualified_name(&mut self, what: &str) -> Part<QualifiedName> {
        let first = self.name(what)?;
        if self.take_kind(&Kind::Slash) {
            let name = self.name(what)?;
            Ok(QualifiedName {
                domain: Some(first),
                name,
            })
        } else {
            Ok(QualifiedName {
                domain: None,
                name: first,
            })
        }
    }

    /// A name, quoted or not.
    fn name(&mut self, what: &str) -> Part<String> {
        let token = self.peek().clone();
        let here = self.here();
        match &token.kind {
            Kind::Quoted(text) => {
                self.take();
                if text.trim().is_empty() {
                    self.error(Code::BadValue, here, "the name is empty", &[what], None);
                    return Err(Reported);
                }
                Ok(text.clone())
            }
            Kind::Word => {
                let word = self.text(&token);
                if RESERVED
                    .iter()
                    .any(|reserved| reserved.eq_ignore_ascii_case(word))
                {
                    let message = format!("expected {what}, found the keyword `{word}`");
                    self.error(
                        Code::UnexpectedToken,
                        here,
                        message,
                        &[what],
                        Some(format!("if it is the name, write '{word}'")),
                    );
                    return Err(Reported);
                }
                self.take();
                Ok(word.to_owned())
            }
            _ => {
                let found = self.found();
                self.error(
                    Code::UnexpectedToken,
                    here,
                    format!("expected {what}, {found}"),
                    &[what],
                    None,
                );
                Err(Reported)
            }
        }
    }

    /// After a name: if more words follow before `next`, the name has a space and needs quotes.
    fn end_of_name(&mut self, next: &str) {
        let name_end = self.last_end;
        let Some(word) = self.peek_word() else { return };
        let lower = word.to_ascii_lowercase();
        let verb = Verb::find(word).is_some();
        if verb
            || RESERVED.contains(&lower.as_str())
            || STARTERS.contains(&lower.as_str())
            || lower.starts_with("request.")
            || lower.starts_with("target.")
            || ["any", "all", "and", "or", "not", "when", "if"].contains(&lower.as_str())
        {
            return;
        }
        if crate::nearest::distance(&lower, next) == 1
            && next.len() > 1
            && lower.len() <= next.len() + 2
        {
            return;
        }
        let start = self.source[..name_end]
            .rfind(|c: char| c.is_whitespace() || c == ',' || c == ':' || c == '/')
            .map_or(0, |at| {
                at + self.source[at..].chars().next().map_or(1, char::len_utf8)
            });
        if self.source[start..name_end].contains('\'') {
            return;
        }
        while let Some(word) = self.peek_word() {
            let known = RESERVED
                .iter()
                .any(|reserved| reserved.eq_ignore_ascii_case(word));
            if known || self.at_boundary() || Verb::find(word).is_some() {
                break;
            }
            self.take();
        }
        let span = (start, self.last_end);
        let quoted = crate::print::quote(&self.source[span.0..span.1]);
        if let Some(diagnostic) = self.push(
            Severity::Error,
            Code::UnquotedName,
            span,
            "a name with spaces needs single quotes",
        ) {
            diagnostic.hint = Some(format!("write {quoted}"));
            diagnostic.fix = Some(Fix {
                start: span.0,
                end: span.1,
                replacement: quoted,
            });
        }
    }

    fn ocid(&mut self, of: &str) -> Part<String> {
        let token = self.peek().clone();
        let here = self.here();
        let text = match &token.kind {
            Kind::Quoted(text) => text.clone(),
            Kind::Word => self.text(&token).to_owned(),
            _ => {
                let found = self.found();
                self.error(
                    Code::BadOcid,
                    here,
                    format!("expected the OCID of {of}, {found}"),
                    &["ocid1.…"],
                    None,
                );
                return Err(Reported);
            }
        };
        self.take();
        let parts = text.split('.').count();
        let whole = text
            .get(..6)
            .is_some_and(|head| head.eq_ignore_ascii_case("ocid1."))
            && parts >= 4
            && lexer::is_plain_word(&text);
        if whole {
            return Ok(text);
        }
        let hint = if token.kind == Kind::Word && self.text(&token).eq_ignore_ascii_case("to") {
            "for a group that is called `id` write 'id'".to_owned()
        } else {
            "leave out `id` to give a name".to_owned()
        };
        self.error(
            Code::BadOcid,
            here,
            format!("`{text}` is not an OCID"),
            &["ocid1.…"],
            Some(hint),
        );
        Err(Reported)
    }

    fn action(&mut self) -> Part<Action> {
        if self.peek().kind == Kind::LeftBrace {
            let permissions = self.permission_list()?;
            let resource = if self.at_word("in") || self.peek().kind != Kind::Word {
                None
            } else {
                let span = self.here();
                let resource = self.resource_type()?;
                let granted = resource.granted_by(Verb::Manage);
                if let Some(stranger) = permissions
                    .iter()
                    .find(|permission| !granted.contains(**permission))
                {
                    self.error(
                        Code::UnknownPermission,
                        span,
                        format!("`{stranger}` is not a permission of `{resource}`"),
                        &[],
                        Some(format!(
                            "leave out the resource type, or write `{}`",
                            stranger.resource_type()
                        )),
                    );
                }
                Some(resource)
            };
            return Ok(Action::Permissions(permissions, resource));
        }
        let verb_span = self.here();
        let verb = self.verb();
        let resource = self.resource_type();
        let (verb, resource) = (verb?, resource?);
        self.check_grants_something(verb, resource, (verb_span.0, self.last_end));
        Ok(Action::Verb(verb, resource))
    }

    fn check_grants_something(&mut self, verb: Verb, resource: ResourceType, span: (usize, usize)) {
        if !resource.granted_by(verb).is_empty() {
            return;
        }
        let weakest = Verb::ALL
            .into_iter()
            .find(|verb| !resource.granted_by(*verb).is_empty());
        let hint = weakest.map(|weakest| format!("`{resource}` begins to grant with `{weakest}`"));
        self.warning(
            Code::GrantsNothing,
            span,
            format!("`{verb} {resource}` grants nothing"),
            hint,
        );
    }

    fn verb(&mut self) -> Part<Verb> {
        const VERBS: [&str; 4] = ["inspect", "read", "use", "manage"];
        let here = self.here();
        let Some(word) = self.peek_word() else {
            let found = self.found();
            self.error(
                Code::UnknownVerb,
                here,
                format!("expected a verb, {found}"),
                &VERBS,
                None,
            );
            return Err(Reported);
        };
        if let Some(verb) = Verb::find(word) {
            self.take();
            return Ok(verb);
        }
        let lower = word.to_ascii_lowercase();
        if ResourceType::find(&lower).is_some() || lower == "in" {
            self.error(
                Code::UnknownVerb,
                here,
                "the verb is missing",
                &VERBS,
                Some("for example `use`".to_owned()),
            );
            return Err(Reported);
        }
        self.take();
        let meant = match lower.as_str() {
            "list" | "see" => Some("inspect"),
            "get" | "view" => Some("read"),
            "update" | "call" | "invoke" => Some("use"),
            "create" | "delete" | "write" | "administer" | "admin" => Some("manage"),
            _ => nearest(&lower, VERBS.into_iter()),
        };
        let hint = Permission::find(word)
            .map(|permission| format!("permissions stand in braces: `{{{permission}}}`"));
        self.unknown(
            Code::UnknownVerb,
            here,
            format!("no verb `{word}`"),
            meant.filter(|_| hint.is_none()),
            &VERBS,
            hint,
        );
        Err(Reported)
    }

    fn resource_type(&mut self) -> Part<ResourceType> {
        let here = self.here();
        let word = self.peek_word();
        let Some(word) = word.filter(|word| !word.eq_ignore_ascii_case("in")) else {
            let found = self.found();
            self.error(
                Code::UnknownResourceType,
                here,
                format!("expected a resource type, {found}"),
                &[],
                Some("for example `generative-ai-chat` or `generative-ai-family`".to_owned()),
            );
            return Err(Reported);
        };
        self.take();
        if let Some(resource) = ResourceType::find(word) {
            return Ok(resource);
        }
        let guess = nearest(word, ResourceType::all().map(ResourceType::name));
        self.unknown(
            Code::UnknownResourceType,
            here,
            format!("no resource type `{word}`"),
            guess,
            &[],
            Some("the reference page of policies lists all of them".to_owned()),
        );
        Err(Reported)
    }

    fn permission_list(&mut self) -> Part<Vec<Permission>> {
        self.take();
        let mut permissions = Vec::new();
        let mut failed = false;
        loop {
            let here = self.here();
            match self.peek_word() {
                Some(word) => {
                    self.take();
                    match Permission::find(word) {
                        Some(permission) => permissions.push(permission),
                        None => {
                            failed = true;
                            let guess = nearest(
                                word,
                                Permission::ALL.iter().map(|permission| permission.name()),
                            );
                            let hint =
                                Verb::find(word).map(|_| "a verb stands without braces".to_owned());
                            self.unknown(
                                Code::UnknownPermission,
                                here,
                                format!("no permission `{word}`"),
                                guess.filter(|_| hint.is_none()),
                                &[],
                                hint,
                            );
                        }
                    }
                }
                None => {
                    let found = self.found();
                    self.error(
                        Code::UnknownPermission,
                        here,
                        format!("expected a permission, {found}"),
                        &[],
                        Some("for example `{GENERATIVE_AI_CHAT}`".to_owned()),
                    );
                    failed = true;
                    if self.take_kind(&Kind::RightBrace) {
                        return Err(Reported);
                    }
                    if self.peek().kind != Kind::Comma {
                        return Err(Reported);
                    }
                }
            }
            if self.take_kind(&Kind::RightBrace) {
                break;
            }
            if !self.take_kind(&Kind::Comma) {
                let here = self.here();
                let found = self.found();
                self.error(
                    Code::UnexpectedToken,
                    here,
                    format!("expected `,` or `}}`, {found}"),
                    &["`,`", "`}`"],
                    None,
                );
                return Err(Reported);
            }
        }
        if failed {
            Err(Reported)
        } else {
            Ok(permissions)
        }
    }

    fn location(&mut self) -> Part<Location> {
        let here = self.here();
        let word = self.peek_word().unwrap_or_default().to_ascii_lowercase();
        match word.as_str() {
            "tenancy" => {
                self.take();
                Ok(Location::Tenancy)
            }
            "compartment" => {
                self.take();
                if self.take_word("id") {
                    return self.ocid("a compartment").map(Location::CompartmentId);
                }
                self.compartment_path().map(Location::Compartment)
            }
            _ => {
                let found = self.found();
                let guess = if word.is_empty() {
                    None
                } else {
                    nearest(&word, ["tenancy", "compartment"].into_iter())
                };
                let hint = match word.as_str() {
                    "the" => "leave out `the`".to_owned(),
                    "" | "where" => "for example `tenancy` or `compartment Sales`".to_owned(),
                    _ => format!(
                        "for a compartment write `compartment {}`",
                        self.peek_word().unwrap_or_default()
                    ),
                };
                self.unknown(
                    Code::UnexpectedToken,
                    here,
                    format!("expected a location, {found}"),
                    guess,
                    &["`tenancy`", "`compartment`"],
                    Some(hint),
                );
                if guess.is_some() {
                    self.take();
                    if guess == Some("compartment") {
                        return self.compartment_path().map(Location::Compartment);
                    }
                    return Ok(Location::Tenancy);
                }
                Err(Reported)
            }
        }
    }

    fn compartment_path(&mut self) -> Part<Vec<String>> {
        let mut path = vec![self.name("a compartment name")?];
        while self.take_kind(&Kind::Colon) {
            path.push(self.name("a compartment name")?);
        }
        self.end_of_name("where");
        Ok(path)
    }

    fn define(&mut self) -> Part<Define> {
        const KINDS: [&str; 4] = ["tenancy", "group", "dynamic-group", "compartment"];
        let here = self.here();
        let word = self.peek_word().unwrap_or_default().to_ascii_lowercase();
        let kind = match word.as_str() {
            "tenancy" => DefineKind::Tenancy,
            "group" => DefineKind::Group,
            "dynamic-group" => DefineKind::DynamicGroup,
            "compartment" => DefineKind::Compartment,
            _ => {
                let found = self.found();
                let guess = nearest(&word, KINDS.into_iter()).filter(|_| !word.is_empty());
                self.unknown(
                    Code::UnexpectedToken,
                    here,
                    format!("expected what to define, {found}"),
                    guess,
                    &KINDS,
                    None,
                );
                return Err(Reported);
            }
        };
        self.take();
        let name = match kind {
            DefineKind::Group | DefineKind::DynamicGroup => self.qualified_name("a group name")?,
            DefineKind::Tenancy | DefineKind::Compartment => QualifiedName {
                domain: None,
                name: self.name("a name")?,
            },
        };
        self.end_of_name("as");
        self.keyword("as", "the name");
        self.take_word("id");
        let ocid = self.ocid(KINDS[kind as usize])?;
        Ok(Define { kind, name, ocid })
    }

    fn admit(&mut self, effect: Effect) -> Part<Admit> {
        let subject_span = self.here();
        let subject = self.subject();
        if subject.is_err() {
            self.skip_to(&["of", "to"]);
        }
        let tenancy = if self.take_word("of") {
            self.other_tenancy().map(Some)
        } else {
            Ok(None)
        };
        if let (Ok(Some(OtherTenancy::Any)), Ok(named)) = (&tenancy, &subject)
            && !matches!(named, Subject::AnyUser | Subject::AnyGroup)
        {
            self.error(
                Code::UnexpectedToken,
                subject_span,
                "`of any-tenancy` goes with `any-user` or `any-group` only",
                &["any-user", "any-group"],
                None,
            );
        }
        if tenancy.is_err() {
            self.skip_to(&["to"]);
        }
        self.keyword("to", "the subject");
        let action = self.action();
        if action.is_err() {
            self.skip_to(&["in", "where"]);
        }
        let (location, condition) = self.location_and_condition();
        Ok(Admit {
            effect,
            subject: subject?,
            tenancy: tenancy?,
            action: action?,
            location: location?,
            condition: condition?,
        })
    }

    fn other_tenancy(&mut self) -> Part<OtherTenancy> {
        if self.take_word("any-tenancy") {
            return Ok(OtherTenancy::Any);
        }
        if self.take_word("tenancy") {
            let name = self.name("a tenancy name")?;
            self.end_of_name("to");
            return Ok(OtherTenancy::Named(name));
        }
        let here = self.here();
        let found = self.found();
        self.error(
            Code::UnexpectedToken,
            here,
            format!("expected a tenancy, {found}"),
            &["`any-tenancy`", "`tenancy`"],
            None,
        );
        Err(Reported)
    }

    fn endorse(&mut self, effect: Effect) -> Part<Endorse> {
        let subject = self.subject();
        if subject.is_err() {
            self.skip_to(&["to"]);
        }
        // A list of permissions may follow the subject without `to`.
        if self.peek().kind != Kind::LeftBrace {
            self.keyword("to", "the subject");
        }
        let action = if self.take_word("associate") {
            self.resource_type().map(EndorseAction::Associate)
        } else {
            self.action().map(EndorseAction::Action)
        };
        if action.is_err() {
            self.skip_to(&["in", "where"]);
        }
        self.keyword("in", "the resource type");
        let scope = self.endorse_scope();
        if scope.is_err() {
            self.skip_to(&["where"]);
        }
        let condition = self.optional_condition();
        Ok(Endorse {
            effect,
            subject: subject?,
            action: action?,
            scope: scope?,
            condition: condition?,
        })
    }

    fn endorse_scope(&mut self) -> Part<EndorseScope> {
        if !self.take_word("compartment") {
            return self.other_tenancy().map(EndorseScope::Tenancy);
        }
        let path = self.compartment_path()?;
        self.keyword("of", "the compartment");
        self.keyword("tenancy", "`of`");
        let tenancy = self.name("a tenancy name")?;
        Ok(EndorseScope::Compartment(path, tenancy))
    }
}
