//! The seams of `honshu-domain` and `honshu-policy`, in memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use honshu_domain::{
    Catalogue, Clock, Entropy, Error, ErrorKind, Model, Principal, Region, Resolved, Result,
    Timestamp, UsageLog, UsageRow,
};
use honshu_policy::{
    AttachedPolicy, Authorized, Authorizer, CompileOptions, Denied, Permission, PolicySet, Request,
    Requester, Target, Tenancy,
};

/// A wall clock that moves only when told.
#[derive(Debug)]
pub struct SimClock(AtomicI64);

impl SimClock {
    /// A clock at `2026-01-24T00:00:00Z`.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicI64::new(1_769_212_800_000_000))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).expect("a test's step fits");
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Bytes that follow from a seed (splitmix64). Not fit for secrets.
#[derive(Debug)]
pub struct SimEntropy(AtomicU64);

impl SimEntropy {
    /// The same seed gives the same bytes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}

/// Usage rows in memory. Keeps every write, so that a second one for the same run is seen.
#[derive(Debug, Default)]
pub struct MemoryUsageLog {
    rows: Mutex<Vec<UsageRow>>,
    is_broken: AtomicBool,
}

impl MemoryUsageLog {
    /// Everything that was written, in order.
    pub fn rows(&self) -> Vec<UsageRow> {
        self.rows.lock().unwrap().clone()
    }

    /// From now on writes fail, as on a full disk.
    pub fn break_down(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
    }
}

impl UsageLog for MemoryUsageLog {
    fn record(&self, row: UsageRow) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        Box::pin(async move {
            if self.is_broken.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "the disk is full"));
            }
            self.rows.lock().unwrap().push(row);
            Ok(())
        })
    }
}

/// Models by the names that callers use, the same in every region.
#[derive(Debug, Default)]
pub struct MemoryCatalogue {
    models: Mutex<BTreeMap<String, Resolved>>,
}

impl MemoryCatalogue {
    /// A catalogue of these models, each under its id.
    pub fn of(models: impl IntoIterator<Item = Model>) -> Self {
        let catalogue = Self::default();
        for model in models {
            let name = Arc::clone(&model.id);
            catalogue.insert(&name, Arc::new(model), false);
        }
        catalogue
    }

    /// Makes `name` stand for `model`.
    pub fn insert(&self, name: &str, model: Arc<Model>, alias: bool) {
        let resolved = Resolved { model, alias };
        self.models
            .lock()
            .unwrap()
            .insert(name.to_owned(), resolved);
    }
}

impl Catalogue for MemoryCatalogue {
    fn resolve(&self, _region: &Region, name: &str) -> Option<Resolved> {
        self.models.lock().unwrap().get(name).cloned()
    }

    fn list(&self, _region: &Region) -> Vec<(Arc<str>, Resolved)> {
        let models = self.models.lock().unwrap();
        models
            .iter()
            .map(|(name, resolved)| (name.as_str().into(), resolved.clone()))
            .collect()
    }
}

/// Policies that leave one kind of answer, compiled by the real thing: only that can make an [`Authorized`].
fn policies(statements: &[&str], tenancy_id: &str) -> PolicySet {
    let tenancy = Tenancy {
        id: tenancy_id.into(),
        name: "test".into(),
    };
    let policy = AttachedPolicy {
        id: "ocid1.policy.oc1..test".into(),
        name: "test".into(),
        compartment_id: tenancy.id.clone(),
        statements: statements.iter().map(|text| (*text).into()).collect(),
    };
    PolicySet::compile(&tenancy, &[], &[policy], CompileOptions::default())
}

fn decide(
    policies: &PolicySet,
    principal: &Principal,
    permission: Permission,
    target: &Target<'_>,
) -> Result<Authorized, Box<Denied>> {
    let mut target = target.clone();
    // The test tenancy has no other compartments.
    let tenancy = principal.tenancy.as_str();
    target.compartment_id = tenancy;
    policies.authorize(&Request {
        principal: Requester::from(principal),
        permission,
        target,
        region_key: Some("LCL"),
        time: Timestamp::from_seconds(1_769_212_800),
        network_sources: None,
    })
}

/// Allows whatever is asked by a principal of the test tenancy.
#[derive(Debug)]
pub struct AllowAll(PolicySet);

impl AllowAll {
    /// Allows.
    #[must_use]
    pub fn new() -> Self {
        let statements = ["allow any-user to manage all-resources in tenancy"];
        Self(policies(&statements, crate::fixtures::TENANCY))
    }
}

impl Default for AllowAll {
    fn default() -> Self {
        Self::new()
    }
}

impl Authorizer for AllowAll {
    fn authorize(
        &self,
        principal: &Principal,
        permission: Permission,
        target: &Target<'_>,
    ) -> Result<Authorized, Box<Denied>> {
        decide(&self.0, principal, permission, target)
    }
}

/// Denies whatever is asked, and remembers about which models it was asked.
#[derive(Debug)]
pub struct DenyAll {
    policies: PolicySet,
    asked: Mutex<Vec<String>>,
}

impl DenyAll {
    /// Denies.
    #[must_use]
    pub fn new() -> Self {
        Self {
            policies: policies(&[], crate::fixtures::TENANCY),
            asked: Mutex::default(),
        }
    }

    /// The models that decisions were about, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Default for DenyAll {
    fn default() -> Self {
        Self::new()
    }
}

impl Authorizer for DenyAll {
    fn authorize(
        &self,
        principal: &Principal,
        permission: Permission,
        target: &Target<'_>,
    ) -> Result<Authorized, Box<Denied>> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(target.model_id.unwrap_or_default().to_owned());
        let id = format!("decision-{}", asked.len());
        decide(&self.policies, principal, permission, target)
            .map_err(|denied| Box::new(denied.with_decision_id(id)))
    }
}
