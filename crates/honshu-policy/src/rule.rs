//! One statement made ready to be asked: names folded, values read, times as numbers.
//!
//! A rule knows who, what and when, but not where: the index keeps rules by compartment.

use std::sync::Arc;

use crate::ast::{Clause, Condition, Effect, Grant, QualifiedName, Subject, Test, Value};
use crate::permission_set::PermissionSet;
use crate::request::{DEFAULT_DOMAIN, Membership, Request, kind};
use crate::value::{Glob, WEEKDAYS, equals_folded, fold, parse_time_of_day, parse_timestamp};
use crate::variable::{Variable, VariableKind};

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) effect: Effect,
    pub(crate) subject: SubjectTest,
    pub(crate) permissions: PermissionSet,
    pub(crate) condition: Option<ConditionTest>,
    pub(crate) grant: Arc<Grant>,
}

impl Rule {
    pub(crate) fn new(grant: Arc<Grant>) -> Rule {
        Rule {
            effect: grant.effect,
            subject: SubjectTest::new(&grant.subject),
            permissions: grant.action.permissions(),
            condition: grant.condition.as_ref().map(ConditionTest::new),
            grant,
        }
    }

    /// Whether the statement speaks of the request, its location aside.
    pub(crate) fn matches(&self, request: &Request<'_>, compartment_name: &str) -> bool {
        self.permissions.contains(request.permission)
            && self.subject.matches(request)
            && self
                .condition
                .as_ref()
                .is_none_or(|condition| condition.holds(request, compartment_name))
    }
}

#[derive(Debug)]
pub(crate) struct NameTest {
    pub(crate) domain: String,
    pub(crate) name: String,
}

impl NameTest {
    fn new(name: &QualifiedName) -> NameTest {
        NameTest {
            domain: fold(name.domain.as_deref().unwrap_or(DEFAULT_DOMAIN)).into_owned(),
            name: fold(&name.name).into_owned(),
        }
    }

    fn matches(&self, group: &Membership<'_>) -> bool {
        equals_folded(&self.name, group.name)
            && equals_folded(&self.domain, group.domain.unwrap_or(DEFAULT_DOMAIN))
    }
}

#[derive(Debug)]
pub(crate) enum SubjectTest {
    AnyUser,
    AnyGroup,
    Groups(Vec<NameTest>),
    GroupIds(Vec<String>),
    DynamicGroups(Vec<NameTest>),
    DynamicGroupIds(Vec<String>),
    Services(Vec<String>),
}

impl SubjectTest {
    fn new(subject: &Subject) -> SubjectTest {
        let names = |names: &[QualifiedName]| names.iter().map(NameTest::new).collect();
        let texts = |texts: &[String]| texts.iter().map(|text| fold(text).into_owned()).collect();
        match subject {
            Subject::AnyUser => SubjectTest::AnyUser,
            Subject::AnyGroup => SubjectTest::AnyGroup,
            Subject::Groups(groups) => SubjectTest::Groups(names(groups)),
            Subject::GroupIds(ids) => SubjectTest::GroupIds(texts(ids)),
            Subject::DynamicGroups(groups) => SubjectTest::DynamicGroups(names(groups)),
            Subject::DynamicGroupIds(ids) => SubjectTest::DynamicGroupIds(texts(ids)),
            Subject::Services(services) => SubjectTest::Services(texts(services)),
        }
    }

