//! Settlement: the one usage row and the one log line that every run leaves behind, whatever its end.
//!
//! A run that cannot be recorded is not a completed run: the caller is told so. Must never write bodies,
//! prompts or answers anywhere.

use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::task::{Context, Waker};

use honshu_domain::{
    Error, ErrorKind, FailureReason, Finish, FinishReason, Origin, Outcome, RunEvent, Status,
    Timestamp, Usage, UsageLog, UsageRow,
};
use tokio::time::Instant;

use crate::Shared;
use crate::call::Call;

/// How a run ended, before it is recorded and delivered.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<Error>,
    /// What the subscriber gets between the row and the end: the upstream's own terminal frame, `Finished`.
    pub(crate) tail: [Option<RunEvent>; 2],
    /// Whether the subscriber got the first event.
    pub(crate) committed: bool,
}

/// What a run has shown so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) attempts: u32,
    pub(crate) model_served: Option<Arc<str>>,
    pub(crate) deployment: Option<Arc<str>>,
    pub(crate) first_event: Option<Instant>,
    /// What the deployment that was tried last does not act upon.
    pub(crate) ignored: Vec<String>,
    input_tokens: u64,
    pieces: u64,
}

impl Tally {
    /// A try on another deployment: what the one before showed does not count.
    pub(crate) fn attempt(&mut self, model: &Arc<str>, deployment: &str) {
        self.attempts += 1;
        self.input_tokens = 0;
        self.pieces = 0;
        if self.deployment.as_deref() != Some(deployment) {
            self.deployment = Some(deployment.into());
        }
        self.model_served = Some(Arc::clone(model));
    }

    /// Counts an event. Backends send about one piece a token, so pieces stand for output tokens when a run
    /// ends before its usage is reported; such rows are marked as not exact.
    pub(crate) fn count(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Started {
                input_tokens: Some(tokens),
                ..
            } => self.input_tokens = *tokens,
            RunEvent::Delta { .. } | RunEvent::ArgumentsDelta { .. } => self.pieces += 1,
            RunEvent::Native(frame) if !frame.whole => {
                let is_piece = frame
                    .event
                    .as_deref()
                    .is_none_or(|event| event.ends_with(".delta"));
                self.pieces += u64::from(is_piece);
            }
            _ => {}
        }
    }

    fn partial_usage(&self) -> Usage {
        Usage {
            input_tokens: self.input_tokens,
            output_tokens: self.pieces,
            ..Usage::default()
        }
    }

    /// The end that the backend declared.
    pub(crate) fn finished(&self, finish: &Finish) -> Outcome {
        Outcome {
            status: match finish.reason {
                FinishReason::Stop | FinishReason::ToolCalls => Status::Completed,
                reason @ (FinishReason::Length | FinishReason::ContentFilter) => {
                    Status::Incomplete(reason)
                }
            },
            usage: finish.usage.unwrap_or_else(|| self.partial_usage()),
            usage_exact: finish.usage.is_some(),
        }
    }

    /// Any other end.
    pub(crate) fn broken(&self, status: Status) -> Outcome {
        Outcome {
            status,
            usage: self.partial_usage(),
            usage_exact: false,
        }
    }
}

/// Settles a run exactly once: by [`Settlement::settle`], or on drop if the owner never came so far.
pub(crate) struct Settlement {
    usage: Arc<dyn UsageLog>,
    /// Present until settled.
    row: Option<Box<UsageRow>>,
    begun: Instant,
    pub(crate) tally: Tally,
}

impl Settlement {
    pub(crate) fn new(
        shared: &Shared,
        call: &Call,
        model_asked: &Arc<str>,
        run_id: &Arc<str>,
        started: Timestamp,
        begun: Instant,
    ) -> Self {
        let row = UsageRow {
            run_id: Arc::clone(run_id),
            request_id: Arc::clone(&call.request_id),
            started,
            principal: call.principal.id.clone(),
            secret_name: call.principal.secret_name.clone(),
            compartment: call.compartment.clone(),
            region: call.region.name_arc(),
            operation: call.operation.into(),
            model_asked: Arc::clone(model_asked),
            model_served: "".into(),
            deployment: "".into(),
            attempts: 0,
            status: "".into(),
            reason: None,
            usage: Usage::default(),
            usage_exact: false,
            first_event_us: None,
            total_us: 0,
        };
        Self {
            usage: Arc::clone(&shared.usage),
            row: Some(Box::new(row)),
            begun,
            tally: Tally::default(),
        }
    }

