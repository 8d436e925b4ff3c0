//! Whole statements: which kind, and its parts in order.

use crate::ast::{
    Admit, Condition, Define, DefineKind, Effect, Endorse, EndorseAction, EndorseScope, Grant,
    Location, OtherTenancy, QualifiedName, Statement, Subject,
};
use crate::diagnostic::{Code, Severity};
use crate::lexer::Kind;
use crate::limits::TEXT_BYTES_MAX;
use crate::nearest::nearest;

use super::{Parser, Part, Reported, STARTERS};

impl Parser<'_> {
    pub(super) fn statements(&mut self) -> Vec<Statement> {
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

    pub(super) fn statement(&mut self) -> Part<Statement> {
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
        if let Ok(Statement::Define(_) | Statement::Admit(_) | Statement::Endorse(_)) = &statement {
            self.warning(
                Code::GrantsNothing,
                span,
                "statements across tenancies have no effect here",
                Some("only `allow` and `deny` grant and forbid".to_owned()),
            );
        }
        statement
    }

    /// Whether a statement may end here: at the end of the text, or before a word that begins
    /// another one.
    pub(super) fn at_end_of_statement(&mut self) -> bool {
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

    pub(super) fn grant(&mut self, effect: Effect) -> Part<Grant> {
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

    pub(super) fn location_and_condition(&mut self) -> (Part<Location>, Part<Option<Condition>>) {
        self.keyword("in", "the resource type");
        let location = self.location();
        if location.is_err() {
            self.skip_to(&["where"]);
        }
        (location, self.optional_condition())
    }

    pub(super) fn optional_condition(&mut self) -> Part<Option<Condition>> {
        if self.take_word("where") {
            self.where_clause().map(Some)
        } else {
            Ok(None)
        }
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
