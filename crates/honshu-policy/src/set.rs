//! All policies of a tenancy, compiled, and the decision itself.
//!
//! Default deny: what no statement allows is refused, and so is everything about which the set is
//! not sure, such as a compartment that it does not know.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::ast::{Effect, Location, Statement};
use crate::authorized::{Authorized, Denied};
use crate::compartments::{Compartment, CompartmentTree, Node, ROOT, Tenancy};
use crate::diagnostic::ParseError;
use crate::index::{self, Filed, Index, RuleId};
use crate::limits::SINGLE_TRIES_MAX;
use crate::matcher::KeyId;
use crate::parser::parse_statement;
use crate::program::Programs;
use crate::request::Request;
use crate::rule::Rule;
use crate::vocabulary::{self, Vocabulary};

/// A policy as it is stored.
#[derive(Debug, Clone)]
pub struct AttachedPolicy {
    /// Its OCID.
    pub id: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// OCID of the compartment or tenancy that it is attached to: it holds there and below.
    pub compartment_id: Arc<str>,
    /// Its statements as text.
    pub statements: Vec<Arc<str>>,
}

/// What the tenancy has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompileOptions {
    /// Whether deny statements count. Off until the tenancy turns them on.
    pub deny_enabled: bool,
}

/// One statement of one policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatementSource {
    /// OCID of the policy.
    pub policy_id: Arc<str>,
    /// Name of the policy.
    pub policy_name: Arc<str>,
    /// Position in the policy's statements, from 0.
    pub index: usize,
    /// The statement as stored.
    pub text: Arc<str>,
}

/// A shared reference to a statement, cheap to copy.
pub type StatementRef = Arc<StatementSource>;

/// Why a statement or policy does less than it says.
#[derive(Debug, Clone)]
pub enum CompileProblem {
    /// The statement cannot be read, so its whole policy allows nothing.
    Unreadable(ParseError),
    /// No compartment has this name below the compartment that the policy is attached to.
    UnknownCompartment,
    /// The location is not within the compartment that the policy is attached to.
    OutsideAttachment,
    /// The compartment that the policy is attached to is unknown.
    UnknownAttachment,
    /// A deny statement while deny statements are off.
    DenyDisabled,
    /// `define`, `admit` and `endorse` are read, but this service grants nothing across tenancies.
    CrossTenancy,
}

impl std::fmt::Display for CompileProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CompileProblem::Unreadable(error) => write!(f, "cannot be read, so its whole policy allows nothing: {error}"),
            CompileProblem::UnknownCompartment => f.write_str("never matches: no such compartment below the one that the policy is attached to"),
            CompileProblem::OutsideAttachment => f.write_str("never matches: its location is outside the compartment that the policy is attached to"),
            CompileProblem::UnknownAttachment => f.write_str("never matches: the compartment that the policy is attached to is unknown"),
            CompileProblem::DenyDisabled => f.write_str("has no effect: deny statements are off in this tenancy"),
            CompileProblem::CrossTenancy => f.write_str("has no effect: nothing is granted across tenancies"),
        }
    }
}

impl Serialize for CompileProblem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A statement that does less than it says.
#[derive(Debug, Clone, Serialize)]
pub struct CompileWarning {
    /// Which.
    pub statement: StatementRef,
    /// Why.
    pub problem: CompileProblem,
}

impl std::fmt::Display for CompileWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "statement {} of policy `{}` {}",
            self.statement.index + 1,
            self.statement.policy_name,
            self.problem
        )
    }
}

/// Allowed or not, and on what ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A statement allows it.
    AllowedByStatement,
    /// A deny statement forbids it.
    DeniedByStatement,
    /// No statement allows it.
    NoStatementAllows,
    /// The principal belongs to another tenancy.
    OtherTenancy,
    /// The compartment acted in is unknown.
    UnknownCompartment,
    /// A stored statement that may be a deny cannot be read, so its compartment is closed.
    UnreadablePolicy,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Allow or deny.
    pub effect: Effect,
    /// On what ground.
    pub reason: Reason,
    /// The statement that decided, if one did. [`PolicySet::explain`] gives all of them.
    pub because: Vec<StatementRef>,
}

impl Decision {
    fn new(effect: Effect, reason: Reason, because: Option<&StatementRef>) -> Decision {
        Decision {
            effect,
            reason,
            because: because.cloned().into_iter().collect(),
        }
    }

