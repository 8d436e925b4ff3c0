//! The life of API keys and their secrets.

use super::*;

#[tokio::test]
async fn both_secrets_authenticate_and_bad_ones_are_refused_alike() {
    let house = House::new().await;
    let key = house.key().await;
    let (one, two) = (secret(&key, 0), secret(&key, 1));
    let principal = house.bearer(&one).unwrap();
    assert_eq!(
        (principal.kind, &principal.id),
        (PrincipalKind::ApiKey, &key.id)
    );
    assert_eq!(principal.secret_name.as_deref(), Some("one"));
    assert_eq!(
        house.bearer(&two).unwrap().secret_name.as_deref(),
        Some("two")
    );
    assert!(
        house
            .control
            .authenticate_bearer(&format!("bEaReR  {one}"), &osaka())
            .is_ok()
    );

    let unknown = honshu_control::PlainSecret::generate(&SystemEntropy);
    house.set(&key.id, "two", "REVOKED").await.unwrap();
    let refusals = [
        house.bearer(""),
        house.bearer("garbage"),
        house.bearer(unknown.reveal()),
        house.bearer(&two),
        house.control.authenticate_bearer(&one, &osaka()),
        house
            .control
            .authenticate_bearer(&format!("Basic {one}"), &osaka()),
        house
            .control
            .authenticate_bearer(&format!("Bearer {one}"), &chicago()),
    ];
    for refusal in refusals {
        let error = Error::from(refusal.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert_eq!(
            error.message(),
            "the required information to complete authentication was not provided or was incorrect"
        );
    }
}

/// What must hold, told a second time and differently from the code: per state, who authenticates and what
/// each action leads to (`None` is 409).
fn model(state: &str, action: &str) -> Option<&'static str> {
    Some(match (state, action) {
        ("REVOKED", "revoke") => "REVOKED",
        ("REVOKED", "wait") => "REVOKED",
        ("REVOKED", _) => return None,
        (_, "revoke") => "REVOKED",
        (_, "wait") => "EXPIRED",
        ("EXPIRED" | "EXPIRED-INACTIVE", "activate" | "deactivate") => return None,
        ("EXPIRED", "renew") => "ACTIVE",
        ("EXPIRED-INACTIVE", "renew") => "INACTIVE",
        (_, "activate") => "ACTIVE",
        (_, "deactivate") => "INACTIVE",
        ("ACTIVE", "renew") => "ACTIVE",
        ("INACTIVE", "renew") => "INACTIVE",
        other => panic!("{other:?}"),
    })
}

#[tokio::test]
async fn every_life_of_a_secret_follows_the_model_and_the_other_secret_serves_on() {
    const ACTIONS: [&str; 5] = ["activate", "deactivate", "revoke", "renew", "wait"];
    let house = House::new().await;
    for first in ACTIONS {
        for second in ACTIONS {
            for third in ACTIONS {
                let mut details = key_details(house.root.as_str(), &["one", "two"]);
                details.key_details[1].time_expiry =
                    Some(house.clock.now().plus(Duration::from_secs(400 * 86_400)));
                let key = house
                    .control
                    .create_api_key(&house.ctx(), details, None)
                    .await
                    .unwrap()
                    .value;
                let (mut current, other) = (secret(&key, 0), secret(&key, 1));
                let mut state = "ACTIVE";
                for action in [first, second, third] {
                    let was_inactive = state.ends_with("INACTIVE");
                    let expected = model(state, action);
                    let old = current.clone();
                    let done = match action {
                        "activate" => house.set(&key.id, "one", "ACTIVE").await,
                        "deactivate" => house.set(&key.id, "one", "INACTIVE").await,
                        "revoke" => house.set(&key.id, "one", "REVOKED").await,
                        "renew" => house.renew(&key.id, "one", None).await,
                        _ => {
                            house.pass(Duration::from_secs(100 * 86_400));
                            Ok(house
                                .control
                                .get_api_key(&house.ctx(), key.id.as_str())
                                .unwrap()
                                .value)
                        }
                    };
                    let place = format!("{first} {second} {third}: {state} {action}");
                    match expected {
                        None => assert_eq!(done.unwrap_err(), ErrorKind::Conflict, "{place}"),
                        Some(next) => {
                            let shown = done.unwrap();
                            assert_eq!(shown.keys[0].state, next, "{place}");
                            if action == "renew" {
                                current = secret(&shown, 0);
                                assert_eq!(shown.keys[1].key, None);
                                assert!(house.bearer(&old).is_err(), "{place}");
                            }
                            state = if next == "EXPIRED" && was_inactive {
                                "EXPIRED-INACTIVE"
                            } else {
                                next
                            };
                        }
                    }
                    assert_eq!(house.bearer(&current).is_ok(), state == "ACTIVE", "{place}");
                    assert!(house.bearer(&other).is_ok(), "{place}");
                }
                house
                    .control
                    .delete_api_key(&house.ctx(), key.id.as_str(), None)
                    .await
                    .unwrap();
                assert!(house.bearer(&other).is_err());
            }
        }
    }
}

