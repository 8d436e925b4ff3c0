//! The events of a run, from a backend to its owner to the dialect's encoder, and how runs end.

use std::sync::Arc;

use bytes::Bytes;

use crate::item::{Item, TokenLogprob};
use crate::request::Dialect;
use crate::usage::Usage;

/// One step of an answer. A backend sends [`RunEvent::Started`] first, [`RunEvent::Finished`] last and once;
/// a stream that ends without it was cut.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// The backend took the request.
    Started {
        /// The upstream's own request id, for the log.
        upstream_request_id: Option<Arc<str>>,
        /// Tokens of the prompt, where already known.
        input_tokens: Option<u64>,
    },
    /// An output item begins; `item` has its id, name and role, and no content.
    ItemStarted {
        /// Its place in the output.
        output_index: u32,
        /// Which answer it belongs to (0 unless `n` > 1).
        choice: u32,
        /// The item in its first state.
        item: Item,
    },
    /// A content part of an item begins.
    PartStarted {
        /// The item.
        output_index: u32,
        /// The part's place in its list.
        part_index: u32,
        /// What it holds.
        kind: PartKind,
    },
    /// More text of a part.
    Delta {
        /// The item.
        output_index: u32,
        /// The part.
        part_index: u32,
        /// What it holds.
        kind: PartKind,
        /// The text to append; whole characters.
        text: String,
        /// Log probabilities of the tokens in `text`, if asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// More of a function call's arguments, or of a custom tool's input.
    ArgumentsDelta {
        /// The item.
        output_index: u32,
        /// The text to append; JSON for a function.
        delta: String,
    },
    /// A part is whole.
    PartDone {
        /// The item.
        output_index: u32,
        /// The part.
        part_index: u32,
        /// What it holds.
        kind: PartKind,
    },
    /// An item is whole.
    ItemDone {
        /// Its place.
        output_index: u32,
        /// The item with all its content.
        item: Item,
    },
    /// One of several answers is whole (`n` > 1 only; otherwise `Finished` says it).
    ChoiceFinished {
        /// Which.
        choice: u32,
        /// Why it ended.
        reason: FinishReason,
    },
    /// A frame of the caller's own dialect, to be passed on untouched.
    Native(NativeFrame),
    /// The end that the upstream or engine itself declared.
    Finished(Finish),
}

/// What a content part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// Answer text.
    Text,
    /// A refusal.
    Refusal,
    /// Raw reasoning.
    ReasoningText,
    /// A summary of the reasoning.
    ReasoningSummary,
}

/// A piece of an answer that is already in the caller's dialect.
#[derive(Debug, Clone)]
pub struct NativeFrame {
    /// The dialect of `json`.
    pub dialect: Dialect,
    /// One JSON object without line breaks: a stream event's data, or a whole answer. The model's name in
    /// it is already the catalogue's.
    pub json: Bytes,
    /// For the Responses dialect the event's type; the encoder needs it for the `event:` line.
    pub event: Option<Arc<str>>,
    /// True when this is the whole answer of a call that was not streamed.
    pub whole: bool,
}

/// The declared end of a run.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// The counts, where the backend reported them.
    pub usage: Option<Usage>,
    /// The stop text that ended the (first) answer, where the backend says which; only Messages shows it.
    pub stop_text: Option<Arc<str>>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model was done, or a stop text came.
    Stop,
    /// The limit of output tokens or of the context was reached.
    Length,
    /// The model asks for tools.
    ToolCalls,
    /// A filter stopped it.
    ContentFilter,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The backend said so.
    Completed,
    /// The backend said that it stopped early.
    Incomplete(FinishReason),
    /// It broke.
    Failed(FailureReason),
    /// The caller left.
    Cancelled,
}

impl Status {
    /// The word of usage rows and of the Responses `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a run failed, for the usage row and metrics: few and stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The request was refused by the backend.
    Rejected,
    /// The stream ended without a terminal event.
    Cut,
    /// One of the clocks ran out.
    Timeout,
    /// The upstream said so.
    Upstream,
    /// No room.
    Overloaded,
    /// We are shutting down.
    Shutdown,
    /// Our fault.
    Internal,
}

impl FailureReason {
    /// The word in usage rows and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Cut => "cut",
            Self::Timeout => "timeout",
            Self::Upstream => "upstream",
            Self::Overloaded => "overloaded",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }
}

/// The end of a run as its owner knows it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The counts that are known.
    pub usage: Usage,
    /// Whether upstream or engine reported them for the whole run.
    pub usage_exact: bool,
}
