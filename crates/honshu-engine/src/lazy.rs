//! A constraint that waits: the answer is free until the model itself begins a call, then the call's grammar holds
//! until the call is whole, then the answer is free again.
//!
//! A token that would end a mark and go on behind it is forbidden where the mark could end, so that the grammar always
//! begins at the border of a token.

use std::sync::Arc;

use crate::constraint::{Masked, Template};
use crate::error::EngineError;
use crate::job::{Constraint, Token, TokenMask};
use crate::markup::control;
use crate::model::Vocabulary;

/// When a grammar begins to hold, and which.
pub(crate) struct Waiting {
    /// The text that the model must have written last; control tokens as [`control`] writes them.
    pub pattern: String,
    /// Only as the first text of the answer.
    pub at_start: bool,
    pub then: Template,
}

pub(crate) struct Lazy {
    waiting: Arc<[Waiting]>,
    vocabulary: Arc<Vocabulary>,
    /// The end of what was written, as long as the longest pattern.
    tail: Vec<u8>,
    /// Bytes written since the start of the answer.
    written: usize,
    holds: Option<Masked>,
    longest: usize,
    /// Tokens that have a whole pattern in them and go on.
    forbidden: Vec<Token>,
}

impl Lazy {
    pub(crate) fn new(waiting: Arc<[Waiting]>, vocabulary: Arc<Vocabulary>) -> Self {
        let longest = waiting.iter().map(|w| w.pattern.len()).max().unwrap_or(0);
        let goes_on = |bytes: &[u8], pattern: &[u8]| {
            bytes.len() > pattern.len()
                && bytes[..bytes.len() - 1]
                    .windows(pattern.len())
                    .any(|window| window == pattern)
        };
        let forbidden = vocabulary
            .words()
            .filter(|(token, bytes)| {
                let beyond = |w: &Waiting| goes_on(bytes, w.pattern.as_bytes());
                waiting.iter().any(beyond) && !vocabulary.is_control(*token)
            })
            .map(|(token, _)| token)
            .collect();
        Self {
            forbidden,
            waiting,
            vocabulary,
            tail: Vec::new(),
            written: 0,
            holds: None,
            longest,
        }
    }

    /// What must still come of each pattern that has begun.
    fn rests(&self) -> Vec<&[u8]> {
        let mut rests = Vec::new();
        for waiting in self.waiting.iter() {
            let pattern = waiting.pattern.as_bytes();
            let most = self.tail.len().min(pattern.len() - 1);
            for length in 1..=most {
                let begun = self.tail[self.tail.len() - length..] == pattern[..length];
                if begun && (!waiting.at_start || self.written == length) {
                    rests.push(&pattern[length..]);
                }
            }
        }
        rests
    }
}

impl Constraint for Lazy {
    fn mask(&mut self, out: &mut TokenMask) -> Result<(), EngineError> {
        if let Some(holds) = &mut self.holds {
            return holds.mask(out);
        }
        out.allow_all();
        for token in &self.forbidden {
            out.forbid(*token);
        }
        let rests = self.rests();
        if rests.is_empty() {
            return Ok(());
        }
        for (token, bytes) in self.vocabulary.words() {
            let beyond = |rest: &&[u8]| bytes.len() > rest.len() && bytes.starts_with(rest);
            if rests.iter().any(beyond) && !self.vocabulary.is_control(token) {
                out.forbid(token);
            }
        }
        Ok(())
    }

    fn accept(&mut self, token: Token) -> Result<(), EngineError> {
        if let Some(holds) = &mut self.holds {
            holds.accept(token)?;
            if holds.may_stop() {
                self.holds = None;
                self.tail.clear();
            }
            return Ok(());
        }
        let bytes = self.vocabulary.bytes(token);
        if self.vocabulary.is_control(token) {
            let name = control(&String::from_utf8_lossy(bytes));
            self.tail.extend_from_slice(name.as_bytes());
            self.written += name.len();
        } else {
            self.tail.extend_from_slice(bytes);
            self.written += bytes.len();
        }
        let come = self.waiting.iter().find(|waiting| {
            self.tail.ends_with(waiting.pattern.as_bytes())
                && (!waiting.at_start || self.written == waiting.pattern.len())
        });
        if let Some(waiting) = come {
            self.holds = Some(waiting.then.begin()?);
        }
        let extra = self.tail.len().saturating_sub(self.longest);
        self.tail.drain(..extra);
        Ok(())
    }

    fn may_stop(&self) -> bool {
        self.holds.is_none()
    }
}
