//! The one thread that writes. It takes all the work that waits, carries it out in one transaction with a
//! savepoint per command, commits once, tells the observer, and then answers everybody: with `FULL` that is
//! one sync for many commands.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use honshu_domain::UsageRow;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::errors::is_fatal;
use super::{sql, translate, usage};
use crate::command::{Applied, Command, Committed};
use crate::error::{OpenError, Reason, StoreError};
use crate::store::Observer;

/// Work that may wait. A full queue means that the disk stands still: callers get 503 and not a growing heap.
const QUEUE_MAX: usize = 4_096;
/// Jobs in one transaction: bounds how long the first one waits for the last.
const BATCH_MAX: usize = 256;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Job {
    Apply(Box<Command>, Answer<Applied>),
    Ingest(Vec<UsageRow>, Answer<u64>),
    Write(Box<dyn Write>),
    #[cfg(any(test, feature = "suite"))]
    LimitPages(Option<u32>),
}

/// Work of any kind that changes the database, with whoever waits for it.
trait Write: Send {
    /// Carries it out. What comes back is its failure.
    fn carry_out(&mut self, connection: &Connection) -> Result<(), StoreError>;

    /// Tells the one who waits: the outcome, or why the transaction was lost.
    fn answer(self: Box<Self>, lost: Option<&StoreError>);
}

/// A closure, and what it gave.
struct Closure<F, T> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    answer: Answer<T>,
}

impl<F, T> Write for Closure<F, T>
where
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn carry_out(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        let result = work(connection);
        let failure = result.as_ref().err().cloned();
        self.result = Some(result);
        failure.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, lost: Option<&StoreError>) {
        match (lost, self.result) {
            (None, Some(result)) => drop(self.answer.send(result)),
            (lost, _) => refuse(self.answer, lost),
        }
    }
}

/// A job that was carried out and waits for the commit.
///
/// A job that failed waits too: what it collided with may stand in the same transaction, and its caller
/// will look for it.
enum Done {
    Applied(Answer<Applied>, Result<Applied, StoreError>),
    Ingested(Answer<u64>, Result<u64, StoreError>),
    Written {
        write: Box<dyn Write>,
        has_failed: bool,
    },
}

impl Done {
    fn has_failed(&self) -> bool {
        match self {
            Self::Applied(_, result) => result.is_err(),
            Self::Ingested(_, result) => result.is_err(),
            Self::Written { has_failed, .. } => *has_failed,
        }
    }
}

pub(super) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        mut connection: Connection,
        observer: Arc<RwLock<Option<Observer>>>,
    ) -> Result<Self, OpenError> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("store-write".to_owned())
            .spawn(move || work(&mut connection, &jobs, &observer))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    pub(super) fn apply(
        &self,
        command: Command,
    ) -> Result<oneshot::Receiver<Result<Applied, StoreError>>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job::Apply(Box::new(command), answer))?;
        Ok(receiver)
    }

    pub(super) fn ingest(
        &self,
        rows: Vec<UsageRow>,
    ) -> Result<oneshot::Receiver<Result<u64, StoreError>>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job::Ingest(rows, answer))?;
        Ok(receiver)
    }

    pub(super) fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job::Write(Box::new(Closure {
            work: Some(work),
            result: None,
            answer,
        })))?;
        Ok(receiver)
    }

    #[cfg(any(test, feature = "suite"))]
    pub(super) fn limit_pages(&self, pages: Option<u32>) {
        let _ = self.submit(Job::LimitPages(pages));
    }

    fn submit(&self, job: Job) -> Result<(), StoreError> {
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

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(connection: &mut Connection, jobs: &Receiver<Job>, observer: &RwLock<Option<Observer>>) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            match jobs.try_recv() {
                Ok(job) => batch.push(job),
                Err(_) => break,
            }
        }
        carry_out(connection, batch, observer);
    }
}

