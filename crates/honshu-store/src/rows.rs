//! The rows of the control plane as every store gives and takes them: ids as texts, times as microseconds.
//!
//! A row holds a secret's digest and mask, never the secret.

use std::collections::BTreeMap;

use honshu_domain::{Ocid, Timestamp};

/// The tenancy: one in a store.
#[derive(Debug, Clone, PartialEq)]
pub struct TenancyRow {
    /// OCID; also the id of the root compartment.
    pub id: Ocid,
    /// Name.
    pub name: String,
    /// Name of the home region.
    pub home_region: String,
    /// Whether deny statements count.
    pub deny_enabled: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// A compartment. The root compartment has no parent.
#[derive(Debug, Clone, PartialEq)]
pub struct CompartmentRow {
    /// OCID.
    pub id: Ocid,
    /// The parent; `None` for the root.
    pub parent: Option<Ocid>,
    /// Name, unique in its parent without regard to case.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Tags as JSON objects.
    pub freeform_tags: String,
    /// Tags as JSON objects.
    pub defined_tags: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// Counts changes, from 1.
    pub version: i64,
}

/// A user.
#[derive(Debug, Clone, PartialEq)]
pub struct UserRow {
    /// OCID.
    pub id: Ocid,
    /// Name, unique without regard to case.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Address, where known.
    pub email: Option<String>,
    /// Whether it may authenticate.
    pub active: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Counts changes, from 1.
    pub version: i64,
}

/// The public half of a user's signing key.
#[derive(Debug, Clone, PartialEq)]
pub struct SigningKeyRow {
    /// Whose.
    pub user: Ocid,
    /// MD5 fingerprint, 16 colon-separated bytes in lower-case hex.
    pub fingerprint: String,
    /// The public key, PEM.
    pub public_key_pem: String,
    /// When it was uploaded.
    pub created: Timestamp,
}

/// A group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRow {
    /// OCID.
    pub id: Ocid,
    /// Name, unique without regard to case.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// Counts changes, from 1.
    pub version: i64,
}

/// That a user is in a group.
#[derive(Debug, Clone, PartialEq)]
pub struct MembershipRow {
    /// The user.
    pub user: Ocid,
    /// The group.
    pub group: Ocid,
    /// Since when.
    pub created: Timestamp,
}

/// A policy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRow {
    /// OCID.
    pub id: Ocid,
    /// The compartment it hangs on.
    pub compartment: Ocid,
    /// Name, unique in its compartment without regard to case.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The statements as written.
    pub statements: Vec<String>,
    /// The version of the language, where given.
    pub version_date: Option<String>,
    /// Tags as JSON objects.
    pub freeform_tags: String,
    /// Tags as JSON objects.
    pub defined_tags: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// Counts changes, from 1.
    pub version: i64,
}

/// What was last set for a secret. That it has expired follows from its time and is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretState {
    /// It authenticates.
    Active,
    /// It does not, until made active again.
    Inactive,
    /// It never does again.
    Revoked,
}

impl SecretState {
    /// The stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::Revoked => "REVOKED",
        }
    }

    /// Reads the stored word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Inactive, Self::Revoked]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// One secret of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretRow {
    /// Its name, unique in its key.
    pub name: String,
    /// HMAC-SHA-256 of the secret under the pepper; unique in the store.
    pub digest: [u8; 32],
    /// What may be shown.
    pub mask: String,
    /// What was last set.
    pub state: SecretState,
    /// When it was made or renewed.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was last made active.
    pub activated: Option<Timestamp>,
    /// When it was last made inactive.
    pub deactivated: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When it last authenticated a request.
    pub last_used: Option<Timestamp>,
}

/// A generative-AI API key with its one or two secrets, in the order of their creation.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKeyRow {
    /// OCID.
    pub id: Ocid,
    /// Where it lives.
    pub compartment: Ocid,
    /// Name of the region it works in.
    pub region: String,
    /// Name for people.
    pub display_name: String,
    /// Free text.
    pub description: Option<String>,
    /// Tags as JSON objects.
    pub freeform_tags: String,
    /// Tags as JSON objects.
    pub defined_tags: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// Counts changes, from 1.
    pub version: i64,
    /// Its secrets.
    pub secrets: Vec<SecretRow>,
}

/// Everything that the control plane keeps in memory, as one consistent reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ControlState {
    /// The last change of the log that is part of this reading; 0 when none was made.
    pub sequence: i64,
    /// The tenancy; `None` before the first `init`.
    pub tenancy: Option<TenancyRow>,
    /// Compartments, parents before children.
    pub compartments: Vec<CompartmentRow>,
    /// Users.
    pub users: Vec<UserRow>,
    /// Signing keys.
    pub signing_keys: Vec<SigningKeyRow>,
    /// Groups.
    pub groups: Vec<GroupRow>,
    /// Who is in which.
    pub memberships: Vec<MembershipRow>,
    /// Policies.
    pub policies: Vec<PolicyRow>,
    /// Keys.
    pub api_keys: Vec<ApiKeyRow>,
    /// Settings.
    pub settings: BTreeMap<String, String>,
}

/// One line of the change log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// Its number.
    pub sequence: i64,
    /// When it was made.
    pub at: Timestamp,
    /// Who made it; `None` for the service itself.
    pub principal: Option<String>,
    /// The request that made it.
    pub request_id: Option<String>,
    /// The operation, such as `CreateApiKey`.
    pub operation: String,
    /// What it was made to.
    pub resource: Option<String>,
}
