//! The control plane: who somebody is, what they may do, and the resources that decide it: keys, policies,
//! compartments.
//!
//! Every operation takes its [`OpCtx`] first and asks the policies beside the action, in the same function.
//! Questions are answered from a snapshot in memory; changes go through the store, which replaces the snapshot
//! before it answers. This crate must never let a secret out except in the answer that makes it, never tell
//! what is missing from what is forbidden, and never tell why a credential was refused.

mod api_key_life;
mod api_keys;
mod authn;
mod authz;
mod bootstrap;
mod check;
mod compartments;
mod context;
mod control;
mod decisions;
pub mod limits;
mod paging;
mod pepper;
mod policies;
mod retry;
mod secret;
mod state;
mod tenancy;

pub use api_keys::ListApiKeys;
pub use authn::{SignedCaller, Unauthenticated};
pub use authz::RegionAuthorizer;
pub use bootstrap::{AdminProfile, Bootstrap, BootstrapError, Initialised};
pub use compartments::ListCompartments;
pub use context::{OpCtx, Versioned};
pub use control::{Control, ControlError};
pub use decisions::RecordedDecision;
pub use paging::{Page, PageRequest, SortKey};
pub use pepper::{PEPPER_FILE, Pepper, PepperError};
pub use policies::{ListPolicies, StatementCheck, check_policy};
pub use secret::{PlainSecret, SecretDigest};
