//! Several models within one budget, with the real small model under several names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test is a panic; helpers of tests are tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::{ask, attempt, model_path, options, run, runtime};
use futures_util::StreamExt;
use honshu_domain::ErrorKind;
use honshu_engine::{EnginePool, LoadedModel, ModelState, PoolOptions};

fn state(pool: &EnginePool, id: &str) -> ModelState {
    pool.status()
        .iter()
        .find(|status| &*status.id == id)
        .unwrap()
        .state
}

fn short() -> honshu_domain::InferenceRequest {
    let mut request = ask("Say yes.");
    request.max_output_tokens = Some(2);
    request
}

#[test]
fn many_first_requests_load_the_model_once() {
    runtime().block_on(async {
        let pool = common::pool();
        let backend = common::backend(&pool);
        assert_eq!(state(&pool, "small"), ModelState::Unloaded);
        let runs = (0..4).map(|_| run(&backend, short()));
        for whole in futures_util::future::join_all(runs).await {
            whole.unwrap();
        }
        assert_eq!(
            (pool.loads(), state(&pool, "small")),
            (1, ModelState::Loaded)
        );
    });
}

#[test]
fn a_model_that_needs_the_room_of_an_idle_one_gets_it() {
    runtime().block_on(async {
        let one = LoadedModel::estimate_bytes(&model_path(), &options().load).unwrap();
        let pool = EnginePool::new(PoolOptions {
            memory_max_bytes: Some(one + one / 2),
            room_wait: Duration::from_millis(300),
            ..PoolOptions::default()
        });
        let first = pool.backend_for(&model_path(), "first", options());
        let second = pool.backend_for(&model_path(), "second", options());
        run(&first, short()).await.unwrap();
        run(&second, short()).await.unwrap();
        assert_eq!(
            (state(&pool, "first"), state(&pool, "second")),
            (ModelState::Unloaded, ModelState::Loaded)
        );
        run(&first, short()).await.unwrap();
        assert_eq!(
            (state(&pool, "first"), state(&pool, "second")),
            (ModelState::Loaded, ModelState::Unloaded)
        );

        // A model in use keeps its room; who needs it is told to come back.
        let mut long = ask("Count to a million.");
        long.max_output_tokens = Some(1_000);
        let mut running = first.generate(attempt(long));
        running.next().await.unwrap().unwrap();
        let error = run(&second, short()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            matches!(error.retry(), honshu_domain::Retry::After(_)),
            "{error:?}"
        );
        drop(running);
        run(&second, short()).await.unwrap();
        assert_eq!(state(&pool, "first"), ModelState::Unloaded);
    });
}

#[test]
fn a_model_that_can_never_fit_is_refused_with_both_numbers() {
    runtime().block_on(async {
        let pool = EnginePool::new(PoolOptions {
            memory_max_bytes: Some(50 << 20),
            ..PoolOptions::default()
        });
        let error = run(&common::backend(&pool), short()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let needed = LoadedModel::estimate_bytes(&model_path(), &options().load).unwrap();
        for number in [needed, 50 << 20] {
            assert!(error.message().contains(&number.to_string()), "{error}");
        }
        assert_eq!(
            pool.status()[0].last_error.as_deref(),
            Some(error.message())
        );
    });
}

#[test]
fn a_corrupt_or_missing_file_is_one_clear_error() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read(model_path()).unwrap();
        let cut = folder.path().join("cut.gguf");
        std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
        let rubbish = folder.path().join("rubbish.gguf");
        std::fs::write(&rubbish, b"GGUF and nothing that makes sense").unwrap();
        let missing = folder.path().join("missing.gguf");
        let pool = common::pool();
        for (id, path) in [("cut", cut), ("rubbish", rubbish), ("missing", missing)] {
            let backend = pool.backend_for(&path, id, options());
            let error = run(&backend, short()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{id}: {error}");
            assert!(
                error.message().contains("honshu model pull"),
                "{id}: {error}"
            );
            assert!(
                !error.message().contains(&*folder.path().to_string_lossy()),
                "{id}: {error}"
            );
            assert_eq!(state(&pool, id), ModelState::Unloaded);
        }
        assert!(pool.status().iter().all(|status| status.memory_bytes == 0));
    });
}

#[test]
fn an_idle_model_is_unloaded_and_comes_back() {
    runtime().block_on(async {
        let idle_timeout = Some(Duration::from_millis(200));
        let pool = EnginePool::new(PoolOptions {
            idle_timeout,
            ..PoolOptions::default()
        });
        let backend = common::backend(&pool);
        run(&backend, short()).await.unwrap();
        let began = Instant::now();
        while state(&pool, "small") != ModelState::Unloaded {
            assert!(began.elapsed() < Duration::from_secs(10), "still loaded");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        run(&backend, short()).await.unwrap();
        assert_eq!(pool.loads(), 2);
    });
}
