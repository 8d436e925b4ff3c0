use std::sync::Arc;
use std::time::Duration;

use honshu_domain::{
    Error, InferenceRequest, Model, Outcome, Region, RunEvent, Timeouts, UsageRow,
};
use honshu_gateway::{Call, Gateway, GatewayParts, Limits, Run, Step};
use honshu_policy::Authorizer;
use honshu_testkit::{
    AllowAll, MemoryCatalogue, MemoryUsageLog, SimClock, SimEntropy, compartment, principal,
};
use tokio_util::sync::CancellationToken;

pub(crate) const MODEL: &str = "test.model";

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) usage: Arc<MemoryUsageLog>,
    pub(crate) shutdown: CancellationToken,
}

impl World {
    pub(crate) fn new(model: Model) -> Self {
        Self::with(model, Limits::default(), Arc::new(AllowAll::new()), 1)
    }

    pub(crate) fn limited(model: Model, limits: Limits) -> Self {
        Self::with(model, limits, Arc::new(AllowAll::new()), 1)
    }

    pub(crate) fn with(
        model: Model,
        limits: Limits,
        authorizer: Arc<dyn Authorizer>,
        seed: u64,
    ) -> Self {
        let usage = Arc::new(MemoryUsageLog::default());
        let shutdown = CancellationToken::new();
        let gateway = Gateway::new(GatewayParts {
            catalogue: Arc::new(MemoryCatalogue::of([model])),
            authorizer,
            usage: Arc::clone(&usage) as _,
            clock: Arc::new(SimClock::new()),
            entropy: Arc::new(SimEntropy::new(seed)),
            limits,
            shutdown: shutdown.clone(),
        });
        Self {
            gateway,
            usage,
            shutdown,
        }
    }

    pub(crate) async fn generate(
        &self,
        call: Call,
        request: InferenceRequest,
    ) -> Result<Run, Error> {
        self.gateway.generate(call, Arc::new(request)).await
    }

    /// Runs a request to its end.
    pub(crate) async fn ask(&self, text: &str) -> Told {
        match self
            .generate(call(), honshu_testkit::request(MODEL, text))
            .await
        {
            Ok(run) => told(run).await,
            Err(error) => Told {
                events: Vec::new(),
                end: None,
                error: Some(error),
            },
        }
    }

    /// The one row there must be, once every owner has ended.
    pub(crate) async fn row(&self) -> UsageRow {
        self.gateway.settled().await;
        let rows = self.usage.rows();
        assert_eq!(rows.len(), 1, "one run, one row: {rows:#?}");
        assert_eq!(self.gateway.live_runs(), 0, "the place was given back");
        rows.into_iter().next().unwrap()
    }
}

/// What a subscriber got.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) events: Vec<RunEvent>,
    pub(crate) end: Option<Outcome>,
    pub(crate) error: Option<Error>,
}

pub(crate) async fn told(mut run: Run) -> Told {
    let mut told = Told {
        events: Vec::new(),
        end: None,
        error: None,
    };
    while let Some(step) = run.next().await {
        assert!(told.end.is_none(), "nothing after the end: {step:?}");
        match step {
            Step::Event(event) => told.events.push(event),
            Step::End { outcome, error } => {
                told.end = Some(outcome);
                told.error = error;
            }
        }
    }
    assert!(told.end.is_some(), "a run has an end");
    told
}

pub(crate) fn call() -> Call {
    call_of("key")
}

pub(crate) fn call_of(key: &str) -> Call {
    Call {
        principal: principal(key),
        region: Region::local(),
        compartment: compartment(),
        request_id: "REQUEST".into(),
        operation: "responses",
        timeouts: Timeouts {
            connect_timeout: Duration::from_secs(1),
            first_event_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(5),
            run_deadline: Duration::from_secs(60),
        },
    }
}
