//! OpenAI's old Completions: a text is continued, without roles and without a chat template.
//!
//! A request is one user message whose text is the prompt; that no template goes around it is said by the dialect.
//! What only OpenAI's servers know of it (`echo`, `suffix`, `best_of`, several prompts, prompts of token ids) is a demand
//! that upstreams of this dialect meet and nobody else.

mod encode;
mod request;

pub use encode::{Collector, StreamEncoder};
pub use request::parse_request;