    /// Whether the request may proceed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.effect == Effect::Allow
    }
}

/// A statement with its place, whether or not it has effect.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) source: StatementRef,
    pub(crate) node: Node,
    pub(crate) rule: Rule,
    /// Why the statement has no effect, if so.
    pub(crate) idle: Option<CompileProblem>,
}

/// All policies of a tenancy, ready to be asked. Immutable: a change makes a new one.
#[derive(Debug)]
pub struct PolicySet {
    pub(crate) tree: CompartmentTree,
    pub(crate) placed: Vec<Placed>,
    pub(crate) options: CompileOptions,
    vocabulary: Vocabulary,
    programs: Programs,
    allows: Index,
    denies: Index,
    /// Compartments closed by a statement that cannot be read, with one such statement.
    closed: HashMap<Node, StatementRef>,
    warnings: Vec<CompileWarning>,
}

impl PolicySet {
    /// Compiles the policies of a tenancy.
    ///
    /// It never fails: a statement that cannot be read takes the allow statements of its whole
    /// policy with it, and if deny statements are on and it may have been one, everybody but the
    /// administrators is kept out of the compartment that the policy is attached to. What has less
    /// effect than it says is listed in [`PolicySet::warnings`].
    #[must_use]
    pub fn compile(
        tenancy: &Tenancy,
        compartments: &[Compartment],
        policies: &[AttachedPolicy],
        options: CompileOptions,
    ) -> PolicySet {
        let mut set = PolicySet {
            tree: CompartmentTree::new(tenancy, compartments),
            placed: Vec::new(),
            options,
            vocabulary: Vocabulary::default(),
            programs: Programs::default(),
            allows: Index::default(),
            denies: Index::default(),
            closed: HashMap::new(),
            warnings: Vec::new(),
        };
        for policy in policies {
            set.add(policy);
        }
        set.file();
        set
    }

    /// Files every statement that has effect. All must be known first: under what a statement is
    /// best filed depends on what others say.
    fn file(&mut self) {
        let mut words = vocabulary::Builder::default();
        for placed in &self.placed {
            let active = placed.idle.is_none();
            self.programs
                .push(&placed.rule, active.then_some(&mut words));
        }
        let mut allows = index::Builder::default();
        let mut denies = index::Builder::default();
        for (id, placed) in (0 as RuleId..).zip(&self.placed) {
            if placed.idle.is_some() {
                continue;
            }
            let index = match placed.rule.effect {
                Effect::Allow => &mut allows,
                Effect::Deny => &mut denies,
            };
            let cover = self.programs.cover(id, &words);
            let guard = self.programs.guard(id, cover.as_deref(), &words);
            let rule = Filed { id, guard };
            match cover {
                Some(keys) => index.under_keys(&keys, placed.node, rule),
                None => {
                    index.under_permissions(placed.rule.permissions.iter(), placed.node, rule);
                }
            }
        }
        self.vocabulary = words.finish(allows.keys().chain(denies.keys()));
        self.allows = allows.finish(self.vocabulary.keys());
        self.denies = denies.finish(self.vocabulary.keys());
    }

    fn add(&mut self, policy: &AttachedPolicy) {
        let attached = self.tree.find(&policy.compartment_id);
        let mut parsed = Vec::with_capacity(policy.statements.len());
        let mut unreadable = false;
        for (index, text) in policy.statements.iter().enumerate() {
            let source = Arc::new(StatementSource {
                policy_id: policy.id.clone(),
                policy_name: policy.name.clone(),
                index,
                text: text.clone(),
            });
            match parse_statement(text) {
                Ok(statement) => parsed.push((source, statement)),
                Err(error) => {
                    unreadable = true;
                    if self.options.deny_enabled && may_deny(text) {
                        // An unknown attachment closes everything, since it may be anywhere.
                        self.closed
                            .entry(attached.unwrap_or(ROOT))
                            .or_insert_with(|| source.clone());
                    }
                    self.warn(source, CompileProblem::Unreadable(error));
                }
            }
        }
        for (source, statement) in parsed {
            let Statement::Grant(grant) = statement else {
                self.warn(source, CompileProblem::CrossTenancy);
                continue;
            };
            let Some(attached) = attached else {
                self.warn(source, CompileProblem::UnknownAttachment);
                continue;
            };
            let place = self.place(attached, &grant.location);
            let mut idle = place.as_ref().err().cloned();
            if grant.effect == Effect::Deny && !self.options.deny_enabled {
                idle = Some(CompileProblem::DenyDisabled);
            }
            if grant.effect == Effect::Allow && unreadable {
                idle = Some(CompileProblem::Unreadable(ParseError {
                    diagnostics: Vec::new(),
                }));
            } else if let Some(problem) = &idle {
                self.warn(source.clone(), problem.clone());
            }
            let node = place.unwrap_or(attached);
            self.placed.push(Placed {
                source,
                node,
                rule: Rule::new(Arc::new(grant)),
                idle,
            });
        }
    }

