//! Background turns: kept when they are accepted, run when there is a place, every event kept before anybody sees
//! it. After a restart those that had said nothing run again, and the others end as failed, so that none is ever
//! stuck.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    EndedResponse, Error, ErrorKind, FailureReason, InferenceRequest, Ocid, Outcome, Page,
    Principal, PrincipalKind, QueuedResponse, RawJson, Region, Scope, Status, StoredItem,
    StoredStatus, UnfinishedResponse, Usage,
};
use honshu_gateway::{Call, Run, SHUTDOWN_CODE, Step};
use honshu_wire::ResponseHead;
use honshu_wire::responses::{Kept, StreamEncoder, Turn, parse_request};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use crate::live::{Entry, Held, Live, Locks};
use crate::manage::manage;
use crate::prepare::{Prepared, facts, prepare_held};
use crate::record::{CANCELLED, REFUSED};
use crate::replay::Replay;
use crate::shape::Shape;
use crate::{Answer, Asked, Runtime, Shared, generate, log};

/// Events of a response that had said nothing yet: created, queued, in progress.
const SILENT_EVENTS: u64 = 3;

/// Bytes of events that wait for the write before them; the run is not read meanwhile.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What a background turn needs to run later, beside its body.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    kind: String,
    principal: Ocid,
    secret_name: Option<Arc<str>>,
    region_key: String,
    request_id: Arc<str>,
    model: Arc<str>,
}

impl Work {
    fn of(call: &Call, model: &Arc<str>) -> Self {
        Self {
            kind: call.principal.kind.as_str().to_owned(),
            principal: call.principal.id.clone(),
            secret_name: call.principal.secret_name.clone(),
            region_key: call.region.key().to_owned(),
            request_id: Arc::clone(&call.request_id),
            model: Arc::clone(model),
        }
    }

    /// One line of JSON, then the body as it came.
    fn encode(&self, body: &[u8]) -> Result<Bytes, Error> {
        let mut bytes = serde_json::to_vec(self).map_err(Error::internal)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        Ok(bytes.into())
    }

    fn decode(work: &Bytes) -> Result<(Self, Bytes), Error> {
        let end = work
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| Error::internal("a background response has no body"))?;
        let head = serde_json::from_slice(&work[..end]).map_err(Error::internal)?;
        Ok((head, work.slice(end + 1..)))
    }
}

/// How many background responses a start found, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunsAgain {
    /// They had said nothing and run again.
    pub again: usize,
    /// They were broken off and have failed.
    pub failed: usize,
}

/// A portion of events on its way into the store, and the pause after it. False when the response is gone.
type Write = Pin<Box<dyn Future<Output = Result<bool, Error>> + Send>>;

struct Job {
    shared: Arc<Shared>,
    scope: Scope,
    head: ResponseHead,
    call: Call,
    request: Arc<InferenceRequest>,
    conversation: Option<Arc<str>>,
    next_event: u64,
    entry: Entry,
    _held: Option<Held>,
}

/// Accepts a background turn: it is kept, and answered before it runs.
pub(crate) async fn accept(
    shared: &Arc<Shared>,
    asked: Asked,
    prepared: Prepared,
) -> Result<Answer, Error> {
    let limits = &shared.limits;
    if shared.live.count() >= limits.background_waiting_max + limits.background_runs_max as usize {
        return Err(Error::new(
            ErrorKind::RateLimited,
            "too many background responses are waiting; try again later",
        ));
    }
    let gateway = shared.gateway(asked.call.region.name())?;
    let model = gateway.model_for(&asked.call, &prepared.request)?;
    let head = ResponseHead {
        id: shared.response_id(),
        created: shared.clock.now(),
        model: Arc::clone(&model.id),
        service_tier: None,
    };
    let mut encoder = encoder(shared, &head, &asked.request)?;
    let mut frames = BytesMut::with_capacity(4_096);
    encoder.queued(&mut frames);
    let body = encoder.queued_object();
    let kept = std::str::from_utf8(&body).ok().and_then(Kept::of);
    let kept = kept.ok_or_else(|| Error::internal("the answer is not a response object"))?;
    let work = Work::of(&asked.call, &model.id).encode(&asked.request.raw)?;
    let conversation: Option<Arc<str>> = prepared.turn.conversation.as_deref().map(Into::into);
    let next_event = encoder.next_event();
    let job = Job {
        shared: Arc::clone(shared),
        scope: asked.scope.clone(),
        entry: Live::enter(shared, &asked.scope, &head.id),
        head: head.clone(),
        call: asked.call,
        request: asked.request,
        conversation: conversation.clone(),
        next_event,
        _held: prepared.held,
    };
    let queued = shared.store.queue(QueuedResponse {
        scope: asked.scope.clone(),
        id: Arc::clone(&head.id),
        created: head.created,
        after: prepared.after,
        conversation,
        object: kept.object,
        input: prepared.own,
        work,
        events: log::fold(0, next_event, &frames),
    });
    // Whoever asked may leave now: what was accepted runs.
    let (answer, accepted) = tokio::sync::oneshot::channel();
    shared.tasks.spawn(async move {
        let result = queued.await;
        let is_kept = result.is_ok();
        let _ = answer.send(result);
        if is_kept {
            job.run().await;
        }
    });
    accepted
        .await
        .unwrap_or_else(|_| Err(Error::internal("a background response was lost")))?;
    Ok(if asked.stream {
        Answer::Replay(Replay::new(shared, &asked.scope, &head.id, None))
    } else {
        Answer::Queued(body)
    })
}

