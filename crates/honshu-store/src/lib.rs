//! Where Honshu keeps what must survive: identity, policies, keys and usage, behind one [`Store`] seam.
//!
//! SQLite serves one machine; the SQL of a database lives in one module of its own, so that PostgreSQL can
//! join, and [`suite`] holds what any store has to do. A store never decides who may do what, never sees a
//! secret in clear, and never lets a caller's departure cut a transaction: work that was handed over runs to
//! its end whether or not anybody waits for the answer.

mod command;
mod directory;
mod error;
mod migrations;
mod rows;
mod shipper;
mod spool;
pub mod sqlite;
mod store;
#[cfg(any(test, feature = "suite"))]
pub mod stored_suite;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use command::{Applied, Change, Command, Committed, Expect, RetryEntry};
pub use directory::{DataDir, DirectoryError, write_private};
pub use error::{OpenError, Reason, StoreError};
pub use rows::{
    ApiKeyRow, CompartmentRow, ControlState, GroupRow, LogEntry, MembershipRow, PolicyRow,
    SecretRow, SecretState, SigningKeyRow, TenancyRow, UserRow,
};
pub use shipper::Shipper;
pub use spool::{Spool, SpoolLimits};
pub use sqlite::{SqliteResponses, SqliteStore};
pub use store::{Observer, Reply, Store};
