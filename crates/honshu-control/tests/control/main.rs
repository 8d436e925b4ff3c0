//! The control plane by behaviour: real store, real policies, a clock that the test moves.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure real time, and their tasks end with them"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod access;
mod keys;

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