fn encoder(
    shared: &Shared,
    head: &ResponseHead,
    request: &InferenceRequest,
) -> Result<StreamEncoder, Error> {
    let turn = Turn::of(request)?;
    Ok(StreamEncoder::of_turn(
        head.clone(),
        request,
        facts(&turn),
        &*shared.entropy,
    ))
}

impl Runtime {
    /// Takes up what the last process left: background responses that had said nothing run again, the others fail.
    ///
    /// # Errors
    /// What the store says.
    pub async fn recover(&self) -> Result<RunsAgain, Error> {
        let mut found = RunsAgain::default();
        for unfinished in self.shared.store.unfinished().await? {
            let is_silent = unfinished.next_event <= SILENT_EVENTS;
            match self.take_up(unfinished.clone(), is_silent).await {
                Ok(()) if is_silent => found.again += 1,
                Ok(()) => found.failed += 1,
                Err(error) => {
                    tracing::error!(id = &*unfinished.id, %error, "a background response cannot be read");
                    self.give_up(unfinished).await?;
                    found.failed += 1;
                }
            }
        }
        Ok(found)
    }

    /// Ends a response of which not even the request can be read: it must not wait for ever.
    async fn give_up(&self, left: UnfinishedResponse) -> Result<(), Error> {
        let mut object: serde_json::Value = left.object.to().map_err(Error::internal)?;
        object["status"] = "failed".into();
        object["error"] = serde_json::json!({
            "code": "server_error", "message": "the server stopped and cannot run this response again",
        });
        let ended = EndedResponse {
            scope: left.scope,
            id: left.id,
            created: left.created,
            status: StoredStatus::Failed,
            after: None,
            conversation: left.conversation,
            object: RawJson::from(&object),
            input: Vec::new(),
            output: Vec::new(),
            events: Vec::new(),
            was_queued: true,
        };
        self.shared.store.end(ended).await.map(drop)
    }

    async fn take_up(&self, left: UnfinishedResponse, is_silent: bool) -> Result<(), Error> {
        let shared = &self.shared;
        let (work, body) = Work::decode(&left.work)?;
        let region = Region::new(&left.scope.region, &work.region_key);
        let kind = [PrincipalKind::ApiKey, PrincipalKind::User]
            .into_iter()
            .find(|kind| kind.as_str() == work.kind)
            .ok_or_else(|| Error::internal("a background response has no caller"))?;
        let request = Arc::new(parse_request(body)?);
        let held = match &left.conversation {
            Some(id) => Some(Locks::take(shared, &left.scope, id)?),
            None => None,
        };
        let job = Job {
            shared: Arc::clone(shared),
            entry: Live::enter(shared, &left.scope, &left.id),
            head: ResponseHead {
                id: left.id,
                created: left.created,
                model: work.model,
                service_tier: None,
            },
            call: Call {
                principal: Principal {
                    kind,
                    id: work.principal,
                    name: "".into(),
                    tenancy: left.scope.compartment.clone(),
                    compartment: left.scope.compartment.clone(),
                    groups: [].into(),
                    secret_name: work.secret_name,
                },
                region,
                compartment: left.scope.compartment.clone(),
                request_id: work.request_id,
                operation: "responses",
                timeouts: shared.timeouts,
            },
            scope: left.scope,
            request,
            conversation: left.conversation,
            next_event: left.next_event,
            _held: held,
        };
        if is_silent {
            shared.tasks.spawn(job.run());
        } else {
            job.broken_off().await;
        }
        Ok(())
    }
}

