//! The stateful runtime over the gateway: responses that are kept, continued, replayed and run by themselves, and
//! the conversations that they belong to.
//!
//! A turn goes left to right: what it refers to is read ([`prepare`]), a request without a word of state goes to
//! the gateway, a recorder owns the run and outlives its caller ([`record`]), and what was sent is kept before its
//! last frame leaves. A background turn is kept first, runs when there is a place for it ([`background`]), and
//! every event of it is kept before anybody sees it, so that a replay has the same bytes.
//!
//! A chat completion that is to be kept is recorded in the same way ([`completions`]) and has no state beside itself.
//!
//! This crate knows no HTTP and no SQL: it sees the seams of `honshu-domain`, and [`Callers`].

mod background;
mod compact;
mod completions;
mod conversations;
mod count;
mod files;
mod limits;
mod live;
mod local;
mod log;
mod manage;
mod objects;
mod prepare;
mod record;
mod replay;
mod retention;
mod seal;
mod shape;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use honshu_domain::{
    Clock, CompletionStore, Entropy, Error, ErrorKind, FileStore, InferenceRequest, Ocid,
    Principal, PrincipalKind, PublicId, ResponseStore, Scope,
};
use honshu_gateway::{Call, Gateway, Run};
use honshu_wire::responses::{leave_out_oldest, truncates};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use background::RunsAgain;
pub use limits::Limits;
pub use local::Local;
pub use record::{Recorded, TurnEnd, Words};
pub use replay::Replay;
pub use seal::Seal;

/// Finds a caller again who was authenticated before: a background response may run hours after it was asked for.
pub trait Callers: Send + Sync {
    /// The caller as it is now. `None` when the key is gone, expired, inactive or revoked, or the user may not
    /// authenticate any more.
    fn again(
        &self,
        region: &str,
        kind: PrincipalKind,
        id: &Ocid,
        secret_name: Option<&str>,
    ) -> Option<Principal>;

    /// Whether the caller may read files in the compartment: what a prompt names is read for it.
    ///
    /// # Errors
    /// `error`, with the id of the decision where there is one.
    fn may_read_files(&self, call: &Call, error: Error) -> Result<(), Error>;
}

/// What a [`Runtime`] is built from.
pub struct RuntimeParts {
    /// Where responses and conversations are kept.
    pub store: Arc<dyn ResponseStore>,
    /// Where chat completions are kept.
    pub completions: Arc<dyn CompletionStore>,
    /// Where files are kept.
    pub files: Arc<dyn FileStore>,
    /// The data plane of each region.
    pub gateways: HashMap<Arc<str>, Gateway>,
    /// Finds the callers of background responses again.
    pub callers: Arc<dyn Callers>,
    /// Seals what callers carry for us.
    pub seal: Seal,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub entropy: Arc<dyn Entropy>,
    /// The bounds.
    pub limits: Limits,
    /// The four clocks of a run.
    pub timeouts: honshu_domain::Timeouts,
}

pub(crate) struct Shared {
    parts: RuntimeParts,
    live: live::Live,
    locks: live::Locks,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    /// From here on nothing that waits begins.
    draining: CancellationToken,
}

impl std::ops::Deref for Shared {
    type Target = RuntimeParts;

    fn deref(&self) -> &RuntimeParts {
        &self.parts
    }
}

/// The stateful runtime of one node. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

/// How a turn is answered.
#[derive(Debug)]
pub enum Answer {
    /// It is kept nowhere: the run itself, and the id of the response.
    Direct {
        /// The run.
        run: Box<Run>,
        /// `resp_…`.
        id: Arc<str>,
    },
    /// A recorder has it.
    Recorded(Recorded),
    /// It waits in the background: its object as it stands.
    Queued(Bytes),
    /// It waits in the background: its events, from the first.
    Replay(Replay),
}

/// A turn as it came in.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who and where.
    pub call: Call,
    /// Whose what is kept will be.
    pub scope: Scope,
    /// The request as it was written.
    pub request: Arc<InferenceRequest>,
    /// Whether the answer is wanted as events.
    pub stream: bool,
}

