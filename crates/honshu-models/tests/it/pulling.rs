//! Pulls from local files and from servers that do what real ones do.

use std::time::Duration;

use honshu_models::{
    DigestOrigin, HubToken, ModelError, NoProgress, Phase, PullEvent, PullOptions, Source,
};
use http::HeaderMap;

use crate::support::{
    Behaviour, FileServer, Fixture, Reports, model_of, options, path_spec, sha256, small, spec,
};

const HUB_SPEC: &str = "hf:Owner/Repo/Tiny-F32.gguf";

async fn hub(content: &[u8], behaviour: Behaviour) -> (FileServer, PullOptions) {
    let server = FileServer::start(content.to_vec(), behaviour).await;
    let options = PullOptions {
        hub_endpoint: server.url("").parse().unwrap(),
        ..options()
    };
    (server, options)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(n, v)| ((*n).try_into().unwrap(), v.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_local_file_is_linked_listed_and_removed() {
    let fixture = Fixture::new();
    let content = model_of(64);
    let path = fixture.file("My Model.gguf", &content);
    let empty = fixture.store.generation().unwrap();
    let pulled = fixture
        .store
        .pull(&path_spec(&path), &options(), &NoProgress)
        .await
        .unwrap();
    let manifest = &pulled.model.manifest;
    assert_eq!(
        (manifest.id.as_str(), manifest.display_name.as_str()),
        ("local.my-model", "Tiny")
    );
    assert_eq!(
        (manifest.sha256, manifest.digest_origin),
        (sha256(&content), DigestOrigin::Computed)
    );
    assert_eq!(manifest.capabilities, ["chat"]);
    let installed = fixture.store.generation().unwrap();
    assert_ne!(empty, installed);
    assert_eq!(installed, fixture.store.generation().unwrap());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(
            std::fs::metadata(&pulled.model.path).unwrap().ino(),
            std::fs::metadata(&path).unwrap().ino()
        );
    }
    let listing = fixture.store.list().unwrap();
    assert_eq!(listing.models.len(), 1);
    assert!(listing.problems.is_empty());
    fixture.store.verify("local.my-model", &NoProgress).unwrap();
    assert_eq!(
        fixture.store.remove("local.my-model").unwrap().bytes_freed,
        content.len() as u64
    );
    assert!(fixture.files().is_empty());
    assert!(path.exists());
    assert!(matches!(
        fixture.store.remove("local.my-model"),
        Err(ModelError::NotInstalled { .. })
    ));
    assert_ne!(installed, fixture.store.generation().unwrap());
}

#[tokio::test]
async fn a_copied_file_does_not_change_with_the_original() {
    let fixture = Fixture::new();
    let path = fixture.file("a.gguf", &model_of(64));
    let copying = PullOptions {
        copy_local: true,
        ..options()
    };
    fixture
        .store
        .pull(&path_spec(&path), &copying, &NoProgress)
        .await
        .unwrap();
    std::fs::write(&path, b"changed").unwrap();
    fixture.store.verify("local.a", &NoProgress).unwrap();
}

#[tokio::test]
async fn two_models_share_a_file_and_it_goes_with_the_last() {
    let fixture = Fixture::new();
    let content = model_of(8);
    for name in ["a.gguf", "b.gguf"] {
        let path = fixture.file(name, &content);
        fixture
            .store
            .pull(&path_spec(&path), &options(), &NoProgress)
            .await
            .unwrap();
    }
    assert_eq!(fixture.files().len(), 3);
    assert_eq!(fixture.store.remove("local.a").unwrap().bytes_freed, 0);
    fixture.store.find("local.b").unwrap();
    assert_eq!(
        fixture.store.remove("local.b").unwrap().bytes_freed,
        content.len() as u64
    );
    assert!(fixture.files().is_empty());
}

#[tokio::test]
async fn what_is_no_model_is_not_installed() {
    let fixture = Fixture::new();
    let mut cut = model_of(8);
    cut.truncate(cut.len() - 100);
    for (name, content) in [
        ("text.gguf", b"hello".to_vec()),
        ("empty.gguf", Vec::new()),
        ("cut.gguf", cut),
    ] {
        let path = fixture.file(name, &content);
        let error = fixture
            .store
            .pull(&path_spec(&path), &options(), &NoProgress)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ModelError::Gguf { .. }),
            "{name}: {error:?}"
        );
        let server = FileServer::start(content, Behaviour::default()).await;
        let error = fixture
            .store
            .pull(&spec(&server.url("/m.gguf")), &options(), &NoProgress)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ModelError::Gguf { .. }),
            "{name}: {error:?}"
        );
        assert!(
            !fixture
                .files()
                .iter()
                .any(|f| f.starts_with("sha256") || f == "local.m.json"),
            "{:?}",
            fixture.files()
        );
    }
    let missing = fixture.directory.path().join("missing.gguf");
    assert!(
        fixture
            .store
            .pull(&path_spec(&missing), &options(), &NoProgress)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_hubs_digest_is_checked_pinned_and_told() {
    let fixture = Fixture::new();
    let content = model_of(64);
    let digest = sha256(&content);
    let cdn = FileServer::start(
        content.clone(),
        Behaviour {
            etag: Some("\"cdn\""),
            ..Behaviour::default()
        },
    )
    .await;
    let (hub, mut options) = hub(
        &[],
        Behaviour {
            redirect_to: Some(cdn.url("")),
            headers: headers(&[
                ("x-linked-etag", &format!("\"{digest}\"")),
                ("x-linked-size", &content.len().to_string()),
                ("x-repo-commit", "0123456789abcdef0123456789abcdef01234567"),
            ]),
            ..Behaviour::default()
        },
    )
    .await;
    options.hub_token = HubToken::new("hf_secret");
    let reports = Reports::default();
    let pulled = fixture
        .store
        .pull(&spec(HUB_SPEC), &options, &reports)
        .await
        .unwrap();
    let manifest = &pulled.model.manifest;
    assert_eq!(
        (manifest.id.as_str(), manifest.vendor.as_str()),
        ("owner.tiny-f32", "owner")
    );
    assert_eq!(
        (manifest.sha256, manifest.digest_origin),
        (digest, DigestOrigin::Hub)
    );
    let commit = Some("0123456789abcdef0123456789abcdef01234567".to_owned());
    assert_eq!(
        manifest.source,
        Source::Hf {
            file: HUB_SPEC.to_owned(),
            commit
        }
    );
    assert!(
        reports.notes().contains(&format!("sha256:{digest}")),
        "{}",
        reports.notes()
    );
    // The token goes to the hub and not to where it redirects.
    let (path, asked) = hub.request(0);
    assert_eq!(path, "/Owner/Repo/resolve/main/Tiny-F32.gguf");
    assert_eq!(asked["authorization"], "Bearer hf_secret");
    assert!(!cdn.request(0).1.contains_key("authorization"));
    let manifest = std::fs::read_to_string(
        fixture
            .store
            .directory()
            .join("manifests/owner.tiny-f32.json"),
    )
    .unwrap();
    assert!(!manifest.contains("hf_secret") && !manifest.contains("signature"));
    assert!(!format!("{options:?}").contains("hf_secret"));
    // A second pull asks nobody.
    let again = fixture
        .store
        .pull(&spec(HUB_SPEC), &options, &reports)
        .await
        .unwrap();
    assert!(again.was_present);
    assert_eq!(hub.request_count(), 1);
}

#[tokio::test]
async fn a_wrong_digest_installs_nothing() {
    let fixture = Fixture::new();
    let content = model_of(64);
    let wrong = sha256(b"other");
    let etag = format!("\"{wrong}\"");
    let (_, by_hub) = hub(
        &content,
        Behaviour {
            headers: headers(&[("x-linked-etag", &etag)]),
            ..Behaviour::default()
        },
    )
    .await;
    let error = fixture
        .store
        .pull(&spec(HUB_SPEC), &by_hub, &NoProgress)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ModelError::DigestMismatch { expected, .. } if *expected == wrong),
        "{error:?}"
    );
    let given = PullOptions {
        sha256: Some(wrong),
        ..options()
    };
    let server = FileServer::start(content.clone(), Behaviour::default()).await;
    let path = fixture.file("a.gguf", &content);
    for spec in [spec(&server.url("/m.gguf")), path_spec(&path)] {
        let error = fixture
            .store
            .pull(&spec, &given, &NoProgress)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ModelError::DigestMismatch { .. }),
            "{error:?}"
        );
    }
    assert!(fixture.files().is_empty(), "{:?}", fixture.files());
    let right = PullOptions {
        sha256: Some(sha256(&content)),
        ..options()
    };
    let pulled = fixture
        .store
        .pull(&spec(&server.url("/m.gguf")), &right, &NoProgress)
        .await
        .unwrap();
    assert_eq!(pulled.model.manifest.digest_origin, DigestOrigin::Given);
}