#[tokio::test]
async fn bad_creates_are_refused_with_every_problem() {
    let house = House::new().await;
    let mut details = key_details(house.root.as_str(), &["1st", "a", "A"]);
    details.display_name = "日本".to_owned();
    details.key_details[1].time_expiry = Some(house.clock.now());
    let error = house
        .control
        .create_api_key(&house.ctx(), details, None)
        .await
        .unwrap_err();
    let paths: Vec<&str> = error
        .problems()
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "displayName",
            "keyDetails",
            "keyDetails[0].keyName",
            "keyDetails[1].timeExpiry",
            "keyDetails[2].keyName"
        ]
    );
    let none = house
        .control
        .create_api_key(&house.ctx(), key_details(house.root.as_str(), &[]), None)
        .await;
    assert_eq!(kind(none), ErrorKind::Invalid);
    let key = house.key().await;
    assert_eq!(
        key.keys[0].time_expiry,
        Timestamp::parse_rfc3339("2027-02-23T00:00:00Z").unwrap()
    );
    assert_eq!(
        house.set(&key.id, "one", "EXPIRED").await.unwrap_err(),
        ErrorKind::Invalid
    );
    assert_eq!(
        house.set(&key.id, "three", "ACTIVE").await.unwrap_err(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn a_key_of_another_region_is_not_there() {
    let house = House::new().await;
    let key = house.key().await;
    let chicago = house.ctx_of(house.admin.clone(), &chicago());
    assert_eq!(
        kind(house.control.get_api_key(&chicago, key.id.as_str())),
        ErrorKind::NotFound
    );
    let asked = ListApiKeys {
        compartment_id: "root".to_owned(),
        ..ListApiKeys::default()
    };
    assert!(
        house
            .control
            .list_api_keys(&chicago, &asked)
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        house
            .control
            .list_api_keys(&house.ctx(), &asked)
            .unwrap()
            .items
            .len(),
        1
    );
}

#[tokio::test]
async fn a_repeated_create_makes_one_key_and_shows_its_secrets_for_a_while() {
    let house = House::new().await;
    let details = || key_details(house.root.as_str(), &["one"]);
    let create = |details| {
        let ctx = house.ctx();
        let control = Arc::clone(&house.control);
        async move { control.create_api_key(&ctx, details, Some("token")).await }
    };
    // At the same time, as a client that lost its connection would.
    let (first, second) = tokio::join!(create(details()), create(details()));
    let (first, second) = (first.unwrap().value, second.unwrap().value);
    assert_eq!(first, second);
    assert!(house.bearer(&secret(&first, 0)).is_ok());

    let mut other = details();
    other.description = Some("else".to_owned());
    let refused = create(other).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.code()),
        (ErrorKind::Conflict, Some("InvalidatedRetryToken"))
    );

    house.pass(Duration::from_secs(12 * 60));
    let later = create(details()).await.unwrap().value;
    assert_eq!((later.id, &later.keys[0].key), (first.id.clone(), &None));
    house.pass(Duration::from_secs(24 * 3600));
    assert_ne!(create(details()).await.unwrap().value.id, first.id);
}

#[tokio::test]
async fn a_repeated_renew_gives_the_same_secret() {
    let house = House::new().await;
    let key = house.key().await;
    let first = house.renew(&key.id, "one", Some("t")).await.unwrap();
    let second = house.renew(&key.id, "one", Some("t")).await.unwrap();
    assert_eq!(secret(&first, 0), secret(&second, 0));
    assert!(house.bearer(&secret(&first, 0)).is_ok());
    let third = house.renew(&key.id, "one", Some("u")).await.unwrap();
    assert_ne!(secret(&first, 0), secret(&third, 0));
}

#[tokio::test]
async fn if_match_guards_and_unguarded_changes_all_land() {
    let house = House::new().await;
    let key = house.key().await;
    let id = key.id.as_str();
    let named = |name: &str| oci::UpdateApiKeyDetails {
        display_name: Some(name.to_owned()),
        ..Default::default()
    };
    let got = house.control.get_api_key(&house.ctx(), id).unwrap();
    let updated = house
        .control
        .update_api_key(&house.ctx(), id, named("b"), Some(&got.etag))
        .await
        .unwrap();
    assert_ne!(updated.etag, got.etag);
    let stale = house
        .control
        .update_api_key(&house.ctx(), id, named("c"), Some(&got.etag))
        .await;
    assert_eq!(kind(stale), ErrorKind::PreconditionFailed);
    assert_eq!(
        kind(
            house
                .control
                .delete_api_key(&house.ctx(), id, Some("nonsense"))
                .await
        ),
        ErrorKind::PreconditionFailed
    );
    let (one, two) = tokio::join!(
        house.set(&key.id, "one", "INACTIVE"),
        house.set(&key.id, "two", "REVOKED")
    );
    one.unwrap();
    two.unwrap();
    let states: Vec<String> = house
        .control
        .get_api_key(&house.ctx(), id)
        .unwrap()
        .value
        .keys
        .into_iter()
        .map(|item| item.state)
        .collect();
    assert_eq!(states, ["INACTIVE", "REVOKED"]);
    house
        .control
        .delete_api_key(&house.ctx(), id, Some("*"))
        .await
        .unwrap();
}

