//! A statement as a value: everything in it is resolved and valid.
//!
//! The parser makes these, so a `Statement` in hand needs no further check. Printing one and
//! parsing the result gives an equal one.

use crate::permission_set::PermissionSet;
use crate::table::{Permission, ResourceType, Verb};
use crate::variable::Variable;

/// One policy statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Statement {
    /// `allow …` or `deny …`.
    Grant(Grant),
    /// `define … as …`: a name for something of another tenancy. It grants nothing.
    Define(Define),
    /// `admit …`: the receiving half of access across tenancies. It grants nothing here.
    Admit(Admit),
    /// `endorse …`: the sending half of access across tenancies. It grants nothing here.
    Endorse(Endorse),
}

/// What a statement says about those whom it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// They may.
    Allow,
    /// They must not, whatever else allows it.
    Deny,
}

/// `allow|deny SUBJECT to ACTION in LOCATION [where CONDITION]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// `allow` or `deny`.
    pub effect: Effect,
    /// Who.
    pub subject: Subject,
    /// What.
    pub action: Action,
    /// Where.
    pub location: Location,
    /// Under which condition.
    pub condition: Option<Condition>,
}

/// Who a statement speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// `any-user`: users, API keys, instances and other resources, and services.
    AnyUser,
    /// `any-group`: the same without services.
    AnyGroup,
    /// `group A, 'Domain'/'B'`.
    Groups(Vec<QualifiedName>),
    /// `group id ocid1…, id ocid1…`.
    GroupIds(Vec<String>),
    /// `dynamic-group A`.
    DynamicGroups(Vec<QualifiedName>),
    /// `dynamic-group id ocid1…`.
    DynamicGroupIds(Vec<String>),
    /// `service A`.
    Services(Vec<String>),
}

/// A name, perhaps within an identity domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QualifiedName {
    /// The identity domain; none means the default domain.
    pub domain: Option<String>,
    /// The name.
    pub name: String,
}

/// What a statement speaks of doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// `use generative-ai-chat`.
    Verb(Verb, ResourceType),
    /// `{PERMISSION, …}`, optionally followed by the type that they belong to.
    Permissions(Vec<Permission>, Option<ResourceType>),
}

impl Action {
    /// The permissions meant.
    #[must_use]
    pub fn permissions(&self) -> PermissionSet {
        match self {
            Action::Verb(verb, resource) => resource.granted_by(*verb),
            Action::Permissions(permissions, _) => permissions.iter().copied().collect(),
        }
    }
}

/// Where a statement holds: there and in everything below.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// `tenancy`.
    Tenancy,
    /// `compartment A:B`, relative to the compartment to which the policy is attached.
    Compartment(Vec<String>),
    /// `compartment id ocid1…`.
    CompartmentId(String),
}

/// What else must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// `any {…}`: at least one.
    Any(Vec<Condition>),
    /// `all {…}`: every one.
    All(Vec<Condition>),
    /// One comparison.
    Clause(Clause),
}

/// A comparison of one variable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clause {
    /// The left side.
    pub variable: Variable,
    /// Operator and right side.
    pub test: Test,
}

/// Operator and right side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test {
    /// `var`: the variable applies to the request.
    Present,
    /// `not var`: it does not.
    Absent,
    /// `= value`.
    Equals(Value),
    /// `!= value`.
    NotEquals(Value),
    /// `in (…)`.
    In(Vec<Value>),
    /// `not in (…)`.
    NotIn(Vec<Value>),
    /// `before value`, exclusive.
    Before(Value),
    /// `after value`, exclusive.
    After(Value),
    /// `between value and value`, both inclusive.
    Between(Value, Value),
}

/// The right side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// `'text'`.
    Literal(String),
    /// `/glob*/`, as written between the slashes.
    Pattern(String),
}

/// `define KIND NAME as OCID`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Define {
    /// What the name stands for.
    pub kind: DefineKind,
    /// The name.
    pub name: QualifiedName,
    /// What it is a name of.
    pub ocid: String,
}

/// What can be defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DefineKind {
    /// A tenancy.
    Tenancy,
    /// A group.
    Group,
    /// A dynamic group.
    DynamicGroup,
    /// A compartment.
    Compartment,
}

/// A tenancy named in a cross-tenancy statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OtherTenancy {
    /// `any-tenancy`.
    Any,
    /// `tenancy NAME`.
    Named(String),
}

/// `[deny] admit SUBJECT [of tenancy NAME] to ACTION in LOCATION [where CONDITION]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Admit {
    /// Allow unless `deny` stands first.
    pub effect: Effect,
    /// Who.
    pub subject: Subject,
    /// From which tenancy.
    pub tenancy: Option<OtherTenancy>,
    /// What.
    pub action: Action,
    /// Where.
    pub location: Location,
    /// Under which condition.
    pub condition: Option<Condition>,
}

/// `[deny] endorse SUBJECT to ACTION in SCOPE [where CONDITION]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endorse {
    /// Allow unless `deny` stands first.
    pub effect: Effect,
    /// Who.
    pub subject: Subject,
    /// What.
    pub action: EndorseAction,
    /// Where.
    pub scope: EndorseScope,
    /// Under which condition.
    pub condition: Option<Condition>,
}

/// What an `endorse` statement speaks of doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndorseAction {
    /// The same as in `allow`.
    Action(Action),
    /// `associate TYPE`.
    Associate(ResourceType),
}

/// Where an `endorse` statement holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndorseScope {
    /// `any-tenancy` or `tenancy NAME`.
    Tenancy(OtherTenancy),
    /// `compartment A:B of tenancy NAME`.
    Compartment(Vec<String>, String),
}