#[tokio::test]
async fn cuts_are_continued_within_one_pull() {
    let content = model_of(1024);
    for ignores_range in [false, true] {
        let fixture = Fixture::new();
        let cuts = vec![1, 100_000, 300_000, 0, 50_000];
        let behaviour = Behaviour {
            cuts,
            ignores_range,
            etag: Some("\"v1\""),
            ..Behaviour::default()
        };
        let server = FileServer::start(content.clone(), behaviour).await;
        let reports = Reports::default();
        let result = fixture
            .store
            .pull(&spec(&server.url("/m.gguf")), &options(), &reports)
            .await;
        let pulled = result.unwrap_or_else(|e| panic!("{ignores_range}: {e:?}"));
        assert_eq!(pulled.model.manifest.sha256, sha256(&content));
        let retries = reports
            .0
            .lock()
            .unwrap()
            .iter()
            .filter(|e| matches!(e, PullEvent::Retrying { .. }))
            .count();
        assert!(retries >= 4, "{retries}");
        if !ignores_range {
            let last = server.request(server.request_count() - 1).1;
            assert_eq!(last["if-range"], "\"v1\"");
            assert!(last["range"].to_str().unwrap().starts_with("bytes="));
        }
        assert_eq!(fixture.files().len(), 2);
    }
}

