//! The one way out: every HTTP request that Honshu makes to somebody else's server leaves through [`Client`].
//!
//! One client exists so that the rules against server-side request forgery hold everywhere: an address is checked
//! when the connection is made, on the very IP address that is dialled ([`AddressRules`]), so neither a redirect nor
//! a second DNS answer can move a request to an address that was not allowed.
//!
//! It sits in the path of every proxied inference request, so it is lean: its own keep-alive pool over hyper's
//! connection types, no boxed futures and no task for each request.
//!
//! What this crate must never do: retry a request of which one byte may have been written (the caller decides, see
//! [`EgressError::may_have_reached_upstream`]), follow a redirect unless asked to ([`Client::get_following`]), or
//! write a URL's path or query, a header or a body into an error or a log line.

mod address;
mod body;
mod client;
mod connect;
mod error;
mod pool;
mod proxy;
mod redirect;
mod stream;
mod target;
mod tls;

pub use address::{AddressRule, AddressRules, CidrError};
pub use body::EgressBody;
pub use client::{Client, ClientOptions};
pub use connect::{Resolve, Resolving};
pub use error::{EgressError, ErrorKind};
pub use proxy::{ProxyError, ProxyRules};
pub use redirect::{Fetched, Hop};
pub use target::{Target, UrlError, parse_url};

pub use rustls_pki_types::CertificateDer;
