//! The only crate that knows the HTTP framework: listeners, who asks, and the dialects in and out.
//!
//! It translates and decides nothing: who somebody is and what they may do is `honshu-control`'s business, what
//! runs is `honshu-gateway`'s. It cannot name the store.

mod app;
mod authn;
mod body;
mod completions;
mod context;
pub mod edge;
mod extract;
mod identity;
mod management;
mod messages;
mod native;
mod openai;
mod respond;
mod responses;
mod stream;

pub use app::{App, AppParts, Readiness, RegionRoute};
pub use management::model_ocid_of;
