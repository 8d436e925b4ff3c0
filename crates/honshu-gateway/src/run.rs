//! The subscriber's side of a run, and the hand-over from the path to the run's owner.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use honshu_domain::{Error, FailureReason, Model, Outcome, RunEvent, Status, Usage};
use tokio::sync::mpsc;

use crate::Shared;
use crate::owner::{self, Shorten};
use crate::plan::Planned;

/// A run that has begun to answer.
#[derive(Debug)]
pub struct Run {
    /// What is known of it from the start.
    pub facts: RunFacts,
    messages: mpsc::Receiver<Message>,
    ended: bool,
}

/// What is known of a run when its first event is there.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// The key of the run's usage row.
    pub run_id: Arc<str>,
    /// The model that answers.
    pub model: Arc<Model>,
    /// The backend that answers: a provider's name or `engine`.
    pub deployment: Arc<str>,
    /// JSON paths of the fields that were accepted and are not acted upon (`honshu-ignored`).
    pub ignored: Vec<String>,
    /// How many tries were made, this one included.
    pub attempts: u32,
    /// When the run was admitted, on the wall clock.
    pub started: honshu_domain::Timestamp,
}

/// One step of a run.
#[derive(Debug)]
pub enum Step {
    /// An event of the answer, [`RunEvent::Started`] first. [`RunEvent::Finished`] comes only when the usage
    /// row is durable, directly before the end.
    Event(RunEvent),
    /// The end: exactly one, last. The usage row is durable before it is delivered.
    End {
        /// How it ended.
        outcome: Outcome,
        /// Why, when it failed.
        error: Option<Error>,
    },
}

/// What an owner tells its subscriber.
#[derive(Debug)]
pub(crate) enum Message {
    /// The first event is there.
    Began(Box<RunFacts>),
    /// No attempt came to a first event.
    Refused(Error),
    /// The answer.
    Step(Step),
}

impl Run {
    /// The next step; `None` after the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Step> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Run::next`] for hand-written bodies.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let step = match ready!(self.messages.poll_recv(cx)) {
            Some(Message::Step(step)) => step,
            // The owner is gone without a word: it panicked, or the runtime is going down. Its settlement
            // records the run; the subscriber must not take silence for a good end.
            Some(Message::Began(_) | Message::Refused(_)) | None => lost_owner(),
        };
        self.ended = matches!(step, Step::End { .. });
        Poll::Ready(Some(step))
    }
}

fn lost_owner() -> Step {
    Step::End {
        outcome: Outcome {
            status: Status::Failed(FailureReason::Internal),
            usage: Usage::default(),
            usage_exact: false,
        },
        error: Some(Error::internal(
            "the owner of the run ended without an outcome",
        )),
    }
}

/// Gives the run to its owner and waits for the first event.
pub(crate) async fn start(
    shared: Arc<Shared>,
    planned: Planned,
    shorten: Option<Shorten>,
) -> Result<Run, Error> {
    let (sender, mut messages) = mpsc::channel(shared.limits.events_buffered_max.max(1));
    shared.budget.deposit();
    let owners = shared.owners.clone();
    owners.spawn(owner::own(shared, planned, shorten, sender));
    match messages.recv().await {
        Some(Message::Began(facts)) => Ok(Run {
            facts: *facts,
            messages,
            ended: false,
        }),
        Some(Message::Refused(error)) => Err(error),
        Some(Message::Step(_)) | None => Err(Error::internal(
            "the owner of the run ended without an outcome",
        )),
    }
}
