//! The proof that a decision was made, and the seam through which others ask for one.
//!
//! Nothing outside this crate can make an [`Authorized`], so work that takes one cannot run
//! without a decision.

use std::fmt;

use honshu_domain::Principal;

use crate::request::{Request, Target};
use crate::set::Decision;
use crate::table::{Operation, Permission};

/// Proof that a principal may use a permission on a target, at the time of the request.
///
/// It is neither `Clone` nor `Default`: one decision, one proof.
#[derive(Debug)]
pub struct Authorized {
    principal_id: Box<str>,
    permission: Permission,
    operation: Option<Operation>,
    compartment_id: Box<str>,
    model_id: Option<Box<str>>,
}

impl Authorized {
    pub(crate) fn new(request: &Request<'_>) -> Authorized {
        Authorized {
            principal_id: request.principal.id.into(),
            permission: request.permission,
            operation: request.operation(),
            compartment_id: request.target.compartment_id.into(),
            model_id: request.target.model_id.map(Into::into),
        }
    }

    /// OCID of the principal.
    #[must_use]
    pub fn principal_id(&self) -> &str {
        &self.principal_id
    }

    /// The permission that was asked for.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// The operation that was asked for, if known.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        self.operation
    }

    /// OCID of the compartment acted in.
    #[must_use]
    pub fn compartment_id(&self) -> &str {
        &self.compartment_id
    }

    /// The model that may answer: this one and no other.
    #[must_use]
    pub fn model_id(&self) -> Option<&str> {
        self.model_id.as_deref()
    }
}

/// A refusal. Its text tells an outsider nothing; the decision is for those who may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    permission: Permission,
    decision: Decision,
    decision_id: Option<Box<str>>,
}

impl Denied {
    pub(crate) fn new(permission: Permission, decision: Decision) -> Denied {
        Denied {
            permission,
            decision,
            decision_id: None,
        }
    }

    /// Gives the refusal the opaque ID under which its explanation is kept.
    #[must_use]
    pub fn with_decision_id(mut self, id: impl Into<Box<str>>) -> Denied {
        self.decision_id = Some(id.into());
        self
    }

    /// The opaque ID, for the header `opc-decision-id`.
    #[must_use]
    pub fn decision_id(&self) -> Option<&str> {
        self.decision_id.as_deref()
    }

    /// The permission that was asked for.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// The decision.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.decision
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not authorized, or not found")
    }
}

impl std::error::Error for Denied {}

/// Whoever can answer whether a principal may do something now, without the asker knowing where
/// policies, time and region come from.
pub trait Authorizer: Send + Sync {
    /// Decides for one target. To try several models, ask for each.
    ///
    /// # Errors
    /// [`Denied`], with a decision ID if the implementation keeps explanations.
    fn authorize(
        &self,
        principal: &Principal,
        permission: Permission,
        target: &Target<'_>,
    ) -> Result<Authorized, Box<Denied>>;

    /// Notes that an allowed target is not there, and gives the note an ID of the same form as a denial's, so that
    /// the two answers look alike. `None` if the implementation keeps no explanations.
    fn note_missing(
        &self,
        _principal: &Principal,
        _permission: Permission,
        _target: &Target<'_>,
    ) -> Option<String> {
        None
    }
}
