//! Configuration and composition: reads what an operator wrote, builds every part, joins them, and starts, reloads,
//! drains and stops the whole. Holds no rule of its own about keys, policies, models or requests.

mod catalogue;
mod config;
mod endpoints;
mod engine;
mod error;
mod logging;
mod models;
mod providers;
mod responses;
mod server;

use std::path::PathBuf;
use std::sync::Arc;

use honshu_control::{AdminProfile, Bootstrap, Initialised};
use honshu_domain::{Clock, Entropy, Ocid, Region, SystemClock, SystemEntropy, known_region_key};

pub use config::ConfigError;
pub use endpoints::Endpoint;
pub use engine::engine_self_test;
pub use error::StartError;
pub use logging::LogFormat;
pub use server::{ServeOptions, Server};

/// What `honshu init` is asked.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The data directory; made if it is missing.
    pub data_dir: PathBuf,
    /// The home region's name; `local-1` by default.
    pub region: Option<String>,
    /// The tenancy's name.
    pub tenancy_name: String,
}

/// What `honshu init` made or found.
#[derive(Debug, Clone)]
pub struct InitDone {
    /// False when it was there before.
    pub created: bool,
    /// The tenancy.
    pub tenancy: Ocid,
    /// The administrator, where it was made now.
    pub administrator: Option<Ocid>,
    /// The administrator's profile.
    pub profile: PathBuf,
}

/// Makes tenancy, root compartment and administrator in a data directory that no server uses.
///
/// # Errors
/// [`StartError`]: another process has the directory, or it cannot be written.
pub async fn init(options: InitOptions) -> Result<InitDone, StartError> {
    let region = home_region(options.region.as_deref());
    let mut bootstrap = Bootstrap::new(clock(), entropy());
    bootstrap.tenancy_name = options.tenancy_name;
    let done = bootstrap.init(&options.data_dir, &region).await?;
    Ok(match done {
        Initialised::Made {
            tenancy,
            user,
            profile,
        } => InitDone {
            created: true,
            tenancy,
            administrator: Some(user),
            profile: profile.config,
        },
        Initialised::AlreadyDone {
            tenancy,
            profile: AdminProfile { config, .. },
        } => InitDone {
            created: false,
            tenancy,
            administrator: None,
            profile: config,
        },
    })
}

fn home_region(name: Option<&str>) -> Region {
    match name {
        None => Region::local(),
        Some(name) => Region::new(name, known_region_key(name).unwrap_or("LCL")),
    }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

pub(crate) fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy)
}