#[tokio::test]
async fn last_use_is_shown_at_once_and_survives_a_restart_after_the_flush() {
    let house = House::new().await;
    let key = house.key().await;
    house.pass(Duration::from_secs(60));
    house.bearer(&secret(&key, 0)).unwrap();
    let used = house.clock.now();
    let shown = house
        .control
        .get_api_key(&house.ctx(), key.id.as_str())
        .unwrap()
        .value;
    assert_eq!(
        (shown.keys[0].time_last_used, shown.keys[1].time_last_used),
        (Some(used), None)
    );
    // A change keeps it.
    house.set(&key.id, "two", "INACTIVE").await.unwrap();
    let shown = house
        .control
        .get_api_key(&house.ctx(), key.id.as_str())
        .unwrap()
        .value;
    assert_eq!(shown.keys[0].time_last_used, Some(used));
    house.pass(Duration::from_secs(60));
    house.bearer(&secret(&key, 0)).unwrap();
    let used = house.clock.now();
    assert_eq!(house.control.flush_last_used().await.unwrap(), 1);
    assert_eq!(house.control.flush_last_used().await.unwrap(), 0);
    let ctx = house.ctx();
    let House {
        home: _home,
        directory,
        clock,
        control,
        ..
    } = house;
    drop(control);
    let control = open(&directory.unwrap(), clock).await;
    assert_eq!(
        control
            .get_api_key(&ctx, key.id.as_str())
            .unwrap()
            .value
            .keys[0]
            .time_last_used,
        Some(used)
    );
    assert!(
        control
            .authenticate_bearer(&format!("Bearer {}", secret(&key, 0)), &osaka())
            .is_ok()
    );
}

#[tokio::test]
async fn no_file_holds_a_secret_or_the_pepper_beside_its_own() {
    let house = House::new().await;
    let details = key_details(house.root.as_str(), &["one", "two"]);
    let key = house
        .control
        .create_api_key(&house.ctx(), details, Some("token"))
        .await
        .unwrap()
        .value;
    let renewed = house.renew(&key.id, "one", Some("t2")).await.unwrap();
    let pepper = std::fs::read_to_string(house.home.path().join("pepper")).unwrap();
    let needles = [
        secret(&key, 0),
        secret(&key, 1),
        secret(&renewed, 0),
        pepper.trim().to_owned(),
    ];
    let mut searched = 0;
    for entry in std::fs::read_dir(house.home.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() || path.ends_with("pepper") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        searched += 1;
        for needle in &needles {
            assert!(
                !bytes
                    .windows(needle.len())
                    .any(|window| window == needle.as_bytes()),
                "{}",
                path.display()
            );
        }
    }
    assert!(searched >= 2);
    let shown = format!("{key:?} {:?}", house.bearer(&secret(&key, 1)));
    assert!(
        needles
            .iter()
            .all(|needle| !shown.contains(needle.as_str()))
    );
}

#[tokio::test]
async fn pages_of_keys_show_each_once() {
    let house = House::new().await;
    for _ in 0..7 {
        house.key().await;
        house.pass(Duration::from_secs(1));
    }
    let mut asked = ListApiKeys {
        compartment_id: "root".to_owned(),
        ..ListApiKeys::default()
    };
    asked.page = PageRequest {
        limit: Some(3),
        ..PageRequest::default()
    };
    let mut times = Vec::new();
    loop {
        let page = house.control.list_api_keys(&house.ctx(), &asked).unwrap();
        assert!(
            page.items
                .iter()
                .flat_map(|key| &key.keys)
                .all(|item| item.key.is_none())
        );
        times.extend(page.items.iter().map(|key| key.time_created));
        asked.page.page = page.next_page;
        if asked.page.page.is_none() {
            break;
        }
    }
    assert_eq!(times.len(), 7);
    assert!(times.is_sorted_by(|newer, older| newer > older));
}

/// Run with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_authentication() {
    let house = House::new().await;
    let key = house.key().await;
    let header = format!("Bearer {}", secret(&key, 0));
    let region = osaka();
    let rounds = 200_000_u32;
    let began = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(house.control.authenticate_bearer(&header, &region).unwrap());
    }
    println!("{:?} an authentication", began.elapsed() / rounds);
}
