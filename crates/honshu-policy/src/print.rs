//! Statements back to text, in one canonical spelling that parses to an equal statement.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::{
    Action, Admit, Clause, Condition, Define, DefineKind, Effect, Endorse, EndorseAction,
    EndorseScope, Grant, Location, OtherTenancy, QualifiedName, Statement, Subject, Test, Value,
};
use crate::lexer::is_plain_word;

/// Words that end a name, so that a name spelled like one needs quotes.
pub(crate) const RESERVED: [&str; 7] = ["to", "in", "where", "of", "as", "id", "with"];

/// The text in single quotes.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// A name, quoted only where it must be.
pub(crate) fn name(text: &str) -> String {
    let reserved = RESERVED.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_plain_word(text) && !reserved {
        text.to_owned()
    } else {
        quote(text)
    }
}

fn joined<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    separator: &str,
    each: impl Fn(&T) -> String,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        f.write_str(&each(item))?;
    }
    Ok(())
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Grant(grant) => grant.fmt(f),
            Statement::Define(define) => define.fmt(f),
            Statement::Admit(admit) => admit.fmt(f),
            Statement::Endorse(endorse) => endorse.fmt(f),
        }
    }
}

impl Display for Effect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        })
    }
}

fn condition(f: &mut Formatter<'_>, condition: Option<&Condition>) -> fmt::Result {
    match condition {
        Some(condition) => write!(f, " where {condition}"),
        None => Ok(()),
    }
}

impl Display for Grant {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} to {} in {}",
            self.effect, self.subject, self.action, self.location
        )?;
        condition(f, self.condition.as_ref())
    }
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let id = |ocid: &String| format!("id {ocid}");
        match self {
            Subject::AnyUser => f.write_str("any-user"),
            Subject::AnyGroup => f.write_str("any-group"),
            Subject::Groups(names) => {
                f.write_str("group ")?;
                joined(f, names, ", ", ToString::to_string)
            }
            Subject::GroupIds(ocids) => {
                f.write_str("group ")?;
                joined(f, ocids, ", ", id)
            }
            Subject::DynamicGroups(names) => {
                f.write_str("dynamic-group ")?;
                joined(f, names, ", ", ToString::to_string)
            }
            Subject::DynamicGroupIds(ocids) => {
                f.write_str("dynamic-group ")?;
                joined(f, ocids, ", ", id)
            }
            Subject::Services(names) => {
                f.write_str("service ")?;
                joined(f, names, ", ", |text| name(text))
            }
        }
    }
}

impl Display for QualifiedName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.domain {
            // Oracle's pages quote both halves.
            Some(domain) => write!(f, "{}/{}", quote(domain), quote(&self.name)),
            None => f.write_str(&name(&self.name)),
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Action::Verb(verb, resource) => write!(f, "{verb} {resource}"),
            Action::Permissions(permissions, resource) => {
                f.write_char('{')?;
                joined(f, permissions, ", ", ToString::to_string)?;
                f.write_char('}')?;
                match resource {
                    Some(resource) => write!(f, " {resource}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Display for Location {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Location::Tenancy => f.write_str("tenancy"),
            Location::Compartment(path) => {
                f.write_str("compartment ")?;
                joined(f, path, ":", |text| name(text))
            }
            Location::CompartmentId(ocid) => write!(f, "compartment id {ocid}"),
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (word, items) = match self {
            Condition::Clause(clause) => return clause.fmt(f),
            Condition::Any(items) => ("any", items),
            Condition::All(items) => ("all", items),
        };
        write!(f, "{word} {{")?;
        joined(f, items, ", ", ToString::to_string)?;
        f.write_char('}')
    }
}

impl Display for Clause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let variable = &self.variable;
        let list = |f: &mut Formatter<'_>, values: &[Value]| {
            f.write_char('(')?;
            joined(f, values, ", ", ToString::to_string)?;
            f.write_char(')')
        };
        match &self.test {
            Test::Present => write!(f, "{variable}"),
            Test::Absent => write!(f, "not {variable}"),
            Test::Equals(value) => write!(f, "{variable} = {value}"),
            Test::NotEquals(value) => write!(f, "{variable} != {value}"),
            Test::In(values) => {
                write!(f, "{variable} in ")?;
                list(f, values)
            }
            Test::NotIn(values) => {
                write!(f, "{variable} not in ")?;
                list(f, values)
            }
            Test::Before(value) => write!(f, "{variable} before {value}"),
            Test::After(value) => write!(f, "{variable} after {value}"),
            Test::Between(from, to) => write!(f, "{variable} between {from} and {to}"),
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Value::Literal(text) => f.write_str(&quote(text)),
            Value::Pattern(pattern) => write!(f, "/{pattern}/"),
        }
    }
}

impl Display for Define {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DefineKind::Tenancy => "tenancy",
            DefineKind::Group => "group",
            DefineKind::DynamicGroup => "dynamic-group",
            DefineKind::Compartment => "compartment",
        };
        write!(f, "define {kind} {} as {}", self.name, self.ocid)
    }
}

impl Display for OtherTenancy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            OtherTenancy::Any => f.write_str("any-tenancy"),
            OtherTenancy::Named(text) => write!(f, "tenancy {}", name(text)),
        }
    }
}

fn cross_tenancy(
    f: &mut Formatter<'_>,
    effect: Effect,
    word: &str,
    subject: &Subject,
) -> fmt::Result {
    if effect == Effect::Deny {
        f.write_str("deny ")?;
    }
    write!(f, "{word} {subject}")
}

impl Display for Admit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        cross_tenancy(f, self.effect, "admit", &self.subject)?;
        if let Some(tenancy) = &self.tenancy {
            write!(f, " of {tenancy}")?;
        }
        write!(f, " to {} in {}", self.action, self.location)?;
        condition(f, self.condition.as_ref())
    }
}

impl Display for Endorse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        cross_tenancy(f, self.effect, "endorse", &self.subject)?;
        match &self.action {
            EndorseAction::Action(action @ Action::Verb(..)) => write!(f, " to {action}")?,
            // A list of permissions follows the subject directly.
            EndorseAction::Action(action) => write!(f, " {action}")?,
            EndorseAction::Associate(resource) => write!(f, " to associate {resource}")?,
        }
        f.write_str(" in ")?;
        match &self.scope {
            EndorseScope::Tenancy(tenancy) => write!(f, "{tenancy}")?,
            EndorseScope::Compartment(path, tenancy) => {
                f.write_str("compartment ")?;
                joined(f, path, ":", |text| name(text))?;
                write!(f, " of tenancy {}", name(tenancy))?;
            }
        }
        condition(f, self.condition.as_ref())
    }
}