/// How a background run ended.
enum Ending {
    /// As the run or the lack of one says.
    Ended(Outcome, Option<Error>),
    /// It is left to the next start: the server is going away and nothing was said yet.
    Left,
    /// It was deleted.
    Deleted,
}

impl Job {
    async fn broken_off(self) {
        let error = Error::new(
            ErrorKind::Internal,
            "the server stopped while this response was running; send the request again",
        );
        let outcome = Outcome {
            status: Status::Failed(FailureReason::Shutdown),
            usage: Usage::default(),
            usage_exact: false,
        };
        if let Ok(mut encoder) = encoder(&self.shared, &self.head, &self.request) {
            encoder.resume(self.next_event);
            self.end(
                &mut encoder,
                outcome,
                Some(error),
                BytesMut::new(),
                self.next_event,
            )
            .await;
        }
    }

    async fn run(self) {
        let Ok(mut encoder) = encoder(&self.shared, &self.head, &self.request) else {
            return;
        };
        encoder.resume(self.next_event);
        let mut out = BytesMut::new();
        let mut first = self.next_event;
        let ending = match self.begin().await {
            Ok((run, mut shape, _place)) => {
                if self.next_event < SILENT_EVENTS {
                    encoder.in_progress(&mut out);
                }
                self.follow(run, &mut shape, &mut encoder, &mut out, &mut first)
                    .await
            }
            Err(ending) => ending,
        };
        match ending {
            Ending::Ended(outcome, error) => {
                self.end(&mut encoder, outcome, error, out, first).await
            }
            Ending::Left | Ending::Deleted => {}
        }
    }

