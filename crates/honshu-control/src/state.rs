//! What this node knows, in memory: identity, compiled policies and keys, as one immutable snapshot that every
//! commit replaces before its caller is answered.
//!
//! Nothing here reads the database. The hot path loads the snapshot and looks up; it never locks or waits.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use honshu_domain::{Ocid, Principal, PrincipalKind, Timestamp};
use honshu_policy as policy;
use honshu_signature::{Fingerprint, PublicKey};
use honshu_store::{
    ApiKeyRow, Change, Committed, CompartmentRow, ControlState, GroupRow, PolicyRow, SecretState,
    SigningKeyRow, TenancyRow, UserRow,
};

/// The snapshot.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) identity: Arc<Identity>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) keys: Arc<Keys>,
}

/// Tenancy, compartments and people.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    pub(crate) tenancy: Option<TenancyRow>,
    pub(crate) compartments: HashMap<Ocid, Arc<CompartmentRow>>,
    pub(crate) users: HashMap<Ocid, Arc<UserRow>>,
    pub(crate) groups: HashMap<Ocid, Arc<GroupRow>>,
    members: HashMap<Ocid, Vec<Ocid>>,
    signing_keys: HashMap<(Ocid, Fingerprint), PublicKey>,
    pub(crate) settings: HashMap<String, String>,
}

/// Policies as stored and as compiled.
pub(crate) struct Policies {
    pub(crate) rows: HashMap<Ocid, Arc<PolicyRow>>,
    /// `None` without a tenancy: then nothing is allowed.
    pub(crate) compiled: Option<policy::PolicySet>,
}

/// Keys by id and by digest.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    pub(crate) by_id: HashMap<Ocid, Arc<KeyEntry>>,
    by_digest: HashMap<[u8; 32], (Arc<KeyEntry>, usize), BuildHasherDefault<DigestHasher>>,
}

/// A key with what authentication needs ready-made.
pub(crate) struct KeyEntry {
    pub(crate) row: ApiKeyRow,
    principals: Vec<Principal>,
    /// Microseconds of the last use of each secret, 0 for never. Shared between snapshots.
    used: Vec<Arc<LastUsed>>,
}

/// When a secret was last used, and what of it the database knows.
pub(crate) struct LastUsed {
    at: AtomicI64,
    stored: AtomicI64,
}

impl LastUsed {
    fn new(at: Option<Timestamp>) -> Arc<Self> {
        let at = at.map_or(0, Timestamp::as_micros);
        Arc::new(Self {
            at: AtomicI64::new(at),
            stored: AtomicI64::new(at),
        })
    }
}

impl KeyEntry {
    fn new(row: ApiKeyRow, tenancy: &Ocid, before: Option<&Self>) -> Self {
        let principals = row
            .secrets
            .iter()
            .map(|secret| Principal {
                kind: PrincipalKind::ApiKey,
                id: row.id.clone(),
                name: row.display_name.as_str().into(),
                tenancy: tenancy.clone(),
                compartment: row.compartment.clone(),
                groups: Arc::from([]),
                secret_name: Some(secret.name.as_str().into()),
            })
            .collect();
        let used = row
            .secrets
            .iter()
            .map(|secret| {
                // A renewed secret has another digest and starts unused.
                before
                    .and_then(|before| {
                        let place = before
                            .row
                            .secrets
                            .iter()
                            .position(|old| old.digest == secret.digest)?;
                        before.used.get(place).cloned()
                    })
                    .unwrap_or_else(|| LastUsed::new(secret.last_used))
            })
            .collect();
        Self {
            row,
            principals,
            used,
        }
    }

    /// When the secret at `place` was last used, as this node knows.
    pub(crate) fn last_used(&self, place: usize) -> Option<Timestamp> {
        let at = self.used.get(place)?.at.load(Ordering::Relaxed);
        (at > 0).then(|| Timestamp::from_micros(at))
    }

    /// Whether the secret at `place` authenticates at `now`.
    pub(crate) fn is_good(&self, place: usize, now: Timestamp) -> bool {
        self.row
            .secrets
            .get(place)
            .is_some_and(|secret| secret.state == SecretState::Active && now < secret.expires)
    }

    /// Notes a use and gives the principal.
    pub(crate) fn principal_at(&self, place: usize, now: Timestamp) -> Option<Principal> {
        self.used
            .get(place)?
            .at
            .fetch_max(now.as_micros(), Ordering::Relaxed);
        self.principals.get(place).cloned()
    }

    /// Uses that the database does not know yet; they count as known from here on.
    pub(crate) fn take_unsaved_uses(&self) -> impl Iterator<Item = (Ocid, String, Timestamp)> + '_ {
        self.row
            .secrets
            .iter()
            .zip(&self.used)
            .filter_map(|(secret, used)| {
                let at = used.at.load(Ordering::Relaxed);
                let stored = used.stored.swap(at, Ordering::Relaxed);
                (at > stored).then(|| {
                    (
                        self.row.id.clone(),
                        secret.name.clone(),
                        Timestamp::from_micros(at),
                    )
                })
            })
    }

    /// Takes back what [`KeyEntry::take_unsaved_uses`] gave, after a failed write.
    pub(crate) fn forget_saved_uses(&self) {
        for used in &self.used {
            used.stored.store(0, Ordering::Relaxed);
        }
    }
}

