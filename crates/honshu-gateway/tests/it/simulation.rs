//! Hundreds of runs with seeded faults, pauses and leavings on a paused clock. Whatever happens: each admitted
//! run settles once, places equal live runs, nothing follows an end, and nothing outlives its deadline.

use std::sync::Arc;
use std::time::Duration;

use honshu_domain::{Error, ErrorKind, FinishReason, Origin, Retry};
use honshu_gateway::{Limits, Step};
use honshu_testkit::{Act, AllowAll, FakeBackend, SimEntropy, model_with, request};
use tokio::time::{Instant, sleep, timeout};

use crate::common::{MODEL, World, call_of};

fn random_script(random: &SimEntropy) -> Vec<Act> {
    let mut acts = Vec::new();
    let pause = |random: &SimEntropy, acts: &mut Vec<Act>| {
        if random.below(3) == 0 {
            acts.push(Act::Wait(Duration::from_millis(random.below(3_000))));
        }
    };
    pause(random, &mut acts);
    let error = |random: &SimEntropy| {
        let kinds = [
            ErrorKind::Upstream,
            ErrorKind::Unavailable,
            ErrorKind::RateLimited,
            ErrorKind::Invalid,
        ];
        let kind = kinds[usize::try_from(random.below(4)).unwrap()];
        let retries = [
            Retry::Never,
            Retry::Now,
            Retry::After(Duration::from_millis(random.below(3_000))),
        ];
        let retry = retries[usize::try_from(random.below(3)).unwrap()];
        Error::new(kind, "told to")
            .with_origin(Origin::Upstream)
            .with_retry(retry)
    };
    if random.below(5) == 0 {
        acts.push(Act::Fail(error(random)));
        return acts;
    }
    if random.below(10) != 0 {
        acts.push(Act::started(random.below(1_000)));
    }
    for _ in 0..random.below(80) {
        pause(random, &mut acts);
        acts.push(Act::text("x "));
    }
    if random.below(2) == 0 {
        acts.push(Act::part_done());
        pause(random, &mut acts);
    }
    acts.push(match random.below(10) {
        0 => Act::Fail(error(random)),
        1 => Act::Panic,
        2 => Act::Stall,
        3 => Act::End,
        _ => Act::finished(FinishReason::Stop, 1, 80),
    });
    acts
}

async fn simulate(seed: u64) {
    let random = Arc::new(SimEntropy::new(seed));
    let scripts = |random: &SimEntropy| (0..300).map(|_| random_script(random)).collect::<Vec<_>>();
    let a = Arc::new(FakeBackend::new("a", scripts(&random)));
    let b = Arc::new(FakeBackend::new("b", scripts(&random)));
    let limits = Limits {
        runs_max: 60,
        runs_per_principal_max: 40,
        ..Limits::default()
    };
    let world = Arc::new(World::with(
        model_with(MODEL, [(Arc::clone(&a) as _, 2), (Arc::clone(&b) as _, 1)]),
        limits,
        Arc::new(AllowAll::new()),
        seed,
    ));
    let shuts_down = random.below(4) == 0;
    let clients: Vec<_> = (0..200)
        .map(|number| {
            let (world, random) = (Arc::clone(&world), Arc::clone(&random));
            tokio::spawn(async move {
                sleep(Duration::from_millis(random.below(20_000))).await;
                let begun = Instant::now();
                let call = call_of(&format!("key{}", number % 3));
                let deadline = call.timeouts.run_deadline;
                let patience = Duration::from_millis(random.below(if number % 2 == 0 {
                    200_000
                } else {
                    6_000
                }));
                let started = timeout(patience, world.generate(call, request(MODEL, "x"))).await;
                let Ok(Ok(mut run)) = started else { return };
                let reads_slowly = random.below(5) == 0;
                let mut ended = false;
                loop {
                    let left = patience.saturating_sub(begun.elapsed());
                    match timeout(left, run.next()).await {
                        Err(_gone) => return,
                        Ok(None) => break,
                        Ok(Some(step)) => {
                            assert!(!ended, "nothing after the end");
                            ended = matches!(step, Step::End { .. });
                        }
                    }
                    assert!(
                        begun.elapsed() <= deadline + Duration::from_secs(30),
                        "the deadline holds"
                    );
                    if reads_slowly {
                        sleep(Duration::from_millis(random.below(400))).await;
                    }
                }
                assert!(ended, "a run that was read to its end had one");
            })
        })
        .collect();
    if shuts_down {
        sleep(Duration::from_secs(15)).await;
        world.shutdown.cancel();
    }
    for client in clients {
        client.await.unwrap();
    }
    timeout(Duration::from_secs(300), world.gateway.settled())
        .await
        .expect("every run ends");
    assert_eq!(world.gateway.live_runs(), 0);
    assert_eq!((a.live(), b.live()), (0, 0), "no stream outlives its run");
    let rows = world.usage.rows();
    let mut ids: Vec<_> = rows.iter().map(|row| row.run_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), rows.len(), "each run settles once");
    let attempts: u32 = rows.iter().map(|row| row.attempts).sum();
    assert_eq!(
        attempts,
        a.calls() + b.calls(),
        "every call of a backend is in a row"
    );
    for row in &rows {
        assert!(row.total_us <= 60_000_000 + 200_000, "{row:?}");
        assert_ne!(&*row.status, "");
    }
}

