//! OpenAI Responses: what callers send and read, what upstreams of this dialect read and send.
//!
//! A stream ends with exactly one of `response.completed`, `response.incomplete`, `response.failed`, then
//! `data: [DONE]`: OpenAI sends no such marker here, Open Responses demands it, and every client takes both.

mod collect;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod fields;
mod fitting;
pub(crate) mod items;
mod kept;
mod object;
pub(crate) mod request;
mod socket;
pub(crate) mod tools;
mod turn;

pub use crate::head::ResponseHead;
pub use collect::Collector;
pub use decode::UpstreamDecoder;
pub use encode::StreamEncoder;
pub use fitting::{
    has_answers, leave_out_oldest, limit_output, summary_request, truncates, with_summary,
    without_management,
};
pub use kept::{Kept, frames_after, item_list, join, object_in_first_frame};
pub use object::TurnFacts;
pub use request::{build_request, parse_request};
pub use socket::{Create, error_message, messages, parse_create};
pub use turn::{
    Turn, compacted, expand, named_files, own_items, replace_part, text_part, user_messages,
};