/// The digests are uniform already: their first bytes are the hash.
#[derive(Default)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

impl Identity {
    /// The tenancy's id, which is also the root compartment's.
    pub(crate) fn root(&self) -> Option<&Ocid> {
        self.tenancy.as_ref().map(|tenancy| &tenancy.id)
    }

    /// The compartment and what it is in, up to the root.
    pub(crate) fn chain<'a>(
        &'a self,
        id: &'a Ocid,
    ) -> impl Iterator<Item = &'a Arc<CompartmentRow>> + 'a {
        std::iter::successors(self.compartments.get(id), |row| {
            row.parent
                .as_ref()
                .and_then(|parent| self.compartments.get(parent))
        })
    }

    pub(crate) fn find_signing_key(
        &self,
        user: &Ocid,
        fingerprint: Fingerprint,
    ) -> Option<&PublicKey> {
        self.signing_keys.get(&(user.clone(), fingerprint))
    }

    /// The user as a principal; `None` when it may not authenticate.
    pub(crate) fn user_principal(&self, user: &Ocid) -> Option<Principal> {
        let row = self.users.get(user).filter(|row| row.active)?;
        let tenancy = self.root()?.clone();
        let groups = self
            .members
            .get(user)
            .into_iter()
            .flatten()
            .filter_map(|group| self.groups.get(group))
            .map(|group| (group.id.clone(), Arc::from(group.name.as_str())))
            .collect();
        Some(Principal {
            kind: PrincipalKind::User,
            id: row.id.clone(),
            name: row.name.as_str().into(),
            compartment: tenancy.clone(),
            tenancy,
            groups,
            secret_name: None,
        })
    }

    fn add_signing_key(&mut self, row: &SigningKeyRow) {
        match PublicKey::from_pem(&row.public_key_pem) {
            Ok(key) => {
                self.signing_keys
                    .insert((row.user.clone(), key.fingerprint()), key);
            }
            Err(error) => {
                tracing::error!(user = %row.user, fingerprint = row.fingerprint, error = %error, "a stored signing key cannot be read and is ignored");
            }
        }
    }
}

impl Keys {
    pub(crate) fn find(&self, digest: &[u8; 32]) -> Option<(&Arc<KeyEntry>, usize)> {
        self.by_digest
            .get(digest)
            .map(|(entry, place)| (entry, *place))
    }

    fn put(&mut self, row: ApiKeyRow, tenancy: &Ocid) {
        let before = self.remove(&row.id);
        let entry = Arc::new(KeyEntry::new(row, tenancy, before.as_deref()));
        for (place, secret) in entry.row.secrets.iter().enumerate() {
            self.by_digest
                .insert(secret.digest, (Arc::clone(&entry), place));
        }
        self.by_id.insert(entry.row.id.clone(), entry);
    }

    fn remove(&mut self, id: &Ocid) -> Option<Arc<KeyEntry>> {
        let entry = self.by_id.remove(id)?;
        for secret in &entry.row.secrets {
            self.by_digest.remove(&secret.digest);
        }
        Some(entry)
    }
}

/// Compiles policies over the compartments of an identity.
pub(crate) fn compile<'a>(
    identity: &Identity,
    rows: impl Iterator<Item = &'a PolicyRow>,
) -> Option<policy::PolicySet> {
    let tenancy = identity.tenancy.as_ref()?;
    let root = policy::Tenancy {
        id: tenancy.id.as_str().into(),
        name: tenancy.name.as_str().into(),
    };
    let compartments: Vec<policy::Compartment> = identity
        .compartments
        .values()
        .filter_map(|row| {
            Some(policy::Compartment {
                id: row.id.as_str().into(),
                parent_id: row.parent.as_ref()?.as_str().into(),
                name: row.name.as_str().into(),
            })
        })
        .collect();
    let policies: Vec<policy::AttachedPolicy> = rows
        .map(|row| policy::AttachedPolicy {
            id: row.id.as_str().into(),
            name: row.name.as_str().into(),
            compartment_id: row.compartment.as_str().into(),
            statements: row
                .statements
                .iter()
                .map(|text| text.as_str().into())
                .collect(),
        })
        .collect();
    let options = policy::CompileOptions {
        deny_enabled: tenancy.deny_enabled,
    };
    Some(policy::PolicySet::compile(
        &root,
        &compartments,
        &policies,
        options,
    ))
}

/// The snapshot's holder. Readers load it; the store's observer replaces it.
pub(crate) struct State {
    current: ArcSwap<Snapshot>,
    /// Commits come from one thread; the lock keeps a loading start-up in order with them.
    changing: Mutex<()>,
}

