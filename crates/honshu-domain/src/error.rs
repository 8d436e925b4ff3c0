//! The one error type that crosses crate borders. What the caller reads (`message`, `param`, `code`) and
//! what we log (`cause`) never mix. Each dialect maps [`ErrorKind`] to status and body in one file.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result of work that can fail towards a caller.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as anybody branches on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No credential, or one that is not good. Which of them is not told. 401.
    Unauthenticated,
    /// Not authorized, or not there: the two look the same. 404.
    NotFound,
    /// A model name that is unknown or not allowed: the two look the same. 404 `model_not_found`.
    ModelNotFound,
    /// The request is malformed; `problems` has each place. 400.
    Invalid,
    /// No backend of the model can do what is demanded. 400.
    Unsupported,
    /// Prompt and answer do not fit the model's context. 400 `context_length_exceeded`.
    ContextLength,
    /// `previous_response_id` names nothing that this caller can continue. 400.
    PreviousResponseNotFound,
    /// The method does not exist on this path. 405.
    MethodNotAllowed,
    /// The body came too slowly. 408.
    RequestTimeout,
    /// The state of the resource forbids it, for good. 409 `Conflict`.
    Conflict,
    /// `if-match` names another version. 412.
    PreconditionFailed,
    /// The body is larger than the limit. 413.
    TooLarge,
    /// The body has a content type or encoding that is not taken. 415.
    UnsupportedMedia,
    /// A limit of the caller, or the queue is full: later. 429 with `Retry-After`.
    RateLimited,
    /// Our own fault. 500.
    Internal,
    /// In OCI's API but not built here. 501 `MethodNotImplemented`.
    NotImplemented,
    /// The upstream answered with an error of its own, or nonsense, or broke off. 502.
    Upstream,
    /// We cannot now: starting, draining, out of memory or disk. 503 with `Retry-After`.
    Unavailable,
    /// The upstream or the engine did not answer in time. 504.
    Timeout(TimeoutKind),
    /// The caller has left. Never written to anybody; recorded as the outcome.
    Cancelled,
}

/// Which of the four clocks of a run ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeoutKind {
    /// No connection to the upstream within `connect_timeout`.
    Connect,
    /// No first event within `first_event_timeout`.
    FirstEvent,
    /// No event for `idle_timeout`.
    Idle,
    /// The run took longer than `run_deadline`.
    Deadline,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The caller's.
    Client,
    /// The provider's.
    Upstream,
    /// Ours.
    Internal,
}

/// Whether the same attempt may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// Another try, here or on another deployment, may succeed.
    Now,
    /// Not before this much time.
    After(Duration),
}

/// One place in a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The JSON path, such as `input[0].content[1].type`; empty for the whole body.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// An error on its way to a caller and to the log.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    origin: Origin,
    retry: Retry,
    message: String,
    param: Option<String>,
    code: Option<String>,
    problems: Vec<Problem>,
    upstream_status: Option<u16>,
    decision_id: Option<String>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with the sentence that the caller reads.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let (origin, retry) = match kind {
            ErrorKind::Internal => (Origin::Internal, Retry::Never),
            ErrorKind::Unavailable => (Origin::Internal, Retry::Now),
            ErrorKind::Upstream | ErrorKind::Timeout(_) => (Origin::Upstream, Retry::Now),
            ErrorKind::RateLimited => (Origin::Client, Retry::After(Duration::from_secs(1))),
            _ => (Origin::Client, Retry::Never),
        };
        Self(Box::new(Inner {
            kind,
            origin,
            retry,
            message: message.into(),
            param: None,
            code: None,
            problems: Vec::new(),
            upstream_status: None,
            decision_id: None,
            cause: None,
        }))
    }

    /// Bad request: one or more problems, each with its path. The message names them all.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        let message = problems
            .iter()
            .map(|problem| {
                if problem.path.is_empty() {
                    problem.message.clone()
                } else {
                    format!("`{}`: {}", problem.path, problem.message)
                }
            })
            .collect::<Vec<_>>()
            .join("; ");
        let mut error = Self::new(ErrorKind::Invalid, message);
        error.0.param = problems
            .first()
            .map(|problem| problem.path.clone())
            .filter(|path| !path.is_empty());
        error.0.problems = problems;
        error
    }

    /// Bad request with one problem.
    pub fn invalid_at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![Problem {
            path: path.into(),
            message: message.into(),
        }])
    }

    /// Our own fault. The caller reads a fixed sentence; `cause` goes to the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(
            ErrorKind::Internal,
            "the server met an unexpected condition; the request id finds it in the server's log",
        )
        .with_cause(cause)
    }

    /// Replaces the sentence that the caller reads.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Names the field at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// Sets a code other than the kind's own.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// Sets whose fault it is.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.0.origin = origin;
        self
    }

    /// Sets the retry verdict.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Keeps what the log needs and the caller must not see.
    #[must_use]
    pub fn with_cause(
        mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.cause = Some(Arc::from(cause.into()));
        self
    }

    /// The status that the upstream answered with.
    #[must_use]
    pub fn with_upstream_status(mut self, status: u16) -> Self {
        self.0.upstream_status = Some(status);
        self
    }

    /// The opaque id under which the policy decision can be explained (`opc-decision-id`).
    #[must_use]
    pub fn with_decision_id(mut self, id: impl Into<String>) -> Self {
        self.0.decision_id = Some(id.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whose fault it is.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Whether the same attempt may be made again.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The sentence for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The field at fault.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// A code other than the kind's own.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Every problem found in a bad request.
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }

    /// The upstream's status, where an upstream answered.
    pub fn upstream_status(&self) -> Option<u16> {
        self.0.upstream_status
    }

    /// The policy decision's id.
    pub fn decision_id(&self) -> Option<&str> {
        self.0.decision_id.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("origin", &self.0.origin)
            .field("message", &self.0.message)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .cause
            .as_deref()
            .map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}
