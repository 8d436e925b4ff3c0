//! A request for vectors: texts become tokens, tokens vectors, and all vectors are one native frame.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use honshu_domain::{
    Attempt, Dialect, Error, ErrorKind, Finish, FinishReason, NativeFrame, Retry, RunEvent, Usage,
};
use honshu_wire::embeddings::{self, EmbeddingRequest, Entry, TOKENS_MAX};

use super::{failure, worker_error};
use crate::embed::{Failure, normalize};
use crate::job::Token;
use crate::pool::{self, Ready};

type Making = Pin<Box<dyn Future<Output = Result<VecDeque<RunEvent>, Error>> + Send>>;

/// The events of an answer: none before all vectors are made.
pub(super) struct Vectors {
    making: Option<Making>,
    events: VecDeque<RunEvent>,
}

impl Vectors {
    pub(super) fn new(pool: Arc<pool::Inner>, id: Arc<str>, attempt: Attempt) -> Self {
        Self {
            making: Some(Box::pin(make(pool, id, attempt))),
            events: VecDeque::new(),
        }
    }
}

impl Stream for Vectors {
    type Item = Result<RunEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(making) = &mut self.making {
            let made = ready!(making.as_mut().poll(cx));
            // Dropping it frees the model.
            self.making = None;
            match made {
                Ok(events) => self.events = events,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(self.events.pop_front().map(Ok))
    }
}

async fn make(
    pool: Arc<pool::Inner>,
    id: Arc<str>,
    attempt: Attempt,
) -> Result<VecDeque<RunEvent>, Error> {
    let asked = embeddings::read(&attempt.request.raw)?;
    let lease = Arc::new(Arc::clone(&pool).acquire(id).await?);
    let held = Arc::clone(&lease);
    let (asked, entries) = pool
        .workers
        .run(move || {
            let entries = tokens(&held.ready, &asked)?;
            Ok::<_, Error>((asked, entries))
        })
        .await
        .unwrap_or_else(|error| Err(worker_error(error)))?;
    let embedder = &lease.ready.embedder;
    let input_tokens = entries.iter().map(|entry| entry.len() as u64).sum();
    let alone = entries.len() == 1;
    let mut vectors = embedder
        .embed(entries)
        .await
        .map_err(|failure| refused(failure, alone))?;
    if let Some(dimensions) = asked.dimensions {
        for vector in &mut vectors {
            // Models that were trained for it have the most of what they say in the first numbers.
            vector.truncate(dimensions as usize);
            normalize(vector);
        }
    }
    let usage = Usage {
        input_tokens,
        ..Usage::default()
    };
    let json = embeddings::list(&attempt.served_model, &vectors, asked.base64, &usage);
    Ok([
        RunEvent::Started {
            upstream_request_id: None,
            input_tokens: Some(input_tokens),
        },
        RunEvent::Native(NativeFrame {
            dialect: Dialect::Embeddings,
            json,
            event: None,
            whole: true,
        }),
        RunEvent::Finished(Finish {
            reason: FinishReason::Stop,
            usage: Some(usage),
            stop_text: None,
        }),
    ]
    .into())
}

/// Checks what can be said before anything is computed, and makes the tokens. Token ids are taken as they are; a text
/// gets what the model wants around it.
fn tokens(ready: &Ready, asked: &EmbeddingRequest) -> Result<Vec<Vec<Token>>, Error> {
    let width = ready.embedder.width();
    if asked
        .dimensions
        .is_some_and(|wanted| wanted as usize > width)
    {
        return Err(Error::invalid_at(
            "dimensions",
            format!("the vectors of this model have {width} numbers; ask for as many or fewer"),
        ));
    }
    let alone = asked.entries.len() == 1;
    let n_vocab = ready.model.meta().n_vocab;
    let limit = ready.embedder.n_ctx() as usize;
    let (mut all, mut total) = (Vec::with_capacity(asked.entries.len()), 0);
    for (place, entry) in asked.entries.iter().enumerate() {
        let tokens = match entry {
            Entry::Text(text) => ready
                .model
                .tokenize(text, true, false)
                .map_err(failure::engine)?,
            Entry::Tokens(ids) => {
                let known = |id: &u32| (*id as usize) < n_vocab;
                if let Some(id) = ids.iter().find(|id| !known(id)) {
                    return Err(Error::invalid_at(
                        path(place, alone),
                        format!("the token id {id} is not in this model's vocabulary of {n_vocab}"),
                    ));
                }
                ids.iter()
                    .map(|id| Token::try_from(*id).unwrap_or(0))
                    .collect()
            }
        };
        if tokens.len() > limit {
            return Err(Error::new(
                ErrorKind::ContextLength,
                format!(
                    "the entry has {} tokens and this model takes at most {limit}; cut it into several",
                    tokens.len()
                ),
            )
            .with_param(path(place, alone)));
        }
        total += tokens.len();
        if total > TOKENS_MAX {
            return Err(Error::invalid_at(
                path(place, alone),
                format!(
                    "the entries up to here have more than {TOKENS_MAX} tokens; send them in several requests"
                ),
            ));
        }
        all.push(tokens);
    }
    Ok(all)
}

/// Where an entry stands; a single one may be the input itself.
fn path(place: usize, alone: bool) -> String {
    if alone {
        "input".to_owned()
    } else {
        format!("input[{place}]")
    }
}

fn refused(failure: Failure, alone: bool) -> Error {
    match failure {
        Failure::Full => Error::new(
            ErrorKind::RateLimited,
            "too many requests wait for vectors of this model; try again",
        )
        .with_retry(Retry::After(std::time::Duration::from_secs(1))),
        Failure::Entry(place, what) => Error::invalid_at(path(place, alone), what),
        Failure::Refused(reason) => Error::new(
            ErrorKind::Unavailable,
            format!("this model gives no vectors: {reason}"),
        ),
        Failure::Stopped => Error::new(
            ErrorKind::Unavailable,
            "the model is being unloaded; try again",
        ),
        Failure::Failed(code) => Error::internal(format!("llama.cpp made no vector: {code}")),
    }
}
