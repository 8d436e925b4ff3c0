//! The data plane: from an authenticated caller's valid request to the one recorded outcome of its run.
//!
//! The path is short and each step consumes the value before it, so that none can be skipped:
//! resolve → authorize → admit → plan → run → record. See [`Gateway::generate`].
//!
//! This crate must never know HTTP, SQL or a provider: it sees the seams of `honshu-domain` and the
//! [`Authorizer`] of `honshu-policy`. Retry and failover live here and nowhere else; so does the rule that a
//! run ends exactly once.

mod admit;
mod authorize;
mod balance;
mod budget;
mod call;
mod count;
mod limits;
mod owner;
mod plan;
mod record;
mod run;
mod signals;

use std::fmt;
use std::sync::Arc;

use honshu_domain::{
    Catalogue, Clock, Entropy, Error, ErrorKind, InferenceRequest, Model, Retry, UsageLog,
};
use honshu_policy::Authorizer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use authorize::model_not_found;
pub use call::Call;
pub use limits::Limits;
pub use owner::{SHUTDOWN_CODE, Shorten};
pub use run::{Run, RunFacts, Step};

/// What a [`Gateway`] is built from.
pub struct GatewayParts {
    /// The models of this node.
    pub catalogue: Arc<dyn Catalogue>,
    /// Who may call which model.
    pub authorizer: Arc<dyn Authorizer>,
    /// Where usage rows go.
    pub usage: Arc<dyn UsageLog>,
    /// The wall clock of usage rows. Durations are measured on tokio's clock.
    pub clock: Arc<dyn Clock>,
    /// Run ids and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// The bounds.
    pub limits: Limits,
    /// Cancelled when draining is over: live runs then fail with [`SHUTDOWN_CODE`], new ones are refused.
    pub shutdown: CancellationToken,
}

/// What every run shares.
pub(crate) struct Shared {
    catalogue: Arc<dyn Catalogue>,
    authorizer: Arc<dyn Authorizer>,
    usage: Arc<dyn UsageLog>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    limits: Limits,
    shutdown: CancellationToken,
    admissions: Arc<admit::Admissions>,
    balancer: balance::Balancer,
    budget: budget::RetryBudget,
    owners: TaskTracker,
}

/// The data plane of one node. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    /// Puts the parts together. Starts nothing.
    #[must_use]
    pub fn new(parts: GatewayParts) -> Self {
        let limits = parts.limits;
        Self {
            shared: Arc::new(Shared {
                catalogue: parts.catalogue,
                authorizer: parts.authorizer,
                usage: parts.usage,
                clock: parts.clock,
                entropy: parts.entropy,
                shutdown: parts.shutdown,
                admissions: Arc::new(admit::Admissions::new(&limits)),
                balancer: balance::Balancer::new(&limits),
                budget: budget::RetryBudget::new(
                    limits.retry_budget_percent,
                    limits.retry_budget_burst,
                ),
                owners: TaskTracker::new(),
                limits,
            }),
        }
    }

    /// Runs `request` for `call`. Returns when the first event of the attempt that won is there, so that every
    /// failure before it is an `Err` here and nothing was sent yet.
    ///
    /// The run is owned by a task of its own. Dropping this future or the [`Run`] makes the owner cancel the
    /// backend at once and record the run as cancelled.
    ///
    /// # Errors
    /// - `ModelNotFound`: the name is unknown or the caller may not use it; the two differ in the decision id only.
    /// - `Unsupported`: no deployment can do what the request demands.
    /// - `RateLimited`, `Unavailable`: no place, with `Retry-After`; or shutting down.
    /// - `Timeout`: which of the four clocks ran out before the first event.
    /// - what the last attempt said.
    pub async fn generate(&self, call: Call, request: Arc<InferenceRequest>) -> Result<Run, Error> {
        run::start(Arc::clone(&self.shared), self.plan(call, request)?, None).await
    }

    /// [`Self::generate`] for a request that may be made shorter. Where it does not fit into the context of any
    /// deployment, `shorten` makes a next one of it, until one fits or there is nothing left to leave out. All of it
    /// is one run with one usage row, which has the outcome of the last try and the number of tries.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub async fn generate_shortened(
        &self,
        call: Call,
        request: Arc<InferenceRequest>,
        shorten: Shorten,
    ) -> Result<Run, Error> {
        let planned = self.plan(call, request)?;
        run::start(Arc::clone(&self.shared), planned, Some(shorten)).await
    }

    /// The path up to a plan.
    fn plan(&self, call: Call, request: Arc<InferenceRequest>) -> Result<plan::Planned, Error> {
        let shared = &self.shared;
        shared.refuse_when_shut_down()?;
        let asked = authorize::resolve(&*shared.catalogue, call, request);
        let authorized = authorize::authorize(&*shared.authorizer, asked)?;
        let admitted = authorized.admit(&shared.admissions)?;
        plan::plan(&shared.balancer, admitted)
    }

    /// Counts the input tokens that `request` would have, without generating. Who may not generate may not count;
    /// while it lasts it takes the place of a run. No usage row is written: nothing was generated.
    ///
    /// # Errors
    /// As [`Self::generate`] before its first event; `Unsupported` when no deployment of the model can count.
    pub async fn count_input_tokens(
        &self,
        call: Call,
        request: Arc<InferenceRequest>,
    ) -> Result<u64, Error> {
        count::input_tokens(self.plan(call, request)?).await
    }

    /// The model that would answer `request` for `call`, for work that makes no run or makes it later.
    ///
    /// # Errors
    /// `ModelNotFound` and `Unavailable`, as [`Gateway::generate`].
    pub fn model_for(
        &self,
        call: &Call,
        request: &Arc<InferenceRequest>,
    ) -> Result<Arc<Model>, Error> {
        let shared = &self.shared;
        shared.refuse_when_shut_down()?;
        let asked = authorize::resolve(&*shared.catalogue, call.clone(), Arc::clone(request));
        Ok(authorize::authorize(&*shared.authorizer, asked)?.into_model())
    }

    /// How many runs are alive now.
    #[must_use]
    pub fn live_runs(&self) -> u32 {
        self.shared.admissions.live()
    }

    /// Resolves when every run's owner has recorded its outcome and ended. New runs may still come: stop
    /// listening, or cancel `shutdown`, first. Cancel-safe.
    pub async fn settled(&self) {
        self.shared.owners.close();
        self.shared.owners.wait().await;
        self.shared.owners.reopen();
    }
}

impl Shared {
    fn refuse_when_shut_down(&self) -> Result<(), Error> {
        if self.shutdown.is_cancelled() {
            return Err(
                Error::new(ErrorKind::Unavailable, "the server is shutting down")
                    .with_code(SHUTDOWN_CODE)
                    .with_retry(Retry::After(self.limits.admission_retry_after)),
            );
        }
        Ok(())
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("live_runs", &self.live_runs())
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}
