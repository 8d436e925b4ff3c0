//! The control plane by behaviour: real store, real policies, a clock that the test moves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use honshu_control::{
    AdminProfile, Bootstrap, Control, ControlError, Initialised, ListApiKeys, ListCompartments,
    ListPolicies, OpCtx, PageRequest, Pepper,
};
use honshu_domain::{
    Clock, Error, ErrorKind, Ocid, Principal, PrincipalKind, Region, RequestId, SystemEntropy,
    Timestamp,
};
use honshu_policy::{Authorizer as _, Permission, Target};
use honshu_signature::{CanonicalRequest, PrivateKey};
use honshu_store::{DataDir, SqliteStore, Store};
use honshu_wire::oci;

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

struct House {
    home: tempfile::TempDir,
    directory: Option<DataDir>,
    clock: Arc<TestClock>,
    control: Arc<Control>,
    admin: Principal,
    root: Ocid,
}

fn osaka() -> Region {
    Region::new("ap-osaka-1", "KIX")
}

fn chicago() -> Region {
    Region::new("us-chicago-1", "ORD")
}

fn start() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-23T00:00:00Z").unwrap()
}

async fn open(directory: &DataDir, clock: Arc<TestClock>) -> Arc<Control> {
    let pepper = Pepper::load_or_create(directory.path(), &SystemEntropy).unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(directory).unwrap());
    Control::open(
        store,
        pepper,
        vec![osaka(), chicago()],
        clock,
        Arc::new(SystemEntropy),
    )
    .await
    .unwrap()
}

impl House {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(start().as_micros())));
        let bootstrap = Bootstrap::new(clock.clone(), Arc::new(SystemEntropy));
        let made = bootstrap.init(home.path(), &osaka()).await.unwrap();
        let Initialised::Made { tenancy, user, .. } = made else {
            panic!("{made}")
        };
        let directory = DataDir::open(home.path()).unwrap();
        let control = open(&directory, clock.clone()).await;
        let admin = control.authenticate_admin(home.path(), &user);
        Self {
            home,
            directory: Some(directory),
            clock,
            control,
            admin,
            root: tenancy,
        }
    }

    fn ctx(&self) -> OpCtx {
        self.ctx_of(self.admin.clone(), &osaka())
    }

    fn ctx_of(&self, principal: Principal, region: &Region) -> OpCtx {
        OpCtx {
            principal,
            region: region.clone(),
            request_id: RequestId::generate(&SystemEntropy),
            now: self.clock.now(),
        }
    }

    /// A user without any group.
    fn nobody(&self) -> OpCtx {
        let mut principal = self.admin.clone();
        principal.id = Ocid::parse("ocid1.user.oc1..nobody").unwrap();
        principal.groups = Arc::from([]);
        self.ctx_of(principal, &osaka())
    }

    fn pass(&self, time: Duration) {
        self.clock
            .0
            .fetch_add(time.as_micros() as i64, Ordering::Relaxed);
    }

    async fn compartment(&self, name: &str, parent: &str) -> oci::Compartment {
        let details = oci::CreateCompartmentDetails {
            compartment_id: parent.to_owned(),
            name: name.to_owned(),
            description: "d".to_owned(),
            freeform_tags: None,
            defined_tags: None,
        };
        self.control
            .create_compartment(&self.ctx(), details, None)
            .await
            .unwrap()
            .value
    }

    async fn policy(&self, compartment: &str, statement: &str) -> Result<oci::Policy, Error> {
        let details = oci::CreatePolicyDetails {
            compartment_id: compartment.to_owned(),
            name: format!("p{}", self.clock.0.fetch_add(1, Ordering::Relaxed)),
            statements: vec![statement.to_owned()],
            description: "d".to_owned(),
            version_date: None,
            freeform_tags: None,
            defined_tags: None,
        };
        Ok(self
            .control
            .create_policy(&self.ctx(), details, None)
            .await?
            .value)
    }

    async fn key(&self) -> oci::ApiKey {
        let details = key_details(self.root.as_str(), &["one", "two"]);
        self.control
            .create_api_key(&self.ctx(), details, None)
            .await
            .unwrap()
            .value
    }

    fn bearer(&self, secret: &str) -> Result<Principal, honshu_control::Unauthenticated> {
        self.control
            .authenticate_bearer(&format!("Bearer {secret}"), &osaka())
    }

    async fn set(&self, id: &Ocid, name: &str, state: &str) -> Result<oci::ApiKey, ErrorKind> {
        let details = oci::SetApiKeyStateDetails {
            key_name: name.to_owned(),
            state: state.to_owned(),
            freeform_tags: None,
            defined_tags: None,
        };
        let result = self
            .control
            .set_api_key_state(&self.ctx(), id.as_str(), details, None)
            .await;
        result.map(|key| key.value).map_err(|error| error.kind())
    }

    async fn renew(
        &self,
        id: &Ocid,
        name: &str,
        token: Option<&str>,
    ) -> Result<oci::ApiKey, ErrorKind> {
        let details = oci::RenewApiKeyDetails {
            details: oci::KeyDetails {
                key_name: name.to_owned(),
                time_expiry: None,
            },
            freeform_tags: None,
            defined_tags: None,
        };
        let result = self
            .control
            .renew_api_key(&self.ctx(), id.as_str(), details, None, token)
            .await;
        result.map(|key| key.value).map_err(|error| error.kind())
    }

    fn chat(&self, principal: &Principal, compartment: &Ocid) -> bool {
        self.control
            .authorizer(&osaka())
            .authorize(
                principal,
                Permission::GENERATIVE_AI_CHAT,
                &Target::new(compartment.as_str()).model("m"),
            )
            .is_ok()
    }
}

