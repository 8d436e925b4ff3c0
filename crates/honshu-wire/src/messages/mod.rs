//! Anthropic Messages: what callers send and read. No upstream is spoken to in this dialect.
//!
//! The facts are those of the official Python package `anthropic`, version 2.14: its types (`types/message_create_params.py`,
//! `types/content_block_param.py`, `types/message.py`, `types/raw_message_stream_event.py`, the error objects),
//! its reader of streams (`_streaming.py`) and its helper that puts a message together from events
//! (`lib/streaming/_messages.py`). Where the types leave a choice, the notes in their comments decided.
//!
//! What Honshu adds or cannot give: sampling options that the package no longer has (`temperature`, `top_p`, `top_k`)
//! are still taken; a prefilled answer (a last message by the assistant) is refused; server tools are named as
//! ignored, since nobody runs them.

mod collect;
mod content;
mod encode;
mod request;
mod stop;

use bytes::{Bytes, BytesMut};

use crate::json::{put, put_u64};

pub use collect::Collector;
pub use encode::StreamEncoder;
pub use request::{parse_count_request, parse_request};

/// The body of an answer to `POST /messages/count_tokens`.
pub fn token_count(input_tokens: u64) -> Bytes {
    let mut body = BytesMut::with_capacity(32);
    put(&mut body, "{\"input_tokens\":");
    put_u64(&mut body, input_tokens);
    put(&mut body, "}");
    body.freeze()
}