    /// Waits for a place and begins the run.
    async fn begin(&self) -> Result<(Run, Shape, OwnedSemaphorePermit), Ending> {
        let shared = &self.shared;
        let refused = |error| Ending::Ended(REFUSED, Some(error));
        let cancel = &self.entry.handle.cancel;
        let place = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Ending::Ended(CANCELLED, None)),
            () = shared.draining.cancelled() => return Err(Ending::Left),
            place = Arc::clone(&shared.places).acquire_owned() => place,
        };
        let place = place.map_err(|error| refused(Error::internal(error)))?;
        let principal = &self.call.principal;
        let caller = shared.callers.again(
            self.call.region.name(),
            principal.kind,
            &principal.id,
            principal.secret_name.as_deref(),
        );
        let Some(principal) = caller else {
            return Err(refused(Error::new(
                ErrorKind::Unauthenticated,
                "the credential that asked for this response cannot be used any more",
            )));
        };
        let call = Call {
            principal,
            ..self.call.clone()
        };
        let turn = Turn::of(&self.request).map_err(refused)?;
        let prepared = prepare_held(shared, &call, &self.scope, &self.request, turn, None);
        let mut prepared = prepared.await.map_err(refused)?;
        let gateway = shared.gateway(call.region.name()).map_err(refused)?;
        let (mut tries, mut is_managed) = (0, false);
        let run = loop {
            let run = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Ending::Ended(CANCELLED, None)),
                run = async {
                    if !is_managed {
                        manage(shared, &call, &self.scope, &mut prepared).await?;
                        is_managed = true;
                    }
                    generate(gateway, call.clone(), Arc::clone(&prepared.request)).await
                } => run,
            };
            match run {
                Err(error) if error.code() == Some(SHUTDOWN_CODE) => return Err(Ending::Left),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::RateLimited | ErrorKind::Unavailable
                    ) && tries < shared.limits.background_tries_max =>
                {
                    tries += 1;
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return Err(Ending::Ended(CANCELLED, None)),
                        () = shared.draining.cancelled() => return Err(Ending::Left),
                        () = tokio::time::sleep(shared.limits.background_retry_after) => {}
                    }
                }
                Err(error) => return Err(refused(error)),
                Ok(run) => break run,
            }
        };
        Ok((run, prepared.shape, place))
    }

    /// Follows the run. Events are kept in portions, and only then are they told.
    async fn follow(
        &self,
        mut run: Run,
        shape: &mut Shape,
        encoder: &mut StreamEncoder,
        out: &mut BytesMut,
        first: &mut u64,
    ) -> Ending {
        let interval = self.shared.limits.log_write_interval;
        let mut write: Option<Write> = Some(self.write(encoder, out, first, interval));
        let ending = loop {
            tokio::select! {
                biased;
                () = self.entry.handle.cancel.cancelled() => {
                    break Ending::Ended(CANCELLED, None);
                }
                kept = written(&mut write), if write.is_some() => {
                    write = None;
                    match kept {
                        Ok(true) => {}
                        Ok(false) => return Ending::Deleted,
                        Err(error) => break Ending::Ended(BROKEN, Some(error)),
                    }
                    if !out.is_empty() {
                        write = Some(self.write(encoder, out, first, interval));
                    }
                }
                step = run.next(), if out.len() < WAITING_BYTES_MAX => match step {
                    Some(Step::Event(event)) => {
                        match shape.apply(event, &self.shared, &self.scope) {
                            Ok(events) => events.iter().for_each(|event| encoder.event(event, out)),
                            Err(error) => break Ending::Ended(BROKEN, Some(error)),
                        }
                        if write.is_none() && !out.is_empty() {
                            write = Some(self.write(encoder, out, first, interval));
                        }
                    }
                    Some(Step::End { error: Some(error), .. })
                        if error.code() == Some(SHUTDOWN_CODE)
                            && encoder.next_event() <= SILENT_EVENTS =>
                    {
                        break Ending::Left;
                    }
                    Some(Step::End { outcome, error }) => break Ending::Ended(outcome, error),
                    None => break Ending::Ended(BROKEN, Some(Error::internal("the run ended without an outcome"))),
                },
            }
        };
        // Portions are numbered in order, so that the last one waits for the one before it.
        if write.is_some()
            && let Ok(false) = written(&mut write).await
        {
            return Ending::Deleted;
        }
        ending
    }

    /// Hands what was said since the last portion to the store.
    fn write(
        &self,
        encoder: &StreamEncoder,
        out: &mut BytesMut,
        first: &mut u64,
        interval: Duration,
    ) -> Write {
        let next = encoder.next_event();
        let segment = log::fold(*first, next - *first, out);
        out.clear();
        *first = next;
        let kept = self
            .shared
            .store
            .append_events(&self.scope, &self.head.id, segment);
        let handle = Arc::clone(&self.entry.handle);
        Box::pin(async move {
            let kept = kept.await?;
            handle.published();
            tokio::time::sleep(interval).await;
            Ok(kept)
        })
    }

    /// Keeps the end, and tries again as long as the store cannot: nothing may be stuck.
    async fn end(
        &self,
        encoder: &mut StreamEncoder,
        outcome: Outcome,
        error: Option<Error>,
        mut out: BytesMut,
        first: u64,
    ) {
        let shared = &self.shared;
        encoder.terminal(&outcome, error.as_ref(), shared.clock.now(), &mut out);
        let Some(kept) = Kept::of_frames(&out) else {
            tracing::error!(id = &*self.head.id, "a background response has no end");
            return;
        };
        let ended = EndedResponse {
            scope: self.scope.clone(),
            id: Arc::clone(&self.head.id),
            created: self.head.created,
            status: kept.status,
            after: None,
            conversation: self.conversation.clone(),
            object: kept.object,
            input: self.conversation_input().await,
            output: kept.output,
            events: vec![log::fold(first, encoder.next_event() - first, &out)],
            was_queued: true,
        };
        while let Err(error) = shared.store.end(ended.clone()).await {
            tracing::error!(id = &*self.head.id, %error, "the end of a background response could not be stored");
            tokio::select! {
                () = shared.draining.cancelled() => return,
                () = tokio::time::sleep(shared.limits.background_retry_after) => {}
            }
        }
    }

    /// The input goes into the conversation together with the output.
    async fn conversation_input(&self) -> Vec<StoredItem> {
        if self.conversation.is_none() {
            return Vec::new();
        }
        let page = Page {
            after: None,
            limit: u32::MAX - 1,
            ascending: true,
        };
        let items = self
            .shared
            .store
            .input_items(&self.scope, &self.head.id, page)
            .await;
        match items {
            Ok(Some(items)) => items.data,
            _ => Vec::new(),
        }
    }
}

async fn written(write: &mut Option<Write>) -> Result<bool, Error> {
    match write {
        Some(write) => write.await,
        None => std::future::pending().await,
    }
}

const BROKEN: Outcome = Outcome {
    status: Status::Failed(FailureReason::Internal),
    ..REFUSED
};