#[tokio::test]
async fn a_pull_stopped_anywhere_loses_almost_nothing() {
    let fixture = Fixture::new();
    let content = model_of(2048);
    let behaviour = Behaviour {
        etag: Some("\"v1\""),
        pause: Duration::from_millis(2),
        ..Behaviour::default()
    };
    let server = FileServer::start(content.clone(), behaviour).await;
    let spec = spec(&server.url("/m.gguf"));
    let partial = fixture.store.directory().join("blobs/local.m.partial");
    let mut kept = 0;
    for round in 0..6u64 {
        let reports = Reports::default();
        let stop = Duration::from_millis(20 + round * 13);
        let stopped =
            tokio::time::timeout(stop, fixture.store.pull(&spec, &options(), &reports)).await;
        assert!(stopped.is_err());
        assert!(fixture.store.list().unwrap().models.is_empty());
        let len = std::fs::metadata(&partial).unwrap().len();
        assert!(len >= kept, "{len} < {kept}");
        kept = len;
        // The lock may be kept for a moment by a thread that reads the file back.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(kept > 100_000, "{kept}");
    server.behaviour.lock().unwrap().pause = Duration::ZERO;
    let before = server.request_count();
    let reports = Reports::default();
    fixture
        .store
        .pull(&spec, &options(), &reports)
        .await
        .unwrap();
    let (_, asked) = server.request(before);
    assert_eq!(asked["range"], format!("bytes={kept}-"));
    // The bar never goes back.
    let reports = reports.0.lock().unwrap();
    let done = reports.iter().filter_map(|e| match e {
        PullEvent::Transfer(t) if t.phase == Phase::Downloading => Some(t.bytes_done),
        _ => None,
    });
    let done: Vec<_> = done.collect();
    assert!(
        done.is_sorted() && done[0] == kept && *done.last().unwrap() == content.len() as u64,
        "{done:?}"
    );
}

#[tokio::test]
async fn a_file_that_changed_in_between_is_fetched_anew() {
    let (old, new) = (
        model_of(1024),
        small()
            .tensor("blk.1.x", &[256, 1024])
            .tensor("y", &[8])
            .bytes(),
    );
    // With a strong validator the server says so; without one the digest does.
    for etags in [Some(("\"v1\"", "\"v2\"")), None] {
        let fixture = Fixture::new();
        let linked =
            |content: &[u8]| headers(&[("x-linked-etag", &format!("\"{}\"", sha256(content)))]);
        let behaviour = Behaviour {
            cuts: vec![200_000],
            etag: etags.map(|e| e.0),
            headers: linked(&old),
            ..Behaviour::default()
        };
        let (server, options) = hub(&old, behaviour).await;
        let impatient = PullOptions {
            attempts_max: 1,
            ..options.clone()
        };
        let error = fixture
            .store
            .pull(&spec(HUB_SPEC), &impatient, &NoProgress)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                ModelError::Network {
                    bytes_kept: 1..,
                    ..
                }
            ),
            "{error:?}"
        );
        *server.content.lock().unwrap() = new.clone().into();
        {
            let mut behaviour = server.behaviour.lock().unwrap();
            behaviour.etag = etags.map(|e| e.1);
            behaviour.headers = linked(&new);
        }
        let result = fixture
            .store
            .pull(&spec(HUB_SPEC), &options, &NoProgress)
            .await;
        match result {
            Ok(pulled) => assert_eq!(pulled.model.manifest.sha256, sha256(&new)),
            // The sizes differ, which is seen before the digest could be; the next pull begins afresh.
            Err(ModelError::SizeMismatch { .. }) => {
                let pulled = fixture
                    .store
                    .pull(&spec(HUB_SPEC), &options, &NoProgress)
                    .await
                    .unwrap();
                assert_eq!(pulled.model.manifest.sha256, sha256(&new));
            }
            Err(error) => panic!("{etags:?}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_spoiled_partial_file_is_noticed_and_replaced() {
    let fixture = Fixture::new();
    let content = model_of(512);
    let digest = format!("\"{}\"", sha256(&content));
    let behaviour = Behaviour {
        cuts: vec![200_000],
        headers: headers(&[("x-linked-etag", &digest)]),
        ..Behaviour::default()
    };
    let (_, options) = hub(&content, behaviour).await;
    let impatient = PullOptions {
        attempts_max: 1,
        ..options.clone()
    };
    fixture
        .store
        .pull(&spec(HUB_SPEC), &impatient, &NoProgress)
        .await
        .unwrap_err();
    let partial = fixture
        .store
        .directory()
        .join("blobs/owner.tiny-f32.partial");
    let mut spoiled = std::fs::read(&partial).unwrap();
    spoiled[1000] ^= 1;
    std::fs::write(&partial, spoiled).unwrap();
    let reports = Reports::default();
    let pulled = fixture
        .store
        .pull(&spec(HUB_SPEC), &options, &reports)
        .await
        .unwrap();
    assert_eq!(pulled.model.manifest.sha256, sha256(&content));
    assert!(
        reports.notes().contains("starts over"),
        "{}",
        reports.notes()
    );
}

#[tokio::test]
async fn refusals_say_the_next_step() {
    for (status, expected) in [
        (404, "does not exist"),
        (401, "HF_TOKEN"),
        (403, "HF_TOKEN"),
        (418, "status 418"),
        (503, "run the same command again"),
    ] {
        let fixture = Fixture::new();
        let (server, mut options) = hub(
            &[],
            Behaviour {
                status: Some(status),
                ..Behaviour::default()
            },
        )
        .await;
        options.attempts_max = 3;
        let error = fixture
            .store
            .pull(&spec(HUB_SPEC), &options, &NoProgress)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{status}: {error}");
        assert_eq!(server.request_count(), if status == 503 { 3 } else { 1 });
        assert!(fixture.store.list().unwrap().models.is_empty());
    }
}

#[tokio::test]
async fn sizes_that_contradict_each_other_are_refused() {
    let fixture = Fixture::new();
    let content = model_of(8);
    let (_, options) = hub(
        &content,
        Behaviour {
            headers: headers(&[("x-linked-size", "7")]),
            ..Behaviour::default()
        },
    )
    .await;
    let error = fixture
        .store
        .pull(&spec(HUB_SPEC), &options, &NoProgress)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ModelError::SizeMismatch { expected: 7, .. }),
        "{error:?}"
    );

    let huge = 1u64 << 40;
    let headers = headers(&[("x-linked-size", &huge.to_string())]);
    let (_, options) = hub(
        &content,
        Behaviour {
            headers,
            has_no_length: true,
            ..Behaviour::default()
        },
    )
    .await;
    let error = fixture
        .store
        .pull(&spec(HUB_SPEC), &options, &NoProgress)
        .await
        .unwrap_err();
    assert!(matches!(error, ModelError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("bytes needed"), "{error}");
    assert!(fixture.store.list().unwrap().models.is_empty());
}

#[tokio::test]
async fn a_server_that_says_no_length_is_enough() {
    let fixture = Fixture::new();
    let content = model_of(64);
    let server = FileServer::start(
        content.clone(),
        Behaviour {
            has_no_length: true,
            ..Behaviour::default()
        },
    )
    .await;
    let pulled = fixture
        .store
        .pull(&spec(&server.url("/m.gguf?k=v")), &options(), &NoProgress)
        .await
        .unwrap();
    assert_eq!(pulled.model.manifest.sha256, sha256(&content));
    let Source::Url { url } = &pulled.model.manifest.source else {
        panic!()
    };
    assert!(!url.contains("k=v"));
}

#[tokio::test]
async fn redirects_do_not_lead_to_private_addresses() {
    let fixture = Fixture::new();
    let inner = FileServer::start(model_of(8), Behaviour::default()).await;
    let (_, options) = hub(
        &[],
        Behaviour {
            redirect_to: Some(inner.url("")),
            ..Behaviour::default()
        },
    )
    .await;
    // The hub's own address was named by the user; what it redirects to was not.
    let strict = PullOptions {
        allow: honshu_egress::AddressRules::public_only(),
        ..options
    };
    let error = fixture
        .store
        .pull(&spec(HUB_SPEC), &strict, &NoProgress)
        .await
        .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("loopback"), "{source}");
    assert_eq!(inner.request_count(), 0);
}