fn carry_out(connection: &mut Connection, batch: Vec<Job>, observer: &RwLock<Option<Observer>>) {
    let is_alone = batch.len() == 1;
    let mut done = Vec::with_capacity(batch.len());
    let mut committed = Vec::new();
    let mut broken = connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(translate)
        .err();
    for job in batch {
        match job {
            Job::Apply(_, answer) if broken.is_some() => refuse(answer, broken.as_ref()),
            Job::Ingest(_, answer) if broken.is_some() => refuse(answer, broken.as_ref()),
            Job::Write(write) if broken.is_some() => write.answer(broken.as_ref()),
            Job::Write(mut write) => {
                let result = scoped(connection, is_alone, |connection| {
                    write.carry_out(connection)
                });
                let has_failed = result.is_err();
                broken = result.err().filter(is_fatal);
                done.push(Done::Written { write, has_failed });
            }
            Job::Apply(command, answer) => {
                match scoped(connection, is_alone, |connection| {
                    sql::apply(connection, &command)
                }) {
                    Ok(applied) => {
                        committed.push(Committed {
                            sequence: applied.sequence,
                            changes: command.changes,
                        });
                        done.push(Done::Applied(answer, Ok(applied)));
                    }
                    Err(error) => {
                        broken = is_fatal(&error).then(|| error.clone());
                        done.push(Done::Applied(answer, Err(error)));
                    }
                }
            }
            Job::Ingest(rows, answer) => {
                match scoped(connection, is_alone, |connection| {
                    usage::ingest(connection, &rows)
                }) {
                    Ok(count) => done.push(Done::Ingested(answer, Ok(count))),
                    Err(error) => {
                        broken = is_fatal(&error).then(|| error.clone());
                        done.push(Done::Ingested(answer, Err(error)));
                    }
                }
            }
            #[cfg(any(test, feature = "suite"))]
            Job::LimitPages(pages) => {
                let pages = pages.unwrap_or(u32::MAX - 1);
                let _ = connection.pragma_update(None, "max_page_count", pages);
            }
        }
    }
    let ended = match broken {
        None if is_alone && done.iter().any(Done::has_failed) => {
            connection.execute_batch("ROLLBACK").map_err(translate)
        }
        None => connection.execute_batch("COMMIT").map_err(translate),
        Some(error) => Err(error),
    };
    match ended {
        Ok(()) => {
            tell(observer, &committed);
            for done in done {
                // A caller that left does not hear of it; its work is done all the same.
                match done {
                    Done::Applied(answer, applied) => drop(answer.send(applied)),
                    Done::Ingested(answer, count) => drop(answer.send(count)),
                    Done::Written { write, .. } => write.answer(None),
                }
            }
        }
        Err(error) => {
            // Some errors have ended the transaction already; then this one has nothing to end.
            if !connection.is_autocommit() {
                let _ = connection.execute_batch("ROLLBACK");
            }
            tracing::error!(error = ?error, jobs = done.len(), "the store could not commit");
            for done in done {
                match done {
                    Done::Applied(answer, _) => refuse(answer, Some(&error)),
                    Done::Ingested(answer, _) => refuse(answer, Some(&error)),
                    Done::Written { write, .. } => write.answer(Some(&error)),
                }
            }
        }
    }
}

fn refuse<T>(answer: Answer<T>, error: Option<&StoreError>) {
    let error = error
        .cloned()
        .unwrap_or(StoreError::unavailable(Reason::Io));
    let _ = answer.send(Err(error));
}

fn tell(observer: &RwLock<Option<Observer>>, committed: &[Committed]) {
    if committed.is_empty() {
        return;
    }
    let observer = observer
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if let Some(observer) = observer {
        observer(committed);
    }
}

/// Runs one job so that its failure takes back its own changes only. A job that is alone in its transaction is
/// taken back with it and needs no savepoint, which would copy every page that the job touches: usage rows come
/// alone and many at once.
fn scoped<T>(
    connection: &Connection,
    is_alone: bool,
    job: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if is_alone {
        return job(connection);
    }
    let run = |sql: &str| -> Result<(), StoreError> {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
            .map(drop)
            .map_err(translate)
    };
    run("SAVEPOINT job")?;
    match job(connection) {
        Ok(value) => run("RELEASE job").map(|()| value),
        Err(error) => {
            if !is_fatal(&error) {
                run("ROLLBACK TO job")?;
                run("RELEASE job")?;
            }
            Err(error)
        }
    }
}