    fn warn(&mut self, statement: StatementRef, problem: CompileProblem) {
        self.warnings.push(CompileWarning { statement, problem });
    }

    /// Where a statement holds. It must be within the compartment that its policy is attached to:
    /// whoever may write policies there could otherwise give away the rest of the tenancy.
    fn place(&self, attached: Node, location: &Location) -> Result<Node, CompileProblem> {
        let node = match location {
            Location::Tenancy => ROOT,
            Location::Compartment(path) => self
                .tree
                .resolve(attached, path)
                .ok_or(CompileProblem::UnknownCompartment)?,
            Location::CompartmentId(id) => self
                .tree
                .find(id)
                .ok_or(CompileProblem::UnknownCompartment)?,
        };
        if self.tree.is_within(node, attached) {
            Ok(node)
        } else {
            Err(CompileProblem::OutsideAttachment)
        }
    }

    /// Statements that have less effect than they say.
    #[must_use]
    pub fn warnings(&self) -> &[CompileWarning] {
        &self.warnings
    }

    /// How many statements allow or deny something.
    #[must_use]
    pub fn effective_statements(&self) -> usize {
        self.placed
            .iter()
            .filter(|placed| placed.idle.is_none())
            .count()
    }

    /// How many compartments the tenancy has, its root among them.
    #[must_use]
    pub fn compartments(&self) -> usize {
        self.tree.len()
    }

    /// Decides. A deny statement comes before every allow statement; the order of statements and
    /// policies means nothing.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        match self.standing(request) {
            Ok(node) => self.decide_in(node, request),
            Err(reason) => Decision::new(Effect::Deny, reason, None),
        }
    }

    /// The compartment acted in, if the request can be looked at at all.
    pub(crate) fn standing(&self, request: &Request<'_>) -> Result<Node, Reason> {
        if !request
            .principal
            .tenancy_id
            .eq_ignore_ascii_case(self.tree.id(ROOT))
        {
            return Err(Reason::OtherTenancy);
        }
        self.tree
            .find(request.target.compartment_id)
            .ok_or(Reason::UnknownCompartment)
    }

    fn decide_in(&self, node: Node, request: &Request<'_>) -> Decision {
        let source = |id: RuleId| &self.placed[id as usize].source;
        let chain: Vec<Node> = self.tree.chain(node).collect();
        let mut trial = Trial::new(self, node, request);
        if self.options.deny_enabled && !request.principal.is_administrator() {
            if let Some(statement) = chain.iter().find_map(|node| self.closed.get(node)) {
                return Decision::new(Effect::Deny, Reason::UnreadablePolicy, Some(statement));
            }
            if let Some(id) = trial.find(&self.denies, &chain) {
                return Decision::new(Effect::Deny, Reason::DeniedByStatement, Some(source(id)));
            }
        }
        match trial.find(&self.allows, &chain) {
            Some(id) => Decision::new(Effect::Allow, Reason::AllowedByStatement, Some(source(id))),
            None => Decision::new(Effect::Deny, Reason::NoStatementAllows, None),
        }
    }

    /// Decides and gives the proof that work needs.
    ///
    /// # Errors
    /// [`Denied`] with the decision, for the caller to give an opaque ID to.
    pub fn authorize(&self, request: &Request<'_>) -> Result<Authorized, Box<Denied>> {
        let decision = self.decide(request);
        if decision.is_allowed() {
            Ok(Authorized::new(request))
        } else {
            Err(Box::new(Denied::new(request.permission, decision)))
        }
    }
}

