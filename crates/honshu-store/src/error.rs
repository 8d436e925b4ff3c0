//! How a store fails. A variant exists where somebody branches on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use honshu_domain::{Error, ErrorKind, Retry};

use crate::directory::DirectoryError;

/// Why a store cannot work now; it may later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No space left on the device, or the file reached its limit.
    DiskFull,
    /// The database or its directory cannot be written.
    ReadOnly,
    /// Reading or writing failed.
    Io,
    /// Somebody else holds the database.
    Busy,
    /// More work waits than the queue takes.
    Overloaded,
    /// The store has been closed.
    Stopped,
}

impl Reason {
    /// What an operator reads.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => {
                "no space is left for the database; free some, writes then go on by themselves"
            }
            Self::ReadOnly => {
                "the database cannot be written; check the owner and mode of the data directory"
            }
            Self::Io => "reading or writing the database failed; check the disk and the system log",
            Self::Busy => "another process holds the database",
            Self::Overloaded => "more database work waits than the queue takes",
            Self::Stopped => "the store has been closed",
        }
    }
}

/// Why work of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A name or id that must be unique is there already.
    #[error("{what} is there already")]
    Duplicate {
        /// What it names, such as `compartment name`.
        what: &'static str,
    },
    /// The row has another version than expected: somebody was faster.
    #[error("the row was changed by somebody else")]
    Stale,
    /// There is no such row.
    #[error("no such row")]
    NotFound,
    /// The compartment still holds something.
    #[error("the compartment still holds {what}")]
    NotEmpty {
        /// What it holds.
        what: &'static str,
    },
    /// The retry token was taken by an earlier request.
    #[error("the retry token was taken by an earlier request")]
    RetryTokenTaken,
    /// The store cannot now.
    #[error("store unavailable: {}", reason.as_str())]
    Unavailable {
        /// Why.
        reason: Reason,
        /// The database's own words.
        #[source]
        cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// What is stored cannot be read.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// The database refused what it should not have.
    #[error("database error")]
    Internal(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// An `Unavailable` without a cause.
    pub(crate) const fn unavailable(reason: Reason) -> Self {
        Self::Unavailable {
            reason,
            cause: None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable { reason, .. } => {
                let message = match reason {
                    Reason::DiskFull => "no space is left on the server's disk",
                    Reason::ReadOnly => "the server's database cannot be written",
                    Reason::Overloaded | Reason::Busy => "the server's database is busy",
                    Reason::Io | Reason::Stopped => "the server's database is not available",
                };
                Error::new(ErrorKind::Unavailable, message)
                    .with_retry(Retry::After(Duration::from_secs(1)))
                    .with_cause(error)
            }
            StoreError::Duplicate { what } => {
                Error::new(ErrorKind::Conflict, format!("this {what} is taken"))
            }
            StoreError::Stale => Error::new(
                ErrorKind::PreconditionFailed,
                "the resource was changed meanwhile; read it again",
            ),
            StoreError::NotEmpty { what } => Error::new(
                ErrorKind::Conflict,
                format!("the compartment still holds {what}; remove or move them first"),
            ),
            StoreError::NotFound
            | StoreError::RetryTokenTaken
            | StoreError::Corrupt(_)
            | StoreError::Internal(_) => Error::internal(error),
        }
    }
}

/// Why a store could not be opened. Each message is one line with the next step.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The linked SQLite has a known fault.
    #[error(
        "SQLite {found} can damage databases in WAL mode, at least {needed} is needed; build with the bundled one"
    )]
    SqliteTooOld {
        /// The linked version.
        found: String,
        /// The first good version.
        needed: &'static str,
    },
    /// The database was migrated by a later release in a way that this one cannot serve.
    #[error("the database `{path}` was made by a later release (migration `{migration}`); run that release, or restore a backup", path = path.display())]
    SchemaTooNew {
        /// The file.
        path: PathBuf,
        /// The first unknown migration.
        migration: String,
    },
    /// A migration that was applied differs from the one of this release.
    #[error("migration `{migration}` of `{path}` is not the one that was applied; the program or the database was altered, restore a backup", path = path.display())]
    MigrationChanged {
        /// The file.
        path: PathBuf,
        /// Which.
        migration: String,
    },
    /// A setting that protects the data did not take.
    #[error("SQLite does not accept `{setting}` for `{path}`; put the data directory on a local disk", path = path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting.
        setting: &'static str,
    },
    /// The file cannot be opened or read.
    #[error("cannot open the database `{path}`: {source}", path = path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The database's own words.
        source: rusqlite::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a database thread: {0}")]
    Thread(std::io::Error),
}
