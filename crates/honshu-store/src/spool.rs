//! The node's own usage log: a small database beside the control database, where each run's row is safe from
//! a kill of the process before the final frame leaves.
//!
//! Made for little CPU: rows that arrive together are written as one line of JSON rows, in one transaction,
//! at the end of a table without any index. That a row counts once is seen to where it is shipped to, by its
//! `run_id`. The operating system has an answered row (`synchronous=NORMAL`), the disk may not yet.

use std::collections::VecDeque;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
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
    /// How long the writer sleeps between rounds when the last one brought several rows: at load, a commit or
    /// a wake-up of the thread costs more than a row.
    pub gather: Duration,
    /// Rows that are kept in memory as well until they are shipped, so that shipping need not read them back.
    pub remembered_rows_max: usize,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            queue_rows_max: 8_192,
            spooled_rows_max: 2_000_000,
            batch_rows_max: 512,
            gather: Duration::from_micros(500),
            remembered_rows_max: 32_768,
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
        let memory = Memory::new(pending > 0, limits.remembered_rows_max);
        let pending = Arc::new(AtomicU64::new(u64::try_from(pending).unwrap_or_default()));
        let arrived = Arc::new(Notify::new());
        let (queue, jobs) = sync_channel(limits.queue_rows_max);
        let writer = Writer {
            connection,
            limits,
            pending: Arc::clone(&pending),
            arrived: Arc::clone(&arrived),
            body: Vec::new(),
            rows: Vec::new(),
            memory,
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

/// The rows on disk once more, as long as all of them fit: in the usual course they are shipped from here and
/// only deleted from the disk.
struct Memory {
    batches: VecDeque<Batch>,
    rows: usize,
    rows_max: usize,
    /// There are lines on disk that are not in here; from then on the disk is read until it is empty.
    is_behind: bool,
    /// Lines up to this one were given out and not forgotten yet.
    lent_through: Option<i64>,
}

impl Memory {
    fn new(is_behind: bool, rows_max: usize) -> Self {
        Self {
            batches: VecDeque::new(),
            rows: 0,
            rows_max,
            is_behind,
            lent_through: None,
        }
    }

    fn remember(&mut self, batch: Batch) {
        if self.is_behind {
            return;
        }
        self.rows += batch.rows.len();
        if self.rows > self.rows_max {
            self.fall_behind();
        } else {
            self.batches.push_back(batch);
        }
    }

    fn fall_behind(&mut self) {
        (self.batches, self.rows, self.lent_through) = (VecDeque::new(), 0, None);
        self.is_behind = true;
    }

    /// The oldest lines, or nothing if they must be read from the disk.
    fn lend(&mut self, lines_max: u32) -> Option<Vec<Batch>> {
        if self.lent_through.is_some() {
            // What was lent before did not arrive.
            self.fall_behind();
        }
        if self.is_behind {
            return None;
        }
        let count = self.batches.len().min(lines_max as usize);
        let lent: Vec<Batch> = self.batches.drain(..count).collect();
        self.rows -= lent.iter().map(|batch| batch.rows.len()).sum::<usize>();
        self.lent_through = lent.last().map(|batch| batch.sequence);
        Some(lent)
    }

    /// Lines up to `through` were deleted; `is_empty` says whether none is left on disk.
    fn forgotten(&mut self, through: i64, is_empty: bool) {
        if self.lent_through.is_some_and(|lent| lent <= through) {
            self.lent_through = None;
        }
        if self.is_behind && is_empty {
            self.is_behind = false;
        }
    }
}

struct Writer {
    connection: Connection,
    limits: SpoolLimits,
    pending: Arc<AtomicU64>,
    arrived: Arc<Notify>,
    /// The line that is being made, as it will be on disk and as rows.
    body: Vec<u8>,
    rows: Vec<UsageRow>,
    memory: Memory,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut answers: Vec<Answer<()>> = Vec::new();
        let mut busy = false;
        while let Ok(first) = jobs.recv() {
            let mut other = self.take(first, &mut answers);
            if busy && other.is_none() {
                // Asleep and not waiting on the queue, so that those who hand rows over need not wake anybody.
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the writer is a thread of its own"
                )]
                std::thread::sleep(self.limits.gather);
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
                self.rows.push(*row);
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
        let rows = std::mem::take(&mut self.rows);
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
            self.memory.remember(Batch {
                sequence: self.connection.last_insert_rowid(),
                rows,
            });
            self.pending.fetch_add(count, Ordering::Relaxed);
            self.arrived.notify_one();
        } else {
            tracing::error!(error = ?written, rows = count, "the usage spool could not write");
        }
        for answer in answers.drain(..) {
            let _ = answer.send(written.clone());
        }
    }

    fn read(&mut self, lines_max: u32) -> std::result::Result<Vec<Batch>, StoreError> {
        if let Some(batches) = self.memory.lend(lines_max) {
            return Ok(batches);
        }
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

    fn forget(&mut self, through: i64) -> std::result::Result<(), StoreError> {
        let rows: i64 = self
            .connection
            .prepare_cached("SELECT coalesce(sum(row_count), 0) FROM batches WHERE sequence <= ?1")
            .and_then(|mut statement| statement.query_row(params![through], |row| row.get(0)))
            .map_err(translate)?;
        self.connection
            .prepare_cached("DELETE FROM batches WHERE sequence <= ?1")
            .and_then(|mut statement| statement.execute(params![through]))
            .map_err(translate)?;
        let rows = u64::try_from(rows).unwrap_or_default();
        let before = self.pending.fetch_sub(rows, Ordering::Relaxed);
        self.memory.forgotten(through, before <= rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use honshu_domain::Timestamp;

    use super::*;
    use crate::suite::usage_row;

    fn ids(batches: &[Batch]) -> Vec<String> {
        let rows = batches.iter().flat_map(|batch| &batch.rows);
        rows.map(|row| row.run_id.to_string()).collect()
    }

    async fn record(spool: &Spool, ids: &[&str]) {
        for id in ids {
            let row = usage_row(id, Timestamp::from_seconds(1));
            spool.record(row).await.unwrap();
        }
    }

    /// Reads and forgets until nothing is left.
    async fn drain(spool: &Spool) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let batches = spool.read(2).await.unwrap();
            let Some(last) = batches.last() else {
                return all;
            };
            all.extend(ids(&batches));
            spool.forget(last.sequence).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_did_not_arrive_is_read_again_in_its_place_and_memory_takes_over_afterwards() {
        let home = tempfile::tempdir().unwrap();
        let spool = Spool::open_file(&home.path().join("s.db"), SpoolLimits::default()).unwrap();
        record(&spool, &["a", "b", "c"]).await;
        let lost = spool.read(1).await.unwrap();
        assert_eq!(ids(&lost), ["a"]);
        record(&spool, &["d"]).await;
        let again = spool.read(1).await.unwrap();
        assert_eq!(again, lost, "from the disk as from memory");
        assert_eq!(drain(&spool).await, ["a", "b", "c", "d"]);
        record(&spool, &["e"]).await;
        assert_eq!(drain(&spool).await, ["e"]);
        assert_eq!(spool.pending_rows(), 0);
    }

    #[tokio::test]
    async fn rows_that_memory_cannot_hold_or_a_restart_forgot_come_from_the_disk() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s.db");
        let limits = SpoolLimits {
            remembered_rows_max: 2,
            ..SpoolLimits::default()
        };
        let spool = Spool::open_file(&path, limits).unwrap();
        record(&spool, &["a", "b", "c", "d"]).await;
        assert_eq!(drain(&spool).await, ["a", "b", "c", "d"]);
        record(&spool, &["e", "f"]).await;
        drop(spool);
        let spool = Spool::open_file(&path, limits).unwrap();
        record(&spool, &["g"]).await;
        assert_eq!(drain(&spool).await, ["e", "f", "g"]);
    }
}
