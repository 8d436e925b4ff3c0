//! Chat completions that their callers asked to keep. One is kept before the last frame or the body leaves, so that
//! whoever reads the end finds it; one that failed, or whose caller left, is not kept.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use honshu_domain::{
    CompletionFilter, Error, ErrorKind, FailureReason, Outcome, Page, Paged, PublicId, RawJson,
    Scope, Status, StoredCompletion, StoredItem,
};
use honshu_gateway::{Run, Step};
use honshu_wire::ResponseHead;
use honshu_wire::chat::{Collector, StreamEncoder, kept, without_store};
use tokio::sync::mpsc;

use crate::record::{REFUSED, Recorded, WORDS_MAX, Words};
use crate::{Asked, Runtime, Shared, not_found};

fn completion_not_found(id: &str) -> Error {
    not_found("chat completion", id)
}

fn page_not_found(after: Option<&str>) -> Error {
    let shown: String = after.unwrap_or_default().chars().take(200).collect();
    Error::invalid_at(
        "after",
        format!("nothing with the id `{shown}` is in this list"),
    )
}

impl Runtime {
    /// Answers a chat request whose answer is to be kept. Returns when its run has begun to answer.
    ///
    /// # Errors
    /// Everything that the gateway refuses.
    pub async fn complete(&self, asked: Asked) -> Result<Recorded, Error> {
        let shared = &self.shared;
        let request = Arc::new(without_store(&asked.request));
        let gateway = self.gateway(&asked.call)?;
        let run = gateway.generate(asked.call.clone(), request).await?;
        let id: Arc<str> = PublicId::generate("chatcmpl-", &*shared.entropy)
            .as_str()
            .into();
        let head = ResponseHead {
            id: Arc::clone(&id),
            created: shared.clock.now(),
            model: Arc::clone(&run.facts.model.id),
            service_tier: None,
        };
        let ignored = run.facts.ignored.clone();
        let (sender, words) = mpsc::channel(WORDS_MAX);
        let collector = Collector::of_kept(head.clone(), &asked.request, &*shared.entropy);
        let recorder = Recorder {
            shared: Arc::clone(shared),
            asked,
            head,
            sender,
        };
        shared.tasks.spawn(recorder.record(run, collector));
        Ok(Recorded::new(id, ignored, words))
    }

    /// Reads a stored completion.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn completion(&self, scope: &Scope, id: &str) -> Result<StoredCompletion, Error> {
        let found = self.shared.completions.completion(scope, id).await?;
        found.ok_or_else(|| completion_not_found(id))
    }

    /// Lists stored completions.
    ///
    /// # Errors
    /// `Invalid` when the page begins after one that is not there.
    pub async fn completions(
        &self,
        scope: &Scope,
        filter: CompletionFilter,
        page: Page,
    ) -> Result<Paged<StoredCompletion>, Error> {
        let after = page.after.clone();
        let found = self.shared.completions.completions(scope, filter, page);
        found.await?.ok_or_else(|| page_not_found(after.as_deref()))
    }

    /// Lists the messages that a stored completion answers.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when the page begins after a message that is not there.
    pub async fn completion_messages(
        &self,
        scope: &Scope,
        id: &str,
        page: Page,
    ) -> Result<Paged<StoredItem>, Error> {
        let after = page.after.clone();
        let found = self.shared.completions.completion_messages(scope, id, page);
        found
            .await?
            .ok_or_else(|| completion_not_found(id))?
            .ok_or_else(|| page_not_found(after.as_deref()))
    }

    /// Replaces a stored completion's metadata.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn update_completion(
        &self,
        scope: &Scope,
        id: &str,
        metadata: RawJson,
    ) -> Result<StoredCompletion, Error> {
        let store = &self.shared.completions;
        let found = store.set_completion_metadata(scope, id, metadata).await?;
        found.ok_or_else(|| completion_not_found(id))
    }

    /// Deletes a stored completion with its messages.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_completion(&self, scope: &Scope, id: &str) -> Result<(), Error> {
        if self.shared.completions.delete_completion(scope, id).await? {
            Ok(())
        } else {
            Err(completion_not_found(id))
        }
    }
}

/// Owns a run whose answer is kept. If its caller goes away it drops the run, which cancels it.
struct Recorder {
    shared: Arc<Shared>,
    asked: Asked,
    head: ResponseHead,
    sender: mpsc::Sender<Words>,
}

impl Recorder {
    async fn record(self, mut run: Run, mut collector: Collector) {
        let mut encoder = self.asked.stream.then(|| {
            let (head, entropy) = (self.head.clone(), &*self.shared.entropy);
            StreamEncoder::of_kept(head, &self.asked.request, entropy)
        });
        let mut left = pin!(self.sender.closed());
        let mut out = BytesMut::with_capacity(1_024);
        let (outcome, error) = loop {
            let step = tokio::select! {
                biased;
                () = left.as_mut() => return,
                step = run.next() => step,
            };
            match step {
                Some(Step::Event(event)) => {
                    collector.event(&event);
                    let Some(encoder) = &mut encoder else {
                        continue;
                    };
                    encoder.event(&event, &mut out);
                    if !out.is_empty() {
                        let frames = out.split().freeze();
                        out.reserve(1_024);
                        if self.sender.send(Words::Frames(frames)).await.is_err() {
                            return;
                        }
                    }
                }
                Some(Step::End { outcome, error }) => break (outcome, error),
                None => {
                    let error = Error::internal("the run ended without an outcome");
                    break (REFUSED, Some(error));
                }
            }
        };
        let ended = self.keep(outcome, error, collector).await;
        let words = match (encoder, ended) {
            (None, Ok((_, body))) => Words::Whole(body),
            (None, Err((_, error))) => Words::Failed(error),
            (Some(mut encoder), Ok((outcome, _))) => {
                encoder.end(&outcome, None, self.shared.clock.now(), &mut out);
                Words::End(out.freeze(), None)
            }
            (Some(mut encoder), Err((outcome, error))) => {
                encoder.end(&outcome, Some(&error), self.shared.clock.now(), &mut out);
                Words::Broken(out.freeze())
            }
        };
        let _ = self.sender.send(words).await;
    }

    /// The answer, if it is whole and kept.
    async fn keep(
        &self,
        outcome: Outcome,
        error: Option<Error>,
        collector: Collector,
    ) -> Result<(Outcome, Bytes), (Outcome, Error)> {
        if matches!(outcome.status, Status::Failed(_) | Status::Cancelled) {
            let error = error.unwrap_or_else(|| {
                Error::new(ErrorKind::Upstream, "the answer broke off before its end")
            });
            return Err((failed(outcome), error));
        }
        let body = collector.finish(&outcome, self.shared.clock.now());
        let (scope, request_id) = (&self.asked.scope, &self.asked.call.request_id);
        let Some((completion, messages)) = kept(&body, &self.head, &self.asked.request, request_id)
        else {
            let error = Error::internal("the answer is not a chat completion");
            return Err((failed(outcome), error));
        };
        let store = &self.shared.completions;
        match store.put_completion(scope, completion, messages).await {
            Ok(()) => Ok((outcome, body)),
            Err(error) => {
                let (id, message) = (&*self.head.id, "the chat completion could not be stored");
                tracing::error!(id, %error, kind = ?error.kind(), message);
                Err((failed(outcome), error))
            }
        }
    }
}

fn failed(outcome: Outcome) -> Outcome {
    let status = match outcome.status {
        status @ Status::Failed(_) => status,
        _ => Status::Failed(FailureReason::Internal),
    };
    Outcome { status, ..outcome }
}
