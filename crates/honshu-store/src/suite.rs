//! What any store has to do, as cases that run against every implementation. Each case gets a fresh store.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a case that fails panics: this module is a test"
)]

use std::future::Future;
use std::sync::{Arc, Mutex};

use honshu_domain::{Ocid, Timestamp, Usage, UsageRow};

use crate::command::{Change, Command, RetryEntry};
use crate::error::StoreError;
use crate::rows::{
    ApiKeyRow, CompartmentRow, ControlState, GroupRow, MembershipRow, PolicyRow, SecretRow,
    SecretState, SigningKeyRow, TenancyRow, UserRow,
};
use crate::store::Store;

/// Runs every case. `fresh` makes an empty store.
///
/// # Panics
/// When the store does not do what it has to.
pub async fn run<S: Store + 'static, F: Future<Output = S>>(fresh: impl Fn() -> F) {
    everything_written_is_read_back(&fresh().await).await;
    a_command_is_all_or_nothing(&fresh().await).await;
    names_are_unique_without_regard_to_case(&fresh().await).await;
    versions_guard_changes(&fresh().await).await;
    only_empty_compartments_go(&fresh().await).await;
    retry_tokens_are_taken_once(&fresh().await).await;
    last_used_times_move_forward(&fresh().await).await;
    usage_rows_count_once(&fresh().await).await;
    commits_are_told_before_they_are_answered(&fresh().await).await;
    dropped_answers_do_not_stop_the_work(&fresh().await).await;
}

