//! OCI request signatures ("Signature version 1", after draft-cavage-http-signatures-08).
//!
//! Every OCI client proves who it is by signing each request with RSA-SHA256.
//! This crate knows how such a request is written as a signing string, how it is
//! signed, and what a server must check. It does no I/O, reads no clock and looks
//! up no key: time and keys are arguments, so that each rule can be tested as data.
//!
//! It must never normalise what was signed. The target is verified byte for byte
//! as it stood on the request line, because clients sign `//20231130/…` and
//! `aa%3Abb` exactly as they send them.
//!
//! The way of one request through the crate:
//!
//! 1. [`SignatureHeader::parse`] reads `Authorization`; its [`KeyId`] tells the
//!    caller which public key to look up.
//! 2. [`SignatureHeader::verify`] checks covered headers, date and signature and
//!    gives a [`BodyRule`].
//! 3. The body is fed to the rule's [`BodyDigest`] while it arrives; nothing that
//!    the request asks for may happen before [`BodyDigest::finish`] said yes.

mod body;
mod canonical;
mod error;
mod header;
mod key_id;
mod keys;
mod sign;
mod verify;

pub use body::{BodyDigest, BodyRule, sha256, sha256_base64};
pub use canonical::CanonicalRequest;
pub use error::{BodyError, KeyError, SignError, SignatureError};
pub use header::{AUTHORIZATION_BYTES_MAX, SignatureHeader, is_signature_scheme};
pub use key_id::{KeyId, SessionToken};
pub use keys::{Fingerprint, KeySize, PrivateKey, PrivateKeyPem, PublicKey};
pub use sign::{sign, sign_request};
pub use verify::{SKEW_SECONDS_MAX, covered_headers};
