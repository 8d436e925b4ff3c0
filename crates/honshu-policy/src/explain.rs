//! Why a decision came out as it did, for those who may know.
//!
//! An explanation names policies, compartments and conditions of the tenancy. It must never reach a
//! caller who has merely been refused.

use serde::{Serialize, Serializer};

use crate::ast::{
    Action, Clause, Condition, Effect, Grant, QualifiedName, Statement, Subject, Test, Value,
};
use crate::compartments::Node;
use crate::limits::EXPLAINED_STATEMENTS_MAX;
use crate::request::{Request, kind};
use crate::rule::ConditionTest;
use crate::set::{Decision, Placed, PolicySet, StatementRef};
use crate::table::Permission;
use crate::variable::Variable;

impl Serialize for Effect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Decision", 3)?;
        fields.serialize_field("effect", &self.effect)?;
        fields.serialize_field("reason", &self.reason)?;
        let because: Vec<_> = self.because.iter().map(|statement| &**statement).collect();
        fields.serialize_field("because", &because)?;
        fields.end()
    }
}

/// A decision with everything that led to it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The decision, with every statement that decided and not only the first.
    pub decision: Decision,
    /// The permission asked for.
    pub permission: Permission,
    /// Where it was asked for, such as `compartment A:B`, if known.
    pub location: Option<String>,
    /// Statements tried: those that match first, then the nearest to matching.
    pub considered: Vec<Considered>,
    /// How many more statements were tried and are left out.
    pub omitted: usize,
    /// A statement that would allow exactly this, for the reader to weigh.
    pub draft: Option<String>,
}

impl Explanation {
    /// The allow statement that comes nearest to allowing the request, if it was refused for want
    /// of one.
    #[must_use]
    pub fn nearest(&self) -> Option<&Considered> {
        self.considered
            .iter()
            .find(|considered| considered.effect == Effect::Allow && !considered.outcome.matched())
    }

    /// The explanation as lines of text.
    #[must_use]
    pub fn render(&self) -> String {
        let verdict = if self.decision.is_allowed() {
            "allowed"
        } else {
            "denied"
        };
        let mut out = format!(
            "{verdict}: {} in {}\n",
            self.permission,
            self.location.as_deref().unwrap_or("an unknown compartment")
        );
        for considered in &self.considered {
            out.push_str(&format!(
                "  {} (statement {} of policy `{}`)\n    {}\n",
                considered.statement.text.trim(),
                considered.statement.index + 1,
                considered.statement.policy_name,
                considered.outcome,
            ));
        }
        if self.omitted > 0 {
            out.push_str(&format!("  and {} statements further away\n", self.omitted));
        }
        if let (Some(draft), false) = (&self.draft, self.decision.is_allowed()) {
            out.push_str(&format!("  this statement would allow it: {draft}\n"));
        }
        out
    }
}

/// One statement and how it fared.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// Which statement.
    #[serde(serialize_with = "by_value")]
    pub statement: StatementRef,
    /// What it would do.
    pub effect: Effect,
    /// Whether it matched, and if not why.
    pub outcome: Outcome,
}

fn by_value<S: Serializer>(statement: &StatementRef, serializer: S) -> Result<S::Ok, S::Error> {
    (**statement).serialize(serializer)
}

/// How a statement fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Outcome {
    /// It speaks of the request.
    Matched,
    /// It would, but it has no effect.
    Idle {
        /// Why.
        why: String,
    },
    /// It does not; everything that keeps it from matching, in the order in which it is tried.
    Missed {
        /// At least one.
        mismatches: Vec<Mismatch>,
    },
}

impl Outcome {
    /// Whether the statement speaks of the request.
    #[must_use]
    pub fn matched(&self) -> bool {
        *self == Outcome::Matched
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Matched => f.write_str("matches"),
            Outcome::Idle { why } => f.write_str(why),
            Outcome::Missed { mismatches } => {
                for (index, mismatch) in mismatches.iter().enumerate() {
                    if index > 0 {
                        f.write_str("; ")?;
                    }
                    write!(f, "{mismatch}")?;
                }
                Ok(())
            }
        }
    }
}

