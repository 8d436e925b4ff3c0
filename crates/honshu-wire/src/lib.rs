//! The public JSON and SSE shapes of every dialect and the pure translations between them and the words of
//! `honshu-domain`, in both directions: callers are served by `honshu-api`, upstreams are spoken to by
//! `honshu-provider`, and both use the same modules, so that a dialect is understood in one place.
//!
//! Nothing here does I/O, reads a clock or makes a decision about a run. Bytes in, words out, and back.

mod assembly;
pub mod chat;
pub mod completions;
pub mod conversations;
pub mod embeddings;
pub mod error;
mod head;
pub mod images;
mod json;
pub mod messages;
pub mod models;
pub mod oci;
pub mod openapi;
mod padding;
pub mod passthrough;
mod problems;
pub mod responses;
mod rewrite;
mod sampling;
pub mod sse;

pub use head::ResponseHead;