/// Signs in with what `init` wrote, as any OCI client would.
trait SignIn {
    fn authenticate_admin(&self, home: &Path, user: &Ocid) -> Principal;
}

impl SignIn for Arc<Control> {
    fn authenticate_admin(&self, home: &Path, user: &Ocid) -> Principal {
        let headers = signed(home, "GET", "/20160918/compartments", self.now());
        let request = CanonicalRequest {
            method: &http::Method::GET,
            raw_target: "/20160918/compartments",
            headers: &headers,
        };
        let caller = self
            .authenticate_signature(headers["authorization"].as_bytes(), &request)
            .unwrap();
        assert_eq!(caller.principal.id, *user);
        caller.principal
    }
}

fn config(home: &Path) -> std::collections::HashMap<String, String> {
    std::fs::read_to_string(AdminProfile::of(home).config)
        .unwrap()
        .lines()
        .filter_map(|line| {
            line.split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn signed(home: &Path, method: &str, target: &str, now: Timestamp) -> http::HeaderMap {
    let config = config(home);
    let key = PrivateKey::from_pem(&std::fs::read_to_string(&config["key_file"]).unwrap()).unwrap();
    let key_id = format!(
        "{}/{}/{}",
        config["tenancy"], config["user"], config["fingerprint"]
    );
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://127.0.0.1:8080{target}"))
        .header("host", "127.0.0.1:8080")
        .body(())
        .unwrap()
        .into_parts()
        .0;
    honshu_signature::sign_request(&mut request, b"", now.as_seconds(), &key_id, &key).unwrap();
    request.headers
}

fn key_details(compartment: &str, names: &[&str]) -> oci::CreateApiKeyDetails {
    oci::CreateApiKeyDetails {
        display_name: "app".to_owned(),
        description: None,
        compartment_id: compartment.to_owned(),
        key_details: names
            .iter()
            .map(|name| oci::KeyDetails {
                key_name: (*name).to_owned(),
                time_expiry: None,
            })
            .collect(),
        freeform_tags: None,
        defined_tags: None,
    }
}

fn secret(key: &oci::ApiKey, place: usize) -> String {
    key.keys[place].key.clone().unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn init_is_done_once_and_its_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut house = House::new().await;
    let profile = AdminProfile::of(&house.home.path().canonicalize().unwrap());
    let before = std::fs::read(&profile.key).unwrap();
    for path in [&profile.config, &profile.key] {
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert!(
        std::fs::read_to_string(&profile.config)
            .unwrap()
            .starts_with("[DEFAULT]\nuser=ocid1.user.oc1..")
    );
    let bootstrap = Bootstrap::new(house.clock.clone(), Arc::new(SystemEntropy));
    let refused = bootstrap
        .init(house.home.path(), &osaka())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("in use by process"), "{refused}");
    let House { home, root, .. } = {
        house.directory = None;
        house
    };
    let again = bootstrap.init(home.path(), &osaka()).await.unwrap();
    assert_eq!(
        again,
        Initialised::AlreadyDone {
            tenancy: root,
            profile: profile.clone()
        }
    );
    assert!(again.to_string().starts_with("already initialised"));
    assert_eq!(std::fs::read(&profile.key).unwrap(), before);
}

#[tokio::test]
async fn an_init_that_was_cut_short_is_made_good_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    // What is left when the process dies after the files and before the database.
    std::fs::create_dir_all(home.path().join("admin")).unwrap();
    std::fs::write(home.path().join("admin/config"), "[DEFAULT]\nuser=old\n").unwrap();
    std::fs::write(home.path().join("admin/key.pem.tmp"), "half").unwrap();
    let clock = Arc::new(TestClock(AtomicI64::new(start().as_micros())));
    let bootstrap = Bootstrap::new(clock.clone(), Arc::new(SystemEntropy));
    let Initialised::Made { user, .. } = bootstrap.init(home.path(), &osaka()).await.unwrap()
    else {
        panic!()
    };
    let directory = DataDir::open(home.path()).unwrap();
    open(&directory, clock)
        .await
        .authenticate_admin(home.path(), &user);
}

#[tokio::test]
async fn another_pepper_is_refused_at_start_in_words() {
    let house = House::new().await;
    let House {
        home,
        directory,
        clock,
        control,
        ..
    } = house;
    drop(control);
    std::fs::write(home.path().join("pepper"), "x".repeat(40)).unwrap();
    let directory = directory.unwrap();
    let pepper = Pepper::load_or_create(directory.path(), &SystemEntropy).unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory).unwrap());
    let opened = Control::open(store, pepper, vec![osaka()], clock, Arc::new(SystemEntropy)).await;
    assert!(matches!(opened.err(), Some(ControlError::WrongPepper)));
}

