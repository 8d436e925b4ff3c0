//! What can go wrong on the way out, told apart by what a caller does about it.
//!
//! The text names the authority (host and port) at most: paths and queries of upstream URLs may hold secrets.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::time::Duration;

use crate::address::AddressRule;
use crate::target::UrlError;

type Source = Box<dyn StdError + Send + Sync>;

/// Why a request did not get its whole answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// The URL is not one that this client sends to.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The address rules forbid the target.
    #[error("`{host}` is not allowed as a target: {} is {rule}", address.map_or_else(|| "the name".to_owned(), |ip| ip.to_string()))]
    Refused {
        /// The host as written in the URL.
        host: String,
        /// The address that was found for it, when one was looked up.
        address: Option<IpAddr>,
        /// The rule that forbids it.
        rule: AddressRule,
    },
    /// No connection could be made: no such name, refused, unreachable.
    #[error("cannot connect to `{authority}`")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the resolver or the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Name look-up, TCP and TLS together took longer than `connect_timeout`.
    #[error("connecting to `{authority}` took longer than {} ms", after.as_millis())]
    ConnectTimeout {
        /// Host and port.
        authority: String,
        /// The configured `connect_timeout`.
        after: Duration,
    },
    /// The TLS handshake failed, or no trust anchors are known.
    #[error("no secure connection to `{authority}`")]
    Tls {
        /// Host and port.
        authority: String,
        /// What the TLS library said.
        #[source]
        source: Source,
    },
    /// The answer is larger than the caller takes.
    #[error("the answer is larger than {bytes_max} bytes")]
    TooLarge {
        /// The caller's limit in bytes.
        bytes_max: u64,
    },
    /// The connection ended before the answer was complete.
    #[error("the connection was cut before the answer was complete")]
    Cut {
        /// Whether the upstream may have begun to work on the request.
        may_have_reached: bool,
        /// What the HTTP library said.
        #[source]
        source: Source,
    },
    /// The upstream does not speak HTTP as it should.
    #[error("the upstream's answer is not valid HTTP")]
    Protocol {
        /// Whether the upstream may have begun to work on the request.
        may_have_reached: bool,
        /// What the HTTP library said.
        #[source]
        source: Source,
    },
    /// A redirect could not be followed.
    #[error("cannot follow the redirect from `{authority}`: {reason}")]
    Redirect {
        /// Host and port that redirected.
        authority: String,
        /// Why not.
        reason: &'static str,
    },
}

/// [`EgressError`] without its details, for metrics and for branching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// See [`EgressError::Url`].
    Url,
    /// See [`EgressError::Refused`].
    Refused,
    /// See [`EgressError::Connect`].
    Connect,
    /// See [`EgressError::ConnectTimeout`].
    ConnectTimeout,
    /// See [`EgressError::Tls`].
    Tls,
    /// See [`EgressError::TooLarge`].
    TooLarge,
    /// See [`EgressError::Cut`].
    Cut,
    /// See [`EgressError::Protocol`].
    Protocol,
    /// See [`EgressError::Redirect`].
    Redirect,
}

impl ErrorKind {
    /// The name used in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Refused => "refused_address",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::TooLarge => "too_large",
            Self::Cut => "cut",
            Self::Protocol => "protocol",
            Self::Redirect => "redirect",
        }
    }
}

impl EgressError {
    /// The kind without its details.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url(_) => ErrorKind::Url,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Connect { .. } => ErrorKind::Connect,
            Self::ConnectTimeout { .. } => ErrorKind::ConnectTimeout,
            Self::Tls { .. } => ErrorKind::Tls,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Cut { .. } => ErrorKind::Cut,
            Self::Protocol { .. } => ErrorKind::Protocol,
            Self::Redirect { .. } => ErrorKind::Redirect,
        }
    }

    /// Whether the upstream may have begun to work on the request. `false` means that sending it again cannot run it
    /// twice.
    #[must_use]
    pub fn may_have_reached_upstream(&self) -> bool {
        match self {
            Self::Url(_)
            | Self::Refused { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. } => false,
            Self::Cut {
                may_have_reached, ..
            }
            | Self::Protocol {
                may_have_reached, ..
            } => *may_have_reached,
            Self::TooLarge { .. } | Self::Redirect { .. } => true,
        }
    }

    /// An error of a request or of its answer's body. `written` is false if hyper gave the request back unsent.
    pub(crate) fn from_hyper(error: hyper::Error, written: bool) -> Self {
        let h2 = find::<h2::Error>(&error);
        // A refused stream, by the HTTP/2 specification (RFC 9113, 8.7), was not processed at all.
        let refused = h2.is_some_and(|e| e.reason() == Some(h2::Reason::REFUSED_STREAM));
        let may_have_reached = written && !refused;
        let protocol = error.is_parse()
            || error.is_user()
            || h2.is_some_and(|e| {
                matches!(
                    e.reason(),
                    Some(
                        h2::Reason::PROTOCOL_ERROR
                            | h2::Reason::FRAME_SIZE_ERROR
                            | h2::Reason::COMPRESSION_ERROR
                            | h2::Reason::FLOW_CONTROL_ERROR
                    )
                )
            });
        let source = Box::new(error);
        if protocol {
            Self::Protocol {
                may_have_reached,
                source,
            }
        } else {
            Self::Cut {
                may_have_reached,
                source,
            }
        }
    }
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<E>() {
            return Some(found);
        }
        next = e.source();
    }
    None
}
