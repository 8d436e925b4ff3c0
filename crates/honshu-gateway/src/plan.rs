//! The plan of a run: which deployments may serve it, in which order, and what comes after a failure.
//!
//! Refuses by name what no deployment of the model can do. Must never call a backend.

use std::sync::Arc;

use honshu_domain::{
    Deployment, Error, ErrorKind, InferenceRequest, Model, Origin, Retry, Support, TimeoutKind,
};

use crate::admit::Admission;
use crate::authorize::Admitted;
use crate::balance::Balancer;
use crate::call::Call;

/// A request that may run, with its place and its plan.
pub(crate) struct Planned {
    pub(crate) call: Call,
    pub(crate) request: Arc<InferenceRequest>,
    pub(crate) model: Arc<Model>,
    pub(crate) admission: Admission,
    pub(crate) plan: Plan,
}

/// The order in which deployments are tried.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Places in `model.deployments`, best first; never empty.
    order: Vec<usize>,
    /// How many tries were made.
    tried: usize,
}

/// What to do after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The failure is final.
    GiveUp,
    /// Another deployment, at once.
    Other,
    /// A deployment that has failed already, after a wait of at least what it asked for.
    Again {
        /// What the upstream asked for.
        asked: Option<std::time::Duration>,
        /// How often waits came before this one.
        round: u32,
    },
}

impl Plan {
    /// The deployment of the next try.
    pub(crate) fn next(&mut self) -> usize {
        let index = self.order[self.tried % self.order.len()];
        self.tried += 1;
        index
    }

    /// For another request: every deployment may be tried anew.
    pub(crate) fn begin_again(&mut self) {
        self.tried = 0;
    }

    /// How many tries were made.
    pub(crate) fn attempts(&self) -> u32 {
        u32::try_from(self.tried).unwrap_or(u32::MAX)
    }

    /// What `error` of the last try leads to, without asking budget or deadline.
    pub(crate) fn after(&self, error: &Error, attempts_max: u32) -> Next {
        if self.attempts() >= attempts_max {
            return Next::GiveUp;
        }
        let untried = self.tried < self.order.len();
        let other = if untried { Next::Other } else { Next::GiveUp };
        let round = u32::try_from(self.tried / self.order.len()).unwrap_or(u32::MAX);
        let again = |asked| Next::Again {
            asked,
            round: round.saturating_sub(1),
        };
        match (error.kind(), error.retry(), error.origin()) {
            // Whoever says that the request itself is wrong is believed. The context's length is another
            // matter: it differs between deployments.
            (
                ErrorKind::Timeout(TimeoutKind::Deadline)
                | ErrorKind::Cancelled
                | ErrorKind::Invalid
                | ErrorKind::Unsupported
                | ErrorKind::TooLarge,
                _,
                _,
            ) => Next::GiveUp,
            (ErrorKind::ContextLength, _, _) => other,
            (_, Retry::Never, Origin::Client) => Next::GiveUp,
            // A full queue of our own or an upstream's refusal of our credential: elsewhere it may go.
            (_, Retry::Never, _) | (ErrorKind::RateLimited, _, Origin::Client) => other,
            // Minutes were spent on it already; the same deployment would take as long again.
            (ErrorKind::Timeout(TimeoutKind::FirstEvent), _, _) => other,
            _ if untried => Next::Other,
            (_, Retry::Now, _) => again(None),
            (_, Retry::After(asked), _) => again(Some(asked)),
        }
    }
}

/// Makes the plan.
pub(crate) fn plan(balancer: &Balancer, admitted: Admitted) -> Result<Planned, Error> {
    let Admitted {
        call,
        request,
        model,
        admission,
    } = admitted;
    let eligible: Vec<usize> = model
        .deployments
        .iter()
        .enumerate()
        .filter(|(_, deployment)| first_unmet(deployment, &request).is_none())
        .map(|(index, _)| index)
        .collect();
    if eligible.is_empty() {
        return Err(refusal(&model, &request));
    }
    let order = balancer.order(&model, eligible);
    Ok(Planned {
        call,
        request,
        model,
        admission,
        plan: Plan { order, tried: 0 },
    })
}

/// The fields that `deployment` does not act upon.
pub(crate) fn ignored_by(deployment: &Deployment, request: &InferenceRequest) -> Vec<String> {
    let Deployment {
        backend, upstream, ..
    } = deployment;
    if backend.passes_through(upstream, request.dialect) {
        return Vec::new();
    }
    let hints = request
        .hints
        .iter()
        .filter(|path| !backend.acts_on_hint(upstream, request.dialect, path));
    hints
        .cloned()
        .chain(backend.leaves_out(upstream, request))
        .collect()
}

/// The place in `request.demands` of the first one that `deployment` cannot meet.
fn first_unmet(deployment: &Deployment, request: &InferenceRequest) -> Option<usize> {
    request.demands.iter().position(|(demand, _)| {
        deployment
            .backend
            .supports(&deployment.upstream, request.dialect, *demand)
            == Support::No
    })
}

fn refusal(model: &Model, request: &InferenceRequest) -> Error {
    if model.deployments.is_empty() {
        return Error::new(
            ErrorKind::Unavailable,
            format!("the model `{}` has no deployment at present", model.id),
        );
    }
    // A demand that nobody can meet is the clearest answer; otherwise the preferred deployment speaks.
    let met_by_nobody = request.demands.iter().position(|(demand, _)| {
        model.deployments.iter().all(|deployment| {
            deployment
                .backend
                .supports(&deployment.upstream, request.dialect, *demand)
                == Support::No
        })
    });
    let unmet = met_by_nobody.or_else(|| {
        model
            .deployments
            .iter()
            .find_map(|deployment| first_unmet(deployment, request))
    });
    let Some((demand, path)) = unmet.and_then(|index| request.demands.get(index)) else {
        return Error::internal("no deployment is eligible and no demand is unmet");
    };
    let message = if path.is_empty() {
        format!(
            "the model `{}` does not support {}",
            model.id,
            demand.as_str()
        )
    } else {
        format!(
            "the model `{}` does not support {} (asked for by `{path}`)",
            model.id,
            demand.as_str()
        )
    };
    let error = Error::new(ErrorKind::Unsupported, message);
    if path.is_empty() {
        error
    } else {
        error.with_param(path.as_str())
    }
}
