//! Authorization, from memory: the one place where this crate asks the policies.
//!
//! What is not allowed and what is not there get the same answer, with an id of the same form.

use std::sync::Arc;

use honshu_domain::{Error, ErrorKind, Ocid, Principal, PrincipalKind, Region, Timestamp};
use honshu_policy::{
    Authorized, Authorizer, Denied, Operation, Permission, Request, Requester, Target,
};

use crate::context::OpCtx;
use crate::control::Control;
use crate::decisions::RecordedDecision;
use crate::state::Snapshot;

/// The one sentence for "not allowed" and "not there" (OCI's own words).
pub(crate) const NOT_FOUND: &str = "Authorization failed or requested resource not found.";

/// Answers permission questions for the requests of one region. Cheap to clone.
#[derive(Clone)]
pub struct RegionAuthorizer {
    control: Arc<Control>,
    region: Region,
}

impl Authorizer for RegionAuthorizer {
    fn authorize(
        &self,
        principal: &Principal,
        permission: Permission,
        target: &Target<'_>,
    ) -> Result<Authorized, Box<Denied>> {
        let now = self.control.clock.now();
        self.control
            .decide(principal, permission, target, &self.region, now)
    }

    fn note_missing(
        &self,
        principal: &Principal,
        permission: Permission,
        target: &Target<'_>,
    ) -> Option<String> {
        Some(self.control.decisions.keep(
            RecordedDecision {
                permission: Some(permission),
                model: target.model_id.map(str::to_owned),
                ..RecordedDecision::of(
                    self.control.clock.now(),
                    principal,
                    &self.region,
                    target.compartment_id,
                )
            },
            &*self.control.entropy,
        ))
    }
}

impl Control {
    /// Who answers permission questions for requests that come in at `region`.
    pub fn authorizer(self: &Arc<Self>, region: &Region) -> RegionAuthorizer {
        RegionAuthorizer {
            control: Arc::clone(self),
            region: region.clone(),
        }
    }

    /// Decides with the snapshot of now and keeps a denial.
    fn decide(
        &self,
        principal: &Principal,
        permission: Permission,
        target: &Target<'_>,
        region: &Region,
        now: Timestamp,
    ) -> Result<Authorized, Box<Denied>> {
        let request = Request {
            principal: Requester::from(principal),
            permission,
            target: target.clone(),
            region_key: Some(region.key()),
            time: now,
            network_sources: None,
        };
        let snapshot = self.state.load();
        let denied = match &snapshot.policies.compiled {
            Some(set) => match set.authorize(&request) {
                Ok(authorized) => return Ok(authorized),
                Err(denied) => denied,
            },
            // Nobody can be authenticated without a tenancy; this set knows none and refuses everything.
            None => match self.nothing.authorize(&request) {
                Ok(authorized) => return Ok(authorized),
                Err(denied) => denied,
            },
        };
        let decision = denied.decision();
        let id = self.decisions.keep(
            RecordedDecision {
                operation: request.operation(),
                permission: Some(permission),
                model: target.model_id.map(str::to_owned),
                reason: Some(decision.reason),
                because: decision
                    .because
                    .iter()
                    .map(|source| (**source).clone())
                    .collect(),
                ..RecordedDecision::of(now, principal, region, target.compartment_id)
            },
            &*self.entropy,
        );
        Err(Box::new((*denied).with_decision_id(id)))
    }

    /// Whether `principal` may chat with `model` in `compartment`, for lists of models. Keeps no denial.
    pub fn may_use_model(
        &self,
        principal: &Principal,
        region: &Region,
        compartment: &Ocid,
        model: &str,
    ) -> bool {
        let snapshot = self.state.load();
        snapshot.policies.compiled.as_ref().is_some_and(|set| {
            set.decide(&Request {
                principal: Requester::from(principal),
                permission: Permission::GENERATIVE_AI_CHAT,
                target: Target::new(compartment.as_str()).model(model),
                region_key: Some(region.key()),
                time: self.clock.now(),
                network_sources: None,
            })
            .is_allowed()
        })
    }

