//! The store on SQLite: one writer thread with group commit, reader threads, an answer per call.
//!
//! All SQL of this dialect is in `sql.rs` (writes) and `load.rs` (reads). WAL and `synchronous=FULL`: what was
//! answered survives a loss of power. No memory map: an I/O error would be a signal and not an error.

mod errors;
mod load;
mod readers;
mod sql;
mod stored;
mod usage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use honshu_domain::{Timestamp, UsageRow};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

pub(crate) use errors::translate;
pub use stored::SqliteResponses;

use crate::command::{Applied, Command, RetryEntry};
use crate::directory::{DataDir, touch_private};
use crate::error::{OpenError, Reason, StoreError};
use crate::migrations;
use crate::rows::{ControlState, LogEntry};
use crate::store::{Observer, Reply, Store};

/// The first SQLite without the WAL-reset fault, which could damage a database after a checkpoint
/// (SQLite release notes of 3.51.3).
const SQLITE_NUMBER_MIN: i32 = 3_051_003;
/// The same, in words.
const SQLITE_VERSION_MIN: &str = "3.51.3";
/// How long SQLite waits for a lock. Nobody but us and a backup holds one.
const BUSY_TIMEOUT_MS: u64 = 5_000;
/// Threads that read. Reads are rare: the hot path asks the snapshot in memory.
const READERS: usize = 2;

/// What differs between the databases of a data directory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Durability {
    /// An answer means that the disk has it.
    PowerLoss,
    /// An answer means that the operating system has it: a kill of the process loses nothing.
    ProcessKill,
}

/// Opens a database file (mode 0600), checks what protects it and migrates it.
pub(crate) fn open_connection(
    path: &Path,
    durability: Durability,
    steps: &[migrations::Migration],
) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_NUMBER_MIN {
        return Err(OpenError::SqliteTooOld {
            found: rusqlite::version().to_owned(),
            needed: SQLITE_VERSION_MIN,
        });
    }
    let database = |source| OpenError::Database {
        path: path.to_owned(),
        source,
    };
    let setting = |setting| OpenError::Setting {
        path: path.to_owned(),
        setting,
    };
    touch_private(path).map_err(|source| {
        OpenError::Directory(crate::directory::DirectoryError::Io {
            path: path.to_owned(),
            source,
        })
    })?;
    let mut connection = connect(path).map_err(database)?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(database)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(setting("journal_mode = WAL"));
    }
    let synchronous = match durability {
        Durability::PowerLoss => "FULL",
        Durability::ProcessKill => "NORMAL",
    };
    connection
        .pragma_update(None, "synchronous", synchronous)
        .map_err(database)?;
    migrations::migrate(&mut connection, path, steps)?;
    Ok(connection)
}

/// Pages in the write-ahead log before they are moved into the database: 16 MiB. Pages that change again and
/// again, such as the last of a growing table, are moved once for all of it.
const CHECKPOINT_PAGES: u32 = 4_096;

/// A further connection to a database that [`open_connection`] has prepared.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.execute_batch(
        "PRAGMA mmap_size = 0; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON",
    )?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    let mapped: i64 = connection
        .query_row("PRAGMA mmap_size", [], |row| row.get(0))
        .or_else(|error| match error {
            // A build without the memory map answers with no row, which is what we want.
            rusqlite::Error::QueryReturnedNoRows => Ok(0),
            other => Err(other),
        })?;
    if mapped != 0 {
        return Err(rusqlite::Error::ToSqlConversionFailure(
            "SQLite insists on a memory map; build with the bundled one".into(),
        ));
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The store on SQLite. Closing waits for the work that was handed over.
pub struct SqliteStore {
    path: PathBuf,
    writer: writer::Writer,
    readers: readers::Readers,
    observer: Arc<RwLock<Option<Observer>>>,
}

impl SqliteStore {
    /// Opens or makes the control database of a data directory.
    ///
    /// # Errors
    /// An [`OpenError`], one line with the next step.
    pub fn open(directory: &DataDir) -> Result<Self, OpenError> {
        Self::open_file(&directory.database())
    }

    /// Opens or makes a control database by its path. The caller sees to it that no other process has it.
    ///
    /// # Errors
    /// An [`OpenError`], one line with the next step.
    pub fn open_file(path: &Path) -> Result<Self, OpenError> {
        let connection = open_connection(path, Durability::PowerLoss, migrations::CONTROL)?;
        let observer = Arc::new(RwLock::new(None));
        let writer = writer::Writer::start(connection, Arc::clone(&observer))?;
        let readers = readers::Readers::start(path, READERS)?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            readers,
            observer,
        })
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Limits the file to `pages` pages of 4 KiB, so that tests can fill it.
    #[cfg(any(test, feature = "suite"))]
    pub fn limit_pages(&self, pages: Option<u32>) {
        self.writer.limit_pages(pages);
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Reply<T> {
        answer(self.readers.submit(work))
    }
}

/// Turns a channel into a reply; a thread that is gone is a closed store.
fn answer<T: Send + 'static>(
    receiver: Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>,
) -> Reply<T> {
    Box::pin(async move {
        receiver?
            .await
            .unwrap_or(Err(StoreError::unavailable(Reason::Stopped)))
    })
}

impl Store for SqliteStore {
    fn apply(&self, command: Command) -> Reply<Applied> {
        answer(self.writer.apply(command))
    }

    fn load(&self) -> Reply<ControlState> {
        self.read(load::load)
    }

    fn observe(&self, observer: Observer) {
        // A poisoned lock has an observer that panicked; the new one replaces it.
        let mut slot = self
            .observer
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *slot = Some(observer);
    }

    fn find_retry(
        &self,
        principal: &str,
        operation: &str,
        token: &str,
        now: Timestamp,
    ) -> Reply<Option<RetryEntry>> {
        let (principal, operation, token) =
            (principal.to_owned(), operation.to_owned(), token.to_owned());
        self.read(move |connection| {
            load::find_retry(connection, &principal, &operation, &token, now)
        })
    }

    fn ingest_usage(&self, rows: Vec<UsageRow>) -> Reply<u64> {
        answer(self.writer.ingest(rows))
    }

    fn list_usage(&self, from: Timestamp, until: Timestamp, limit: u32) -> Reply<Vec<UsageRow>> {
        self.read(move |connection| usage::list(connection, from, until, limit))
    }

    fn list_log(&self, sequence: i64, limit: u32) -> Reply<Vec<LogEntry>> {
        self.read(move |connection| load::list_log(connection, sequence, limit))
    }
}
