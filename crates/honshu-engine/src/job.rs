//! The words between a caller and a loaded model: what is asked for, and what comes back.
//!
//! This module knows tokens, not messages: chat templates and tool calls are another module's business.

use std::sync::Arc;

use crate::error::{EngineError, SubmitError};

/// A token id of one model's vocabulary: 0 to `n_vocab - 1`.
pub type Token = i32;

/// One request for one completion.
pub struct Job {
    /// The whole prompt, special tokens included; at least one token.
    pub prompt: Vec<Token>,
    /// How a token is drawn.
    pub sampling: Sampling,
    /// Bound on the sampled tokens; `None` goes on to the end of the context. A bound that does not fit into the
    /// context is lowered to what fits.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer; the match itself is not part of the text. Empty strings are refused.
    pub stop: Vec<String>,
    /// `Some(n)` reports the log-probability of every token of the text with the `n` best alternatives, 0 to 20.
    pub logprobs: Option<u8>,
    /// Whose turn it is: keys share the engine evenly, by tokens.
    pub fairness_key: u64,
    /// Only jobs with equal salt share computed prefixes, so that one tenant cannot time another's prompts.
    pub salt: u64,
    /// Restricts the tokens that may be sampled.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Control tokens that are told as [`JobEvent::Control`]; the others are not told at all.
    pub shown_controls: Arc<[Token]>,
}

impl Job {
    /// A job with the defaults of the OpenAI API: temperature 1, nothing cut off, no bound but the context.
    #[must_use]
    pub fn new(prompt: Vec<Token>) -> Self {
        Self {
            prompt,
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            fairness_key: 0,
            salt: 0,
            constraint: None,
            shown_controls: Arc::default(),
        }
    }

    pub(crate) fn check(&self, n_vocab: usize) -> Result<(), SubmitError> {
        let invalid = |what: String| Err(SubmitError::Invalid(what));
        if self.prompt.is_empty() {
            return invalid("the prompt has no token".into());
        }
        let in_vocab = |t: Token| usize::try_from(t).is_ok_and(|t| t < n_vocab);
        if let Some(t) = self.prompt.iter().find(|t| !in_vocab(**t)) {
            return invalid(format!("token {t} is outside the vocabulary of {n_vocab}"));
        }
        if let Some((t, _)) = self.sampling.logit_bias.iter().find(|(t, _)| !in_vocab(*t)) {
            return invalid(format!(
                "logit_bias names token {t}, outside the vocabulary of {n_vocab}"
            ));
        }
        if self.max_tokens == Some(0) {
            return invalid("max_tokens must be at least 1".into());
        }
        if self.stop.iter().any(String::is_empty) {
            return invalid("a stop string is empty".into());
        }
        if self.logprobs.is_some_and(|n| n > LOGPROBS_MAX) {
            return invalid(format!("logprobs must be at most {LOGPROBS_MAX}"));
        }
        self.sampling.check().map_err(SubmitError::Invalid)
    }
}

/// Most alternatives that can be reported for a token (OpenAI API reference: `top_logprobs` 0 to 20).
pub const LOGPROBS_MAX: u8 = 20;

/// How a token is drawn from the model's distribution. The steps apply in the order of the fields below.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Added to the logits of single tokens before anything else; -100 practically bans, 100 practically forces
    /// (OpenAI API reference).
    pub logit_bias: Vec<(Token, f32)>,
    /// Divides positive and multiplies negative logits of tokens of the prompt and the answer; 1 is off, above 0.
    pub repetition_penalty: f32,
    /// Subtracted once for each occurrence of the token in the answer; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted if the token is in the answer; 0 is off.
    pub presence_penalty: f32,
    /// 0 takes the likeliest token; 1 is the model's own distribution.
    pub temperature: f32,
    /// Only the `top_k` likeliest tokens; 0 is off.
    pub top_k: u32,
    /// Only the smallest set of likeliest tokens with at least this probability; 1 is off.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the likeliest; 0 is off.
    pub min_p: f32,
    /// Equal seed, job and batch give an equal answer. llama.cpp's arithmetic may depend on what else is in the
    /// batch, so with other jobs beside it an answer can differ in spite of the seed.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            logit_bias: Vec::new(),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: None,
        }
    }
}