#[tokio::test]
async fn two_pulls_do_not_collide() {
    let fixture = Fixture::new();
    let content = model_of(1024);
    let behaviour = Behaviour {
        pause: Duration::from_millis(3),
        ..Behaviour::default()
    };
    let server = FileServer::start(content, behaviour).await;
    let spec = spec(&server.url("/m.gguf"));
    let (first, second) = (Reports::default(), Reports::default());
    let other = honshu_models::ModelStore::open(fixture.store.directory()).unwrap();
    let (options, patient) = (options(), options());
    let (a, b) = tokio::join!(
        fixture.store.pull(&spec, &options, &first),
        other.pull(&spec, &patient, &second)
    );
    assert!(!a.unwrap().was_present && b.unwrap().was_present);
    assert_eq!(second.0.lock().unwrap()[0], PullEvent::Waiting);
    assert_eq!(server.request_count(), 1);
    let impatient = PullOptions {
        lock_patience: Duration::ZERO,
        ..options.clone()
    };
    let path = fixture.file("slow.gguf", &model_of(8));
    let hold = std::fs::File::open(fixture.store.directory().join(".lock")).unwrap();
    hold.lock().unwrap();
    let error = other
        .pull(&path_spec(&path), &impatient, &NoProgress)
        .await
        .unwrap_err();
    assert!(matches!(error, ModelError::Locked { .. }), "{error:?}");
    assert!(matches!(
        other.remove("local.m"),
        Err(ModelError::Locked { .. })
    ));
}