    pub(crate) fn matches(&self, request: &Request<'_>) -> bool {
        let principal = &request.principal;
        let named = |tests: &[NameTest], groups: &[Membership<'_>]| {
            groups
                .iter()
                .any(|group| tests.iter().any(|test| test.matches(group)))
        };
        let with_id = |ids: &[String], groups: &[Membership<'_>]| {
            groups
                .iter()
                .any(|group| ids.iter().any(|id| equals_folded(id, group.id)))
        };
        match self {
            SubjectTest::AnyUser => true,
            SubjectTest::AnyGroup => principal.kind != kind::SERVICE,
            SubjectTest::Groups(tests) => named(tests, &principal.groups),
            SubjectTest::GroupIds(ids) => with_id(ids, &principal.groups),
            SubjectTest::DynamicGroups(tests) => named(tests, &principal.dynamic_groups),
            SubjectTest::DynamicGroupIds(ids) => with_id(ids, &principal.dynamic_groups),
            SubjectTest::Services(names) => {
                principal.kind == kind::SERVICE
                    && names
                        .iter()
                        .any(|name| equals_folded(name, principal.name.unwrap_or(principal.id)))
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum ConditionTest {
    Any(Vec<ConditionTest>),
    All(Vec<ConditionTest>),
    Clause(ClauseTest),
}

#[derive(Debug)]
pub(crate) struct ClauseTest {
    pub(crate) clause: Clause,
    pub(crate) check: Check,
}

#[derive(Debug)]
pub(crate) enum Check {
    Present,
    Absent,
    /// Whether one of the operands equals the value, or none if `negated`.
    OneOf {
        operands: Vec<Operand>,
        negated: bool,
    },
    Before(i64),
    After(i64),
    Between {
        from: i64,
        to: i64,
        wraps: bool,
    },
    /// A value that the parser would not have let through.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Operand {
    Text(String),
    Pattern(Glob),
    Number(i64),
}

impl ConditionTest {
    fn new(condition: &Condition) -> ConditionTest {
        match condition {
            Condition::Any(items) => {
                ConditionTest::Any(items.iter().map(ConditionTest::new).collect())
            }
            Condition::All(items) => {
                ConditionTest::All(items.iter().map(ConditionTest::new).collect())
            }
            Condition::Clause(clause) => ConditionTest::Clause(ClauseTest::new(clause)),
        }
    }

    pub(crate) fn holds(&self, request: &Request<'_>, compartment_name: &str) -> bool {
        match self {
            ConditionTest::Any(items) => items
                .iter()
                .any(|item| item.holds(request, compartment_name)),
            ConditionTest::All(items) => items
                .iter()
                .all(|item| item.holds(request, compartment_name)),
            ConditionTest::Clause(clause) => clause.holds(request, compartment_name),
        }
    }
}

impl ClauseTest {
    fn new(clause: &Clause) -> ClauseTest {
        let kind = clause.variable.kind();
        let one_of = |values: &[Value], negated| {
            let operands: Option<Vec<Operand>> =
                values.iter().map(|value| operand(kind, value)).collect();
            operands.map_or(Check::Never, |operands| Check::OneOf { operands, negated })
        };
        let number = |value: &Value| match operand(kind, value) {
            Some(Operand::Number(number)) => Some(number),
            _ => None,
        };
        let check = match &clause.test {
            Test::Present => Check::Present,
            Test::Absent => Check::Absent,
            Test::Equals(value) => one_of(std::slice::from_ref(value), false),
            Test::NotEquals(value) => one_of(std::slice::from_ref(value), true),
            Test::In(values) => one_of(values, false),
            Test::NotIn(values) => one_of(values, true),
            Test::Before(value) => number(value).map_or(Check::Never, Check::Before),
            Test::After(value) => number(value).map_or(Check::Never, Check::After),
            Test::Between(from, to) => match (number(from), number(to)) {
                (Some(from), Some(to)) => {
                    // From 22:00 to 06:00 is one night, not nothing.
                    let wraps = kind == VariableKind::TimeOfDay && from > to;
                    Check::Between { from, to, wraps }
                }
                _ => Check::Never,
            },
        };
        ClauseTest {
            clause: clause.clone(),
            check,
        }
    }

    pub(crate) fn variable(&self) -> &Variable {
        &self.clause.variable
    }

    pub(crate) fn holds(&self, request: &Request<'_>, compartment_name: &str) -> bool {
        let variable = self.variable();
        let ordered = |test: &dyn Fn(i64) -> bool| request.number(variable).is_some_and(test);
        match &self.check {
            Check::Present => request
                .any_value(variable, compartment_name, |_| true)
                .is_some(),
            Check::Absent => request
                .any_value(variable, compartment_name, |_| true)
                .is_none(),
            Check::OneOf { operands, negated } => {
                let number = request.number(variable);
                let equal = request.any_value(variable, compartment_name, |value| {
                    operands.iter().any(|operand| match operand {
                        Operand::Text(text) => equals_folded(text, value),
                        Operand::Pattern(glob) => glob.matches(value),
                        Operand::Number(wanted) => number == Some(*wanted),
                    })
                });
                equal.is_some_and(|equal| equal != *negated)
            }
            Check::Before(limit) => ordered(&|value| value < *limit),
            Check::After(limit) => ordered(&|value| value > *limit),
            Check::Between {
                from,
                to,
                wraps: false,
            } => ordered(&|value| *from <= value && value <= *to),
            Check::Between {
                from,
                to,
                wraps: true,
            } => ordered(&|value| *from <= value || value <= *to),
            Check::Never => false,
        }
    }
}

fn operand(kind: VariableKind, value: &Value) -> Option<Operand> {
    let text = match value {
        Value::Pattern(pattern) => return Some(Operand::Pattern(Glob::new(pattern))),
        Value::Literal(text) => text,
    };
    Some(match kind {
        VariableKind::Instant => Operand::Number(parse_timestamp(text)?),
        VariableKind::TimeOfDay => Operand::Number(i64::from(parse_time_of_day(text)?)),
        VariableKind::Number { .. } => Operand::Number(text.parse().ok()?),
        VariableKind::Weekday => {
            let day = WEEKDAYS.iter().find(|day| day.eq_ignore_ascii_case(text))?;
            Operand::Text(fold(day).into_owned())
        }
        _ => Operand::Text(fold(text).into_owned()),
    })
}
