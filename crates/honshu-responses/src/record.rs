//! The recorder of a foreground turn: it owns the run, makes the frames, keeps the response, and only then lets the
//! last frame leave. If its caller goes away it cancels the run and keeps what there is.

use std::pin::pin;
use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    EndedResponse, Error, ErrorKind, EventSegment, FailureReason, Outcome, RawJson, RunEvent,
    Status, Usage,
};
use honshu_gateway::{Run, Step};
use honshu_wire::ResponseHead;
use honshu_wire::responses::{Collector, Kept, StreamEncoder};
use tokio::sync::mpsc;

use crate::live::{Entry, Live};
use crate::log::Log;
use crate::prepare::Prepared;
use crate::shape::Shape;
use crate::{Asked, Shared, generate};

/// Words that wait for a slow caller; the run behind them is not read meanwhile.
pub(crate) const WORDS_MAX: usize = 16;

/// What a recorder tells its caller.
#[derive(Debug)]
pub enum Words {
    /// Frames of a stream.
    Frames(Bytes),
    /// The last frames of a stream; nothing follows. The response is kept.
    End(Bytes, Option<TurnEnd>),
    /// The last frames of a stream that failed, in a dialect in which a clean end after them would read as success.
    Broken(Bytes),
    /// The whole answer of a turn that is not streamed. The response is kept.
    Whole(Bytes),
    /// Why there is no whole answer.
    Failed(Error),
}

/// A turn that ended so that it can be continued.
#[derive(Debug, Clone)]
pub struct TurnEnd {
    /// The response.
    pub id: Arc<str>,
    /// Everything up to and with it.
    pub chain: Arc<Vec<RawJson>>,
}

/// A turn that is being recorded. Dropping it cancels the run.
#[derive(Debug)]
pub struct Recorded {
    /// The response's id.
    pub id: Arc<str>,
    /// JSON paths of the fields that were accepted and are not acted upon.
    pub ignored: Vec<String>,
    words: mpsc::Receiver<Words>,
}

impl Recorded {
    pub(crate) fn new(id: Arc<str>, ignored: Vec<String>, words: mpsc::Receiver<Words>) -> Self {
        Self { id, ignored, words }
    }

    /// The next words. `None` without [`Words::End`], [`Words::Broken`], [`Words::Whole`] or [`Words::Failed`] before it means that
    /// the recorder broke. Cancel-safe.
    pub async fn next(&mut self) -> Option<Words> {
        self.words.recv().await
    }
}

struct Task {
    shared: Arc<Shared>,
    asked: Asked,
    prepared: Prepared,
    head: ResponseHead,
    entry: Entry,
    sender: mpsc::Sender<Words>,
    keeps_chain: bool,
}

/// Starts a turn. Returns when its run has begun to answer.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    mut asked: Asked,
    prepared: Prepared,
    keeps_chain: bool,
) -> Result<Recorded, Error> {
    let gateway = shared.gateway(asked.call.region.name())?.clone();
    let generates = prepared.turn.generate || !keeps_chain;
    let (run, model, ignored) = if generates {
        let call = asked.call.clone();
        let run = generate(&gateway, call, Arc::clone(&prepared.request)).await?;
        let (model, ignored) = (Arc::clone(&run.facts.model.id), run.facts.ignored.clone());
        (Some(run), model, ignored)
    } else {
        let model = gateway.model_for(&asked.call, &prepared.request)?;
        (None, Arc::clone(&model.id), Vec::new())
    };
    asked.stream |= keeps_chain;
    let id = shared.response_id();
    let head = ResponseHead {
        id: Arc::clone(&id),
        created: shared.clock.now(),
        model,
        service_tier: None,
    };
    let entry = Live::enter(shared, &asked.scope, &id);
    let (sender, words) = mpsc::channel(WORDS_MAX);
    let task = Task {
        shared: Arc::clone(shared),
        asked,
        prepared,
        head,
        entry,
        sender,
        keeps_chain,
    };
    if task.asked.stream {
        shared.tasks.spawn(task.streamed(run));
    } else if let Some(run) = run {
        shared.tasks.spawn(task.whole(run));
    }
    Ok(Recorded { id, ignored, words })
}