#[tokio::test]
async fn a_slow_transfer_is_reported_at_least_twice_a_second() {
    let fixture = Fixture::new();
    let behaviour = Behaviour {
        pause: Duration::from_millis(700),
        ..Behaviour::default()
    };
    let server = FileServer::start(model_of(16), behaviour).await;
    let reports = Reports::default();
    let start = std::time::Instant::now();
    fixture
        .store
        .pull(&spec(&server.url("/m.gguf")), &options(), &reports)
        .await
        .unwrap();
    let wanted = (start.elapsed().as_secs_f64() * 2.0) as usize;
    let seen = reports
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|e| matches!(e, PullEvent::Transfer(_)))
        .count();
    assert!(wanted >= 2 && seen >= wanted, "{seen} of {wanted}");
}

#[tokio::test]
async fn a_damaged_store_is_a_problem_and_not_a_failure() {
    let fixture = Fixture::new();
    let path = fixture.file("a.gguf", &model_of(8));
    let copying = PullOptions {
        copy_local: true,
        ..options()
    };
    let model = fixture
        .store
        .pull(&path_spec(&path), &copying, &NoProgress)
        .await
        .unwrap()
        .model;
    let manifests = fixture.store.directory().join("manifests");
    std::fs::write(manifests.join("local.b.json"), b"{").unwrap();
    std::fs::copy(
        manifests.join("local.a.json"),
        manifests.join("local.c.json"),
    )
    .unwrap();
    let listing = fixture.store.list().unwrap();
    assert_eq!((listing.models.len(), listing.problems.len()), (1, 2));
    std::fs::write(&model.path, b"short").unwrap();
    assert!(fixture.store.find("local.a").is_err());
    let mut same_size = model_of(8);
    *same_size.last_mut().unwrap() ^= 1;
    std::fs::write(&model.path, same_size).unwrap();
    let error = fixture.store.verify("local.a", &NoProgress).unwrap_err();
    assert!(
        matches!(error, ModelError::DigestMismatch { .. }),
        "{error:?}"
    );
    for hostile in ["../x", "", ".lock", "a/b", "x\0"] {
        assert!(
            matches!(
                fixture.store.find(hostile),
                Err(ModelError::NotInstalled { .. })
            ),
            "{hostile}"
        );
        assert!(fixture.store.remove(hostile).is_err());
    }
}
