//! The part after `where`.

use crate::ast::{Clause, Condition, Test, Value};
use crate::diagnostic::{Code, Fix, Severity};
use crate::lexer::{self, Kind};
use crate::limits::CONDITION_DEPTH_MAX;
use crate::nearest::{distance, nearest};
use crate::table::{Operation, Permission};
use crate::value::{Glob, WEEKDAYS, parse_time_of_day, parse_timestamp};
use crate::variable::{Variable, VariableKind};

use super::{Parser, Part, Reported};

/// Kinds of principal that Honshu knows; others may come, so an unknown one is only a warning.
const PRINCIPAL_TYPES: [&str; 3] = ["generativeaiapikey", "user", "service"];

impl Parser<'_> {
    /// The condition after `where`, with help for those who join conditions by words.
    pub(super) fn where_clause(&mut self) -> Part<Condition> {
        if self.peek().kind == Kind::LeftBrace {
            let here = self.here();
            self.grouping_error(
                here,
                "a group of conditions begins with `any` or `all`",
                "write `all {…}`",
            );
            return self.group(0, Condition::All);
        }
        let first = self.condition(0);
        let mut joined = false;
        loop {
            let word = self.peek_word().unwrap_or_default().to_ascii_lowercase();
            let comma = self.peek().kind == Kind::Comma;
            if !comma && word != "and" && word != "or" {
                break;
            }
            let here = self.here();
            let group = if word == "or" { "any" } else { "all" };
            if !joined {
                let message = if comma {
                    "several conditions need a group".to_owned()
                } else {
                    format!("conditions are not joined by `{word}`")
                };
                self.grouping_error(here, message, format!("write `where {group} {{…, …}}`"));
            }
            joined = true;
            self.take();
            if self.condition(0).is_err() {
                self.skip_to(&["and", "or"]);
            }
        }
        if joined { Err(Reported) } else { first }
    }

    fn grouping_error(
        &mut self,
        here: (usize, usize),
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.error(
            Code::BadGrouping,
            here,
            message,
            &["`any {`", "`all {`"],
            Some(hint.into()),
        );
    }

    pub(super) fn condition(&mut self, depth: usize) -> Part<Condition> {
        let group: Option<fn(Vec<Condition>) -> Condition> = if self.at_word("any") {
            Some(Condition::Any)
        } else if self.at_word("all") {
            Some(Condition::All)
        } else {
            None
        };
        let Some(group) = group else {
            return self.clause().map(Condition::Clause);
        };
        let here = self.here();
        if depth >= CONDITION_DEPTH_MAX {
            self.error(
                Code::TooLarge,
                here,
                format!("conditions nest deeper than {CONDITION_DEPTH_MAX} levels"),
                &[],
                None,
            );
            self.skip_to(&[]);
            return Err(Reported);
        }
        self.take();
        if self.peek().kind != Kind::LeftBrace {
            let here = self.here();
            let found = self.found();
            self.error(
                Code::UnexpectedToken,
                here,
                format!("expected `{{` after the word for a group, {found}"),
                &["`{`"],
                None,
            );
            return Err(Reported);
        }
        self.group(depth, group)
    }

    /// The part in braces; the next token is the opening one.
    fn group(&mut self, depth: usize, make: fn(Vec<Condition>) -> Condition) -> Part<Condition> {
        let opening = self.take();
        let mut items = Vec::new();
        let mut failed = false;
        loop {
            if self.peek().kind == Kind::RightBrace {
                let here = self.here();
                let message = if items.is_empty() && !failed {
                    "the group is empty"
                } else {
                    "a condition is missing after the comma"
                };
                self.error(Code::UnexpectedToken, here, message, &["a condition"], None);
                self.take();
                return Err(Reported);
            }
            match self.condition(depth + 1) {
                Ok(item) => items.push(item),
                Err(Reported) => {
                    failed = true;
                    self.skip_item();
                }
            }
            if self.take_kind(&Kind::RightBrace) {
                break;
            }
            if self.take_kind(&Kind::Comma) {
                continue;
            }
            if self.at_boundary() {
                let span = (opening.start, opening.end);
                self.error(
                    Code::Unterminated,
                    span,
                    "the group does not end",
                    &["`}`"],
                    Some("close it with `}`".to_owned()),
                );
                return Err(Reported);
            }
            failed = true;
            let here = self.here();
            let found = self.found();
            if self.at_word("and") || self.at_word("or") {
                let word = self.take();
                let word = self.text(&word).to_owned();
                if let Some(diagnostic) = self.push(
                    Severity::Error,
                    Code::BadGrouping,
                    here,
                    format!("conditions are not joined by `{word}`"),
                ) {
                    diagnostic.expected = vec!["`,`".to_owned()];
                    diagnostic.hint =
                        Some("write `,` in `all {…}` for and, in `any {…}` for or".to_owned());
                    diagnostic.fix = Some(Fix {
                        start: here.0,
                        end: here.1,
                        replacement: ",".to_owned(),
                    });
                }
            } else {
                self.error(
                    Code::UnexpectedToken,
                    here,
                    format!("expected `,` or `}}`, {found}"),
                    &["`,`", "`}`"],
                    None,
                );
                if self.peek().kind != Kind::Word {
                    self.take();
                    self.skip_item();
                    if self.take_kind(&Kind::RightBrace) {
                        break;
                    }
                    self.take_kind(&Kind::Comma);
                }
            }
        }
        if failed {
            Err(Reported)
        } else {
            Ok(make(items))
        }
    }

    /// Skips to the comma or brace that ends the item.
    fn skip_item(&mut self) {
        let mut depth = 0usize;
        while !self.at_boundary() {
            match self.peek().kind {
                Kind::LeftBrace | Kind::LeftParenthesis => depth += 1,
                Kind::RightParenthesis => depth = depth.saturating_sub(1),
                Kind::RightBrace if depth == 0 => return,
                Kind::RightBrace => depth -= 1,
                Kind::Comma if depth == 0 => return,
                _ => {}
            }
            self.take();
        }
    }

    fn clause(&mut self) -> Part<Clause> {
        if self.take_word("not") {
            let variable = self.variable()?;
            return Ok(Clause {
                variable,
                test: Test::Absent,
            });
        }
        let variable = self.variable();
        let test = self.test(variable.as_ref().ok());
        Ok(Clause {
            variable: variable?,
            test: test?,
        })
    }

    fn variable(&mut self) -> Part<Variable> {
        let here = self.here();
        let Some(word) = self.peek_word() else {
            let found = self.found();
            self.error(
                Code::UnknownVariable,
                here,
                format!("expected a condition, {found}"),
                &["a variable", "`any {`", "`all {`", "`not`"],
                Some("for example `request.principal.type = 'generativeaiapikey'`".to_owned()),
            );
            return Err(Reported);
        };
        self.take();
        if let Some(variable) = Variable::find(word) {
            return Ok(variable);
        }
        let names: Vec<String> = Variable::NAMED.iter().map(Variable::name).collect();
        let guess = nearest(word, names.iter().map(String::as_str));
        let hint = if word.to_ascii_lowercase().contains(".tag") {
            "a tag is written `target.resource.tag.NAMESPACE.KEY`"
        } else {
            "the reference page of policies lists all variables"
        };
        self.unknown(
            Code::UnknownVariable,
            here,
            format!("no variable `{word}`"),
            guess,
            &[],
            Some(hint.to_owned()),
        );
        Err(Reported)
    }

    fn test(&mut self, variable: Option<&Variable>) -> Part<Test> {
        let operator = self.here();
        match self.peek().kind {
            Kind::Equals => {
                self.take();
                return self.value(variable).map(Test::Equals);
            }
            Kind::NotEquals => {
                self.take();
                return self.value(variable).map(Test::NotEquals);
            }
            Kind::Comma | Kind::RightBrace | Kind::End => return Ok(Test::Present),
            _ => {}
        }
        let word = self.peek_word().unwrap_or_default().to_ascii_lowercase();
        match word.as_str() {
            "in" => {
                self.take();
                self.values(variable).map(Test::In)
            }
            "not" => {
                self.take();
                self.keyword("in", "`not`");
                self.values(variable).map(Test::NotIn)
            }
            "before" => {
                self.take();
                self.check_ordered(variable, "before", operator);
                self.value(variable).map(Test::Before)
            }
            "after" => {
                self.take();
                self.check_ordered(variable, "after", operator);
                self.value(variable).map(Test::After)
            }
            "between" => {
                self.take();
                self.check_ordered(variable, "between", operator);
                let span_start = self.here().0;
                let from = self.value(variable);
                self.keyword("and", "the first value");
                let to = self.value(variable);
                let (from, to) = (from?, to?);
                self.check_range(variable, &from, &to, (span_start, self.last_end));
                Ok(Test::Between(from, to))
            }
            "and" | "or" => Ok(Test::Present),
            _ if self.at_end_of_statement() => Ok(Test::Present),
            _ => {
                let found = self.found();
                let hint = match word.as_str() {
                    "is" | "equals" | "eq" => "write `=`".to_owned(),
                    "like" | "matches" | "contains" => "write `= /*text*/`".to_owned(),
                    _ => "for example `= 'value'`".to_owned(),
                };
                self.error(
                    Code::UnexpectedToken,
                    operator,
                    format!("expected an operator, {found}"),
                    &[
                        "`=`",
                        "`!=`",
                        "`in`",
                        "`not in`",
                        "`before`",
                        "`after`",
                        "`between`",
                    ],
                    Some(hint),
                );
                Err(Reported)
            }
        }
    }

    fn check_ordered(&mut self, variable: Option<&Variable>, operator: &str, span: (usize, usize)) {
        let Some(variable) = variable else { return };
        let ordered = matches!(
            variable.kind(),
            VariableKind::Instant | VariableKind::TimeOfDay | VariableKind::Number { .. }
        );
        if !ordered {
            self.error(
                Code::BadOperator,
                span,
                format!("`{operator}` compares times, and `{variable}` is not one"),
                &["`=`", "`!=`", "`in`", "`not in`"],
                None,
            );
        }
    }

    fn check_range(
        &mut self,
        variable: Option<&Variable>,
        from: &Value,
        to: &Value,
        span: (usize, usize),
    ) {
        let (Some(variable), Value::Literal(from), Value::Literal(to)) = (variable, from, to)
        else {
            return;
        };
        let reversed = match variable.kind() {
            VariableKind::Instant => parse_timestamp(from) > parse_timestamp(to),
            VariableKind::Number { .. } => from.parse::<u32>().ok() > to.parse::<u32>().ok(),
            // A time of day may run past midnight.
            _ => false,
        };
        if reversed {
            self.warning(
                Code::NeverTrue,
                span,
                "the range ends before it begins",
                Some("swap the two values".to_owned()),
            );
        }
    }

    fn values(&mut self, variable: Option<&Variable>) -> Part<Vec<Value>> {
        if !self.take_kind(&Kind::LeftParenthesis) {
            let here = self.here();
            let found = self.found();
            self.error(
                Code::UnexpectedToken,
                here,
                format!("expected `(` before the list, {found}"),
                &["`(`"],
                Some("write `in ('a', 'b')`".to_owned()),
            );
            return Err(Reported);
        }
        let mut values = Vec::new();
        let mut failed = false;
        loop {
            match self.value(variable) {
                Ok(value) => values.push(value),
                Err(Reported) => failed = true,
            }
            if self.take_kind(&Kind::RightParenthesis) {
                break;
            }
            if !self.take_kind(&Kind::Comma) {
                let here = self.here();
                let found = self.found();
                self.error(
                    Code::UnexpectedToken,
                    here,
                    format!("expected `,` or `)`, {found}"),
                    &["`,`", "`)`"],
                    None,
                );
                return Err(Reported);
            }
        }
        if failed { Err(Reported) } else { Ok(values) }
    }

    fn value(&mut self, variable: Option<&Variable>) -> Part<Value> {
        let token = self.peek().clone();
        let here = self.here();
        let text = match &token.kind {
            Kind::Quoted(text) => text.clone(),
            Kind::Word => self.text(&token).to_owned(),
            Kind::Slash => return self.pattern(variable, token.start),
            _ => {
                let found = self.found();
                self.error(
                    Code::BadValue,
                    here,
                    format!("expected a value, {found}"),
                    &["'text'", "/pattern*/"],
                    None,
                );
                return Err(Reported);
            }
        };
        self.take();
        if let Some(variable) = variable {
            self.check_value(variable, &text, here);
        }
        Ok(Value::Literal(text))
    }

    fn pattern(&mut self, variable: Option<&Variable>, start: usize) -> Part<Value> {
        match lexer::pattern(self.source, start) {
            Ok((pattern, end)) => {
                self.ahead = None;
                self.at = end;
                self.last_end = end;
                let ordered = variable
                    .is_some_and(|variable| matches!(variable.kind(), VariableKind::Permission));
                if ordered
                    && !Permission::ALL
                        .iter()
                        .any(|permission| Glob::new(&pattern).matches(permission.name()))
                {
                    self.warning(
                        Code::NeverTrue,
                        (start, end),
                        "no permission matches the pattern",
                        None,
                    );
                }
                Ok(Value::Pattern(pattern))
            }
            Err(slip) => {
                let end = slip.end;
                self.slip(slip);
                self.ahead = None;
                self.at = end;
                self.last_end = end;
                Err(Reported)
            }
        }
    }

    /// Whether the text can be a value of the variable.
    fn check_value(&mut self, variable: &Variable, text: &str, span: (usize, usize)) {
        let bad = |parser: &mut Self, hint: String| {
            parser.error(
                Code::BadValue,
                span,
                format!("`{text}` cannot be a value of `{variable}`"),
                &[],
                Some(hint),
            );
        };
        match variable.kind() {
            VariableKind::Text | VariableKind::List => self.check_text(variable, text, span),
            VariableKind::Permission => {
                if Permission::find(text).is_none() {
                    let guess = nearest(
                        text,
                        Permission::ALL.iter().map(|permission| permission.name()),
                    );
                    self.unknown(
                        Code::UnknownPermission,
                        span,
                        format!("no permission `{text}`"),
                        guess,
                        &[],
                        None,
                    );
                }
            }
            VariableKind::Operation => {
                let known = Operation::ALL
                    .iter()
                    .any(|operation| operation.name().eq_ignore_ascii_case(text));
                if !known {
                    let guess = nearest(
                        text,
                        Operation::ALL.iter().map(|operation| operation.name()),
                    );
                    let hint = guess.map(|guess| format!("did you mean `{guess}`?"));
                    self.warning(
                        Code::UnknownOperation,
                        span,
                        format!("no operation `{text}`"),
                        hint,
                    );
                }
            }
            VariableKind::Region => {
                if text.chars().count() != 3 {
                    let hint = match honshu_domain::known_region_key(&text.to_ascii_lowercase()) {
                        Some(key) => format!("write the three-letter key: '{key}'"),
                        None => {
                            "it holds the three-letter key, such as 'KIX' for ap-osaka-1".to_owned()
                        }
                    };
                    self.warning(
                        Code::NeverTrue,
                        span,
                        format!("`{text}` is not the key of a region"),
                        Some(hint),
                    );
                }
            }
            VariableKind::Boolean => {
                if !text.eq_ignore_ascii_case("true") && !text.eq_ignore_ascii_case("false") {
                    bad(self, "write 'true' or 'false'".to_owned());
                }
            }
            VariableKind::Number { min, max } => {
                let number = text
                    .parse::<u32>()
                    .ok()
                    .filter(|number| (min..=max).contains(number));
                if number.is_none() || !text.bytes().all(|b| b.is_ascii_digit()) {
                    bad(self, format!("write a number from '{min}' to '{max}'"));
                }
            }
            VariableKind::Weekday => {
                if !WEEKDAYS.iter().any(|day| day.eq_ignore_ascii_case(text)) {
                    let hint = match nearest(text, WEEKDAYS.into_iter()) {
                        Some(day) => format!("did you mean '{day}'?"),
                        None => "write the English name, such as 'Monday'".to_owned(),
                    };
                    bad(self, hint);
                }
            }
            VariableKind::Instant => {
                if parse_timestamp(text).is_none() {
                    bad(
                        self,
                        "write UTC, as in '2026-04-01T15:00:00Z' or '2026-04-01Z'".to_owned(),
                    );
                }
            }
            VariableKind::TimeOfDay => {
                if parse_time_of_day(text).is_none() {
                    bad(self, "write UTC, as in '09:00:00Z'".to_owned());
                }
            }
        }
    }

    /// Slips in free texts that would be conditions which never hold.
    fn check_text(&mut self, variable: &Variable, text: &str, span: (usize, usize)) {
        if *variable == Variable::RequestPrincipalType {
            let lower = text.to_lowercase();
            let near = PRINCIPAL_TYPES.into_iter().find(|known| {
                lower != *known
                    && (distance(&lower, known) <= 2
                        || lower.replace(['-', '_', ' '], "") == *known)
                    && lower.len() > 3
            });
            if let Some(near) = near {
                self.warning(
                    Code::NeverTrue,
                    span,
                    format!("no principal is of type `{text}`"),
                    Some(format!("did you mean '{near}'?")),
                );
            }
        }
        if *variable == Variable::TargetPolicyType
            && !["allow", "deny"]
                .iter()
                .any(|kind| kind.eq_ignore_ascii_case(text))
        {
            self.warning(
                Code::NeverTrue,
                span,
                format!("no policy is of type `{text}`"),
                Some("it is 'allow' or 'deny'".to_owned()),
            );
        }
        if text.contains('*') {
            self.warning(
                Code::NeverTrue,
                span,
                "a star in quotes stands for itself",
                Some(format!(
                    "for a pattern write `/{}/`",
                    text.replace('/', r"\/")
                )),
            );
        }
    }
}
