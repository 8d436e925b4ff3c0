//! Why an answer ended, in this dialect's words.

use bytes::BytesMut;
use honshu_domain::{Finish, FinishReason, Status};

use crate::json::{put, put_str};

/// What is known at the end of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ending {
    /// The model declined in words.
    pub(super) refused: bool,
    /// The model asks for tools.
    pub(super) calls: bool,
}

impl Ending {
    /// Writes `"stop_reason":…,"stop_sequence":…` and the details that a refusal may carry.
    pub(super) fn write(self, status: Status, finish: Option<&Finish>, out: &mut BytesMut) {
        let reason = match status {
            Status::Incomplete(reason) => Some(reason),
            _ => finish.map(|finish| finish.reason),
        };
        let stop_text = finish
            .and_then(|finish| finish.stop_text.as_deref())
            .filter(|_| reason == Some(FinishReason::Stop));
        let word = match reason {
            Some(FinishReason::Length) => "max_tokens",
            Some(FinishReason::ContentFilter) => "refusal",
            Some(FinishReason::ToolCalls) => "tool_use",
            _ if self.refused => "refusal",
            // Some upstreams say that they stopped where they ask for tools.
            _ if self.calls => "tool_use",
            _ if stop_text.is_some() => "stop_sequence",
            _ => "end_turn",
        };
        put(out, "\"stop_reason\":\"");
        put(out, word);
        put(out, "\",\"stop_sequence\":");
        match stop_text.filter(|_| word == "stop_sequence") {
            Some(text) => put_str(out, text),
            None => put(out, "null"),
        }
    }
}