/// One thing that keeps a statement from matching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "part")]
pub enum Mismatch {
    /// It holds elsewhere.
    Location {
        /// Where it holds.
        stated: String,
        /// Where the request is.
        actual: String,
    },
    /// It speaks of others.
    Subject {
        /// Of whom.
        stated: String,
        /// Who asks.
        actual: String,
    },
    /// It speaks of other permissions.
    Permission {
        /// What it says.
        stated: String,
        /// The permission asked for.
        needed: Permission,
        /// The weakest change of the statement's action that would include it.
        instead: String,
    },
    /// A comparison does not hold.
    Condition {
        /// The comparison.
        stated: String,
        /// The values of the variable; none if it does not apply to the request.
        actual: Option<Vec<String>>,
    },
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mismatch::Location { stated, actual } => {
                write!(f, "it holds in {stated}, and the request is in {actual}")
            }
            Mismatch::Subject { stated, actual } => {
                write!(f, "it speaks of {stated}, and the caller is {actual}")
            }
            Mismatch::Permission {
                stated,
                needed,
                instead,
            } => {
                write!(f, "`{stated}` does not grant {needed}; `{instead}` would")
            }
            Mismatch::Condition {
                stated,
                actual: None,
            } => {
                write!(
                    f,
                    "`{stated}` fails: the variable does not apply to this request"
                )
            }
            Mismatch::Condition {
                stated,
                actual: Some(values),
            } => {
                let values: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
                let values = if values.is_empty() {
                    "an empty list".to_owned()
                } else {
                    values.join(", ")
                };
                write!(f, "`{stated}` fails: the value is {values}")
            }
        }
    }
}

impl PolicySet {
    /// Decides as [`PolicySet::decide`] does and tells how every statement fared.
    ///
    /// The cost grows with the number of statements; keep it off the path of requests.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let mut explanation = Explanation {
            decision: self.decide(request),
            permission: request.permission,
            location: None,
            considered: Vec::new(),
            omitted: 0,
            draft: None,
        };
        let Ok(node) = self.standing(request) else {
            return explanation;
        };
        explanation.location = Some(self.tree.location(node).to_string());
        explanation.draft = Some(self.draft(node, request));
        let mut ranked: Vec<(usize, Considered)> = self
            .placed
            .iter()
            .map(|placed| {
                let mismatches = self.mismatches(placed, node, request);
                let distance: usize = mismatches.iter().map(cost).sum();
                let administrator =
                    placed.rule.effect == Effect::Deny && request.principal.is_administrator();
                let outcome = match (&placed.idle, mismatches.is_empty()) {
                    (Some(problem), _) => Outcome::Idle {
                        why: problem.to_string(),
                    },
                    (None, true) if administrator => Outcome::Idle {
                        why: "administrators are exempt from deny statements".to_owned(),
                    },
                    (None, true) => Outcome::Matched,
                    (None, false) => Outcome::Missed { mismatches },
                };
                let considered = Considered {
                    statement: placed.source.clone(),
                    effect: placed.rule.effect,
                    outcome,
                };
                (distance, considered)
            })
            .collect();
        // What decides comes first, deny before allow; then the nearest.
        ranked.sort_by_key(|(distance, considered)| {
            (
                !considered.outcome.matched(),
                *distance,
                considered.effect == Effect::Allow,
            )
        });
        explanation.omitted = ranked.len().saturating_sub(EXPLAINED_STATEMENTS_MAX);
        ranked.truncate(EXPLAINED_STATEMENTS_MAX);
        explanation.considered = ranked
            .into_iter()
            .map(|(_, considered)| considered)
            .collect();
        let effect = explanation.decision.effect;
        let decided: Vec<StatementRef> = explanation
            .considered
            .iter()
            .filter(|considered| considered.effect == effect && considered.outcome.matched())
            .map(|considered| considered.statement.clone())
            .collect();
        if !decided.is_empty() {
            explanation.decision.because = decided;
        }
        explanation
    }

    fn mismatches(&self, placed: &Placed, node: Node, request: &Request<'_>) -> Vec<Mismatch> {
        let mut found = Vec::new();
        let grant = &placed.rule.grant;
        if !self.tree.is_within(node, placed.node) {
            found.push(Mismatch::Location {
                stated: self.tree.location(placed.node).to_string(),
                actual: self.tree.location(node).to_string(),
            });
        }
        if !placed.rule.subject.matches(request) {
            found.push(Mismatch::Subject {
                stated: grant.subject.to_string(),
                actual: describe(request),
            });
        }
        if !placed.rule.permissions.contains(request.permission) {
            found.push(Mismatch::Permission {
                stated: grant.action.to_string(),
                needed: request.permission,
                instead: instead(grant, request.permission),
            });
        }
        if let Some(condition) = &placed.rule.condition {
            self.failing(condition, node, request, &mut found);
        }
        found
    }

    /// The comparisons that keep a condition from holding; of an `any`, those of its nearest branch.
    fn failing(
        &self,
        condition: &ConditionTest,
        node: Node,
        request: &Request<'_>,
        found: &mut Vec<Mismatch>,
    ) {
        let name = self.tree.name(node);
        if condition.holds(request, name) {
            return;
        }
        match condition {
            ConditionTest::All(items) => {
                for item in items {
                    self.failing(item, node, request, found);
                }
            }
            ConditionTest::Any(items) => {
                let branches = items.iter().map(|item| {
                    let mut branch = Vec::new();
                    self.failing(item, node, request, &mut branch);
                    branch
                });
                found.extend(branches.min_by_key(Vec::len).unwrap_or_default());
            }
            ConditionTest::Clause(clause) => {
                let mut values = Vec::new();
                let applies = request.any_value(clause.variable(), name, |value| {
                    values.push(value.to_owned());
                    false
                });
                found.push(Mismatch::Condition {
                    stated: clause.clause.to_string(),
                    actual: applies.map(|_| values),
                });
            }
        }
    }

    /// The narrowest allow statement for this principal, permission, compartment and model.
    fn draft(&self, node: Node, request: &Request<'_>) -> String {
        let principal = &request.principal;
        let equals = |variable: Variable, value: &str| {
            Condition::Clause(Clause {
                variable,
                test: Test::Equals(Value::Literal(value.to_owned())),
            })
        };
        let mut conditions = Vec::new();
        let subject = match principal.groups.first() {
            Some(group) => Subject::Groups(vec![QualifiedName {
                domain: group.domain.map(str::to_owned),
                name: group.name.to_owned(),
            }]),
            None if principal.kind == kind::SERVICE => {
                Subject::Services(vec![principal.name.unwrap_or(principal.id).to_owned()])
            }
            None => {
                conditions.push(equals(Variable::RequestPrincipalType, &principal.kind));
                conditions.push(equals(Variable::RequestPrincipalId, principal.id));
                Subject::AnyUser
            }
        };
        if let Some(model) = request.target.model_id {
            conditions.push(equals(Variable::TargetModelId, model));
        }
        let condition = match conditions.len() {
            0 => None,
            1 => conditions.pop(),
            _ => Some(Condition::All(conditions)),
        };
        let permission = request.permission;
        Statement::Grant(Grant {
            effect: Effect::Allow,
            subject,
            action: Action::Verb(permission.weakest_verb(), permission.resource_type()),
            location: self.tree.location(node),
            condition,
        })
        .to_string()
    }
}

