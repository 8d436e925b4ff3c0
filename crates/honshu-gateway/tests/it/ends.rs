//! Every way in which a run ends: one end for the subscriber, one row, the backend stopped.

use std::sync::Arc;
use std::time::Duration;

use honshu_domain::{ErrorKind, FinishReason, Retry, RunEvent, Status, TimeoutKind};
use honshu_gateway::{Limits, SHUTDOWN_CODE, Step};
use honshu_testkit::{Act, FakeBackend, model, request};
use tokio::time::{Instant, sleep};

use crate::common::{MODEL, World, call};

fn world(acts: Vec<Act>) -> (World, Arc<FakeBackend>) {
    let backend = Arc::new(FakeBackend::new("fake", [acts]));
    (World::new(model(MODEL, Arc::clone(&backend) as _)), backend)
}

fn then(mut acts: Vec<Act>, more: Act) -> Vec<Act> {
    acts.push(more);
    acts
}

fn two_words() -> Vec<Act> {
    vec![Act::started(7), Act::text("one "), Act::text("two ")]
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_backend_has_one_outcome_and_one_row() {
    struct Case {
        name: &'static str,
        acts: Vec<Act>,
        status: &'static str,
        reason: Option<&'static str>,
        tokens: (u64, u64),
        exact: bool,
        error: Option<ErrorKind>,
    }
    let upstream = || honshu_domain::Error::new(ErrorKind::Upstream, "said so");
    let cases = [
        Case {
            name: "stop",
            acts: then(two_words(), Act::finished(FinishReason::Stop, 7, 2)),
            status: "completed",
            reason: None,
            tokens: (7, 2),
            exact: true,
            error: None,
        },
        Case {
            name: "tool calls",
            acts: then(two_words(), Act::finished(FinishReason::ToolCalls, 7, 2)),
            status: "completed",
            reason: None,
            tokens: (7, 2),
            exact: true,
            error: None,
        },
        Case {
            name: "length",
            acts: then(two_words(), Act::finished(FinishReason::Length, 7, 2)),
            status: "incomplete",
            reason: Some("length"),
            tokens: (7, 2),
            exact: true,
            error: None,
        },
        Case {
            name: "filter",
            acts: then(
                two_words(),
                Act::finished(FinishReason::ContentFilter, 7, 2),
            ),
            status: "incomplete",
            reason: Some("content_filter"),
            tokens: (7, 2),
            exact: true,
            error: None,
        },
        Case {
            name: "cut",
            acts: then(two_words(), Act::End),
            status: "failed",
            reason: Some("cut"),
            tokens: (7, 2),
            exact: false,
            error: Some(ErrorKind::Upstream),
        },
        Case {
            name: "upstream error in the stream",
            acts: then(two_words(), Act::Fail(upstream())),
            status: "failed",
            reason: Some("upstream"),
            tokens: (7, 2),
            exact: false,
            error: Some(ErrorKind::Upstream),
        },
        Case {
            name: "panic in the stream",
            acts: then(two_words(), Act::Panic),
            status: "failed",
            reason: Some("internal"),
            tokens: (7, 2),
            exact: false,
            error: Some(ErrorKind::Internal),
        },
        Case {
            name: "silence",
            acts: then(two_words(), Act::Stall),
            status: "failed",
            reason: Some("idle_timeout"),
            tokens: (7, 2),
            exact: false,
            error: Some(ErrorKind::Timeout(TimeoutKind::Idle)),
        },
    ];
    for case in cases {
        let (world, backend) = world(case.acts);
        let told = world.ask("hello").await;
        let outcome = told.end.unwrap_or_else(|| panic!("{}: no end", case.name));
        assert_eq!(outcome.status.as_str(), case.status, "{}", case.name);
        assert_eq!(
            told.error.as_ref().map(|e| e.kind()),
            case.error,
            "{}",
            case.name
        );
        // Work was done: whoever repeats the request pays again, so no program is told to.
        let told_to_repeat = told
            .error
            .as_ref()
            .is_some_and(|e| e.retry() != Retry::Never);
        assert!(!told_to_repeat, "{}", case.name);
        let finished = told
            .events
            .iter()
            .filter(|e| matches!(e, RunEvent::Finished(_)))
            .count();
        assert_eq!(finished, usize::from(case.error.is_none()), "{}", case.name);
        let row = world.row().await;
        assert_eq!(&*row.status, case.status, "{}", case.name);
        assert_eq!(row.reason.as_deref(), case.reason, "{}", case.name);
        assert_eq!(
            (row.usage.input_tokens, row.usage.output_tokens),
            case.tokens,
            "{}",
            case.name
        );
        assert_eq!(row.usage_exact, case.exact, "{}", case.name);
        assert_eq!(
            (&*row.model_served, &*row.deployment),
            (MODEL, "fake"),
            "{}",
            case.name
        );
        assert_eq!(backend.live(), 0, "{}: the stream was dropped", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn no_first_event_is_its_own_timeout_and_an_http_error() {
    let (world, backend) = world(vec![Act::Stall]);
    let begun = Instant::now();
    let told = world.ask("hello").await;
    assert_eq!(
        told.error.unwrap().kind(),
        ErrorKind::Timeout(TimeoutKind::FirstEvent)
    );
    assert!(
        told.end.is_none(),
        "nothing was sent, so it is an error of the call"
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
    assert_eq!(
        (backend.calls(), backend.live()),
        (1, 0),
        "minutes are not spent twice"
    );
    assert_eq!(
        world.row().await.reason.as_deref(),
        Some("first_event_timeout")
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_ends_meets_the_deadline() {
    let mut acts = vec![Act::started(1)];
    for _ in 0..100 {
        acts.extend([Act::text("x "), Act::Wait(Duration::from_secs(4))]);
    }
    let (world, backend) = world(acts);
    let begun = Instant::now();
    let told = world.ask("hello").await;
    assert_eq!(
        told.error.unwrap().kind(),
        ErrorKind::Timeout(TimeoutKind::Deadline)
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
    assert_eq!(world.row().await.reason.as_deref(), Some("run_deadline"));
    assert_eq!(backend.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_backend_that_took_the_request_commits_a_streamed_run_early() {
    let long = Duration::from_secs(15);
    let acts = vec![
        Act::started(7),
        Act::Wait(long),
        Act::text("late"),
        Act::finished(FinishReason::Stop, 7, 1),
    ];
    let (world, _) = world(acts.clone());
    let begun = Instant::now();
    let run = world
        .generate(call(), request(MODEL, "hello"))
        .await
        .unwrap();
    assert_eq!(
        begun.elapsed(),
        Limits::default().commit_after,
        "headers and heartbeats can flow"
    );
    let told = crate::common::told(run).await;
    assert_eq!(told.end.unwrap().status, Status::Completed);
    assert_eq!(
        world.row().await.first_event_us,
        Some(15_000_000),
        "not when it was committed"
    );

    let (world, _) = self::world(acts);
    let whole = honshu_testkit::chat_request(MODEL, "hello", false);
    let begun = Instant::now();
    let _run = world.generate(call(), whole).await.unwrap();
    assert_eq!(
        begun.elapsed(),
        long,
        "without a stream there is nothing to keep alive"
    );
}

#[tokio::test(start_paused = true)]
async fn an_early_committed_run_still_has_its_first_event_timeout() {
    let (world, _) = world(vec![Act::started(7), Act::Stall]);
    let begun = Instant::now();
    let told = world.ask("hello").await;
    assert_eq!(
        told.error.unwrap().kind(),
        ErrorKind::Timeout(TimeoutKind::FirstEvent)
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_live_runs_with_its_own_code_and_refuses_new_ones() {
    let (world, backend) = world(then(two_words(), Act::Stall));
    let run = world
        .generate(call(), request(MODEL, "hello"))
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    world.shutdown.cancel();
    let told = crate::common::told(run).await;
    assert_eq!(told.error.unwrap().code(), Some(SHUTDOWN_CODE));
    assert_eq!(world.row().await.reason.as_deref(), Some("shutdown"));
    assert_eq!(backend.live(), 0);
    let refused = world
        .generate(call(), request(MODEL, "hello"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(
        world.usage.rows().len(),
        1,
        "what was never admitted leaves no row"
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_leaves_stops_the_backend_at_once() {
    let (world, backend) = world(then(two_words(), Act::Stall));
    let mut run = world
        .generate(call(), request(MODEL, "hello"))
        .await
        .unwrap();
    run.next().await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let left = Instant::now();
    drop(run);
    let row = world.row().await;
    assert_eq!(
        (&*row.status, row.reason.as_deref()),
        ("cancelled", Some("client_left"))
    );
    assert_eq!((row.usage.input_tokens, row.usage.output_tokens), (7, 2));
    assert_eq!(backend.last_drop().unwrap(), left, "no time passed");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_leaves_before_the_first_event_stops_the_backend() {
    let (world, backend) = world(vec![Act::Stall]);
    let waiting = tokio::time::timeout(
        Duration::from_secs(3),
        world.generate(call(), request(MODEL, "hello")),
    );
    assert!(waiting.await.is_err(), "the caller gave up");
    let row = world.row().await;
    assert_eq!(&*row.status, "cancelled");
    assert_eq!(row.total_us, 3_000_000);
    assert_eq!(backend.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_about_to_end_may_give_its_counts_after_the_subscriber_left() {
    let near = |wait: u64| {
        vec![
            Act::started(7),
            Act::text("one "),
            Act::part_done(),
            Act::Wait(Duration::from_millis(wait)),
            Act::finished(FinishReason::Stop, 7, 42),
        ]
    };
    for (wait, exact, tokens, stopped_after) in [(150, true, 42, 150), (5_000, false, 1, 200)] {
        let (world, backend) = world(near(wait));
        let mut run = world
            .generate(call(), request(MODEL, "hello"))
            .await
            .unwrap();
        while !matches!(
            run.next().await,
            Some(Step::Event(RunEvent::PartDone { .. }))
        ) {}
        let left = Instant::now();
        drop(run);
        let row = world.row().await;
        assert_eq!(&*row.status, "cancelled", "after {wait} ms");
        assert_eq!(
            (row.usage_exact, row.usage.output_tokens),
            (exact, tokens),
            "after {wait} ms"
        );
        assert_eq!(
            backend.last_drop().unwrap() - left,
            Duration::from_millis(stopped_after)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_nothing_pauses_the_backend_and_is_given_up() {
    let acts: Vec<Act> = std::iter::once(Act::started(1))
        .chain((0..1_000).map(|_| Act::text("x ")))
        .collect();
    let limits = Limits {
        subscriber_stall_max: Duration::from_secs(30),
        ..Limits::default()
    };
    let backend = Arc::new(FakeBackend::new("fake", [acts]));
    let world = World::limited(model(MODEL, Arc::clone(&backend) as _), limits);
    let run = world
        .generate(call(), request(MODEL, "hello"))
        .await
        .unwrap();
    sleep(Duration::from_secs(29)).await;
    assert_eq!(
        backend.live(),
        1,
        "a slow subscriber is waited for, longer than the idle timeout"
    );
    sleep(Duration::from_secs(2)).await;
    assert_eq!(backend.live(), 0);
    let row = world.row().await;
    assert_eq!(&*row.status, "cancelled");
    assert!(
        row.usage.output_tokens < 50,
        "the backend was not read on: {}",
        row.usage.output_tokens
    );
    drop(run);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_recorded_is_not_completed() {
    let (world, _) = world(Act::good(3));
    world.usage.break_down();
    let told = world.ask("hello").await;
    assert_eq!(told.end.unwrap().status.as_str(), "failed");
    assert_eq!(told.error.unwrap().kind(), ErrorKind::Unavailable);
    assert!(
        !told
            .events
            .iter()
            .any(|event| matches!(event, RunEvent::Finished(_)))
    );
    assert_eq!(world.gateway.live_runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_when_called_costs_its_run_only() {
    let backend = Arc::new(FakeBackend::new("fake", [Act::good(1)]).panicking());
    let world = World::new(model(MODEL, backend));
    let told = world.ask("hello").await;
    assert_eq!(told.error.unwrap().kind(), ErrorKind::Internal);
    assert_eq!(world.row().await.reason.as_deref(), Some("internal"));
}

#[test]
fn a_runtime_that_is_torn_down_still_settles_its_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (world, _) = world(then(two_words(), Act::Stall));
    let run = runtime
        .block_on(world.generate(call(), request(MODEL, "hello")))
        .unwrap();
    drop(runtime);
    let rows = world.usage.rows();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&*rows[0].status, rows[0].reason.as_deref()),
        ("failed", Some("internal"))
    );
    assert_eq!(world.gateway.live_runs(), 0);
    drop(run);
}