impl Sampling {
    /// The likeliest token each time.
    #[must_use]
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), String> {
        let range = |name: &str, value: f32, low: f32, high: f32| {
            if value.is_finite() && value >= low && value <= high {
                Ok(())
            } else {
                Err(format!("{name} must be between {low} and {high}"))
            }
        };
        range("temperature", self.temperature, 0.0, 100.0)?;
        range("top_p", self.top_p, 0.0, 1.0)?;
        range("min_p", self.min_p, 0.0, 1.0)?;
        range("presence_penalty", self.presence_penalty, -100.0, 100.0)?;
        range("frequency_penalty", self.frequency_penalty, -100.0, 100.0)?;
        range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)?;
        for (token, bias) in &self.logit_bias {
            if !bias.is_finite() {
                return Err(format!(
                    "logit_bias of token {token} is not a finite number"
                ));
            }
        }
        Ok(())
    }
}

/// The set of tokens that may come next, one bit for each token, least significant bit first.
#[derive(Debug, Clone)]
pub struct TokenMask {
    words: Vec<u32>,
    n_vocab: usize,
}

impl TokenMask {
    /// A mask that allows nothing.
    #[must_use]
    pub fn new(n_vocab: usize) -> Self {
        Self {
            words: vec![0; n_vocab.div_ceil(32)],
            n_vocab,
        }
    }

    /// Number of tokens of the vocabulary.
    #[must_use]
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Allows nothing.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Allows every token.
    pub fn allow_all(&mut self) {
        self.words.fill(u32::MAX);
    }

    /// Allows one token; ids outside the vocabulary are ignored.
    pub fn allow(&mut self, token: Token) {
        if let Some((word, bit)) = self.place(token) {
            self.words[word] |= bit;
        }
    }

    /// Forbids one token; ids outside the vocabulary are ignored.
    pub fn forbid(&mut self, token: Token) {
        if let Some((word, bit)) = self.place(token) {
            self.words[word] &= !bit;
        }
    }

    /// Whether the token may come next.
    #[must_use]
    pub fn allows(&self, token: Token) -> bool {
        self.place(token)
            .is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }

    /// The words: bit `t % 32` of word `t / 32` is token `t`. Bits past the vocabulary have no meaning.
    pub fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }

    /// The words, to read.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    fn place(&self, token: Token) -> Option<(usize, u32)> {
        let t = usize::try_from(token).ok().filter(|t| *t < self.n_vocab)?;
        Some((t / 32, 1 << (t % 32)))
    }
}

/// Restricts an answer token by token, for example to a JSON schema. Called on the engine's thread, so it must be
/// quick (well below a millisecond) and must not block.
pub trait Constraint: Send {
    /// Writes the set of tokens that may come next. `out` holds whatever the last call left.
    ///
    /// # Errors
    /// Ends the job with [`JobEvent::Failed`].
    fn mask(&mut self, out: &mut TokenMask) -> Result<(), EngineError>;

    /// Takes note of the token that was sampled; it was allowed by the last mask. Not called for a token that ends
    /// the generation.
    ///
    /// # Errors
    /// Ends the job with [`JobEvent::Failed`].
    fn accept(&mut self, token: Token) -> Result<(), EngineError>;

    /// Whether the answer would be complete here. When it is and no token is allowed, the answer ends.
    fn may_stop(&self) -> bool;
}

/// What a running job tells its caller. The last event is `Done` or `Failed`; then the stream ends.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// The job left the queue.
    Started {
        /// Length of the prompt.
        prompt_tokens: u32,
        /// How many of them were found computed.
        cached_tokens: u32,
    },
    /// More of the answer: whole characters, no special tokens, nothing that could still become a stop string.
    Text {
        /// The text; empty when only `logprobs` or `tokens` are reported.
        text: String,
        /// One entry for each token of the text, if the job asked for them.
        logprobs: Vec<TokenLogprob>,
        /// Tokens sampled since the last event.
        tokens: u32,
    },
    /// A control token of [`Job::shown_controls`] came, behind all text that was told before.
    Control {
        /// The token.
        token: Token,
        /// Tokens sampled since the last event.
        tokens: u32,
    },
    /// The job ended well.
    Done {
        /// Why.
        finish: FinishReason,
        /// What it used.
        usage: JobUsage,
    },
    /// The job failed; text that was sent before stands.
    Failed(EngineError),
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, or the constraint was complete.
    Stop,
    /// This stop string came up.
    StopString(String),
    /// `max_tokens` or the end of the context.
    Length,
}

/// What a job used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobUsage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Those of them that were found computed.
    pub cached_tokens: u32,
    /// Sampled tokens, the one that ends the generation included.
    pub completion_tokens: u32,
}

/// The log-probability of a sampled token under the model's own distribution (temperature 1, before bias,
/// penalties and constraint).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: Token,
    /// Its bytes; may be part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens, best first.
    pub top: Vec<TopLogprob>,
}

/// One alternative of a [`TokenLogprob`].
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    /// The token.
    pub token: Token,
    /// Its bytes; may be part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}