    /// Makes the row durable and writes the log line. The ending that comes back is what the caller may be told.
    pub(crate) async fn settle(&mut self, shared: &Shared, mut ending: Ending) -> Ending {
        let Some(row) = self.fill(&ending.outcome, ending.error.as_ref()) else {
            return ending;
        };
        log(&row, &self.tally.ignored, ending.error.as_ref());
        let run_id = Arc::clone(&row.run_id);
        let recorded =
            tokio::time::timeout(shared.limits.record_timeout, self.usage.record(*row)).await;
        let failure = match recorded {
            Ok(Ok(())) => return ending,
            Ok(Err(error)) => error,
            Err(_elapsed) => Error::new(
                ErrorKind::Unavailable,
                "the usage log did not answer in time",
            ),
        };
        tracing::error!(run_id = &*run_id, error = %Chain(&failure), "the usage row was not recorded");
        if matches!(
            ending.outcome.status,
            Status::Completed | Status::Incomplete(_)
        ) {
            ending.outcome.status = Status::Failed(FailureReason::Internal);
            ending.tail = [None, None];
            ending.error = Some(
                Error::new(
                    ErrorKind::Unavailable,
                    "the answer could not be recorded, so it does not count; try again later",
                )
                .with_cause(failure),
            );
        }
        ending
    }

    fn fill(&mut self, outcome: &Outcome, error: Option<&Error>) -> Option<Box<UsageRow>> {
        let mut row = self.row.take()?;
        let now = Instant::now();
        if let Some(model) = self.tally.model_served.take() {
            row.model_served = model;
        }
        if let Some(deployment) = self.tally.deployment.take() {
            row.deployment = deployment;
        }
        row.attempts = self.tally.attempts;
        row.status = outcome.status.as_str().into();
        row.reason = reason_word(outcome.status, error).map(Into::into);
        row.usage = outcome.usage;
        row.usage_exact = outcome.usage_exact;
        row.first_event_us = self
            .tally
            .first_event
            .map(|first| micros(self.begun, first));
        row.total_us = micros(self.begun, now);
        Some(row)
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        let outcome = self.tally.broken(Status::Failed(FailureReason::Internal));
        let Some(row) = self.fill(&outcome, None) else {
            return;
        };
        // The owner panicked or its runtime is being torn down. A log begins the write at the first poll and
        // goes on without the future.
        log(&row, &self.tally.ignored, None);
        let mut write = self.usage.record(*row);
        let _ = write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}

/// The few stable words of a row's `reason`.
fn reason_word(status: Status, error: Option<&Error>) -> Option<&'static str> {
    use honshu_domain::TimeoutKind;
    Some(match status {
        Status::Completed => return None,
        Status::Incomplete(FinishReason::ContentFilter) => "content_filter",
        Status::Incomplete(_) => "length",
        Status::Cancelled => "client_left",
        Status::Failed(FailureReason::Timeout) => match error.map(Error::kind) {
            Some(ErrorKind::Timeout(TimeoutKind::Connect)) => "connect_timeout",
            Some(ErrorKind::Timeout(TimeoutKind::FirstEvent)) => "first_event_timeout",
            Some(ErrorKind::Timeout(TimeoutKind::Idle)) => "idle_timeout",
            Some(ErrorKind::Timeout(TimeoutKind::Deadline)) => "run_deadline",
            _ => "timeout",
        },
        Status::Failed(reason) => reason.as_str(),
    })
}

fn log(row: &UsageRow, ignored: &[String], error: Option<&Error>) {
    tracing::info!(
        target: "honshu::run",
        request_id = &*row.request_id,
        run_id = &*row.run_id,
        principal = row.principal.as_str(),
        secret = row.secret_name.as_deref(),
        compartment = row.compartment.as_str(),
        region = &*row.region,
        operation = &*row.operation,
        model_asked = &*row.model_asked,
        model = &*row.model_served,
        deployment = &*row.deployment,
        attempts = row.attempts,
        status = &*row.status,
        reason = row.reason.as_deref(),
        upstream_status = error.and_then(Error::upstream_status),
        ignored = (!ignored.is_empty()).then(|| ignored.join(", ")),
        cause = error.map(|error| tracing::field::display(Cause(error))),
        input_tokens = row.usage.input_tokens,
        cached_input_tokens = row.usage.cached_input_tokens,
        output_tokens = row.usage.output_tokens,
        reasoning_tokens = row.usage.reasoning_tokens,
        usage_exact = row.usage_exact,
        first_event_us = row.first_event_us,
        total_us = row.total_us,
        "run"
    );
}

/// An error with all its causes.
struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            f.write_str(": ")?;
            fmt::Display::fmt(error, f)?;
            cause = error.source();
        }
        Ok(())
    }
}

/// What the log says of an error. A message about the caller's own request may quote that request, so only its
/// kind is written.
struct Cause<'a>(&'a Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.kind())?;
        let is_about_the_request = self.0.origin() == Origin::Client
            || matches!(
                self.0.kind(),
                ErrorKind::Invalid
                    | ErrorKind::Unsupported
                    | ErrorKind::ContextLength
                    | ErrorKind::TooLarge
            );
        if !is_about_the_request {
            let mut text = String::new();
            write!(text, ": {}", Chain(self.0))?;
            // An upstream's error text is bounded here, so that it cannot flood the log.
            f.write_str(text.get(..text.floor_char_boundary(1_000)).unwrap_or(&text))?;
        }
        Ok(())
    }
}