/// How far a mismatch is from a match; a verb or a value is one word away, another type of resource
/// or place is further.
fn cost(mismatch: &Mismatch) -> usize {
    match mismatch {
        Mismatch::Condition { .. } => 1,
        Mismatch::Permission { stated, needed, .. } => {
            let word = stated.rsplit(' ').next().unwrap_or_default();
            let near = word == needed.resource_type().name()
                || needed.resource_type().family() == Some(word)
                || word == "all-resources";
            if near { 1 } else { 4 }
        }
        Mismatch::Location { .. } => 2,
        Mismatch::Subject { .. } => 2,
    }
}

fn instead(grant: &Grant, needed: Permission) -> String {
    match &grant.action {
        Action::Verb(verb, resource) => {
            if resource
                .granted_by(crate::table::Verb::Manage)
                .contains(needed)
            {
                let weakest = crate::table::Verb::ALL
                    .into_iter()
                    .find(|verb| resource.granted_by(*verb).contains(needed))
                    .unwrap_or(*verb);
                Action::Verb(weakest, *resource).to_string()
            } else {
                Action::Verb(needed.weakest_verb(), needed.resource_type()).to_string()
            }
        }
        Action::Permissions(permissions, _) => {
            let mut more = permissions.clone();
            more.push(needed);
            Action::Permissions(more, None).to_string()
        }
    }
}

fn describe(request: &Request<'_>) -> String {
    let principal = &request.principal;
    let groups: Vec<&str> = principal
        .groups
        .iter()
        .chain(&principal.dynamic_groups)
        .map(|group| group.name)
        .collect();
    let groups = if groups.is_empty() {
        "no group".to_owned()
    } else {
        format!("group {}", groups.join(", "))
    };
    format!(
        "{} {} in {groups}",
        principal.kind,
        principal.name.unwrap_or(principal.id)
    )
}
