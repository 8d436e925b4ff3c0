//! OpenAI Responses: what callers send and read, what upstreams of this dialect read and send.
//!
//! A stream ends with exactly one of `response.completed`, `response.incomplete`, `response.failed`, then
//! `data: [DONE]`: OpenAI sends no such marker here, Open Responses demands it, and every client takes both.

mod collect;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod items;
mod object;
pub(crate) mod request;

pub use crate::head::ResponseHead;
pub use collect::Collector;
pub use decode::UpstreamDecoder;
pub use encode::StreamEncoder;
pub use request::{build_request, parse_request};