/// One request against the rules that the indexes turn up.
struct Trial<'a> {
    set: &'a PolicySet,
    request: &'a Request<'a>,
    compartment_name: &'a str,
    keys: Option<Vec<KeyId>>,
    tries: usize,
    /// Which comparisons hold, once so many rules have been tried that it pays to know.
    truths: Option<Vec<bool>>,
}

impl<'a> Trial<'a> {
    fn new(set: &'a PolicySet, node: Node, request: &'a Request<'a>) -> Trial<'a> {
        Trial {
            set,
            request,
            compartment_name: set.tree.name(node),
            keys: None,
            tries: 0,
            truths: None,
        }
    }

    fn find(&mut self, index: &Index, chain: &[Node]) -> Option<RuleId> {
        if index.is_empty() {
            return None;
        }
        let keys = self.keys.take().unwrap_or_else(|| {
            self.set
                .vocabulary
                .filed_keys(self.request, self.compartment_name)
        });
        let permission = self.request.permission;
        let found = index.find(chain, &keys, permission, |rule| self.matches(rule));
        self.keys = Some(keys);
        found
    }

    fn matches(&mut self, Filed { id, guard }: Filed) -> bool {
        let (set, request, name) = (self.set, self.request, self.compartment_name);
        if self.tries < SINGLE_TRIES_MAX {
            self.tries += 1;
            return set.placed[id as usize].rule.matches(request, name);
        }
        let truths = self
            .truths
            .get_or_insert_with(|| set.vocabulary.truths(request, name));
        truths[guard as usize] && set.programs.matches(id, request.permission, truths)
    }
}

/// Whether a text that cannot be read may have been meant to deny, in whole or in part.
fn may_deny(text: &str) -> bool {
    let mut words = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    let known = ["allow", "define", "admit", "endorse"];
    let first = words.next().unwrap_or_default();
    !known.iter().any(|word| word.eq_ignore_ascii_case(first))
        || words.any(|word| word.eq_ignore_ascii_case("deny"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Dice, ask, compartments, policies, tenancy};

    /// One by one, all at once and through the index: each rule says the same of each request.
    #[test]
    fn a_rule_says_the_same_however_it_is_asked_and_the_index_leaves_out_none_that_says_yes() {
        let soak = std::env::var_os("HONSHU_SOAK").is_some();
        let (mut yes, mut no) = (0u64, 0u64);
        for seed in 0..if soak { 20_000 } else { 1_000 } {
            let mut dice = Dice(seed ^ 0x5eed);
            let compartments = compartments(&mut dice);
            let policies = policies(&mut dice, &compartments);
            let options = CompileOptions {
                deny_enabled: dice.one_in(2),
            };
            let set = PolicySet::compile(&tenancy(), &compartments, &policies, options);
            for _ in 0..20 {
                let request = ask(&mut dice, &compartments);
                let Ok(node) = set.standing(&request) else {
                    continue;
                };
                let name = set.tree.name(node);
                let chain: Vec<Node> = set.tree.chain(node).collect();
                let truths = set.vocabulary.truths(&request, name);
                let keys = set.vocabulary.filed_keys(&request, name);
                let turned_up = |index: &Index| {
                    let mut guards = HashMap::new();
                    index.find(&chain, &keys, request.permission, |rule| {
                        guards.insert(rule.id, truths[rule.guard as usize]);
                        false
                    });
                    guards
                };
                let (allows, denies) = (turned_up(&set.allows), turned_up(&set.denies));
                for (id, placed) in (0 as RuleId..).zip(&set.placed) {
                    if placed.idle.is_some() {
                        assert!(!allows.contains_key(&id) && !denies.contains_key(&id));
                        continue;
                    }
                    let expected = placed.rule.matches(&request, name);
                    let at_once = set.programs.matches(id, request.permission, &truths);
                    let text = &placed.source.text;
                    assert_eq!(at_once, expected, "seed {seed}: {text}\n{request:#?}");
                    let turned_up = match placed.rule.effect {
                        Effect::Allow => &allows,
                        Effect::Deny => &denies,
                    };
                    assert!(
                        !expected
                            || !chain.contains(&placed.node)
                            || turned_up.get(&id) == Some(&true),
                        "seed {seed}: left out {text}\n{request:#?}"
                    );
                    *if expected { &mut yes } else { &mut no } += 1;
                }
            }
        }
        assert!(yes > 5_000 && no > 50_000, "{yes} {no}");
    }
}
