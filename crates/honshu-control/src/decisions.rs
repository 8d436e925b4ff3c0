//! Denials that can be explained later: a bounded ring in memory, keyed by the opaque `opc-decision-id`.
//!
//! A resource that is not there gets an id too, or the id would tell it from one that is.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use honshu_domain::{Entropy, Ocid, Principal, PublicId, Region, Timestamp};
use honshu_policy::{Operation, Permission, Reason, StatementSource};

use crate::limits::{DECISION_LIFE, DECISIONS_MAX};

/// What was refused, and why.
#[derive(Debug, Clone)]
pub struct RecordedDecision {
    /// The opaque id.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Who asked.
    pub principal: Ocid,
    /// In which region.
    pub region: String,
    /// For which operation.
    pub operation: Option<Operation>,
    /// For which permission; `None` when there was nothing to decide about.
    pub permission: Option<Permission>,
    /// On which compartment, model or resource.
    pub target: String,
    /// Which model would have answered.
    pub model: Option<String>,
    /// On what ground; `None` when the resource is not there.
    pub reason: Option<Reason>,
    /// Statements that decided.
    pub because: Vec<StatementSource>,
}

impl RecordedDecision {
    /// Who asked, where, and on what; nothing was decided yet.
    pub(crate) fn of(at: Timestamp, principal: &Principal, region: &Region, target: &str) -> Self {
        Self {
            id: String::new(),
            at,
            principal: principal.id.clone(),
            region: region.name().to_owned(),
            operation: None,
            permission: None,
            target: target.to_owned(),
            model: None,
            reason: None,
            because: Vec::new(),
        }
    }
}

#[derive(Default)]
struct Ring {
    order: VecDeque<String>,
    by_id: HashMap<String, RecordedDecision>,
}

/// The ring.
#[derive(Default)]
pub(crate) struct Decisions(Mutex<Ring>);

impl Decisions {
    /// Keeps a denial and gives its id.
    pub(crate) fn keep(&self, mut decision: RecordedDecision, entropy: &dyn Entropy) -> String {
        let id = PublicId::generate("dec_", entropy).as_str().to_owned();
        decision.id.clone_from(&id);
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while ring.order.len() >= DECISIONS_MAX {
            if let Some(oldest) = ring.order.pop_front() {
                ring.by_id.remove(&oldest);
            }
        }
        ring.order.push_back(id.clone());
        ring.by_id.insert(id.clone(), decision);
        id
    }

    /// Finds a denial that is not too old.
    pub(crate) fn find(&self, id: &str, now: Timestamp) -> Option<RecordedDecision> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.by_id
            .get(id)
            .filter(|decision| now.since(decision.at) <= DECISION_LIFE)
            .cloned()
    }
}