    /// Whether files may be read in a compartment. A denial is kept, and its id is put into `error`.
    ///
    /// # Errors
    /// `error`.
    pub fn may_read_files(
        self: &Arc<Self>,
        principal: &Principal,
        region: &Region,
        compartment: &Ocid,
        error: Error,
    ) -> Result<(), Error> {
        let target = Target::new(compartment.as_str());
        let permission = Permission::GENERATIVE_AI_FILE_CONTENT_READ;
        match self
            .authorizer(region)
            .authorize(principal, permission, &target)
        {
            Ok(_authorized) => Ok(()),
            Err(refusal) => Err(match refusal.decision_id() {
                Some(id) => error.with_decision_id(id),
                None => error,
            }),
        }
    }

    /// Asks without keeping a denial: for what a list leaves out.
    pub(crate) fn may(
        &self,
        snapshot: &Snapshot,
        ctx: &OpCtx,
        operation: Operation,
        compartment: &Ocid,
    ) -> bool {
        let Some(set) = &snapshot.policies.compiled else {
            return false;
        };
        operation.permissions().iter().all(|permission| {
            set.decide(&Request {
                principal: Requester::from(&ctx.principal),
                permission: *permission,
                target: Target::new(compartment.as_str()).operation(operation),
                region_key: Some(ctx.region.key()),
                time: ctx.now,
                network_sources: None,
            })
            .is_allowed()
        })
    }

    /// Demands every permission of `operation` in `compartment`.
    ///
    /// # Errors
    /// The same not-found error as for a compartment that is not there, with a decision id. A key is refused
    /// as not authenticated: the management plane takes signed requests only.
    pub fn authorize_operation(
        &self,
        ctx: &OpCtx,
        operation: Operation,
        compartment: &Ocid,
    ) -> Result<(), Error> {
        let target = Target::new(compartment.as_str()).operation(operation);
        self.authorize_target(ctx, operation, &target)
    }

    /// The same with more known of the target.
    pub(crate) fn authorize_target(
        &self,
        ctx: &OpCtx,
        operation: Operation,
        target: &Target<'_>,
    ) -> Result<(), Error> {
        self.refuse_keys(ctx)?;
        for permission in operation.permissions() {
            self.decide(&ctx.principal, *permission, target, &ctx.region, ctx.now)
                .map_err(|denied| {
                    not_found().with_decision_id(denied.decision_id().unwrap_or_default())
                })?;
        }
        Ok(())
    }

    pub(crate) fn refuse_keys(&self, ctx: &OpCtx) -> Result<(), Error> {
        match ctx.principal.kind {
            PrincipalKind::User => Ok(()),
            PrincipalKind::ApiKey => Err(Error::new(
                ErrorKind::Unauthenticated,
                "the required information to complete authentication was not provided or was incorrect",
            )),
        }
    }

    /// The answer for what is not there: the same as for what may not be seen.
    pub(crate) fn missing(&self, ctx: &OpCtx, operation: Operation, asked: &str) -> Error {
        let target: String = asked.chars().take(Ocid::BYTES_MAX).collect();
        let id = self.decisions.keep(
            RecordedDecision {
                operation: Some(operation),
                ..RecordedDecision::of(ctx.now, &ctx.principal, &ctx.region, &target)
            },
            &*self.entropy,
        );
        not_found().with_decision_id(id)
    }

    /// Opens a decision id for those who may read policies in the tenancy.
    ///
    /// # Errors
    /// Not found, for an unknown or forgotten id as for a caller who may not ask.
    pub fn explain(&self, ctx: &OpCtx, id: &str) -> Result<RecordedDecision, Error> {
        let root = self.state.load().identity.root().cloned();
        let root = root.ok_or_else(|| self.missing(ctx, Operation::GetPolicy, id))?;
        self.authorize_operation(ctx, Operation::GetPolicy, &root)?;
        self.decisions
            .find(id, ctx.now)
            .ok_or_else(|| self.missing(ctx, Operation::GetPolicy, id))
    }
}

fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, NOT_FOUND)
}