impl Runtime {
    /// Puts the parts together. Starts nothing; see [`Runtime::recover`].
    #[must_use]
    pub fn new(parts: RuntimeParts) -> Self {
        let places = Arc::new(Semaphore::new(parts.limits.background_runs_max as usize));
        Self {
            shared: Arc::new(Shared {
                parts,
                live: live::Live::default(),
                locks: live::Locks::default(),
                places,
                tasks: TaskTracker::new(),
                draining: CancellationToken::new(),
            }),
        }
    }

    /// Answers a turn. Returns when there is something to say: every failure before it is an `Err` here.
    ///
    /// # Errors
    /// `PreviousResponseNotFound`, `Invalid` with the field that refers to what is not there, `Conflict` for a
    /// conversation in which another response runs, and everything that the gateway refuses.
    pub async fn respond(&self, asked: Asked, local: Option<&Local>) -> Result<Answer, Error> {
        let mut prepared = prepare::prepare(&self.shared, &asked, local, false).await?;
        if prepared.turn.background {
            return background::accept(&self.shared, asked, prepared).await;
        }
        if prepared.turn.generate || local.is_none() {
            manage::manage(&self.shared, &asked.call, &asked.scope, &mut prepared).await?;
        }
        if !prepared.turn.store && local.is_none() && matches!(prepared.shape, shape::Shape::Plain)
        {
            let id = self.response_id();
            let run = generate(self.gateway(&asked.call)?, asked.call, prepared.request).await?;
            return Ok(Answer::Direct {
                run: Box::new(run),
                id,
            });
        }
        record::start(&self.shared, asked, prepared, local.is_some())
            .await
            .map(Answer::Recorded)
    }

    /// Finds a caller again, as [`Callers::again`]: a connection may outlive the credential that opened it.
    pub fn caller_again(&self, call: &Call) -> Option<Principal> {
        let principal = &call.principal;
        self.shared.callers.again(
            call.region.name(),
            principal.kind,
            &principal.id,
            principal.secret_name.as_deref(),
        )
    }

    /// Lets [`Runtime::settled`] wait for `work`.
    pub fn track<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.shared.tasks.track_future(work)
    }

    /// Resolves when the server begins to go away.
    pub async fn draining(&self) {
        self.shared.draining.cancelled().await;
    }

    /// Nothing that waits in the background begins any more.
    pub fn drain(&self) {
        self.shared.draining.cancel();
    }

    /// Resolves when nothing is under way: runs have been kept, and what waits has been left for the next start.
    pub async fn settled(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.tasks.reopen();
    }

    fn response_id(&self) -> Arc<str> {
        self.shared.response_id()
    }

    fn gateway(&self, call: &Call) -> Result<&Gateway, Error> {
        self.shared.gateway(call.region.name())
    }
}

impl Shared {
    fn gateway(&self, region: &str) -> Result<&Gateway, Error> {
        self.gateways
            .get(region)
            .ok_or_else(|| Error::internal(format!("the region {region} has no gateway")))
    }

    fn response_id(&self) -> Arc<str> {
        PublicId::generate("resp_", &*self.entropy).as_str().into()
    }
}

/// Runs a request; with `truncation: auto` one that is too long runs with what fits.
pub(crate) async fn generate(
    gateway: &Gateway,
    call: Call,
    request: Arc<InferenceRequest>,
) -> Result<Run, Error> {
    if truncates(&request) {
        gateway
            .generate_shortened(call, request, leave_out_oldest)
            .await
    } else {
        gateway.generate(call, request).await
    }
}

/// A stored object that is not there, or belongs to somebody else: the two are one.
pub fn not_found(what: &str, id: &str) -> Error {
    let shown: String = id.chars().take(200).collect();
    Error::new(
        ErrorKind::NotFound,
        format!("no {what} with the id `{shown}` was found"),
    )
}
