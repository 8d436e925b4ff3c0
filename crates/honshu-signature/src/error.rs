//! Reasons why a signature, a body or a key is refused.
//!
//! They are written for logs and for the person who debugs a client. A caller of
//! the service only ever learns "not authenticated": which check failed must not
//! be told, so none of these may be put into a response.

/// Why the signature of a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The value does not start with the scheme `Signature`.
    #[error("authorization scheme is not `Signature`")]
    Scheme,
    /// The header is longer than [`crate::AUTHORIZATION_BYTES_MAX`].
    #[error("authorization header of {bytes} bytes is too long")]
    TooLong {
        /// Length of the value in bytes.
        bytes: usize,
    },
    /// The parameter list breaks the grammar.
    #[error("authorization header is malformed at byte {at}")]
    Malformed {
        /// Offset into the header value, in bytes.
        at: usize,
    },
    /// A parameter stands twice.
    #[error("signature parameter `{0}` is repeated")]
    RepeatedParameter(String),
    /// A parameter that every signature needs is absent.
    #[error("signature parameter `{0}` is missing")]
    MissingParameter(&'static str),
    /// `version` is not `1`.
    #[error("signature version `{0}` is not supported, use `1`")]
    Version(String),
    /// `algorithm` is not `rsa-sha256`.
    #[error("signature algorithm `{0}` is not supported, use `rsa-sha256`")]
    Algorithm(String),
    /// `signature` is not base64.
    #[error("signature is not valid base64")]
    SignatureEncoding,
    /// `keyId` has none of the forms that this service knows.
    #[error("key id has an unknown form")]
    KeyId,
    /// The `headers` parameter names something that is not a header name.
    #[error("covered header name `{0}` is not valid")]
    HeaderName(String),
    /// The `headers` parameter names a header twice.
    #[error("covered header `{0}` is repeated")]
    RepeatedHeaderName(String),
    /// A header that must be covered is not in the `headers` parameter.
    #[error("header `{0}` must be covered by the signature")]
    NotCovered(&'static str),
    /// A covered header is absent from the request.
    #[error("covered header `{0}` is not in the request")]
    MissingHeader(String),
    /// A header that decides about the request stands more than once.
    #[error("header `{0}` stands more than once")]
    AmbiguousHeader(String),
    /// `date` or `x-date` cannot be read.
    #[error("`{0}` is not an HTTP date")]
    DateFormat(&'static str),
    /// The date is too far from the server's clock.
    #[error("signed date is {skew_seconds} s away from the clock of the server, at most {max} s are allowed", max = crate::SKEW_SECONDS_MAX)]
    Skew {
        /// Signed date minus server time, in seconds.
        skew_seconds: i64,
    },
    /// `content-length` is not a decimal number.
    #[error("`content-length` is not a decimal number")]
    ContentLength,
    /// `x-content-sha256` is not the base64 form of 32 bytes.
    #[error("`x-content-sha256` is not the base64 form of 32 bytes")]
    ContentSha256,
    /// The signature was not made by this key over this request.
    #[error("signature does not match the request")]
    Mismatch,
}

/// Why a body is not the one that was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// More bytes arrived than were signed.
    #[error("body is longer than the {signed} bytes that were signed")]
    TooLong {
        /// Signed length in bytes.
        signed: u64,
    },
    /// The body ended early.
    #[error("body has {received} bytes, but {signed} were signed")]
    TooShort {
        /// Signed length in bytes.
        signed: u64,
        /// Received length in bytes.
        received: u64,
    },
    /// The digest differs.
    #[error("body does not match `x-content-sha256`")]
    Digest,
}

/// Why key material was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No usable PEM section.
    #[error("no PEM section `{expected}` found")]
    Pem {
        /// The label that was looked for.
        expected: &'static str,
    },
    /// The private key is encrypted.
    #[error("private key is encrypted; decrypt it with `openssl rsa -in key.pem -out plain.pem`")]
    Encrypted,
    /// The DER inside is not an RSA key.
    #[error("not a valid RSA key")]
    Rejected,
    /// The key is too small or too large.
    #[error("RSA key has {bits} bits, 2048 to 8192 are accepted")]
    Size {
        /// Length of the modulus in bits.
        bits: usize,
    },
    /// The text is not a fingerprint.
    #[error("fingerprint must be 16 bytes in hexadecimal, separated by colons")]
    Fingerprint,
    /// The system could not generate a key.
    #[error("could not generate an RSA key")]
    Generate,
}

/// Why a request could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// A header that has to be covered is absent or ambiguous.
    #[error("request cannot be signed")]
    Request(#[source] SignatureError),
    /// The request has no host to sign.
    #[error("request has neither a `host` header nor an authority in its URI")]
    NoHost,
    /// The key id cannot stand in a header.
    #[error("key id contains a character that cannot stand in a header")]
    KeyId,
    /// The time is outside of what an HTTP date can say.
    #[error("time {0} s cannot be written as an HTTP date")]
    Time(i64),
    /// The private key failed to sign.
    #[error("RSA signing failed")]
    Key,
}
