//! The owner of a run: the one task that holds the backend's stream, makes the tries, forwards events, and
//! settles. It outlives the subscriber; nothing else may poll a backend.
//!
//! Three things hold at every await in here: a subscriber that left stops the backend, a clock that ran out
//! stops the backend, and a shutdown stops the backend. All of them lead to one [`Ending`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use honshu_domain::{
    Attempt, Deployment, Error, ErrorKind, FailureReason, InferenceRequest, Model, Origin,
    PublicId, Retry, RunEvent, RunStream, Status, TimeoutKind, Timestamp,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::Shared;
use crate::balance::Verdict;
use crate::call::Call;
use crate::plan::{Next, Plan, Planned, ignored_by};
use crate::record::{Ending, Settlement};
use crate::run::{Message, RunFacts, Step};
use crate::signals::{Interrupt, Signals, later};

/// The code of the error with which live runs end when the server stops.
pub const SHUTDOWN_CODE: &str = "server_shutdown";

/// Makes a shorter request of one that did not fit. `None` when nothing is left to leave out.
pub type Shorten = fn(&InferenceRequest) -> Option<InferenceRequest>;

/// Owns a run from admission to its recorded end.
pub(crate) async fn own(
    shared: Arc<Shared>,
    planned: Planned,
    shorten: Option<Shorten>,
    sender: mpsc::Sender<Message>,
) {
    let Planned {
        call,
        request,
        model,
        admission,
        plan,
    } = planned;
    let started = shared.clock.now();
    let run_id: Arc<str> = PublicId::generate_ordered("run_", started, &*shared.entropy)
        .as_str()
        .into();
    let begun = Instant::now();
    let deadline = later(begun, call.timeouts.run_deadline);
    let mut settlement = Settlement::new(&shared, &call, &request.model, &run_id, started, begun);
    let ending = {
        let left = pin!(sender.closed());
        let shutdown = pin!(shared.shutdown.cancelled());
        let timer = pin!(tokio::time::sleep_until(deadline));
        let mut owner = Owner {
            shared: &shared,
            call: &call,
            request,
            shorten,
            model: &model,
            run_id: &run_id,
            started,
            sender: &sender,
            signals: Signals::new(left, shutdown, timer, deadline),
            settlement: &mut settlement,
            plan,
            committed: false,
            held: None,
            last: Last::Other,
        };
        owner.serve().await
    };
    let ending = settlement.settle(&shared, ending).await;
    // The place is free before the subscriber hears of the end, so that its next request finds it.
    drop(admission);
    deliver(ending, &sender, shared.limits.subscriber_stall_max).await;
}