fn id(kind: &str, name: &str) -> Ocid {
    Ocid::parse(&format!("ocid1.{kind}.oc1..{name}")).expect("an OCID")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn command(changes: Vec<Change>) -> Command {
    Command {
        operation: "Test".to_owned(),
        principal: Some("someone".to_owned()),
        request_id: None,
        at: at(100),
        retry: None,
        changes,
    }
}

fn compartment(name: &str, parent: Option<&str>) -> CompartmentRow {
    CompartmentRow {
        id: id("compartment", &name.to_lowercase()),
        parent: parent.map(|parent| id("compartment", parent)),
        name: name.to_owned(),
        description: String::new(),
        freeform_tags: "{}".to_owned(),
        defined_tags: "{}".to_owned(),
        created: at(1),
        updated: at(1),
        version: 1,
    }
}

/// A key with two secrets whose digests come from `seed`.
fn key(name: &str, seed: u8) -> ApiKeyRow {
    let secret = |name: &str, seed: u8| SecretRow {
        name: name.to_owned(),
        digest: [seed; 32],
        mask: "sk-****abcd".to_owned(),
        state: SecretState::Active,
        created: at(10),
        expires: at(1_000),
        activated: Some(at(10)),
        deactivated: None,
        revoked: None,
        last_used: None,
    };
    ApiKeyRow {
        id: id("generativeaiapikey", name),
        compartment: id("compartment", "root"),
        region: "local-1".to_owned(),
        display_name: name.to_owned(),
        description: Some("日本".to_owned()),
        freeform_tags: "{\"a\":\"b\"}".to_owned(),
        defined_tags: "{}".to_owned(),
        created: at(10),
        updated: at(10),
        version: 1,
        secrets: vec![secret("one", seed), secret("two", seed + 1)],
    }
}

fn policy() -> PolicyRow {
    PolicyRow {
        id: id("policy", "p"),
        compartment: id("compartment", "root"),
        name: "P".to_owned(),
        description: "d".to_owned(),
        statements: vec!["allow a".to_owned(), "allow \"b\"".to_owned()],
        version_date: Some("2026-01-01".to_owned()),
        freeform_tags: "{}".to_owned(),
        defined_tags: "{}".to_owned(),
        created: at(1),
        updated: at(2),
        version: 1,
    }
}

async fn seed(store: &dyn Store) {
    apply(
        store,
        vec![Change::InsertCompartment(compartment("root", None))],
    )
    .await
    .expect("the root");
}

async fn apply(store: &dyn Store, changes: Vec<Change>) -> Result<(), StoreError> {
    store.apply(command(changes)).await.map(drop)
}

async fn everything_written_is_read_back(store: &dyn Store) {
    assert_eq!(store.load().await.expect("empty"), ControlState::default());
    let tenancy = TenancyRow {
        id: id("tenancy", "t"),
        name: "t".to_owned(),
        home_region: "local-1".to_owned(),
        deny_enabled: true,
        created: at(5),
    };
    let user = UserRow {
        id: id("user", "u"),
        name: "U".to_owned(),
        description: "d".to_owned(),
        email: Some("u@example.com".to_owned()),
        active: true,
        created: at(5),
        version: 1,
    };
    let group = GroupRow {
        id: id("group", "g"),
        name: "G".to_owned(),
        description: "d".to_owned(),
        created: at(5),
        version: 1,
    };
    let member = MembershipRow {
        user: user.id.clone(),
        group: group.id.clone(),
        created: at(6),
    };
    let signing = SigningKeyRow {
        user: user.id.clone(),
        fingerprint: "aa:bb".to_owned(),
        public_key_pem: "PEM".to_owned(),
        created: at(7),
    };
    let compartments = vec![
        compartment("root", None),
        compartment("b", Some("root")),
        compartment("a", Some("b")),
    ];
    let mut changes = vec![
        Change::InsertTenancy(tenancy.clone()),
        Change::InsertUser(user.clone()),
        Change::InsertGroup(group.clone()),
        Change::InsertMembership(member.clone()),
        Change::InsertSigningKey(signing.clone()),
    ];
    changes.extend(compartments.iter().cloned().map(Change::InsertCompartment));
    changes.push(Change::InsertPolicy(policy()));
    changes.push(Change::InsertApiKey(key("k", 1)));
    changes.push(Change::SetSetting("s".to_owned(), "1".to_owned()));
    changes.push(Change::SetSetting("s".to_owned(), "2".to_owned()));
    let applied = store.apply(command(changes)).await.expect("everything");
    let read = store.load().await.expect("read");
    assert_eq!(
        read,
        ControlState {
            sequence: applied.sequence,
            tenancy: Some(tenancy.clone()),
            compartments,
            users: vec![user],
            signing_keys: vec![signing],
            groups: vec![group],
            memberships: vec![member],
            policies: vec![policy()],
            api_keys: vec![key("k", 1)],
            settings: [("s".to_owned(), "2".to_owned())].into(),
        }
    );
    let other = TenancyRow {
        id: id("tenancy", "other"),
        ..tenancy
    };
    let second = apply(store, vec![Change::InsertTenancy(other)]).await;
    assert!(
        matches!(second, Err(StoreError::Duplicate { what: "tenancy" })),
        "{second:?}"
    );
    let log = store.list_log(0, 10).await.expect("log");
    assert_eq!(log.len(), 1);
    assert_eq!(
        (log[0].operation.as_str(), log[0].resource.as_deref()),
        ("Test", Some("ocid1.tenancy.oc1..t"))
    );
}

async fn a_command_is_all_or_nothing(store: &dyn Store) {
    seed(store).await;
    let before = store.load().await.expect("read");
    let mut same_digest = key("k2", 1);
    same_digest.secrets.truncate(1);
    let failed = apply(
        store,
        vec![
            Change::InsertApiKey(key("k", 1)),
            Change::InsertApiKey(same_digest),
        ],
    )
    .await;
    assert!(
        matches!(failed, Err(StoreError::Duplicate { what: "secret" })),
        "{failed:?}"
    );
    assert_eq!(store.load().await.expect("read"), before);
    // Neighbours in the same group commit are not harmed.
    let good = store.apply(command(vec![Change::InsertApiKey(key("good", 10))]));
    let bad = store.apply(command(vec![Change::DeletePolicy(id("policy", "none"), 1)]));
    let also = store.apply(command(vec![Change::InsertApiKey(key("also", 20))]));
    good.await.expect("good");
    assert!(matches!(bad.await, Err(StoreError::NotFound)));
    also.await.expect("also");
    assert_eq!(store.load().await.expect("read").api_keys.len(), 2);
}

async fn names_are_unique_without_regard_to_case(store: &dyn Store) {
    seed(store).await;
    apply(
        store,
        vec![Change::InsertCompartment(compartment("Dev", Some("root")))],
    )
    .await
    .expect("Dev");
    let mut twin = compartment("DEV", Some("root"));
    twin.id = id("compartment", "twin");
    let refused = apply(store, vec![Change::InsertCompartment(twin.clone())]).await;
    assert!(
        matches!(
            refused,
            Err(StoreError::Duplicate {
                what: "compartment name"
            })
        ),
        "{refused:?}"
    );
    twin.parent = Some(id("compartment", "dev"));
    apply(store, vec![Change::InsertCompartment(twin)])
        .await
        .expect("the same name elsewhere");
    apply(store, vec![Change::InsertPolicy(policy())])
        .await
        .expect("P");
    let twin = PolicyRow {
        id: id("policy", "q"),
        name: "p".to_owned(),
        ..policy()
    };
    let refused = apply(store, vec![Change::InsertPolicy(twin)]).await;
    assert!(
        matches!(
            refused,
            Err(StoreError::Duplicate {
                what: "policy name"
            })
        ),
        "{refused:?}"
    );
}

async fn versions_guard_changes(store: &dyn Store) {
    seed(store).await;
    let mut tenancy = TenancyRow {
        id: id("tenancy", "t"),
        name: "t".to_owned(),
        home_region: "local-1".to_owned(),
        deny_enabled: false,
        created: at(5),
    };
    let made = Change::InsertTenancy(tenancy.clone());
    tenancy.deny_enabled = true;
    apply(store, vec![made, Change::PutTenancy(tenancy.clone())])
        .await
        .expect("changed");
    assert_eq!(
        store.load().await.expect("read").tenancy,
        Some(tenancy.clone())
    );
    tenancy.id = id("tenancy", "nobody");
    assert!(matches!(
        apply(store, vec![Change::PutTenancy(tenancy)]).await,
        Err(StoreError::NotFound)
    ));
    apply(
        store,
        vec![
            Change::InsertApiKey(key("k", 1)),
            Change::InsertPolicy(policy()),
        ],
    )
    .await
    .expect("made");
    let mut row = key("k", 5);
    row.version = 2;
    apply(store, vec![Change::PutApiKey(row.clone(), 1)])
        .await
        .expect("version 1 was there");
    assert_eq!(
        store.load().await.expect("read").api_keys,
        vec![row.clone()]
    );
    for change in [
        Change::PutApiKey(row.clone(), 1),
        Change::DeleteApiKey(row.id.clone(), 1),
        Change::PutPolicy(policy(), 7),
        Change::PutCompartment(compartment("root", None), 7),
    ] {
        let refused = apply(store, vec![change]).await;
        assert!(matches!(refused, Err(StoreError::Stale)), "{refused:?}");
    }
    assert!(matches!(
        apply(store, vec![Change::PutApiKey(key("none", 9), 1)]).await,
        Err(StoreError::NotFound)
    ));
    apply(store, vec![Change::DeleteApiKey(row.id.clone(), 2)])
        .await
        .expect("deleted");
    // The digests went with it.
    apply(store, vec![Change::InsertApiKey(key("k2", 5))])
        .await
        .expect("digest free again");
}

async fn only_empty_compartments_go(store: &dyn Store) {
    seed(store).await;
    let root = id("compartment", "root");
    let cases = [
        (
            Change::InsertCompartment(compartment("c", Some("root"))),
            "compartments",
            Change::DeleteCompartment(id("compartment", "c"), 1),
        ),
        (
            Change::InsertApiKey(key("k", 1)),
            "API keys",
            Change::DeleteApiKey(id("generativeaiapikey", "k"), 1),
        ),
        (
            Change::InsertPolicy(policy()),
            "policies",
            Change::DeletePolicy(id("policy", "p"), 1),
        ),
    ];
    for (fill, expected, empty) in cases {
        apply(store, vec![fill]).await.expect("filled");
        match apply(store, vec![Change::DeleteCompartment(root.clone(), 1)]).await {
            Err(StoreError::NotEmpty { what }) => assert_eq!(what, expected),
            other => panic!("{other:?}"),
        }
        apply(store, vec![empty]).await.expect("emptied");
    }
    apply(store, vec![Change::DeleteCompartment(root, 1)])
        .await
        .expect("empty");
}

async fn retry_tokens_are_taken_once(store: &dyn Store) {
    seed(store).await;
    let entry = |token: &str, resource: &str, expires: i64| RetryEntry {
        principal: "u".to_owned(),
        operation: "Create".to_owned(),
        token: token.to_owned(),
        request_digest: [7; 32],
        resource: resource.to_owned(),
        expires: at(expires),
    };
    let with = |retry: RetryEntry, now: i64, changes: Vec<Change>| Command {
        at: at(now),
        retry: Some(retry),
        ..command(changes)
    };
    let first = entry("a", "k", 200);
    store
        .apply(with(
            first.clone(),
            100,
            vec![Change::InsertApiKey(key("k", 1))],
        ))
        .await
        .expect("first");
    let second = store
        .apply(with(
            first.clone(),
            150,
            vec![Change::InsertApiKey(key("k2", 5))],
        ))
        .await;
    assert!(
        matches!(second, Err(StoreError::RetryTokenTaken)),
        "{second:?}"
    );
    assert_eq!(
        store
            .find_retry("u", "Create", "a", at(199))
            .await
            .expect("read"),
        Some(first.clone())
    );
    // The loser of a race finds the winner, also when both stood in one transaction.
    let racing = entry("race", "r1", 200);
    let winner = store.apply(with(racing.clone(), 100, vec![]));
    let loser = store.apply(with(racing.clone(), 100, vec![]));
    assert!(matches!(loser.await, Err(StoreError::RetryTokenTaken)));
    assert_eq!(
        store
            .find_retry("u", "Create", "race", at(150))
            .await
            .expect("read"),
        Some(racing)
    );
    winner.await.expect("the first");
    for (principal, operation, token, now) in [
        ("v", "Create", "a", 150),
        ("u", "Renew", "a", 150),
        ("u", "Create", "b", 150),
        ("u", "Create", "a", 200),
    ] {
        assert_eq!(
            store
                .find_retry(principal, operation, token, at(now))
                .await
                .expect("read"),
            None
        );
    }
    store
        .apply(with(entry("a", "k3", 500), 200, vec![]))
        .await
        .expect("forgotten tokens may be used again");
    // A command that fails takes no token.
    let failing = vec![Change::DeletePolicy(id("policy", "none"), 1)];
    assert!(
        store
            .apply(with(entry("c", "x", 500), 200, failing))
            .await
            .is_err()
    );
    assert_eq!(
        store
            .find_retry("u", "Create", "c", at(201))
            .await
            .expect("read"),
        None
    );
}

async fn last_used_times_move_forward(store: &dyn Store) {
    seed(store).await;
    apply(store, vec![Change::InsertApiKey(key("k", 1))])
        .await
        .expect("made");
    let touch = |secret: &str, seconds: i64| {
        Change::TouchSecrets(vec![(
            id("generativeaiapikey", "k"),
            secret.to_owned(),
            at(seconds),
        )])
    };
    for (secret, seconds) in [("one", 50), ("one", 40), ("two", 5), ("gone", 60)] {
        apply(store, vec![touch(secret, seconds)])
            .await
            .expect("touched");
    }
    let keys = store.load().await.expect("read").api_keys;
    // Before its own creation a secret was another one: that use does not count.
    assert_eq!(
        (keys[0].secrets[0].last_used, keys[0].secrets[1].last_used),
        (Some(at(50)), None)
    );
    assert_eq!(keys[0].version, 1);
}

/// A row of usage, for tests of this crate and of its users.
pub fn usage_row(run: &str, started: Timestamp) -> UsageRow {
    UsageRow {
        run_id: run.into(),
        request_id: "R".into(),
        started,
        principal: id("generativeaiapikey", "k"),
        secret_name: Some("one".into()),
        compartment: id("compartment", "c"),
        region: "local-1".into(),
        operation: "responses".into(),
        model_asked: "a".into(),
        model_served: "b".into(),
        deployment: "engine".into(),
        attempts: 1,
        status: "completed".into(),
        reason: None,
        usage: Usage {
            input_tokens: 1,
            cached_input_tokens: 2,
            cache_write_tokens: 3,
            output_tokens: 4,
            reasoning_tokens: 5,
        },
        usage_exact: true,
        first_event_us: Some(9),
        total_us: 10,
    }
}

async fn usage_rows_count_once(store: &dyn Store) {
    let rows: Vec<UsageRow> = (0..5)
        .map(|n| usage_row(&format!("run{n}"), at(n)))
        .collect();
    assert_eq!(
        store
            .ingest_usage(rows[..3].to_vec())
            .await
            .expect("written"),
        3
    );
    assert_eq!(store.ingest_usage(rows.clone()).await.expect("written"), 2);
    assert_eq!(
        store.list_usage(at(0), at(100), 100).await.expect("read"),
        rows
    );
    assert_eq!(
        store.list_usage(at(1), at(4), 2).await.expect("read"),
        rows[1..3]
    );
}

async fn commits_are_told_before_they_are_answered(store: &dyn Store) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    store.observe(Arc::new(move |committed| {
        told.lock()
            .expect("unpoisoned")
            .extend(committed.iter().flat_map(|commit| commit.changes.clone()));
    }));
    seed(store).await;
    assert!(
        apply(store, vec![Change::DeletePolicy(id("policy", "none"), 1)])
            .await
            .is_err()
    );
    assert_eq!(
        *seen.lock().expect("unpoisoned"),
        [Change::InsertCompartment(compartment("root", None))]
    );
}

async fn dropped_answers_do_not_stop_the_work(store: &dyn Store) {
    seed(store).await;
    for n in 0..100_u8 {
        drop(store.apply(command(vec![Change::InsertApiKey(key(
            &format!("k{n}"),
            n * 2,
        ))])));
    }
    // Work is serial: when this one is answered, the others are done.
    apply(
        store,
        vec![Change::SetSetting("end".to_owned(), String::new())],
    )
    .await
    .expect("end");
    assert_eq!(store.load().await.expect("read").api_keys.len(), 100);
}
