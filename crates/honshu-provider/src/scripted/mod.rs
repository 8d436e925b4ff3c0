//! The scripted model: a backend that does what the last user message tells it, for tests of applications and of
//! Honshu itself. Deterministic: the same request gives the same answer, whatever the time.
//!
//! What it obeys, in the last user message:
//!
//! - `Reply with exactly: X` answers `X` (the rest of the line, or the lines after it when the line ends there);
//! - `Call the tool NAME with {json}` calls it; several such lines are several calls. With a tool's result in the
//!   input after the last user message it answers with a sentence that quotes the result;
//! - `Then call the tool NAME with {json}` calls it when the results of all calls before it are there, one line after
//!   the other, and `Then reply with exactly: X` is the answer after the last of them: so an agent is led through
//!   several turns, also when it adds messages of its own that tell nothing;
//! - `Refuse with: X` is a refusal that says `X`;
//! - `Answer with N words` answers with N words, at most 100,000;
//! - a custom tool is called in the same way: its input is what stands behind `with`, as it stands, or, written as a
//!   JSON string, what that means;
//! - a forced tool, or the only tool when nothing else is told, is called with arguments that satisfy its schema;
//! - a JSON schema for the answer is filled, JSON mode gives an object;
//! - anything else is answered with one fixed sentence.
//!
//! Knobs stand in the message as `[scripted: key=value …]`, or in the deployment's upstream name after a `?`
//! separated by `&`; the message wins:
//!
//! - `reasoning` (or a reasoning effort other than `none`): reasoning comes before the answer;
//! - `delay-ms=N`: a pause before each piece of text or arguments;
//! - `first-ms=N`: a pause before the first event;
//! - `stall-at=N`, `cut-at=N`, `fail-at=N`: instead of event N, counted from 0, the stream falls silent, ends
//!   without an end, or fails; `fail-at=0` is a failure before anything was sent;
//! - `status=N`: the upstream status that a failure stands for (429, 500, 503, …; default 500).
//!
//! The grammar of a custom tool is not solved: it is named as ignored.
//!
//! Images and files are taken and not looked at; sound, stored state and items that only one dialect knows are
//! refused.
//!
//! Embeddings are made from a text's words: texts with words in common are near each other, and the same text always
//! has the same vector, of length 1 with 64 numbers unless `dimensions` says otherwise. A prompt of the old Completions
//! is read as a user message is.
//!
//! Tokens are counted by words: a token is a word with the white space before it. Input tokens are the words of
//! all instructions, messages, calls and results, plus 3 for each item. `max_output_tokens`, stop texts, several
//! choices and log probabilities (each 0, one candidate) are honoured; sampling has no effect.
//!
//! It must never do I/O or read a clock other than the timer of its pauses.

mod embed;
mod fill;
mod play;
mod script;

use honshu_domain::{
    Attempt, Backend, BackendKind, Demand, Dialect, InferenceRequest, RunStream, Support,
    TokenCount,
};

use crate::is_reasoning_effort;

/// The scripted model as a backend. See the module's words on what it obeys.
#[derive(Debug, Clone)]
pub struct ScriptedProvider {
    name: String,
}

impl ScriptedProvider {
    /// A scripted model under the provider's `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }
}

impl Backend for ScriptedProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> BackendKind {
        BackendKind::Scripted
    }

    fn supports(&self, _upstream: &str, _dialect: Dialect, demand: Demand) -> Support {
        match demand {
            // It keeps nothing, makes no sound and knows only what the two dialects share: saying otherwise would
            // drop a demand in silence.
            Demand::StoredState | Demand::Audio | Demand::ForeignItems | Demand::LegacyOption => {
                Support::No
            }
            _ => Support::Yes,
        }
    }

    fn passes_through(&self, _upstream: &str, _dialect: Dialect) -> bool {
        false
    }

    fn acts_on_hint(&self, _upstream: &str, dialect: Dialect, path: &str) -> bool {
        is_reasoning_effort(dialect, path)
    }

    fn leaves_out(&self, _upstream: &str, request: &InferenceRequest) -> Vec<String> {
        request.grammars().map(|(_, path)| path).collect()
    }

    fn count_input_tokens(&self, attempt: Attempt) -> Option<TokenCount> {
        let count = script::input_tokens(&attempt.request);
        Some(Box::pin(std::future::ready(Ok(count))))
    }

    fn generate(&self, attempt: Attempt) -> RunStream {
        if attempt.request.dialect == Dialect::Embeddings {
            return Box::pin(futures_util::stream::iter(embed::answer(&attempt)));
        }
        let script = script::write(&attempt);
        Box::pin(play::Play::new(script))
    }
}
