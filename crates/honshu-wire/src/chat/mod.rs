//! OpenAI Chat Completions: what callers send and read, what upstreams of this dialect read and send.
//!
//! A stream that is whole ends with `data: [DONE]`; one that broke ends with an `error` frame and no marker.

mod build;
mod collect;
mod decode;
mod encode;
mod messages;
mod options;
mod request;
mod stored;

pub use crate::head::ResponseHead;
pub use build::build_request;
pub use collect::Collector;
pub use decode::UpstreamDecoder;
pub(crate) use decode::{read_finish, read_usage};
pub use encode::StreamEncoder;
pub(crate) use encode::{finish_word, prefix, write_usage};
pub(crate) use options::{OptionsDraft, read_option};
pub use request::parse_request;
pub use stored::{completion, completion_list, is_stored, kept, without_store};