#[test]
fn whatever_happens_each_run_settles_once() {
    let given = std::env::var("HONSHU_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let count = if std::env::var_os("SLOW").is_some() {
        500
    } else {
        12
    };
    let seeds = given.map_or(1..=count, |seed: u64| seed..=seed);
    std::panic::set_hook(Box::new(|info| {
        // Panics that were told to happen are part of the simulation.
        let text = info.to_string();
        if !text.contains("told to panic") {
            eprintln!("{text}");
        }
    }));
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome = std::panic::catch_unwind(|| runtime.block_on(simulate(seed)));
        assert!(outcome.is_ok(), "failed; repeat it with HONSHU_SEED={seed}");
    }
}

#[test]
fn five_hundred_clients_that_leave_at_random_points_stop_the_work_within_250_ms() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let random = Arc::new(SimEntropy::new(7));
        let mut handles = Vec::new();
        for number in 0..500 {
            let random = Arc::clone(&random);
            handles.push(tokio::spawn(async move {
                let mut acts = vec![Act::Wait(Duration::from_millis(50)), Act::started(9)];
                for _ in 0..100 {
                    acts.extend([Act::text("x "), Act::Wait(Duration::from_millis(20))]);
                }
                acts.extend([Act::part_done(), Act::finished(FinishReason::Stop, 9, 100)]);
                let backend = Arc::new(FakeBackend::new("fake", [acts]));
                let world = World::new(model_with(MODEL, [(Arc::clone(&backend) as _, 1)]));
                let stay = Duration::from_millis(random.below(2_000));
                let left = timeout(stay, async {
                    let run = world
                        .generate(call_of("key"), request(MODEL, "x"))
                        .await
                        .unwrap();
                    crate::common::told(run).await
                })
                .await;
                assert!(left.is_err(), "client {number} stayed to the end");
                let gone = Instant::now();
                let row = world.row().await;
                assert_eq!(&*row.status, "cancelled", "client {number}");
                let pieces = u64::try_from(stay.as_millis()).unwrap().saturating_sub(50) / 20;
                assert!(
                    row.usage.output_tokens.abs_diff(pieces) <= 1,
                    "client {number}: {} of about {pieces}",
                    row.usage.output_tokens
                );
                assert!(
                    gone.elapsed() <= Duration::from_millis(250),
                    "client {number}"
                );
                assert_eq!(backend.live(), 0);
            }));
        }
        for handle in handles {
            handle.await.unwrap();
        }
    });
}
