//! Skeleton: the bodies follow within the hour, the signatures are stable.
use bytes::{Bytes, BytesMut};
use honshu_domain::{Entropy, Error, InferenceRequest, Outcome, RunEvent, Timestamp};

pub use crate::head::ResponseHead;

/// Reads a request body. The error is `Invalid` with every problem and its JSON path.
pub fn parse_request(body: Bytes) -> Result<InferenceRequest, Error> {
    let _ = body;
    todo!()
}

/// Turns the events of a run into the SSE frames of this dialect.
#[derive(Debug)]
pub struct StreamEncoder {}
impl StreamEncoder {
    /// An encoder for the answer to `request`.
    pub fn new(head: ResponseHead, request: &InferenceRequest, entropy: &dyn Entropy) -> Self {
        let _ = (head, request, entropy);
        todo!()
    }
    /// Appends the frames of one event to `out`. Terminal frames are held back until [`Self::end`].
    pub fn event(&mut self, event: &RunEvent, out: &mut BytesMut) {
        let _ = (event, out);
        todo!()
    }
    /// Appends the one terminal frame; `error` says why a run failed. Nothing may be written after it.
    pub fn end(
        &mut self,
        outcome: &Outcome,
        error: Option<&Error>,
        now: Timestamp,
        out: &mut BytesMut,
    ) {
        let _ = (outcome, error, now, out);
        todo!()
    }
}

/// Collects the events of a run into one whole answer. Failed runs are answered by `error::openai_body`.
#[derive(Debug)]
pub struct Collector {}
impl Collector {
    /// A collector for the answer to `request`.
    pub fn new(head: ResponseHead, request: &InferenceRequest, entropy: &dyn Entropy) -> Self {
        let _ = (head, request, entropy);
        todo!()
    }
    /// Takes one event.
    pub fn event(&mut self, event: &RunEvent) {
        let _ = event;
        todo!()
    }
    /// The body.
    pub fn finish(self, outcome: &Outcome, now: Timestamp) -> Bytes {
        let _ = (outcome, now);
        todo!()
    }
}

/// The body for an upstream of this dialect when the caller spoke another. `upstream` is its name of the model.
pub fn build_request(request: &InferenceRequest, upstream: &str, stream: bool) -> Bytes {
    let _ = (request, upstream, stream);
    todo!()
}

/// Turns the answer of an upstream of this dialect into events.
#[derive(Debug, Default)]
pub struct UpstreamDecoder {}
impl UpstreamDecoder {
    /// A decoder for one answer.
    pub fn new() -> Self {
        Self::default()
    }
    /// Takes the data of one SSE event (`[DONE]` included). An error frame comes back as `Err`.
    pub fn frame(&mut self, data: &[u8], out: &mut Vec<RunEvent>) -> Result<(), Error> {
        let _ = (data, out);
        todo!()
    }
    /// Takes the whole body of an answer that was not streamed, up to and with `RunEvent::Finished`.
    pub fn whole(&mut self, body: &[u8], out: &mut Vec<RunEvent>) -> Result<(), Error> {
        let _ = (body, out);
        todo!()
    }
    /// The upstream closed the stream: an `Upstream` error if it had not said that the answer is whole.
    pub fn end(&mut self, out: &mut Vec<RunEvent>) -> Result<(), Error> {
        let _ = out;
        todo!()
    }
    /// True once `RunEvent::Finished` was given out.
    pub fn is_finished(&self) -> bool {
        todo!()
    }
}
