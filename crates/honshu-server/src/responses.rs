//! The stateful runtime, joined to the store and to the control plane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use honshu_control::Control;
use honshu_domain::{Error, Ocid, Principal, PrincipalKind};
use honshu_gateway::{Call, Gateway};
use honshu_responses::{Callers, Limits, Runtime, RuntimeParts, Seal};
use honshu_store::SqliteResponses;

use crate::config::Config;

/// Finds callers again in the control plane's memory.
struct Known(Arc<Control>);

impl Callers for Known {
    fn again(
        &self,
        region: &str,
        kind: PrincipalKind,
        id: &Ocid,
        secret_name: Option<&str>,
    ) -> Option<Principal> {
        self.0.principal_again(region, kind, id, secret_name)
    }

    fn may_read_files(&self, call: &Call, error: Error) -> Result<(), Error> {
        self.0
            .may_read_files(&call.principal, &call.region, &call.compartment, error)
    }
}

/// Builds the runtime.
pub(crate) fn build(
    config: &Config,
    store: Arc<SqliteResponses>,
    gateways: HashMap<Arc<str>, Gateway>,
    control: &Arc<Control>,
    seal: Seal,
) -> Runtime {
    Runtime::new(RuntimeParts {
        seal,
        files: Arc::clone(&store) as _,
        completions: Arc::clone(&store) as _,
        store,
        gateways,
        callers: Arc::new(Known(Arc::clone(control))),
        clock: crate::clock(),
        entropy: crate::entropy(),
        limits: limits(config),
        timeouts: config.timeouts(),
    })
}

fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    let written = &config.limits;
    if let Some(runs) = written.background_runs_max {
        limits.background_runs_max = u32::try_from(runs).unwrap_or(u32::MAX);
    }
    let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(3_600));
    if let Some(kept) = written.response_retention_hours {
        limits.response_retention = hours(kept);
    }
    if let Some(kept) = written.conversation_retention_hours {
        limits.conversation_retention = hours(kept);
    }
    limits
}
