//! The seam to everything that can generate: the embedded engine, upstream providers, the scripted model.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;

use crate::error::Error;
use crate::event::RunEvent;
use crate::request::{Demand, Dialect, InferenceRequest};

/// The events of an attempt. Dropping the stream cancels the work: an upstream's connection is closed, an
/// engine's sequence is freed within one decode step. An `Err` ends the stream.
pub type RunStream = Pin<Box<dyn Stream<Item = Result<RunEvent, Error>> + Send>>;

/// A number of tokens that is being found out. Dropping it gives the work up.
pub type TokenCount = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send>>;

/// What kind of backend this is, for logs and `honshu provider list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// The embedded engine.
    Engine,
    /// An OpenAI-compatible upstream.
    OpenAi,
    /// The scripted model.
    Scripted,
}

/// Whether a backend can meet a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Yes.
    Yes,
    /// No: the request is refused by name before the backend is called.
    No,
}

/// Something that can generate. Implementations never retry and never fail over: the run's owner does.
pub trait Backend: Send + Sync + fmt::Debug {
    /// The provider's name in the configuration; `engine` for the embedded engine.
    fn name(&self) -> &str;

    /// What kind it is.
    fn kind(&self) -> BackendKind;

    /// Whether `upstream` (the backend's name of a model) can meet `demand` for a caller of `dialect`.
    fn supports(&self, upstream: &str, dialect: Dialect, demand: Demand) -> Support;

    /// Whether a request of `dialect` reaches the model with all its fields, known or not.
    fn passes_through(&self, upstream: &str, dialect: Dialect) -> bool;

    /// Whether the backend acts on the field at `path`, which the caller's dialect holds as a hint, although the
    /// request does not pass through. Such a field is not named as ignored.
    fn acts_on_hint(&self, _upstream: &str, _dialect: Dialect, _path: &str) -> bool {
        false
    }

    /// Paths of fields that the backend understands in other requests and leaves out of this one, such as a sampling
    /// option that the dialect of its upstream does not have. They are named as ignored.
    fn leaves_out(&self, _upstream: &str, _request: &InferenceRequest) -> Vec<String> {
        Vec::new()
    }

    /// Counts the input tokens that the attempt's request would have, without generating. `None` for a backend that
    /// cannot say; whoever asks is then told so rather than given a guess.
    fn count_input_tokens(&self, _attempt: Attempt) -> Option<TokenCount> {
        None
    }

    /// Starts one attempt. Returns at once; the first item of the stream is [`RunEvent::Started`] or the error.
    fn generate(&self, attempt: Attempt) -> RunStream;
}

/// One try of a request on one deployment.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The request.
    pub request: Arc<InferenceRequest>,
    /// The backend's own name for the model.
    pub upstream: Arc<str>,
    /// The catalogue id that answers carry.
    pub served_model: Arc<str>,
    /// The id of the HTTP request, sent upstream for correlation.
    pub request_id: Arc<str>,
    /// Requests with the same key share one place in fair queues.
    pub fairness_key: u64,
    /// Only requests with the same salt may share cached prefixes.
    pub cache_salt: u64,
    /// The clocks of this attempt. The run's owner keeps `first_event_timeout`, `idle_timeout` and
    /// `run_deadline`; the backend keeps `connect_timeout`.
    pub timeouts: Timeouts,
}

/// The four clocks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the upstream's connection stands, TLS included.
    pub connect_timeout: Duration,
    /// From the start of an attempt to its first event.
    pub first_event_timeout: Duration,
    /// Between two events.
    pub idle_timeout: Duration,
    /// From admission to the end, all attempts together.
    pub run_deadline: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            // Reasoning models on slow hosts may think for minutes before the first byte.
            first_event_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(120),
            // Agents run for half an hour; the official SDKs give up after ten minutes by default.
            run_deadline: Duration::from_secs(3_600),
        }
    }
}
