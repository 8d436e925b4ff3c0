//! Which failures lead to another try, where, and when.

use std::sync::Arc;
use std::time::Duration;

use honshu_domain::{Backend, Error, ErrorKind, InferenceRequest, Origin, Retry, TimeoutKind};
use honshu_gateway::Limits;
use honshu_testkit::{Act, FakeBackend, model, model_with};
use tokio::time::Instant;

use crate::common::{MODEL, World};

fn upstream(kind: ErrorKind, retry: Retry) -> Error {
    Error::new(kind, "told to")
        .with_origin(Origin::Upstream)
        .with_retry(retry)
}

#[tokio::test(start_paused = true)]
async fn the_table_of_failures_before_the_first_event() {
    use ErrorKind as K;
    let never = Retry::Never;
    let now = Retry::Now;
    let soon = Retry::After(Duration::from_secs(1));
    let late = Retry::After(Duration::from_secs(60));
    // The failure, how often one deployment alone is called, and whether a second one serves instead.
    let table: [(&str, Error, u32, bool); 13] = [
        ("5xx", upstream(K::Upstream, now), 3, true),
        ("503 with a time", upstream(K::Unavailable, soon), 3, true),
        ("429 with a time", upstream(K::RateLimited, soon), 3, true),
        (
            "429 with a long time",
            upstream(K::RateLimited, late),
            1,
            true,
        ),
        (
            "our credential is refused",
            upstream(K::Upstream, never),
            1,
            true,
        ),
        (
            "connect",
            upstream(K::Timeout(TimeoutKind::Connect), now),
            3,
            true,
        ),
        (
            "first event",
            upstream(K::Timeout(TimeoutKind::FirstEvent), now),
            1,
            true,
        ),
        (
            "the engine's queue is full",
            Error::new(K::RateLimited, "full"),
            1,
            true,
        ),
        ("context", upstream(K::ContextLength, never), 1, true),
        ("400", upstream(K::Invalid, never), 1, false),
        ("400 of ours", Error::new(K::Invalid, "bad"), 1, false),
        ("unsupported", Error::new(K::Unsupported, "no"), 1, false),
        ("bug", Error::internal("bug"), 1, true),
    ];
    for (name, error, alone, elsewhere) in table {
        let failing = || {
            Arc::new(FakeBackend::new(
                "failing",
                [vec![Act::Fail(error.clone())]],
            ))
        };
        let backend = failing();
        let world = World::new(model(MODEL, Arc::clone(&backend) as _));
        let told = world.ask("x").await.error.unwrap();
        let prompt = (error.kind() == K::ContextLength).then_some("input");
        assert_eq!(told.param(), prompt, "{name}: the caller's field is named");
        assert_eq!(told.kind(), error.kind(), "{name}: the last error is told");
        assert_eq!(backend.calls(), alone, "{name}: tries of one deployment");
        assert_eq!(world.row().await.attempts, alone, "{name}");

        let first = failing();
        let second = Arc::new(FakeBackend::new("good", [Act::good(1)]));
        let both: [(Arc<dyn Backend>, u32); 2] =
            [(Arc::clone(&first) as _, 1), (Arc::clone(&second) as _, 0)];
        let world = World::new(model_with(MODEL, both));
        let begun = Instant::now();
        let told = world.ask("x").await;
        assert_eq!(told.end.is_some(), elsewhere, "{name}");
        assert_eq!(
            begun.elapsed(),
            Duration::ZERO,
            "{name}: another deployment is tried at once"
        );
        let row = world.row().await;
        assert_eq!(row.attempts, 1 + u32::from(elsewhere), "{name}");
        assert_eq!(
            &*row.deployment,
            if elsewhere { "good" } else { "failing" },
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_before_the_first_event_is_tried_again_and_after_it_is_not() {
    for (before, calls) in [
        (vec![], 2),
        (vec![Act::started(1)], 2),
        (vec![Act::started(1), Act::text("x")], 1),
    ] {
        let mut cut = before;
        cut.push(Act::End);
        let backend = Arc::new(FakeBackend::new("fake", [cut, Act::good(1)]));
        let world = World::new(model(MODEL, Arc::clone(&backend) as _));
        let told = world.ask("x").await;
        assert_eq!(backend.calls(), calls);
        let expected = if calls == 2 { "completed" } else { "failed" };
        assert_eq!(told.end.unwrap().status.as_str(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_and_waits_have_jitter() {
    let limited = vec![Act::Fail(upstream(
        ErrorKind::RateLimited,
        Retry::After(Duration::from_millis(1_500)),
    ))];
    let backend = Arc::new(FakeBackend::new("fake", [limited, Act::good(1)]));
    let world = World::new(model(MODEL, backend));
    let begun = Instant::now();
    assert!(world.ask("x").await.end.is_some());
    assert_eq!(begun.elapsed(), Duration::from_millis(1_500));

    let mut waits = Vec::new();
    for seed in 0..20 {
        let fails = vec![Act::Fail(upstream(ErrorKind::Upstream, Retry::Now))];
        let backend = Arc::new(FakeBackend::new("fake", [fails, Act::good(1)]));
        let world = World::with(
            model(MODEL, backend),
            Limits::default(),
            Arc::new(honshu_testkit::AllowAll::new()),
            seed,
        );
        let begun = Instant::now();
        assert!(world.ask("x").await.end.is_some());
        waits.push(begun.elapsed().as_millis());
    }
    assert!(
        waits.iter().all(|wait| (50..=101).contains(wait)),
        "{waits:?}"
    );
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 5, "spread: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn no_try_begins_that_the_deadline_would_not_let_begin() {
    let fails = vec![
        Act::Wait(Duration::from_secs(18)),
        Act::Fail(upstream(
            ErrorKind::Upstream,
            Retry::After(Duration::from_secs(2)),
        )),
    ];
    let backend = Arc::new(FakeBackend::new("fake", [fails]));
    let world = World::limited(
        model(MODEL, Arc::clone(&backend) as _),
        Limits {
            attempts_max: 10,
            ..Limits::default()
        },
    );
    let begun = Instant::now();
    let told = world.ask("x").await;
    assert_eq!(begun.elapsed(), Duration::from_secs(58));
    assert_eq!(backend.calls(), 3, "a fourth would begin at 60 s");
    assert_eq!(told.error.unwrap().kind(), ErrorKind::Upstream);
}

#[tokio::test(start_paused = true)]
async fn a_failing_upstream_sees_at_most_a_fifth_more_than_the_offered_load() {
    let fails = vec![Act::Fail(upstream(ErrorKind::Upstream, Retry::Now))];
    let backend = Arc::new(FakeBackend::new("fake", [fails]));
    let world = World::new(model(MODEL, Arc::clone(&backend) as _));
    for _ in 0..1_000 {
        world.ask("x").await;
    }
    let calls = backend.calls();
    assert!(
        (1_190..=1_215).contains(&calls),
        "{calls} calls for 1000 requests"
    );
}

#[tokio::test(start_paused = true)]
async fn deployments_share_by_weight_and_a_failing_one_rests() {
    let a = Arc::new(FakeBackend::new("a", [Act::good(1)]));
    let b = Arc::new(FakeBackend::new("b", [Act::good(1)]));
    let spare = Arc::new(FakeBackend::new("spare", [Act::good(1)]));
    let all: [(Arc<dyn Backend>, u32); 3] = [
        (Arc::clone(&a) as _, 3),
        (Arc::clone(&b) as _, 1),
        (Arc::clone(&spare) as _, 0),
    ];
    let world = World::new(model_with(MODEL, all));
    for _ in 0..40 {
        world.ask("x").await;
    }
    assert_eq!((a.calls(), b.calls(), spare.calls()), (30, 10, 0));

    let bad = vec![Act::Fail(upstream(ErrorKind::Upstream, Retry::Now))];
    let failing = Arc::new(FakeBackend::new(
        "failing",
        [bad.clone(), bad.clone(), bad.clone(), bad, Act::good(1)],
    ));
    let good = Arc::new(FakeBackend::new("good", [Act::good(1)]));
    let both: [(Arc<dyn Backend>, u32); 2] =
        [(Arc::clone(&failing) as _, 1), (Arc::clone(&good) as _, 1)];
    let world = World::new(model_with(MODEL, both));
    for _ in 0..50 {
        assert_eq!(
            world.ask("x").await.end.unwrap().status.as_str(),
            "completed"
        );
    }
    assert_eq!(failing.calls(), 3, "after three failures it rests");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..10 {
        world.ask("x").await;
    }
    assert_eq!(
        failing.calls(),
        4,
        "one request probes it, fails, and it rests longer"
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..10 {
        world.ask("x").await;
    }
    assert!(
        failing.calls() >= 8,
        "the next probe served, and it has its share again: {}",
        failing.calls()
    );
    assert!(
        world.usage.rows().iter().all(|row| row.reason.is_none()),
        "nobody noticed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_made_shorter_until_it_fits_is_one_run_with_one_row() {
    fn shorten(request: &InferenceRequest) -> Option<InferenceRequest> {
        let mut shorter = request.clone();
        shorter.input.remove(0);
        (!shorter.input.is_empty()).then_some(shorter)
    }
    let too_long = || vec![Act::Fail(upstream(ErrorKind::ContextLength, Retry::Never))];
    // Deployments, how often each says of four items that it is too long, tries, and whether the run ends well.
    for (deployments, failures, attempts, fits) in [
        (1, 0, 1, true),
        (1, 2, 3, true),
        (1, 3, 4, true),
        (1, 9, 4, false),
        (2, 1, 3, true),
        (2, 9, 8, false),
    ] {
        let backends: Vec<(Arc<dyn Backend>, u32)> = (0..deployments)
            .map(|n| {
                let scripts = (0..failures).map(|_| too_long()).chain([Act::good(1)]);
                let backend = FakeBackend::new(&format!("fake{n}"), scripts);
                (Arc::new(backend) as _, 1)
            })
            .collect();
        let world = World::new(model_with(MODEL, backends));
        let mut request = honshu_testkit::request(MODEL, "hi");
        request.input = vec![request.input[0].clone(); 4];
        let run = world
            .gateway
            .generate_shortened(crate::common::call(), Arc::new(request), shorten)
            .await;
        match run {
            Ok(run) => assert!(crate::common::told(run).await.error.is_none() && fits),
            Err(error) => assert!(error.kind() == ErrorKind::ContextLength && !fits, "{error}"),
        }
        let row = world.row().await;
        assert_eq!(&*row.status, if fits { "completed" } else { "failed" });
        assert_eq!(row.attempts, attempts, "{deployments} {failures}");
    }
}
