//! The first start: tenancy, root compartment, administrator and the policy that lets them in.
//!
//! The database is written last, in one transaction. Before it there is no tenancy, and what a crash left of
//! the files is replaced by the next run; after it everything is there.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use honshu_domain::{Clock, Entropy, Ocid, Region, ResourceKind};
use honshu_policy::ADMINISTRATORS;
use honshu_signature::{KeyError, KeySize, PrivateKey};
use honshu_store::{
    Change, Command, CompartmentRow, DataDir, GroupRow, MembershipRow, OpenError, PolicyRow,
    SigningKeyRow, SqliteStore, Store, StoreError, TenancyRow, UserRow, write_private,
};

use crate::control::{ADMIN_POLICY, PEPPER_CHECK};
use crate::pepper::{Pepper, PepperError};

/// Name of the administrator's folder in the data directory.
const ADMIN_FOLDER: &str = "admin";

/// Why the first start failed. Each message is one line with the next step.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The data directory or database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The pepper.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The database refused.
    #[error("cannot write the control database: {0}")]
    Store(#[from] StoreError),
    /// The signing key.
    #[error("cannot make the administrator's signing key: {0}")]
    Key(#[from] KeyError),
    /// A file of the administrator.
    #[error("cannot write `{path}`: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Where the administrator's credentials are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminProfile {
    /// `<data-dir>/admin/config`: OCI's configuration format, profile `DEFAULT`.
    pub config: PathBuf,
    /// `<data-dir>/admin/key.pem`.
    pub key: PathBuf,
}

impl AdminProfile {
    /// The places in a data directory.
    pub fn of(data_dir: &Path) -> Self {
        let folder = data_dir.join(ADMIN_FOLDER);
        Self {
            config: folder.join("config"),
            key: folder.join("key.pem"),
        }
    }
}

/// What a first start found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initialised {
    /// It made everything.
    Made {
        /// The tenancy.
        tenancy: Ocid,
        /// The administrator.
        user: Ocid,
        /// Where the credentials are.
        profile: AdminProfile,
    },
    /// There is a tenancy already; nothing was touched.
    AlreadyDone {
        /// The tenancy.
        tenancy: Ocid,
        /// Where the credentials were written when it was made.
        profile: AdminProfile,
    },
}

impl std::fmt::Display for Initialised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Made {
                tenancy, profile, ..
            } => {
                write!(
                    f,
                    "made tenancy {tenancy}; administrator profile: {}",
                    profile.config.display()
                )
            }
            Self::AlreadyDone { tenancy, profile } => write!(
                f,
                "already initialised: tenancy {tenancy}; administrator profile: {}",
                profile.config.display()
            ),
        }
    }
}

/// The first start.
pub struct Bootstrap {
    /// Makes ids and the pepper.
    pub entropy: Arc<dyn Entropy>,
    /// Dates the rows.
    pub clock: Arc<dyn Clock>,
    /// Name of the tenancy.
    pub tenancy_name: String,
    /// Where the pepper comes from: `env:…` or `file:…`; the file in the data directory when `None`.
    pub pepper_source: Option<String>,
}

