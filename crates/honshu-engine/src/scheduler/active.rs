//! One running answer: its tokens, its sampling state, and how tokens become events.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use crate::error::EngineError;
use crate::events::EventSender;
use crate::job::{
    Constraint, FinishReason, JobEvent, JobUsage, Token, TokenLogprob, TokenMask, TopLogprob,
};
use crate::model::{Submitted, Vocabulary};
use crate::sampler::{Logprobs, Sampler, Scratch};
use crate::text::TextOut;

/// How an answer ended.
pub(crate) enum End {
    Done(FinishReason),
    Failed(EngineError),
}

/// A running answer.
pub(crate) struct Active {
    /// The prompt and the answer so far; the cache may hold fewer of them.
    pub tokens: Vec<Token>,
    pub prompt_tokens: u32,
    pub salt: u64,
    pub events: EventSender,
    /// Counts admissions; the youngest has the highest.
    pub order: u64,
    pub started: Instant,
    /// Told already that it left the queue.
    pub announced: bool,
    cached_tokens: u32,
    completion_tokens: u32,
    max_tokens: u32,
    sampler: Sampler,
    constraint: Option<Box<dyn Constraint>>,
    logprobs: Option<u8>,
    shown_controls: Arc<[Token]>,
    text: TextOut,
    unsent_logprobs: Vec<(usize, TokenLogprob)>,
    unsent_tokens: u32,
}

impl Active {
    /// `limit` is the longest sequence, in tokens.
    pub(crate) fn new(submitted: Submitted, order: u64, limit: u32) -> Self {
        let Submitted { job, events, .. } = submitted;
        let prompt_tokens = u32::try_from(job.prompt.len()).unwrap_or(u32::MAX);
        let room = limit.saturating_sub(prompt_tokens).max(1);
        let seed = job
            .sampling
            .seed
            .unwrap_or_else(|| RandomState::new().build_hasher().finish());
        Self {
            prompt_tokens,
            salt: job.salt,
            events,
            order,
            started: Instant::now(),
            announced: false,
            cached_tokens: 0,
            completion_tokens: 0,
            max_tokens: job.max_tokens.unwrap_or(room).min(room),
            sampler: Sampler::new(job.sampling, &job.prompt, seed),
            constraint: job.constraint,
            logprobs: job.logprobs,
            shown_controls: job.shown_controls,
            text: TextOut::new(job.stop),
            unsent_logprobs: Vec::new(),
            unsent_tokens: 0,
            tokens: job.prompt,
        }
    }

    /// Tokens in all, as the cache counts them.
    pub(crate) fn length(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

    /// Cells that it may still ask for soon, beyond its present tokens.
    pub(crate) fn reserve(&self) -> u32 {
        self.max_tokens
            .saturating_sub(self.completion_tokens)
            .min(super::OUTPUT_RESERVED)
    }

    /// Tells the reader that the job left the queue; only the first time.
    pub(crate) fn announce(&mut self, cached_tokens: u32) {
        if !self.announced {
            self.announced = true;
            self.cached_tokens = cached_tokens;
            self.events.send(JobEvent::Started {
                prompt_tokens: self.prompt_tokens,
                cached_tokens,
            });
        }
    }

    /// Samples the next token and tells the reader.
    pub(crate) fn step(
        &mut self,
        logits: &mut [f32],
        vocabulary: &Vocabulary,
        mask: &mut TokenMask,
        scratch: &mut Scratch,
    ) -> Option<End> {
        let mut masked = false;
        if let Some(constraint) = &mut self.constraint {
            if let Err(error) = constraint.mask(mask) {
                return Some(End::Failed(error));
            }
            masked = true;
        }
        let drawn = self
            .sampler
            .sample(logits, masked.then_some(&*mask), self.logprobs, scratch);
        let Some((token, logprobs)) = drawn else {
            let complete = self.constraint.as_ref().is_some_and(|c| c.may_stop());
            return Some(if complete {
                End::Done(FinishReason::Stop)
            } else {
                End::Failed(EngineError::Constraint("no token is allowed".to_owned()))
            });
        };
        self.completion_tokens += 1;
        self.unsent_tokens += 1;
        if vocabulary.is_end_of_generation(token) {
            return Some(End::Done(FinishReason::Stop));
        }
        if let Some(constraint) = &mut self.constraint
            && let Err(error) = constraint.accept(token)
        {
            return Some(End::Failed(error));
        }
        self.sampler.accept(token);
        self.tokens.push(token);
        // A token that is not shown is not reported either: the reported bytes are the text.
        let shown = if vocabulary.is_control(token) {
            if self.shown_controls.contains(&token) {
                self.send_control(token);
            }
            self.text.push(&[])
        } else {
            if let Some(logprobs) = logprobs {
                self.unsent_logprobs
                    .push((self.text.held(), token_logprob(token, logprobs, vocabulary)));
            }
            self.text.push(vocabulary.bytes(token))
        };
        if let Some((stop, at)) = shown.stopped {
            self.unsent_logprobs.retain(|(start, _)| *start < at);
            self.send(shown.text);
            return Some(End::Done(FinishReason::StopString(stop)));
        }
        if !shown.text.is_empty() {
            self.send(shown.text);
        }
        (self.completion_tokens >= self.max_tokens).then_some(End::Done(FinishReason::Length))
    }

    /// Sends what is left and the last event.
    pub(crate) fn end(mut self: Box<Self>, end: End) {
        match end {
            End::Failed(error) => self.events.send(JobEvent::Failed(error)),
            End::Done(finish) => {
                let rest = self.text.finish();
                self.send(rest);
                let usage = JobUsage {
                    prompt_tokens: self.prompt_tokens,
                    cached_tokens: self.cached_tokens,
                    completion_tokens: self.completion_tokens,
                };
                self.events.send(JobEvent::Done { finish, usage });
            }
        }
    }

    /// Tells a control token. No text from before it can become a stop string with text from behind it.
    fn send_control(&mut self, token: Token) {
        let rest = self.text.finish();
        if !rest.is_empty() {
            self.unsent_tokens -= 1;
            self.send(rest);
            self.unsent_tokens = 1;
        }
        let tokens = std::mem::take(&mut self.unsent_tokens);
        self.events.send(JobEvent::Control { token, tokens });
    }

    fn send(&mut self, text: String) {
        let logprobs: Vec<TokenLogprob> = self.unsent_logprobs.drain(..).map(|(_, l)| l).collect();
        let tokens = std::mem::take(&mut self.unsent_tokens);
        if !text.is_empty() || !logprobs.is_empty() || tokens > 0 {
            self.events.send(JobEvent::Text {
                text,
                logprobs,
                tokens,
            });
        }
    }
}

fn token_logprob(token: Token, logprobs: Logprobs, vocabulary: &Vocabulary) -> TokenLogprob {
    let bytes = |token| vocabulary.bytes(token).to_vec();
    let top = logprobs.top.into_iter();
    TokenLogprob {
        token,
        bytes: bytes(token),
        logprob: logprobs.chosen,
        top: top
            .map(|(token, logprob)| TopLogprob {
                token,
                bytes: bytes(token),
                logprob,
            })
            .collect(),
    }
}