async fn deliver(ending: Ending, sender: &mpsc::Sender<Message>, stall_max: Duration) {
    let Ending {
        outcome,
        error,
        tail,
        committed,
    } = ending;
    let last = if committed {
        // The work that the caller asked for was done at least in part: a program that repeats the request by
        // itself would pay for it again.
        let error = error.map(|error| error.with_retry(Retry::Never));
        Message::Step(Step::End { outcome, error })
    } else {
        let cancelled = || Error::new(ErrorKind::Cancelled, "the caller has left");
        Message::Refused(error.unwrap_or_else(cancelled))
    };
    let tail = tail
        .into_iter()
        .flatten()
        .map(|event| Message::Step(Step::Event(event)));
    for message in tail.chain([last]) {
        if let Err(TrySendError::Full(message)) = sender.try_send(message) {
            let sent = tokio::time::timeout(stall_max, sender.send(message)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// A failed try, and why for the row.
struct Failure {
    error: Error,
    reason: FailureReason,
}

impl Failure {
    fn of(error: Error) -> Self {
        let reason = match (error.kind(), error.origin()) {
            (ErrorKind::Timeout(_), _) => FailureReason::Timeout,
            (
                ErrorKind::Invalid
                | ErrorKind::Unsupported
                | ErrorKind::ContextLength
                | ErrorKind::TooLarge,
                _,
            ) => FailureReason::Rejected,
            (ErrorKind::RateLimited | ErrorKind::Unavailable, _) => FailureReason::Overloaded,
            (ErrorKind::Internal, _) | (_, Origin::Internal) => FailureReason::Internal,
            (_, Origin::Client) => FailureReason::Rejected,
            (_, Origin::Upstream) => FailureReason::Upstream,
        };
        Self { error, reason }
    }

    fn cut() -> Self {
        Self {
            error: Error::new(
                ErrorKind::Upstream,
                "the model's answer was cut off before its end",
            ),
            reason: FailureReason::Cut,
        }
    }
}

enum Tried {
    /// The run is over.
    Ended(Box<Ending>),
    /// The try failed before its first event.
    Failed(Failure),
}

/// What the last event says about how near the end is.
enum Last {
    /// A part, item or choice is whole: usage may follow at once.
    Whole,
    /// A native frame; it is looked into only if the subscriber leaves.
    Native(honshu_domain::NativeFrame),
    Other,
}

impl Last {
    fn of(event: &RunEvent) -> Self {
        match event {
            RunEvent::PartDone { .. }
            | RunEvent::ItemDone { .. }
            | RunEvent::ChoiceFinished { .. } => Self::Whole,
            RunEvent::Native(frame) => Self::Native(frame.clone()),
            _ => Self::Other,
        }
    }

    fn is_near_the_end(&self) -> bool {
        const FINISH: &[u8] = b"\"finish_reason\":\"";
        match self {
            Self::Whole => true,
            Self::Other => false,
            Self::Native(frame) => match frame.event.as_deref() {
                Some(event) => event.ends_with(".done"),
                None => frame
                    .json
                    .windows(FINISH.len())
                    .any(|window| window == FINISH),
            },
        }
    }
}

struct Owner<'a> {
    shared: &'a Shared,
    call: &'a Call,
    request: Arc<InferenceRequest>,
    shorten: Option<Shorten>,
    model: &'a Arc<Model>,
    run_id: &'a Arc<str>,
    started: Timestamp,
    sender: &'a mpsc::Sender<Message>,
    signals: Signals<'a>,
    settlement: &'a mut Settlement,
    plan: Plan,
    /// The first event of a try went to the subscriber: no other try any more.
    committed: bool,
    /// The upstream's own terminal frame: it waits until `Finished` came and the row is durable.
    held: Option<RunEvent>,
    last: Last,
}

impl<'a> Owner<'a> {
    /// Makes tries until one has an end, or none is left.
    async fn serve(&mut self) -> Ending {
        loop {
            let deployment = &self.model.deployments[self.plan.next()];
            let failure = match self.attempt(deployment).await {
                Tried::Ended(ending) => return *ending,
                Tried::Failed(failure) => failure,
            };
            self.note(deployment, &failure.error);
            match self.prepare_next(&failure.error).await {
                Ok(true) => tracing::debug!(
                    request_id = &*self.call.request_id,
                    deployment = deployment.backend.name(),
                    kind = ?failure.error.kind(),
                    "an attempt failed before its first event; trying again"
                ),
                Ok(false) if self.make_shorter(&failure.error) => tracing::debug!(
                    request_id = &*self.call.request_id,
                    items = self.request.input.len(),
                    "the input is too long; trying again with less of it"
                ),
                Ok(false) => return self.failed(failure),
                Err(interrupt) => return self.interrupted(interrupt, TimeoutKind::Deadline),
            }
        }
    }

    /// After a request that was too long: the next one, if it may be made shorter.
    fn make_shorter(&mut self, error: &Error) -> bool {
        if error.kind() != ErrorKind::ContextLength {
            return false;
        }
        let shorter = self.shorten.and_then(|shorten| shorten(&self.request));
        let Some(shorter) = shorter else {
            return false;
        };
        self.request = Arc::new(shorter);
        self.plan.begin_again();
        true
    }

    /// Whether there is another try; waits as long as it must.
    async fn prepare_next(&mut self, error: &Error) -> Result<bool, Interrupt> {
        let limits = &self.shared.limits;
        let wait = match self.plan.after(error, limits.attempts_max) {
            Next::GiveUp => return Ok(false),
            Next::Other => Duration::ZERO,
            Next::Again { asked, round } => {
                let backoff = limits
                    .retry_backoff_first
                    .saturating_mul(1 << round.min(16));
                let backoff = self.with_jitter(backoff);
                asked.map_or(backoff, |asked| asked.max(backoff))
            }
        };
        let in_time = Instant::now()
            .checked_add(wait)
            .is_some_and(|then| then < self.signals.deadline());
        if wait > limits.retry_wait_max || !in_time || !self.shared.budget.withdraw() {
            return Ok(false);
        }
        if !wait.is_zero() {
            self.signals.sleep(wait).await?;
        }
        Ok(true)
    }

    /// Between half of `wait` and all of it, so that callers who failed together do not come back together.
    fn with_jitter(&self, wait: Duration) -> Duration {
        let mut random = [0_u8; 2];
        self.shared.entropy.fill(&mut random);
        let half = wait / 2;
        half + half.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
    }

    /// One try on one deployment, to the end of the run or to a failure before the first event.
    async fn attempt(&mut self, deployment: &'a Deployment) -> Tried {
        let timeouts = self.call.timeouts;
        self.settlement
            .tally
            .attempt(&self.model.id, deployment.backend.name());
        self.settlement.tally.ignored = ignored_by(deployment, &self.request);
        let began = Instant::now();
        self.signals
            .begin_phase(began, timeouts.first_event_timeout);
        let mut stream = Guarded::begin(deployment, self.attempt_of(deployment));
        let first = match self.first_event(&mut stream, began).await {
            Ok(first) => first,
            Err(tried) => return tried,
        };
        match self.commit(deployment, first.start).await {
            Ok(()) => {}
            Err(interrupt) => {
                return Tried::Ended(Box::new(self.interrupted(interrupt, TimeoutKind::Idle)));
            }
        }
        let ending = self.forward_all(&mut stream, first.event, began).await;
        match &ending.error {
            None if ending.outcome.status != Status::Cancelled => {
                self.shared
                    .balancer
                    .note(self.model, deployment, Verdict::Good);
            }
            None => {}
            Some(error) => self.note(deployment, error),
        }
        Tried::Ended(Box::new(ending))
    }

    fn attempt_of(&self, deployment: &Deployment) -> Attempt {
        Attempt {
            request: Arc::clone(&self.request),
            upstream: Arc::clone(&deployment.upstream),
            served_model: Arc::clone(&self.model.id),
            request_id: Arc::clone(&self.call.request_id),
            fairness_key: self.call.principal.fairness_key(),
            cache_salt: self.call.principal.cache_salt(),
            timeouts: self.call.timeouts,
        }
    }

    /// Waits for the first event after `Started`: until it is there, another try costs the caller nothing.
    /// A streamed run does not wait longer than `commit_after`.
    async fn first_event(&mut self, stream: &mut Guarded, began: Instant) -> Result<First, Tried> {
        let first_event_timeout = self.call.timeouts.first_event_timeout;
        let commit_after = self.shared.limits.commit_after;
        let mut start = None;
        let mut may_commit_early = false;
        loop {
            match stream.next(&mut self.signals).await {
                Ok(Some(Ok(event @ RunEvent::Started { .. }))) if start.is_none() => {
                    self.settlement.tally.count(&event);
                    start = Some(event);
                    let now = Instant::now();
                    let left = first_event_timeout.saturating_sub(now - began);
                    if self.request.stream && commit_after < left {
                        may_commit_early = true;
                        self.signals.begin_phase(now, commit_after);
                    }
                }
                Ok(Some(Ok(event))) => {
                    return Ok(First {
                        start,
                        event: Some(event),
                    });
                }
                Ok(Some(Err(error))) => return Err(Tried::Failed(Failure::of(error))),
                Ok(None) => return Err(Tried::Failed(Failure::cut())),
                Err(Interrupt::Phase) if may_commit_early => {
                    return Ok(First { start, event: None });
                }
                Err(Interrupt::Phase) => {
                    let error = timeout_error(TimeoutKind::FirstEvent, first_event_timeout);
                    return Err(Tried::Failed(Failure::of(error)));
                }
                Err(interrupt) => {
                    return Err(Tried::Ended(Box::new(
                        self.interrupted(interrupt, TimeoutKind::FirstEvent),
                    )));
                }
            }
        }
    }

    /// Hands the run to the subscriber.
    async fn commit(
        &mut self,
        deployment: &Deployment,
        start: Option<RunEvent>,
    ) -> Result<(), Interrupt> {
        let facts = RunFacts {
            run_id: Arc::clone(self.run_id),
            model: Arc::clone(self.model),
            deployment: self
                .settlement
                .tally
                .deployment
                .clone()
                .unwrap_or_else(|| deployment.backend.name().into()),
            ignored: self.settlement.tally.ignored.clone(),
            attempts: self.plan.attempts(),
            started: self.started,
        };
        self.committed = true;
        self.send(Message::Began(Box::new(facts))).await?;
        if let Some(start) = start {
            self.send(Message::Step(Step::Event(start))).await?;
        }
        Ok(())
    }

    /// Forwards events until the end.
    async fn forward_all(
        &mut self,
        stream: &mut Guarded,
        first: Option<RunEvent>,
        began: Instant,
    ) -> Ending {
        let mut phase = TimeoutKind::Idle;
        let mut next = match first {
            Some(event) => Ok(Some(Ok(event))),
            None => {
                // Committed early: the first event is still to come, under its own clock.
                phase = TimeoutKind::FirstEvent;
                self.signals
                    .begin_phase(began, self.call.timeouts.first_event_timeout);
                stream.next(&mut self.signals).await
            }
        };
        loop {
            let interrupt = match next {
                Ok(Some(Ok(RunEvent::Finished(finish)))) => {
                    self.first_event_now();
                    let outcome = self.settlement.tally.finished(&finish);
                    return Ending {
                        outcome,
                        error: None,
                        tail: [self.held.take(), Some(RunEvent::Finished(finish))],
                        committed: true,
                    };
                }
                Ok(Some(Ok(event))) => match self.forward(event, &mut phase).await {
                    Ok(()) => {
                        next = stream.next(&mut self.signals).await;
                        continue;
                    }
                    Err(interrupt) => interrupt,
                },
                Ok(Some(Err(error))) => return self.failed(Failure::of(error)),
                Ok(None) => return self.failed(Failure::cut()),
                Err(interrupt) => interrupt,
            };
            if interrupt == Interrupt::Left && self.last.is_near_the_end() {
                return self.drain(stream).await;
            }
            return self.interrupted(interrupt, phase);
        }
    }

    /// Forwards one event. After the upstream's own terminal frame nothing is forwarded any more.
    async fn forward(&mut self, event: RunEvent, phase: &mut TimeoutKind) -> Result<(), Interrupt> {
        let now = self.first_event_now();
        if *phase == TimeoutKind::FirstEvent || self.settlement.tally.first_event == Some(now) {
            *phase = TimeoutKind::Idle;
            self.signals
                .begin_phase(now, self.call.timeouts.idle_timeout);
        }
        self.signals.progress(now)?;
        if self.held.is_some() {
            return Ok(());
        }
        self.settlement.tally.count(&event);
        self.last = Last::of(&event);
        if is_terminal_frame(&event) {
            self.held = Some(event);
            return Ok(());
        }
        self.send(Message::Step(Step::Event(event))).await
    }

    fn first_event_now(&mut self) -> Instant {
        let now = Instant::now();
        self.settlement.tally.first_event.get_or_insert(now);
        now
    }

    async fn send(&mut self, message: Message) -> Result<(), Interrupt> {
        match self.sender.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Interrupt::Left),
            Err(TrySendError::Full(message)) => {
                // The subscriber is slow: the backend is not read meanwhile, and only the subscriber's own
                // clock runs.
                self.signals
                    .begin_phase(Instant::now(), self.shared.limits.subscriber_stall_max);
                let sent = self.signals.watch(self.sender.send(message)).await;
                self.signals
                    .begin_phase(Instant::now(), self.call.timeouts.idle_timeout);
                match sent {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(Interrupt::Phase) => Err(Interrupt::Left),
                    Err(interrupt) => Err(interrupt),
                }
            }
        }
    }

    /// The subscriber left when the answer was all but over: a moment for the upstream's usage counts.
    async fn drain(&mut self, stream: &mut Guarded) -> Ending {
        let until_finished = async {
            loop {
                match std::future::poll_fn(|cx| stream.poll_next(cx)).await {
                    Some(Ok(RunEvent::Finished(finish))) => return Some(finish),
                    Some(Ok(event)) => self.settlement.tally.count(&event),
                    Some(Err(_)) | None => return None,
                }
            }
        };
        let limit = self.shared.limits.drain_after_leave_max;
        let finish = tokio::time::timeout(limit, until_finished)
            .await
            .ok()
            .flatten();
        let mut ending = self.cancelled();
        if let Some(finish) = finish {
            ending.outcome = self.settlement.tally.finished(&finish);
            ending.outcome.status = Status::Cancelled;
        }
        ending
    }

    fn note(&self, deployment: &Deployment, error: &Error) {
        let verdict = match (error.kind(), error.retry()) {
            (ErrorKind::RateLimited, Retry::After(rest)) => Verdict::Rest(rest),
            (ErrorKind::RateLimited, _) => Verdict::Rest(self.shared.limits.rest_first),
            // The caller's fault says nothing about the deployment; neither does our own deadline.
            (
                ErrorKind::Timeout(TimeoutKind::Deadline)
                | ErrorKind::Cancelled
                | ErrorKind::Invalid
                | ErrorKind::Unsupported
                | ErrorKind::ContextLength
                | ErrorKind::TooLarge,
                _,
            ) => return,
            _ if error.origin() == Origin::Client || error.code() == Some(SHUTDOWN_CODE) => return,
            _ => Verdict::Bad,
        };
        self.shared.balancer.note(self.model, deployment, verdict);
    }

    fn interrupted(&self, interrupt: Interrupt, phase: TimeoutKind) -> Ending {
        let timeouts = &self.call.timeouts;
        let error = match interrupt.timeout(phase) {
            Some(kind) => timeout_error(
                kind,
                match kind {
                    TimeoutKind::Connect => timeouts.connect_timeout,
                    TimeoutKind::FirstEvent => timeouts.first_event_timeout,
                    TimeoutKind::Idle => timeouts.idle_timeout,
                    TimeoutKind::Deadline => timeouts.run_deadline,
                },
            ),
            None if interrupt == Interrupt::Left => return self.cancelled(),
            None => {
                return self.failed(Failure {
                    error: Error::new(ErrorKind::Unavailable, "the server is shutting down")
                        .with_code(SHUTDOWN_CODE),
                    reason: FailureReason::Shutdown,
                });
            }
        };
        self.failed(Failure::of(error))
    }

    fn failed(&self, failure: Failure) -> Ending {
        let Failure { error, reason } = failure;
        // A backend does not know by which name the caller gave the conversation.
        let error = if error.kind() == ErrorKind::ContextLength && error.param().is_none() {
            error.with_param(self.request.dialect.prompt_field())
        } else {
            error
        };
        Ending {
            outcome: self.settlement.tally.broken(Status::Failed(reason)),
            error: Some(error),
            tail: [None, None],
            committed: self.committed,
        }
    }

    fn cancelled(&self) -> Ending {
        Ending {
            outcome: self.settlement.tally.broken(Status::Cancelled),
            error: None,
            tail: [None, None],
            committed: self.committed,
        }
    }
}

/// What came first: `Started`, if the backend sent it, and the event after it, if the run did not commit early.
struct First {
    start: Option<RunEvent>,
    event: Option<RunEvent>,
}

/// A whole answer, or the frame with which a Responses stream says its end.
fn is_terminal_frame(event: &RunEvent) -> bool {
    match event {
        RunEvent::Native(frame) => {
            frame.whole
                || matches!(
                    frame.event.as_deref(),
                    Some(
                        "response.completed" | "response.incomplete" | "response.failed" | "error"
                    )
                )
        }
        _ => false,
    }
}

fn timeout_error(kind: TimeoutKind, limit: Duration) -> Error {
    let seconds = limit.as_secs_f64();
    let message = match kind {
        TimeoutKind::Connect => format!("no connection to the provider within {seconds} s"),
        TimeoutKind::FirstEvent => format!("the model did not begin to answer within {seconds} s"),
        TimeoutKind::Idle => format!("the model sent nothing for {seconds} s"),
        TimeoutKind::Deadline => format!("the answer took longer than {seconds} s"),
    };
    let error = Error::new(ErrorKind::Timeout(kind), message);
    if kind == TimeoutKind::Deadline {
        error.with_retry(Retry::Never)
    } else {
        error
    }
}

/// A backend's stream whose panics are errors: they cost this run and nothing else.
struct Guarded {
    stream: Option<RunStream>,
    /// What `Backend::generate` itself failed with.
    refused: Option<Error>,
}

#[derive(Debug, thiserror::Error)]
#[error("the backend panicked: {0}")]
struct Panicked(String);

impl Panicked {
    fn error(payload: &(dyn Any + Send)) -> Error {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Error::internal(Self(text.unwrap_or_else(|| "no message".to_owned())))
    }
}

impl Guarded {
    fn begin(deployment: &Deployment, attempt: Attempt) -> Self {
        match catch_unwind(AssertUnwindSafe(|| deployment.backend.generate(attempt))) {
            Ok(stream) => Self {
                stream: Some(stream),
                refused: None,
            },
            Err(payload) => Self {
                stream: None,
                refused: Some(Panicked::error(&*payload)),
            },
        }
    }

    /// The next event, or what came before it.
    async fn next(
        &mut self,
        signals: &mut Signals<'_>,
    ) -> Result<Option<Result<RunEvent, Error>>, Interrupt> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(item) = self.poll_next(cx) {
                return Poll::Ready(Ok(item));
            }
            signals.poll(cx).map(Err)
        })
        .await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RunEvent, Error>>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(None);
        };
        match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll_next(cx))) {
            Ok(polled) => polled,
            Err(payload) => {
                self.drop_stream();
                Poll::Ready(Some(Err(Panicked::error(&*payload))))
            }
        }
    }

    fn drop_stream(&mut self) {
        let stream = self.stream.take();
        // A destructor may panic as well; nothing more can be learnt from it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(stream)));
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.drop_stream();
    }
}
