//! OCI's IAM policy language: parse, print, check, compile, decide, explain.
//!
//! This crate is pure. It reads no clock, no file and no network: the time of a request is part of
//! the request, and policies come in as text. It is the only maker of [`Authorized`], the proof
//! that work needs, and must never make one without a decision that says allow.
//!
//! ```
//! use honshu_policy::{AttachedPolicy, CompileOptions, Permission, PolicySet, Request, Requester, Target, Tenancy};
//! # use honshu_domain::Timestamp;
//! let tenancy = Tenancy { id: "ocid1.tenancy.oc1..t".into(), name: "acme".into() };
//! let policy = AttachedPolicy {
//!     id: "ocid1.policy.oc1..p".into(),
//!     name: "keys".into(),
//!     compartment_id: tenancy.id.clone(),
//!     statements: vec![
//!         "allow any-user to use generative-ai-chat in tenancy \
//!          where request.principal.type = 'generativeaiapikey'".into(),
//!     ],
//! };
//! let set = PolicySet::compile(&tenancy, &[], &[policy], CompileOptions::default());
//! let request = Request {
//!     principal: Requester::new("generativeaiapikey", "ocid1.generativeaiapikey.oc1.kix.k", &tenancy.id),
//!     permission: Permission::GENERATIVE_AI_CHAT,
//!     target: Target::new(&tenancy.id).model("openai.gpt-oss-120b"),
//!     region_key: Some("KIX"),
//!     time: Timestamp::from_seconds(1_769_299_200),
//!     network_sources: None,
//! };
//! assert!(set.authorize(&request).is_ok());
//! ```

// Tests share their worlds with the tests outside, which know this crate by its name.
#[cfg(test)]
extern crate self as honshu_policy;

mod ast;
mod authorized;
mod compartments;
mod diagnostic;
mod explain;
mod index;
mod lexer;
pub mod limits;
mod matcher;
mod nearest;
mod parser;
mod permission_set;
mod print;
mod program;
mod request;
mod rule;
mod set;
mod table;
mod value;
mod variable;
mod vocabulary;
#[cfg(test)]
#[path = "../tests/support/world.rs"]
#[allow(
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "it is written for tests outside of the crate"
)]
mod world;

pub use ast::{
    Action, Admit, Clause, Condition, Define, DefineKind, Effect, Endorse, EndorseAction,
    EndorseScope, Grant, Location, OtherTenancy, QualifiedName, Statement, Subject, Test, Value,
};
pub use authorized::{Authorized, Authorizer, Denied};
pub use compartments::{Compartment, Tenancy};
pub use diagnostic::{Code, Diagnostic, Fix, ParseError, Severity, Span};
pub use explain::{Considered, Explanation, Mismatch, Outcome};
pub use parser::{Checked, check, check_statement, parse, parse_statement};
pub use permission_set::PermissionSet;
pub use request::{ADMINISTRATORS, DEFAULT_DOMAIN, Membership, Request, Requester, Target};
pub use set::{
    AttachedPolicy, CompileOptions, CompileProblem, CompileWarning, Decision, PolicySet, Reason,
    StatementRef, StatementSource,
};
pub use table::{Operation, Permission, ResourceType, Verb};
pub use variable::{TagSource, Variable, VariableKind};
