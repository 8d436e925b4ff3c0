//! Who asks. A principal is made only by authentication.

use std::sync::Arc;

use crate::id::Ocid;

/// The kind of a principal; [`PrincipalKind::as_str`] is the value of `request.principal.type` in policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A generative-AI API key (`sk-…` as a bearer).
    ApiKey,
    /// A user, by a signed request.
    User,
}

impl PrincipalKind {
    /// The word policies use (OCI documentation, API-key policies).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "generativeaiapikey",
            Self::User => "user",
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone)]
pub struct Principal {
    /// What it is.
    pub kind: PrincipalKind,
    /// The key's or user's OCID.
    pub id: Ocid,
    /// Display name, for logs and `request.user.name`.
    pub name: Arc<str>,
    /// The tenancy it belongs to.
    pub tenancy: Ocid,
    /// The compartment it lives in (the tenancy for users).
    pub compartment: Ocid,
    /// The groups of a user, as (OCID, name); keys are in no group.
    pub groups: Arc<[(Ocid, Arc<str>)]>,
    /// For a key: the name of the secret that was shown.
    pub secret_name: Option<Arc<str>>,
}

impl Principal {
    /// A number that is the same for every request of this principal, for fair queueing.
    pub fn fairness_key(&self) -> u64 {
        fnv1a(self.id.as_str().as_bytes())
    }

    /// A number that separates what tenancies and compartments may share in caches.
    pub fn cache_salt(&self) -> u64 {
        fnv1a(self.compartment.as_str().as_bytes())
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