impl Bootstrap {
    /// The usual first start: tenancy `honshu`, pepper in the data directory.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            entropy,
            clock,
            tenancy_name: "honshu".to_owned(),
            pepper_source: None,
        }
    }

    /// Locks the data directory, opens its database and makes what is missing: `honshu init`.
    ///
    /// # Errors
    /// A [`BootstrapError`], among them that another process has the directory.
    pub async fn init(
        &self,
        data_dir: &Path,
        region: &Region,
    ) -> Result<Initialised, BootstrapError> {
        let directory = DataDir::open(data_dir).map_err(OpenError::from)?;
        let store = SqliteStore::open(&directory)?;
        let pepper = self.pepper(&directory)?;
        self.run(&store, &directory, &pepper, region).await
    }

    /// The pepper of a data directory, made if it is missing and no other source is named.
    ///
    /// # Errors
    /// A [`PepperError`].
    pub fn pepper(&self, directory: &DataDir) -> Result<Pepper, PepperError> {
        match &self.pepper_source {
            Some(source) => Pepper::from_source(source),
            None => Pepper::load_or_create(directory.path(), &*self.entropy),
        }
    }

    /// Makes what is missing in a store that is open: the first `serve` on an empty directory. Run it before
    /// [`crate::Control::open`]. A run that was cut short is made good by the next one.
    ///
    /// # Errors
    /// A [`BootstrapError`].
    pub async fn run(
        &self,
        store: &dyn Store,
        directory: &DataDir,
        pepper: &Pepper,
        region: &Region,
    ) -> Result<Initialised, BootstrapError> {
        let profile = AdminProfile::of(directory.path());
        if let Some(tenancy) = store.load().await?.tenancy {
            return Ok(Initialised::AlreadyDone {
                tenancy: tenancy.id,
                profile,
            });
        }
        let entropy = &*self.entropy;
        let now = self.clock.now();
        let tenancy = Ocid::generate(ResourceKind::Tenancy, "", entropy);
        let user = Ocid::generate(ResourceKind::User, "", entropy);
        let group = Ocid::generate(ResourceKind::Group, "", entropy);
        let policy = Ocid::generate(ResourceKind::Policy, "", entropy);
        let key = PrivateKey::generate(KeySize::Bits2048)?;
        let fingerprint = key.public_key().fingerprint().to_string();

        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| BootstrapError::File { path, source }
        };
        let folder = directory.path().join(ADMIN_FOLDER);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(file(&folder))?;
        write_private(&profile.key, key.to_pkcs8_pem()?.expose().as_bytes())
            .map_err(file(&profile.key))?;
        let config = format!(
            "[DEFAULT]\nuser={user}\nfingerprint={fingerprint}\ntenancy={tenancy}\nregion={region}\nkey_file={key_file}\n",
            key_file = profile.key.display(),
        );
        write_private(&profile.config, config.as_bytes()).map_err(file(&profile.config))?;

        let no_tags = || "{}".to_owned();
        let changes = vec![
            Change::InsertTenancy(TenancyRow {
                id: tenancy.clone(),
                name: self.tenancy_name.clone(),
                home_region: region.name().to_owned(),
                deny_enabled: false,
                created: now,
            }),
            Change::InsertCompartment(CompartmentRow {
                id: tenancy.clone(),
                parent: None,
                name: "root".to_owned(),
                description: "The root compartment of the tenancy".to_owned(),
                freeform_tags: no_tags(),
                defined_tags: no_tags(),
                created: now,
                updated: now,
                version: 1,
            }),
            Change::InsertUser(UserRow {
                id: user.clone(),
                name: "admin".to_owned(),
                description: "The first administrator".to_owned(),
                email: None,
                active: true,
                created: now,
                version: 1,
            }),
            Change::InsertSigningKey(SigningKeyRow {
                user: user.clone(),
                fingerprint,
                public_key_pem: key.public_key().to_pem(),
                created: now,
            }),
            Change::InsertGroup(GroupRow {
                id: group.clone(),
                name: ADMINISTRATORS.to_owned(),
                description: "Administrators of the tenancy".to_owned(),
                created: now,
                version: 1,
            }),
            Change::InsertMembership(MembershipRow {
                user: user.clone(),
                group,
                created: now,
            }),
            Change::InsertPolicy(PolicyRow {
                id: policy.clone(),
                compartment: tenancy.clone(),
                name: "Tenant Admin Policy".to_owned(),
                description: "Administrators manage everything".to_owned(),
                statements: vec![format!(
                    "allow group {ADMINISTRATORS} to manage all-resources in tenancy"
                )],
                version_date: None,
                freeform_tags: no_tags(),
                defined_tags: no_tags(),
                created: now,
                updated: now,
                version: 1,
            }),
            Change::SetSetting(ADMIN_POLICY.to_owned(), policy.as_str().to_owned()),
            Change::SetSetting(PEPPER_CHECK.to_owned(), pepper.check_value()),
        ];
        store
            .apply(Command {
                operation: "Init".to_owned(),
                principal: None,
                request_id: None,
                at: now,
                retry: None,
                changes,
            })
            .await?;
        Ok(Initialised::Made {
            tenancy,
            user,
            profile,
        })
    }
}
