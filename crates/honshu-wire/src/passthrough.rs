//! Skeleton: the bodies follow within the hour, the signatures are stable.
use bytes::Bytes;
use honshu_domain::{Dialect, Error, FinishReason, NativeFrame, Usage};
use std::sync::Arc;

/// Replaces the top-level `model` of a valid request body and, with `want_usage`, makes a Chat upstream
/// report usage in its stream. Everything else stays byte for byte.
pub fn patch_request(
    raw: &Bytes,
    upstream_model: &str,
    dialect: Dialect,
    want_usage: bool,
) -> Bytes {
    let _ = (raw, upstream_model, dialect, want_usage);
    todo!()
}

/// What a native frame says, for the run's owner.
#[derive(Debug, Clone, Default)]
pub struct FrameFacts {
    /// Counts, where the frame has them.
    pub usage: Option<Usage>,
    /// Why the answer (Chat: one of its choices) ended, where the frame says it.
    pub finish: Option<FinishReason>,
    /// The upstream's own error; the frame is then not to be passed on.
    pub error: Option<Error>,
    /// After this frame the upstream has nothing more to say: `[DONE]`, a Responses terminal event, a whole body.
    pub terminal: bool,
}

/// A frame ready for the caller and its facts.
#[derive(Debug, Clone)]
pub struct Patched {
    /// What goes to the caller; absent for `[DONE]`, for errors, and for a usage chunk that only we asked for.
    pub frame: Option<NativeFrame>,
    /// What it says.
    pub facts: FrameFacts,
}

/// Rewrites the frames of an upstream that speaks the caller's dialect.
#[derive(Debug)]
pub struct FramePatcher {}
impl FramePatcher {
    /// `caller_wants_usage`: the caller set `stream_options.include_usage` itself (always true for Responses).
    pub fn new(dialect: Dialect, served_model: Arc<str>, caller_wants_usage: bool) -> Self {
        let _ = (dialect, served_model, caller_wants_usage);
        todo!()
    }
    /// Takes the data of one SSE event, `[DONE]` included.
    pub fn frame(&mut self, data: Bytes) -> Result<Patched, Error> {
        let _ = data;
        todo!()
    }
    /// Takes the whole body of an answer that was not streamed.
    pub fn whole(&mut self, body: Bytes) -> Result<Patched, Error> {
        let _ = body;
        todo!()
    }
}