/// The outcome of a run whose caller left or cancelled it. Its counts are in its usage row.
pub(crate) const CANCELLED: Outcome = Outcome {
    status: Status::Cancelled,
    usage: ZERO,
    usage_exact: false,
};

const ZERO: Usage = Usage {
    input_tokens: 0,
    cached_input_tokens: 0,
    cache_write_tokens: 0,
    output_tokens: 0,
    reasoning_tokens: 0,
};

/// The outcome of a run that never began.
pub(crate) const REFUSED: Outcome = Outcome {
    status: Status::Failed(FailureReason::Rejected),
    usage: ZERO,
    usage_exact: false,
};

impl Task {
    async fn streamed(mut self, run: Option<Run>) {
        let shared = Arc::clone(&self.shared);
        let mut encoder = StreamEncoder::of_turn(
            self.head.clone(),
            &self.asked.request,
            self.prepared.facts(),
            &*shared.entropy,
        );
        let mut log = Log::new(shared.limits.log_chunk_bytes, shared.limits.log_bytes_max);
        let (outcome, error) = match run {
            Some(run) => {
                let mut shape = std::mem::replace(&mut self.prepared.shape, Shape::Plain);
                self.follow(run, &mut shape, &mut encoder, &mut log).await
            }
            None => (WARMED_UP, None),
        };
        let before_end = encoder.next_event();
        let mut out = BytesMut::with_capacity(2_048);
        encoder.terminal(&outcome, error.as_ref(), shared.clock.now(), &mut out);
        let (mut frames, mut end) = (out.freeze(), None);
        if let Some(kept) = Kept::of_frames(&frames) {
            log.push(&frames, encoder.next_event());
            let can_go_on = kept.status.can_be_continued();
            let chain = (self.keeps_chain && can_go_on).then(|| self.chain(&kept));
            match self.keep(kept, log.finish()).await {
                Ok(()) => end = chain,
                Err(error) => {
                    // Whoever reads `completed` will ask for it again and must find it.
                    let mut out = BytesMut::with_capacity(2_048);
                    encoder.resume(before_end);
                    encoder.terminal(&NOT_KEPT, Some(&error), shared.clock.now(), &mut out);
                    frames = out.freeze();
                }
            }
        }
        let sender = self.sender.clone();
        // The id can be asked for, and its conversation is free, before the caller hears of the end.
        drop(self);
        let _ = sender.send(Words::End(frames, end)).await;
    }

    /// Turns the run's events into frames, to its end or until nobody wants them any more.
    async fn follow(
        &self,
        mut run: Run,
        shape: &mut Shape,
        encoder: &mut StreamEncoder,
        log: &mut Log,
    ) -> (Outcome, Option<Error>) {
        let mut left = pin!(self.sender.closed());
        let mut cancelled = pin!(self.entry.handle.cancel.cancelled());
        let mut out = BytesMut::with_capacity(1_024);
        loop {
            let step = tokio::select! {
                biased;
                () = left.as_mut() => return (CANCELLED, None),
                () = cancelled.as_mut() => return (CANCELLED, None),
                step = run.next() => step,
            };
            match step {
                Some(Step::Event(event)) => {
                    if let Err(error) = self.encode(event, shape, encoder, &mut out) {
                        return (REFUSED, Some(error));
                    }
                    if out.is_empty() {
                        continue;
                    }
                    let frames = out.split().freeze();
                    out.reserve(1_024);
                    if self.prepared.turn.store {
                        log.push(&frames, encoder.next_event());
                        self.show_first(&frames);
                    }
                    if self.sender.send(Words::Frames(frames)).await.is_err() {
                        return (CANCELLED, None);
                    }
                }
                Some(Step::End { outcome, error }) => {
                    if let Some(error) = &error {
                        tracing::debug!(id = &*self.head.id, %error, "response failed");
                    }
                    return (outcome, error);
                }
                None => {
                    let error = Error::internal("the run ended without an outcome");
                    return (REFUSED, Some(error));
                }
            }
        }
    }

