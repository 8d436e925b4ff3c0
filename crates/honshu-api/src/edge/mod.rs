//! The HTTP edge: everything between a socket and the router.
//!
//! The HTTP library underneath is correct but lenient, and its defaults leave a
//! server open to slow, endless and ambiguous clients: no deadline for the first
//! byte, two `Host` headers taken, no cap on connections. This module closes those
//! gaps in one place, so that no route has to think about them:
//!
//! - [`serve`] accepts, caps, drains and stops;
//! - a gate in front of the HTTP/1 parser refuses what two readers could read
//!   differently, and holds the next request back while one is answered, so that
//!   a client that leaves is noticed even while nothing is written to it;
//! - [`EdgeBody`] bounds size and speed of what a client sends;
//! - [`Tls`] reads certificates again when they change.
//!
//! It must never buffer a body, look into one, or know a route. After it, every
//! request has exactly one valid `Host` header, in every version of HTTP.

mod body;
mod exchange;
mod gate;
mod io;
mod limits;
mod meter;
mod reply;
mod serve;
mod service;
mod tls;

pub use body::{BodyLimit, EdgeBody, EdgeBodyError};
pub use limits::EdgeLimits;
pub use reply::Refusal;
pub use serve::{DrainReport, Listener, serve};
pub use service::{ListenerTag, RequestInfo};
pub use tls::{Tls, TlsError};
