//! The control plane of one node: the store, what of it is in memory, and what it was given to work with.

use std::sync::Arc;

use honshu_domain::{Clock, Entropy, Error, Region, Timestamp};
use honshu_policy::{CompileOptions, PolicySet, Tenancy};
use honshu_store::{Applied, Change, Command, RetryEntry, Store, StoreError};

use crate::context::OpCtx;
use crate::decisions::Decisions;
use crate::pepper::Pepper;
use crate::retry::SecretsAgain;
use crate::state::State;

/// Setting: a text that tells whether the pepper is the one that secrets were digested with.
pub(crate) const PEPPER_CHECK: &str = "pepper_check";
/// Setting: OCID of the policy that keeps administrators in.
pub(crate) const ADMIN_POLICY: &str = "admin_policy";

/// Why the control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store.
    #[error("cannot read the control database: {0}")]
    Store(#[from] StoreError),
    /// Another pepper.
    #[error(
        "the pepper is not the one that the secrets in the database were digested with; restore the file `pepper` of the data directory, or the variable that held it"
    )]
    WrongPepper,
}

/// The control plane. Every change goes through it; every question is answered from memory.
pub struct Control {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) state: Arc<State>,
    pub(crate) pepper: Pepper,
    pub(crate) regions: Vec<Region>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) decisions: Decisions,
    pub(crate) secrets_again: SecretsAgain,
    /// A set without a tenancy: refuses everything.
    pub(crate) nothing: PolicySet,
}

impl Control {
    /// Loads the snapshot and follows the store's commits from here on. `regions` are those that this
    /// process serves, the first of them for lists when the tenancy's home region is not among them.
    ///
    /// # Errors
    /// A [`ControlError`], one line with the next step.
    pub async fn open(
        store: Arc<dyn Store>,
        pepper: Pepper,
        regions: Vec<Region>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, ControlError> {
        let loaded = store.load().await?;
        if loaded
            .settings
            .get(PEPPER_CHECK)
            .is_some_and(|check| *check != pepper.check_value())
        {
            return Err(ControlError::WrongPepper);
        }
        let state = Arc::new(State::new(loaded));
        let following = Arc::clone(&state);
        store.observe(Arc::new(move |committed| following.take_over(committed)));
        let nobody = Tenancy {
            id: "".into(),
            name: "".into(),
        };
        Ok(Arc::new(Self {
            store,
            state,
            pepper,
            regions,
            clock,
            entropy,
            decisions: Decisions::default(),
            secrets_again: SecretsAgain::default(),
            nothing: PolicySet::compile(&nobody, &[], &[], CompileOptions::default()),
        }))
    }

    /// Whether `init` has made the tenancy.
    pub fn is_initialised(&self) -> bool {
        self.state.load().identity.tenancy.is_some()
    }

    /// The machine's time as this node sees it.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes changes in the name of the caller, together with a retry token.
    pub(crate) async fn change(
        &self,
        ctx: &OpCtx,
        operation: &str,
        retry: Option<RetryEntry>,
        changes: Vec<Change>,
    ) -> Result<Applied, StoreError> {
        self.store
            .apply(Command {
                operation: operation.to_owned(),
                principal: Some(ctx.principal.id.as_str().to_owned()),
                request_id: Some(ctx.request_id.as_str().to_owned()),
                at: ctx.now,
                retry,
                changes,
            })
            .await
    }

    /// Writes the last-used times that the database does not know yet, in one command. Call it every
    /// [`crate::limits::LAST_USED_FLUSH`] and at shutdown. Gives how many secrets there were.
    ///
    /// # Errors
    /// The store's; the times stay in memory and are written by the next call.
    pub async fn flush_last_used(&self) -> Result<usize, Error> {
        let keys = Arc::clone(&self.state.load().keys);
        let touched: Vec<_> = keys
            .by_id
            .values()
            .flat_map(|entry| entry.take_unsaved_uses())
            .collect();
        let count = touched.len();
        if count == 0 {
            return Ok(0);
        }
        let written = self
            .store
            .apply(Command {
                operation: String::new(),
                principal: None,
                request_id: None,
                at: self.clock.now(),
                retry: None,
                changes: vec![Change::TouchSecrets(touched)],
            })
            .await;
        match written {
            Ok(_) => Ok(count),
            Err(error) => {
                for entry in keys.by_id.values() {
                    entry.forget_saved_uses();
                }
                Err(error.into())
            }
        }
    }
}
