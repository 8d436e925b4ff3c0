//! What a statement speaks of doing, and where.

use crate::ast::{Action, Location};
use crate::diagnostic::Code;
use crate::lexer::Kind;
use crate::nearest::nearest;
use crate::table::{Permission, ResourceType, Verb};

use super::{Parser, Part, Reported};

impl Parser<'_> {
    pub(super) fn action(&mut self) -> Part<Action> {
        if self.peek().kind == Kind::LeftBrace {
            let permissions = self.permission_list()?;
            let next = self.peek_word().unwrap_or_default().to_ascii_lowercase();
            let resource = if ["", "in", "tenancy", "compartment", "where"].contains(&next.as_str())
            {
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
        if self
            .peek_word()
            .is_some_and(|word| ResourceType::find(word).is_some())
        {
            let here = self.here();
            self.error(
                Code::UnexpectedToken,
                here,
                "a statement speaks of one resource type",
                &["`in`"],
                Some("write a second statement, or name a family".to_owned()),
            );
            return Err(Reported);
        }
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

    pub(super) fn resource_type(&mut self) -> Part<ResourceType> {
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

    pub(super) fn location(&mut self) -> Part<Location> {
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

    pub(super) fn compartment_path(&mut self) -> Part<Vec<String>> {
        let mut path = vec![self.name("a compartment name")?];
        while self.take_kind(&Kind::Colon) {
            path.push(self.name("a compartment name")?);
        }
        self.end_of_name("where");
        Ok(path)
    }
}
