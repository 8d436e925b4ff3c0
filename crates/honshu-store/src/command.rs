//! What a store is asked to change. A [`Command`] is atomic: all of its changes are made or none.

use honshu_domain::{Ocid, Timestamp};

use crate::rows::{
    ApiKeyRow, CompartmentRow, GroupRow, MembershipRow, PolicyRow, SigningKeyRow, TenancyRow,
    UserRow,
};

/// The version that a change builds on: another one there means that somebody was faster.
pub type Expect = i64;

/// One change. `Put…` replaces the row whose version is the expected one; the row carries the next version.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Makes the tenancy; a second one is refused.
    InsertTenancy(TenancyRow),
    /// Makes a compartment.
    InsertCompartment(CompartmentRow),
    /// Changes a compartment.
    PutCompartment(CompartmentRow, Expect),
    /// Removes an empty compartment.
    DeleteCompartment(Ocid, Expect),
    /// Makes a user.
    InsertUser(UserRow),
    /// Adds a signing key.
    InsertSigningKey(SigningKeyRow),
    /// Removes a signing key.
    DeleteSigningKey {
        /// Whose.
        user: Ocid,
        /// Which.
        fingerprint: String,
    },
    /// Makes a group.
    InsertGroup(GroupRow),
    /// Puts a user into a group.
    InsertMembership(MembershipRow),
    /// Changes the tenancy: its name and whether deny statements count.
    PutTenancy(TenancyRow),
    /// Makes a policy.
    InsertPolicy(PolicyRow),
    /// Changes a policy.
    PutPolicy(PolicyRow, Expect),
    /// Removes a policy.
    DeletePolicy(Ocid, Expect),
    /// Makes a key with its secrets.
    InsertApiKey(ApiKeyRow),
    /// Changes a key and all its secrets. Last-used times only ever move forward.
    PutApiKey(ApiKeyRow, Expect),
    /// Removes a key and its secrets.
    DeleteApiKey(Ocid, Expect),
    /// Notes when secrets were last used. Keys that are gone meanwhile are skipped.
    TouchSecrets(Vec<(Ocid, String, Timestamp)>),
    /// Sets a setting.
    SetSetting(String, String),
}

impl Change {
    /// The id of what is changed, for the log.
    pub fn resource(&self) -> Option<&str> {
        match self {
            Self::InsertTenancy(row) | Self::PutTenancy(row) => Some(row.id.as_str()),
            Self::InsertCompartment(row) | Self::PutCompartment(row, _) => Some(row.id.as_str()),
            Self::DeleteCompartment(id, _)
            | Self::DeletePolicy(id, _)
            | Self::DeleteApiKey(id, _) => Some(id.as_str()),
            Self::InsertUser(row) => Some(row.id.as_str()),
            Self::InsertSigningKey(row) => Some(row.user.as_str()),
            Self::DeleteSigningKey { user, .. } => Some(user.as_str()),
            Self::InsertGroup(row) => Some(row.id.as_str()),
            Self::InsertMembership(row) => Some(row.group.as_str()),
            Self::InsertPolicy(row) | Self::PutPolicy(row, _) => Some(row.id.as_str()),
            Self::InsertApiKey(row) | Self::PutApiKey(row, _) => Some(row.id.as_str()),
            Self::TouchSecrets(_) => None,
            Self::SetSetting(name, _) => Some(name),
        }
    }
}

/// That a request with this retry token was carried out, so that its repetition changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryEntry {
    /// Who asked: tokens of different principals never meet.
    pub principal: String,
    /// The operation.
    pub operation: String,
    /// The token that the client chose.
    pub token: String,
    /// SHA-256 of what was asked: the same token with another request is an error.
    pub request_digest: [u8; 32],
    /// What was made or changed.
    pub resource: String,
    /// When it is forgotten.
    pub expires: Timestamp,
}

/// Changes that are made together, and who made them.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The operation, for the log; empty leaves no line in the log (last-used times).
    pub operation: String,
    /// Who; `None` for the service itself.
    pub principal: Option<String>,
    /// The request.
    pub request_id: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The retry token to take, in the same transaction.
    pub retry: Option<RetryEntry>,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// The answer to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Its number in the change log; 0 when it left no line.
    pub sequence: i64,
}

/// A command that is durable, as the observer sees it before the caller does.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Its number in the change log.
    pub sequence: i64,
    /// The changes.
    pub changes: Vec<Change>,
}