#[tokio::test]
async fn a_signature_counts_for_its_request_time_and_user_only() {
    let house = House::new().await;
    let home = house.home.path();
    let headers = signed(home, "GET", "/20160918/compartments", house.clock.now());
    let verify = |target: &str| {
        let request = CanonicalRequest {
            method: &http::Method::GET,
            raw_target: target,
            headers: &headers,
        };
        house
            .control
            .authenticate_signature(headers["authorization"].as_bytes(), &request)
    };
    assert!(verify("/20160918/compartments").is_ok());
    let other = verify("/20160918/policies").err().unwrap();
    house.pass(Duration::from_secs(301));
    let late = verify("/20160918/compartments").err().unwrap();
    assert_eq!(other.to_string(), late.to_string());
    assert_ne!(other.reason_for_log(), late.reason_for_log());
}

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
async fn a_key_may_do_nothing_until_a_policy_says_so_and_nothing_again_without_it() {
    let house = House::new().await;
    let dev = house.compartment("dev", "root").await;
    let prod = house.compartment("prod", "root").await;
    let key = house.key().await;
    let principal = house.bearer(&secret(&key, 0)).unwrap();
    assert!(!house.chat(&principal, &dev.id));
    let policy = house
        .policy("root", "allow any-user to use generative-ai-family in compartment dev where ALL {request.principal.type='generativeaiapikey'}")
        .await
        .unwrap();
    assert!(house.chat(&principal, &dev.id));
    assert!(!house.chat(&principal, &prod.id));
    house
        .control
        .delete_policy(&house.ctx(), policy.id.as_str(), None)
        .await
        .unwrap();
    assert!(!house.chat(&principal, &dev.id));
    // The management plane takes no key, whatever policies say.
    let ctx = house.ctx_of(principal, &osaka());
    house
        .policy("root", "allow any-user to manage all-resources in tenancy")
        .await
        .unwrap();
    assert_eq!(
        kind(house.control.get_api_key(&ctx, key.id.as_str())),
        ErrorKind::Unauthenticated
    );
}