impl State {
    pub(crate) fn new(loaded: ControlState) -> Self {
        let mut identity = Identity {
            tenancy: loaded.tenancy,
            compartments: by_id(loaded.compartments, |row| &row.id),
            users: by_id(loaded.users, |row| &row.id),
            groups: by_id(loaded.groups, |row| &row.id),
            settings: loaded.settings.into_iter().collect(),
            ..Identity::default()
        };
        for row in &loaded.signing_keys {
            identity.add_signing_key(row);
        }
        for row in loaded.memberships {
            identity
                .members
                .entry(row.user)
                .or_default()
                .push(row.group);
        }
        let rows = by_id(loaded.policies, |row| &row.id);
        let compiled = compile(&identity, rows.values().map(Arc::as_ref));
        let mut keys = Keys::default();
        if let Some(tenancy) = identity.root() {
            for row in loaded.api_keys {
                keys.put(row, tenancy);
            }
        }
        report(compiled.as_ref());
        Self {
            current: ArcSwap::from_pointee(Snapshot {
                identity: Arc::new(identity),
                policies: Arc::new(Policies { rows, compiled }),
                keys: Arc::new(keys),
            }),
            changing: Mutex::new(()),
        }
    }

    /// The snapshot of now. Cheap; hold it no longer than one request.
    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Takes over what was committed, all at once.
    pub(crate) fn take_over(&self, committed: &[Committed]) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let mut identity = Arc::clone(&before.identity);
        let mut keys = Arc::clone(&before.keys);
        let mut rows: Option<HashMap<Ocid, Arc<PolicyRow>>> = None;
        let mut recompile = false;
        for change in committed.iter().flat_map(|commit| &commit.changes) {
            match change {
                Change::InsertTenancy(row) | Change::PutTenancy(row) => {
                    Arc::make_mut(&mut identity).tenancy = Some(row.clone());
                    recompile = true;
                }
                Change::InsertCompartment(row) | Change::PutCompartment(row, _) => {
                    Arc::make_mut(&mut identity)
                        .compartments
                        .insert(row.id.clone(), Arc::new(row.clone()));
                    recompile = true;
                }
                Change::DeleteCompartment(id, _) => {
                    Arc::make_mut(&mut identity).compartments.remove(id);
                    recompile = true;
                }
                Change::InsertUser(row) => {
                    Arc::make_mut(&mut identity)
                        .users
                        .insert(row.id.clone(), Arc::new(row.clone()));
                }
                Change::InsertSigningKey(row) => Arc::make_mut(&mut identity).add_signing_key(row),
                Change::DeleteSigningKey { user, fingerprint } => {
                    if let Ok(fingerprint) = fingerprint.parse() {
                        Arc::make_mut(&mut identity)
                            .signing_keys
                            .remove(&(user.clone(), fingerprint));
                    }
                }
                Change::InsertGroup(row) => {
                    Arc::make_mut(&mut identity)
                        .groups
                        .insert(row.id.clone(), Arc::new(row.clone()));
                }
                Change::InsertMembership(row) => {
                    let members = &mut Arc::make_mut(&mut identity).members;
                    members
                        .entry(row.user.clone())
                        .or_default()
                        .push(row.group.clone());
                }
                Change::InsertPolicy(row) | Change::PutPolicy(row, _) => {
                    rows.get_or_insert_with(|| before.policies.rows.clone())
                        .insert(row.id.clone(), Arc::new(row.clone()));
                    recompile = true;
                }
                Change::DeletePolicy(id, _) => {
                    rows.get_or_insert_with(|| before.policies.rows.clone())
                        .remove(id);
                    recompile = true;
                }
                Change::InsertApiKey(row) | Change::PutApiKey(row, _) => {
                    if let Some(tenancy) = identity.root() {
                        Arc::make_mut(&mut keys).put(row.clone(), tenancy);
                    }
                }
                Change::DeleteApiKey(id, _) => {
                    Arc::make_mut(&mut keys).remove(id);
                }
                Change::TouchSecrets(_) => {}
                Change::SetSetting(name, value) => {
                    Arc::make_mut(&mut identity)
                        .settings
                        .insert(name.clone(), value.clone());
                }
            }
        }
        let policies = if recompile {
            let rows = rows.unwrap_or_else(|| before.policies.rows.clone());
            let compiled = compile(&identity, rows.values().map(Arc::as_ref));
            report(compiled.as_ref());
            Arc::new(Policies { rows, compiled })
        } else {
            Arc::clone(&before.policies)
        };
        self.current.store(Arc::new(Snapshot {
            identity,
            policies,
            keys,
        }));
    }
}

/// Statements that do less than they say are told to the operator whenever policies are compiled.
fn report(compiled: Option<&policy::PolicySet>) {
    for warning in compiled.into_iter().flat_map(policy::PolicySet::warnings) {
        tracing::warn!(policy = %warning.statement.policy_id, "{warning}");
    }
}

fn by_id<T>(rows: Vec<T>, id: impl Fn(&T) -> &Ocid) -> HashMap<Ocid, Arc<T>> {
    rows.into_iter()
        .map(|row| (id(&row).clone(), Arc::new(row)))
        .collect()
}
