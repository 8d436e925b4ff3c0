//! Who a statement speaks of, and the names and OCIDs that it does so with.

use crate::ast::{QualifiedName, Subject};
use crate::diagnostic::{Code, Fix, Severity};
use crate::lexer::{self, Kind};
use crate::nearest::nearest;
use crate::print::RESERVED;
use crate::table::Verb;

use super::{Parser, Part, Reported, STARTERS};

impl Parser<'_> {
    pub(super) fn subject(&mut self) -> Part<Subject> {
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

    pub(super) fn qualified_name(&mut self, what: &str) -> Part<QualifiedName> {
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
    pub(super) fn name(&mut self, what: &str) -> Part<String> {
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
                    let message = format!("{what} is missing before `{word}`");
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
    pub(super) fn end_of_name(&mut self, next: &str) {
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

    pub(super) fn ocid(&mut self, of: &str) -> Part<String> {
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
}