#[tokio::test]
async fn what_is_forbidden_and_what_is_missing_look_the_same_and_can_be_explained_to_administrators()
 {
    let house = House::new().await;
    let key = house.key().await;
    let nobody = house.nobody();
    let missing = format!("{}x", key.id);
    let forbidden = house
        .control
        .get_api_key(&nobody, key.id.as_str())
        .unwrap_err();
    let absent = house.control.get_api_key(&nobody, &missing).unwrap_err();
    assert_eq!(
        (forbidden.kind(), forbidden.message()),
        (absent.kind(), absent.message())
    );
    assert_eq!(forbidden.kind(), ErrorKind::NotFound);
    let (forbidden, absent) = (
        forbidden.decision_id().unwrap(),
        absent.decision_id().unwrap(),
    );
    assert_eq!(forbidden.len(), absent.len());
    assert_eq!(
        house
            .control
            .get_api_key(&house.ctx(), &missing)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );

    let opened = house.control.explain(&house.ctx(), forbidden).unwrap();
    assert_eq!(
        opened.permission,
        Some(Permission::GENERATIVE_AI_APIKEY_READ)
    );
    assert_eq!(
        opened.reason,
        Some(honshu_policy::Reason::NoStatementAllows)
    );
    assert_eq!(
        house
            .control
            .explain(&house.ctx(), absent)
            .unwrap()
            .permission,
        None
    );
    assert_eq!(
        kind(house.control.explain(&nobody, forbidden)),
        ErrorKind::NotFound
    );
    house.pass(Duration::from_secs(8 * 86_400));
    assert_eq!(
        kind(house.control.explain(&house.ctx(), forbidden)),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_group_of_one_compartment_sees_nothing_of_another() {
    let house = House::new().await;
    let dev = house.compartment("dev", "root").await;
    let prod = house.compartment("prod", "root").await;
    let inner = house.compartment("inner", dev.id.as_str()).await;
    house
        .policy(
            "root",
            "allow group Developers to manage all-resources in compartment dev",
        )
        .await
        .unwrap();
    let mut principal = house.nobody().principal;
    principal.groups = Arc::from([(
        Ocid::parse("ocid1.group.oc1..d").unwrap(),
        Arc::from("Developers"),
    )]);
    let developer = house.ctx_of(principal, &osaka());

    let list = |parent: &str| {
        let asked = ListCompartments {
            compartment_id: parent.to_owned(),
            in_subtree: true,
            ..ListCompartments::default()
        };
        house
            .control
            .list_compartments(&developer, &asked)
            .map(|page| {
                page.items
                    .into_iter()
                    .map(|row| row.name)
                    .collect::<std::collections::BTreeSet<_>>()
            })
    };
    assert_eq!(
        list("root").unwrap(),
        ["dev".to_owned(), "inner".to_owned()].into()
    );
    assert_eq!(kind(list(prod.id.as_str())), ErrorKind::NotFound);
    assert_eq!(kind(list("prod")), ErrorKind::NotFound);
    assert_eq!(
        kind(house.control.list_compartments(
            &house.nobody(),
            &ListCompartments {
                compartment_id: "root".into(),
                in_subtree: true,
                ..ListCompartments::default()
            }
        )),
        ErrorKind::NotFound
    );

    house
        .control
        .create_api_key(&developer, key_details("inner", &["one"]), None)
        .await
        .unwrap();
    for place in [prod.id.as_str(), "prod", house.root.as_str()] {
        let refused = house
            .control
            .create_api_key(&developer, key_details(place, &["one"]), None)
            .await;
        assert_eq!(kind(refused), ErrorKind::NotFound);
        let asked = ListApiKeys {
            compartment_id: place.to_owned(),
            ..ListApiKeys::default()
        };
        assert_eq!(
            kind(house.control.list_api_keys(&developer, &asked)),
            ErrorKind::NotFound
        );
        let asked = ListPolicies {
            compartment_id: place.to_owned(),
            ..ListPolicies::default()
        };
        assert_eq!(
            kind(house.control.list_policies(&developer, &asked)),
            ErrorKind::NotFound
        );
    }
    // A key cannot be moved to where the mover may not create one.
    let asked = ListApiKeys {
        compartment_id: inner.id.to_string(),
        ..ListApiKeys::default()
    };
    let key = house
        .control
        .list_api_keys(&developer, &asked)
        .unwrap()
        .items
        .remove(0);
    let to = |id: &Ocid| oci::ChangeApiKeyCompartmentDetails {
        compartment_id: id.to_string(),
    };
    let moved = house
        .control
        .change_api_key_compartment(&developer, key.id.as_str(), to(&prod.id), None)
        .await;
    assert_eq!(kind(moved), ErrorKind::NotFound);
    let moved = house
        .control
        .change_api_key_compartment(&developer, key.id.as_str(), to(&dev.id), None)
        .await;
    assert_eq!(moved.unwrap().value.compartment_id, dev.id);
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
async fn every_problem_of_every_statement_is_told_with_its_column() {
    let house = House::new().await;
    let details = |statements: &[&str]| oci::CreatePolicyDetails {
        compartment_id: "root".to_owned(),
        name: "p".to_owned(),
        statements: statements.iter().map(|text| (*text).to_owned()).collect(),
        description: "d".to_owned(),
        version_date: None,
        freeform_tags: None,
        defined_tags: None,
    };
    let error = house
        .control
        .create_policy(
            &house.ctx(),
            details(&[
                "allow group A to fly in tenancy",
                "allow any-user to inspect policies in tenancy",
                "permit x",
            ]),
            None,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .problems()
            .iter()
            .any(|p| p.path == "statements[0]" && p.message.starts_with("column 18: ")),
        "{error}"
    );
    assert!(
        error.problems().iter().any(|p| p.path == "statements[2]"),
        "{error}"
    );
    assert!(
        !error.problems().iter().any(|p| p.path == "statements[1]"),
        "{error}"
    );
    for refused in [
        "allow any-user to inspect policies in compartment nowhere",
        "deny any-user to inspect policies in tenancy",
        "endorse group A to manage all-resources in any-tenancy",
    ] {
        let error = house
            .control
            .create_policy(&house.ctx(), details(&[refused]), None)
            .await
            .unwrap_err();
        assert_eq!(error.problems()[0].path, "statements[0]", "{error}");
    }
}

#[tokio::test]
async fn the_administrators_cannot_lock_themselves_out() {
    let house = House::new().await;
    let asked = ListPolicies {
        compartment_id: "root".to_owned(),
        ..ListPolicies::default()
    };
    let policy = house
        .control
        .list_policies(&house.ctx(), &asked)
        .unwrap()
        .items
        .remove(0);
    assert_eq!(policy.name, "Tenant Admin Policy");
    let id = policy.id.as_str();
    assert_eq!(
        kind(house.control.delete_policy(&house.ctx(), id, None).await),
        ErrorKind::Conflict
    );
    let weaker = oci::UpdatePolicyDetails {
        statements: Some(vec![
            "allow group A to inspect policies in tenancy".to_owned(),
        ]),
        ..Default::default()
    };
    assert_eq!(
        kind(
            house
                .control
                .update_policy(&house.ctx(), id, weaker, None)
                .await
        ),
        ErrorKind::Conflict
    );
    let root = house.root.as_str();
    assert_eq!(
        kind(
            house
                .control
                .delete_compartment(&house.ctx(), root, None)
                .await
        ),
        ErrorKind::Conflict
    );
}

#[tokio::test]
async fn compartments_are_named_once_nested_six_deep_and_deleted_when_empty() {
    let house = House::new().await;
    let mut parent = "root".to_owned();
    for level in 1..=6 {
        parent = house
            .compartment(&format!("level{level}"), &parent)
            .await
            .id
            .to_string();
    }
    let create = |name: &str, parent: &str| {
        let details = oci::CreateCompartmentDetails {
            compartment_id: parent.to_owned(),
            name: name.to_owned(),
            description: "d".to_owned(),
            freeform_tags: None,
            defined_tags: None,
        };
        let (ctx, control) = (house.ctx(), Arc::clone(&house.control));
        async move { control.create_compartment(&ctx, details, None).await }
    };
    assert_eq!(kind(create("level7", &parent).await), ErrorKind::Invalid);
    assert_eq!(kind(create("LEVEL1", "root").await), ErrorKind::Conflict);
    assert_eq!(kind(create("Root", "root").await), ErrorKind::Invalid);
    assert_eq!(kind(create("a b", "root").await), ErrorKind::Invalid);
    create("level2", "root").await.unwrap();
    assert_eq!(
        kind(house.control.get_compartment(&house.ctx(), "level2")),
        ErrorKind::Invalid
    );
    assert_eq!(
        house
            .control
            .get_compartment(&house.ctx(), "level1:Level2")
            .unwrap()
            .value
            .name,
        "level2"
    );
    assert_eq!(
        kind(
            house
                .control
                .delete_compartment(&house.ctx(), "level1", None)
                .await
        ),
        ErrorKind::Conflict
    );
    house
        .control
        .delete_compartment(&house.ctx(), &parent, None)
        .await
        .unwrap();
    assert_eq!(
        kind(house.control.get_compartment(&house.ctx(), &parent)),
        ErrorKind::NotFound
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