    fn encode(
        &self,
        event: RunEvent,
        shape: &mut Shape,
        encoder: &mut StreamEncoder,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        if matches!(shape, Shape::Plain) {
            encoder.event(&event, out);
            return Ok(());
        }
        for event in shape.apply(event, &self.shared, &self.asked.scope)? {
            encoder.event(&event, out);
        }
        Ok(())
    }

    /// Until a response is stored, its first frame is what others can read of it.
    fn show_first(&self, frames: &Bytes) {
        let mut first = self
            .entry
            .handle
            .first_frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if first.is_empty() {
            *first = frames.clone();
        }
    }

    async fn whole(mut self, mut run: Run) {
        let shared = Arc::clone(&self.shared);
        let mut shape = std::mem::replace(&mut self.prepared.shape, Shape::Plain);
        let mut collector = Collector::of_turn(
            self.head.clone(),
            &self.asked.request,
            self.prepared.facts(),
            &*shared.entropy,
        );
        let sender = self.sender.clone();
        let mut left = pin!(sender.closed());
        let words = loop {
            let step = tokio::select! {
                biased;
                // Nobody has seen the id of this response, so that nothing is kept of it.
                () = left.as_mut() => return,
                step = run.next() => step,
            };
            match step {
                Some(Step::Event(event)) => match shape.apply(event, &shared, &self.asked.scope) {
                    Ok(events) => events.iter().for_each(|event| collector.event(event)),
                    Err(error) => break Words::Failed(error),
                },
                Some(Step::End { outcome, error }) => match outcome.status {
                    Status::Completed | Status::Incomplete(_) => {
                        break self
                            .keep_whole(collector.finish(&outcome, shared.clock.now()))
                            .await;
                    }
                    Status::Failed(_) | Status::Cancelled => {
                        break Words::Failed(error.unwrap_or_else(|| {
                            Error::new(ErrorKind::Upstream, "the answer broke off before its end")
                        }));
                    }
                },
                None => break Words::Failed(Error::internal("the run ended without an outcome")),
            }
        };
        drop(self);
        let _ = sender.send(words).await;
    }

    async fn keep_whole(&self, body: Bytes) -> Words {
        match std::str::from_utf8(&body).ok().and_then(Kept::of) {
            Some(kept) => match self.keep(kept, Vec::new()).await {
                Ok(()) => Words::Whole(body),
                Err(error) => Words::Failed(error),
            },
            None => Words::Failed(Error::internal("the answer is not a response object")),
        }
    }

    fn chain(&self, kept: &Kept) -> TurnEnd {
        let own = self.prepared.own.iter().chain(&kept.output);
        // With a turn that is stored after one that was not, what came before is part of its own input.
        let before = match self.prepared.is_before_in_own {
            true => &[][..],
            false => &self.prepared.before,
        };
        let items = before
            .iter()
            .cloned()
            .chain(own.map(|item| item.json.clone()));
        TurnEnd {
            id: Arc::clone(&self.head.id),
            chain: Arc::new(items.collect()),
        }
    }

    async fn keep(&self, kept: Kept, events: Vec<EventSegment>) -> Result<(), Error> {
        if !self.prepared.turn.store || self.entry.handle.is_deleted() {
            return Ok(());
        }
        let ended = EndedResponse {
            scope: self.asked.scope.clone(),
            id: Arc::clone(&self.head.id),
            created: self.head.created,
            status: kept.status,
            after: self.prepared.after,
            conversation: self.prepared.turn.conversation.as_deref().map(Into::into),
            object: kept.object,
            input: self.prepared.own.clone(),
            output: kept.output,
            events,
            was_queued: false,
        };
        let kept = self.shared.store.end(ended).await;
        kept.map(drop).map_err(|error| {
            let (message, kind) = ("the response could not be stored", error.kind());
            tracing::error!(id = &*self.head.id, %error, ?kind, message);
            error
        })
    }
}

/// The outcome of a turn that asked for no answer.
const WARMED_UP: Outcome = Outcome {
    status: Status::Completed,
    usage: ZERO,
    usage_exact: true,
};

const NOT_KEPT: Outcome = Outcome {
    status: Status::Failed(FailureReason::Internal),
    usage: ZERO,
    usage_exact: false,
};
