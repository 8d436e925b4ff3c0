//! Why a server does not start: one line, the next step, and whether the surroundings are at fault.

use std::net::SocketAddr;
use std::path::PathBuf;

use honshu_api::edge::TlsError;
use honshu_control::{BootstrapError, ControlError, PepperError};
use honshu_store::{DirectoryError, OpenError};

use crate::config::ConfigError;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used: missing rights, or another process has it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The pepper cannot be read.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The first start failed.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The control plane cannot start.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Certificates cannot be used.
    #[error("cannot use the certificates: {0}")]
    Tls(#[from] TlsError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        reason: String,
    },
    /// Something other than loopback before anybody ran `init`.
    #[error("{address} is not loopback, and this data directory was never initialised")]
    NotInitialised {
        /// The address.
        address: SocketAddr,
    },
    /// A provider's credential cannot be read.
    #[error("provider `{provider}`: {reason}")]
    Credential {
        /// The provider.
        provider: String,
        /// Why; never the credential.
        reason: String,
    },
    /// A provider cannot be built.
    #[error("provider `{provider}`: {reason}")]
    Provider {
        /// The provider.
        provider: String,
        /// Why.
        reason: String,
    },
    /// A file of the data directory cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The model store cannot be read.
    #[error("cannot read the pulled models: {0}")]
    Models(String),
}

impl StartError {
    /// Whether the configuration or the surroundings are at fault: exit code 78.
    pub fn is_configuration(&self) -> bool {
        !matches!(
            self,
            Self::Listen { .. } | Self::File { .. } | Self::Models(_)
        )
    }

    /// The next step, where it is known.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Listen { .. } => "stop what listens there, or choose another port with --listen",
            Self::NotInitialised { .. } => "run `honshu init` first, then `honshu serve`",
            Self::Credential { .. } => {
                "set the variable or create the file that `credential` names"
            }
            Self::Directory(DirectoryError::InUse { .. }) => {
                "stop the other process, or choose another directory with HONSHU_DATA_DIR"
            }
            _ => return None,
        })
    }
}
