//! The node's own usage log: a small database beside the control database, where each run's row is safe from
//! a kill of the process before the final frame leaves.
//!
//! Made for little CPU: rows that arrive together are written as one line of JSON rows, in one transaction,
//! at the end of a table without any index. That a row counts once is seen to where it is shipped to, by its
//! `run_id`. The operating system has an answered row (`synchronous=NORMAL`), the disk may not yet.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use honshu_domain::{Result, UsageLog, UsageRow};
use rusqlite::{Connection, params};
use tokio::sync::{Notify, oneshot};

use crate::directory::DataDir;
use crate::error::{OpenError, Reason, StoreError};
use crate::migrations;
use crate::sqlite::{Durability, open_connection, translate};

/// What bounds a spool.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Rows that may wait for the writer thread; beyond it `record` answers 503. Each is about 1 KiB.
    pub queue_rows_max: usize,
    /// Rows that may wait on disk to be shipped. Reached only when the main database is away for hours.
    pub spooled_rows_max: u64,
    /// Rows written in one transaction.
    pub batch_rows_max: usize,
    /// How long the writer waits for more rows when the last round brought several: at load, a wake-up of
    /// the thread costs more than a row.
    pub gather: Duration,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            queue_rows_max: 8_192,
            spooled_rows_max: 2_000_000,
            batch_rows_max: 512,
            gather: Duration::from_micros(500),
        }
    }
}

type Answer<T> = oneshot::Sender<std::result::Result<T, StoreError>>;

/// Rows of one group commit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batch {
    pub(crate) sequence: i64,
    pub(crate) rows: Vec<UsageRow>,
}

enum Job {
    Record(Box<UsageRow>, Answer<()>),
    Read {
        lines_max: u32,
        answer: Answer<Vec<Batch>>,
    },
    Forget {
        through: i64,
        answer: Answer<()>,
    },
}

/// The usage log of this node. Dropping it writes what waits, then ends its thread.
pub struct Spool {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    pending: Arc<AtomicU64>,
    arrived: Arc<Notify>,
}

impl Spool {
    /// Opens or makes the spool of a data directory.
    ///
    /// # Errors
    /// An [`OpenError`], one line with the next step.
    pub fn open(directory: &DataDir, limits: SpoolLimits) -> std::result::Result<Self, OpenError> {
        Self::open_file(&directory.spool(), limits)
    }

    /// Opens or makes a spool by its path. The caller sees to it that no other process has it.
    ///
    /// # Errors
    /// An [`OpenError`], one line with the next step.
    pub fn open_file(path: &Path, limits: SpoolLimits) -> std::result::Result<Self, OpenError> {
        let connection = open_connection(path, Durability::ProcessKill, migrations::SPOOL)?;
        let pending: i64 = connection
            .query_row(
                "SELECT coalesce(sum(row_count), 0) FROM batches",
                [],
                |row| row.get(0),
            )
            .map_err(|source| OpenError::Database {
                path: path.to_owned(),
                source,
            })?;
        let pending = Arc::new(AtomicU64::new(u64::try_from(pending).unwrap_or_default()));
        let arrived = Arc::new(Notify::new());
        let (queue, jobs) = sync_channel(limits.queue_rows_max);
        let writer = Writer {
            connection,
            limits,
            pending: Arc::clone(&pending),
            arrived: Arc::clone(&arrived),
            body: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("usage-spool".to_owned())
            .spawn(move || writer.run(&jobs))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            pending,
            arrived,
        })
    }

    /// Rows that are safe here and not yet shipped.
    pub fn pending_rows(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Resolves when rows have arrived since the last call.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The oldest lines.
    pub(crate) async fn read(&self, lines_max: u32) -> std::result::Result<Vec<Batch>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job::Read { lines_max, answer })?;
        received(receiver).await
    }

    /// Forgets the lines up to and with `through`.
    pub(crate) async fn forget(&self, through: i64) -> std::result::Result<(), StoreError> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job::Forget { through, answer })?;
        received(receiver).await
    }

    fn submit(&self, job: Job) -> std::result::Result<(), StoreError> {
        let queue = self
            .queue
            .as_ref()
            .ok_or(StoreError::unavailable(Reason::Stopped))?;
        queue.try_send(job).map_err(|error| {
            StoreError::unavailable(match error {
                TrySendError::Full(_) => Reason::Overloaded,
                TrySendError::Disconnected(_) => Reason::Stopped,
            })
        })
    }
}

