//! Repetitions of a create or renew: the retry token is remembered in the database for a day, the secrets in
//! memory for as long as a client may reasonably repeat.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use honshu_domain::{Error, ErrorKind, Timestamp};
use honshu_store::RetryEntry;
use serde::Serialize;

use crate::context::OpCtx;
use crate::control::Control;
use crate::limits::{
    RETRY_TOKEN_BYTES_MAX, RETRY_TOKEN_LIFE, SECRETS_AGAIN_LIFE, SECRETS_AGAIN_MAX,
};
use crate::pepper::Pepper;
use crate::secret::PlainSecret;

/// Secrets of one token: repetitions at the same moment and tries after others were faster.
const CANDIDATES_MAX: usize = 32;

type Key = (String, String, String);
type Secrets = Vec<(String, PlainSecret)>;

#[derive(Default)]
struct Kept {
    order: VecDeque<Key>,
    by_key: HashMap<Key, (Timestamp, Secrets)>,
}

/// Secrets that a repeated request may still be shown. They wipe themselves when they leave.
#[derive(Default)]
pub(crate) struct SecretsAgain(Mutex<Kept>);

impl SecretsAgain {
    /// Keeps the secrets of a request, before it is carried out.
    pub(crate) fn keep(&self, entry: &RetryEntry, now: Timestamp, secrets: Secrets) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(oldest) = kept.order.front() {
            let old = kept
                .by_key
                .get(oldest)
                .is_none_or(|(until, _)| *until <= now);
            if !old && kept.order.len() < SECRETS_AGAIN_MAX {
                break;
            }
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_key.remove(&oldest);
            }
        }
        let key = key_of(entry);
        if let Some((until, candidates)) = kept.by_key.get_mut(&key) {
            // The same request arrives twice at once: which of them wins is decided by the database.
            *until = now.plus(SECRETS_AGAIN_LIFE);
            if candidates.len() < CANDIDATES_MAX {
                candidates.extend(secrets);
            }
            return;
        }
        kept.order.push_back(key.clone());
        kept.by_key
            .insert(key, (now.plus(SECRETS_AGAIN_LIFE), secrets));
    }

    /// The secret of a request that is stored under `digest`, if it is still kept.
    pub(crate) fn find(
        &self,
        entry: &RetryEntry,
        now: Timestamp,
        pepper: &Pepper,
        digest: &[u8; 32],
    ) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, candidates) = kept.by_key.get(&key_of(entry))?;
        if now >= *until {
            return None;
        }
        candidates
            .iter()
            .find(|(_, secret)| secret.digest(pepper).matches(digest))
            .map(|(_, secret)| secret.reveal().to_owned())
    }
}

fn key_of(entry: &RetryEntry) -> Key {
    (
        entry.principal.clone(),
        entry.operation.clone(),
        entry.token.clone(),
    )
}

impl Control {
    /// The entry that a request with this token would take; `None` without a token.
    pub(crate) fn retry_entry(
        &self,
        ctx: &OpCtx,
        operation: &str,
        token: Option<&str>,
        resource: &str,
        details: &impl Serialize,
    ) -> Result<Option<RetryEntry>, Error> {
        let Some(token) = token else { return Ok(None) };
        if token.is_empty() || token.len() > RETRY_TOKEN_BYTES_MAX {
            return Err(Error::invalid_at(
                "opc-retry-token",
                format!("must have 1 to {RETRY_TOKEN_BYTES_MAX} characters"),
            ));
        }
        let mut asked = serde_json::to_vec(details).map_err(Error::internal)?;
        asked.extend_from_slice(ctx.region.name().as_bytes());
        let mut request_digest = [0_u8; 32];
        request_digest.copy_from_slice(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &asked).as_ref(),
        );
        Ok(Some(RetryEntry {
            principal: ctx.principal.id.as_str().to_owned(),
            operation: operation.to_owned(),
            token: token.to_owned(),
            request_digest,
            resource: resource.to_owned(),
            expires: ctx.now.plus(RETRY_TOKEN_LIFE),
        }))
    }

    /// The earlier request that took the token.
    ///
    /// # Errors
    /// 409 `InvalidatedRetryToken` when it asked for something else.
    pub(crate) async fn earlier(
        &self,
        ctx: &OpCtx,
        wanted: Option<&RetryEntry>,
    ) -> Result<Option<RetryEntry>, Error> {
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        let found = self
            .store
            .find_retry(&wanted.principal, &wanted.operation, &wanted.token, ctx.now)
            .await?;
        if found
            .as_ref()
            .is_some_and(|found| found.request_digest != wanted.request_digest)
        {
            return Err(Error::new(
                ErrorKind::Conflict,
                "the retry token was used for another request; use a new token for a new request",
            )
            .with_code("InvalidatedRetryToken"));
        }
        Ok(found)
    }
}
