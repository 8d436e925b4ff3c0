//! What happens before a backend is called.

use std::sync::{Arc, Mutex, OnceLock};

use honshu_domain::{Demand, ErrorKind, Retry};
use honshu_gateway::Limits;
use honshu_provider::ScriptedProvider;
use honshu_testkit::{Act, AllowAll, DenyAll, FakeBackend, model, model_with, request};

use crate::common::{MODEL, World, call, call_of};

#[tokio::test(start_paused = true)]
async fn unknown_and_forbidden_models_are_one_error_made_by_one_decision() {
    let deny = Arc::new(DenyAll::new());
    let backend = Arc::new(FakeBackend::new("fake", [Act::good(1)]));
    let world = World::with(
        model(MODEL, Arc::clone(&backend) as _),
        Limits::default(),
        Arc::clone(&deny) as _,
        1,
    );
    let forbidden = world
        .generate(call(), request(MODEL, "x"))
        .await
        .unwrap_err();
    let unknown = world
        .generate(call(), request("no.such", "x"))
        .await
        .unwrap_err();
    assert_eq!(deny.asked(), [MODEL, "no.such"]);
    assert_eq!(forbidden.decision_id(), Some("decision-1"));
    assert_eq!(unknown.decision_id(), Some("decision-2"));
    for error in [&forbidden, &unknown] {
        assert_eq!(error.kind(), ErrorKind::ModelNotFound);
        assert_eq!(error.param(), Some("model"));
    }
    assert_eq!(
        forbidden.message().replace(MODEL, "M"),
        unknown.message().replace("no.such", "M")
    );
    assert_eq!(backend.calls(), 0);
    assert!(world.usage.rows().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_authorized_and_recorded_as_the_model_behind_it() {
    let deny = Arc::new(DenyAll::new());
    let backend: Arc<FakeBackend> = Arc::new(FakeBackend::new("fake", [Act::good(1)]));
    let behind = Arc::new(model(MODEL, backend as _));
    let parts =
        |authorizer: Arc<dyn honshu_policy::Authorizer>, usage| honshu_gateway::GatewayParts {
            catalogue: Arc::new({
                let catalogue = honshu_testkit::MemoryCatalogue::default();
                catalogue.insert("an.alias", Arc::clone(&behind), true);
                catalogue
            }),
            authorizer,
            usage,
            clock: Arc::new(honshu_testkit::SimClock::new()),
            entropy: Arc::new(honshu_testkit::SimEntropy::new(1)),
            limits: Limits::default(),
            shutdown: tokio_util::sync::CancellationToken::new(),
        };
    let usage = Arc::new(honshu_testkit::MemoryUsageLog::default());
    let denied =
        honshu_gateway::Gateway::new(parts(Arc::clone(&deny) as _, Arc::clone(&usage) as _));
    denied
        .generate(call(), Arc::new(request("an.alias", "x")))
        .await
        .unwrap_err();
    assert_eq!(deny.asked(), [MODEL]);

    let allowed =
        honshu_gateway::Gateway::new(parts(Arc::new(AllowAll::new()), Arc::clone(&usage) as _));
    let run = allowed
        .generate(call(), Arc::new(request("an.alias", "x")))
        .await
        .unwrap();
    assert_eq!(&*run.facts.model.id, MODEL);
    crate::common::told(run).await;
    allowed.settled().await;
    let row = usage.rows().remove(0);
    assert_eq!((&*row.model_asked, &*row.model_served), ("an.alias", MODEL));
}

#[tokio::test(start_paused = true)]
async fn a_demand_that_no_deployment_can_meet_is_refused_by_name_and_path() {
    let a = Arc::new(FakeBackend::new("a", [Act::good(1)]).without(Demand::ImageInput));
    let b = Arc::new(
        FakeBackend::new("b", [Act::good(1)])
            .without(Demand::ImageInput)
            .without(Demand::Logprobs),
    );
    let world = World::new(model_with(
        MODEL,
        [(Arc::clone(&a) as _, 1), (Arc::clone(&b) as _, 1)],
    ));
    let mut asks = request(MODEL, "x");
    asks.demands = vec![
        (Demand::Logprobs, "top_logprobs".into()),
        (Demand::ImageInput, "input[0].content[1]".into()),
    ];
    let error = world.generate(call(), asks.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.param(), Some("input[0].content[1]"));
    for word in [MODEL, "image input", "`input[0].content[1]`"] {
        assert!(error.message().contains(word), "{}", error.message());
    }
    assert_eq!(world.gateway.live_runs(), 0, "the place was given back");

    asks.demands.truncate(1);
    for _ in 0..4 {
        let run = world.generate(call(), asks.clone()).await.unwrap();
        assert_eq!(&*run.facts.deployment, "a", "only `a` can do it");
    }
    assert_eq!(b.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn hints_that_a_backend_does_not_honour_are_named() {
    let world = World::new(model(
        MODEL,
        Arc::new(FakeBackend::new("fake", [Act::good(1)])),
    ));
    let mut asks = request(MODEL, "x");
    asks.hints = vec!["service_tier".into(), "tools[3]".into()];
    let log = Log::of_this_process();
    let run = world.generate(call(), asks).await.unwrap();
    assert_eq!(run.facts.ignored, ["service_tier", "tools[3]"]);
    drop(run);
    world.row().await;
    let lines = log.lines();
    assert!(
        lines.contains(r#""ignored":"service_tier, tools[3]""#),
        "no line names what this test's request had ignored"
    );
}

#[tokio::test]
async fn a_hint_that_a_backend_acts_on_is_not_called_ignored() {
    let world = World::new(model(MODEL, Arc::new(ScriptedProvider::new("scripted"))));
    let mut asks = request(MODEL, "x");
    asks.reasoning_effort = Some("low".into());
    asks.hints = vec!["reasoning.effort".into(), "service_tier".into()];
    let run = world.generate(call(), asks).await.unwrap();
    assert_eq!(run.facts.ignored, ["service_tier"]);
}

/// The log of one test, as JSON lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// What all tests of this process log. A logger for one thread would miss lines now and then, as threads
    /// without one decide for all that nobody listens.
    fn of_this_process() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .json()
                .with_writer(move || writer.clone())
                .init();
            log
        })
        .clone()
    }

    fn lines(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_server_and_a_greedy_caller_are_refused_with_a_time_to_come_again() {
    let stalls = Arc::new(FakeBackend::new(
        "fake",
        [vec![Act::started(1), Act::text("x"), Act::Stall]],
    ));
    let limits = Limits {
        runs_max: 3,
        runs_per_principal_max: 2,
        ..Limits::default()
    };
    let world = World::limited(model(MODEL, stalls), limits);
    let mut runs = Vec::new();
    for key in ["a", "a", "b"] {
        runs.push(
            world
                .generate(call_of(key), request(MODEL, "x"))
                .await
                .unwrap(),
        );
    }
    let full = world
        .generate(call_of("c"), request(MODEL, "x"))
        .await
        .unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Unavailable);
    drop(runs.pop());
    world.wait_for_live(2).await;
    let greedy = world
        .generate(call_of("a"), request(MODEL, "x"))
        .await
        .unwrap_err();
    assert_eq!(greedy.kind(), ErrorKind::RateLimited);
    for error in [full, greedy] {
        assert!(matches!(error.retry(), Retry::After(_)), "{error:?}");
    }
    drop(runs);
    world.gateway.settled().await;
    assert_eq!(world.usage.rows().len(), 3, "refused calls leave no row");
}

impl World {
    async fn wait_for_live(&self, count: u32) {
        while self.gateway.live_runs() != count {
            tokio::task::yield_now().await;
        }
    }
}