async fn received<T>(
    receiver: oneshot::Receiver<std::result::Result<T, StoreError>>,
) -> std::result::Result<T, StoreError> {
    receiver
        .await
        .unwrap_or(Err(StoreError::unavailable(Reason::Stopped)))
}

impl UsageLog for Spool {
    fn record(&self, row: UsageRow) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        // The row is handed over here and not at the first poll, so that dropping the future loses nothing.
        let (answer, receiver) = oneshot::channel();
        let handed = self.submit(Job::Record(Box::new(row), answer));
        Box::pin(async move {
            handed?;
            Ok(received(receiver).await?)
        })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    connection: Connection,
    limits: SpoolLimits,
    pending: Arc<AtomicU64>,
    arrived: Arc<Notify>,
    body: Vec<u8>,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut answers: Vec<Answer<()>> = Vec::new();
        let mut busy = false;
        while let Ok(first) = jobs.recv() {
            let mut other = self.take(first, &mut answers);
            if busy && other.is_none() {
                match jobs.recv_timeout(self.limits.gather) {
                    Ok(job) => other = self.take(job, &mut answers),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
            }
            while other.is_none() && answers.len() < self.limits.batch_rows_max {
                match jobs.try_recv() {
                    Ok(job) => other = self.take(job, &mut answers),
                    Err(_) => break,
                }
            }
            busy = answers.len() > 1;
            self.write(&mut answers);
            match other {
                Some(Job::Read { lines_max, answer }) => drop(answer.send(self.read(lines_max))),
                Some(Job::Forget { through, answer }) => drop(answer.send(self.forget(through))),
                Some(Job::Record(..)) | None => {}
            }
        }
    }

    /// Adds a row to the line that is being made; gives other jobs back.
    fn take(&mut self, job: Job, answers: &mut Vec<Answer<()>>) -> Option<Job> {
        let (row, answer) = match job {
            Job::Record(row, answer) => (row, answer),
            other => return Some(other),
        };
        if self.pending.load(Ordering::Relaxed) + answers.len() as u64
            >= self.limits.spooled_rows_max
        {
            let _ = answer.send(Err(StoreError::unavailable(Reason::Overloaded)));
            return None;
        }
        let start = self.body.len();
        match serde_json::to_writer(&mut self.body, &row) {
            Ok(()) => {
                self.body.push(b'\n');
                answers.push(answer);
            }
            Err(error) => {
                self.body.truncate(start);
                let _ = answer.send(Err(StoreError::Internal(Arc::new(error))));
            }
        }
        None
    }

    fn write(&mut self, answers: &mut Vec<Answer<()>>) {
        if answers.is_empty() {
            return;
        }
        let count = answers.len() as u64;
        // One statement is its own transaction.
        let written = self
            .connection
            .prepare_cached("INSERT INTO batches (row_count, body) VALUES (?1, ?2)")
            .and_then(|mut insert| {
                insert.execute(params![i64::try_from(count).unwrap_or(i64::MAX), self.body])
            })
            .map(drop)
            .map_err(translate);
        self.body.clear();
        if written.is_ok() {
            self.pending.fetch_add(count, Ordering::Relaxed);
            self.arrived.notify_one();
        } else {
            tracing::error!(error = ?written, rows = count, "the usage spool could not write");
        }
        for answer in answers.drain(..) {
            let _ = answer.send(written.clone());
        }
    }

    fn read(&self, lines_max: u32) -> std::result::Result<Vec<Batch>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT sequence, body FROM batches ORDER BY sequence LIMIT ?1")
            .map_err(translate)?;
        let lines: Vec<(i64, Vec<u8>)> = statement
            .query_map(params![lines_max], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(translate)?;
        lines
            .into_iter()
            .map(|(sequence, body)| {
                let rows = body
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(serde_json::from_slice)
                    .collect::<std::result::Result<Vec<UsageRow>, _>>()
                    .map_err(|error| {
                        StoreError::Corrupt(format!("usage spool line {sequence}: {error}"))
                    })?;
                Ok(Batch { sequence, rows })
            })
            .collect()
    }

    fn forget(&self, through: i64) -> std::result::Result<(), StoreError> {
        let rows: i64 = self
            .connection
            .prepare_cached("SELECT coalesce(sum(row_count), 0) FROM batches WHERE sequence <= ?1")
            .and_then(|mut statement| statement.query_row(params![through], |row| row.get(0)))
            .map_err(translate)?;
        self.connection
            .prepare_cached("DELETE FROM batches WHERE sequence <= ?1")
            .and_then(|mut statement| statement.execute(params![through]))
            .map_err(translate)?;
        self.pending
            .fetch_sub(u64::try_from(rows).unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }
}
