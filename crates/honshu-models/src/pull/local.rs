//! A model file that is on this machine already.
//!
//! It is hard-linked into the store where that is possible: no space, no time, and the model stays when the original is
//! deleted. Where it is not (another file system, somebody else's file), it is copied. Whoever edits the original in
//! place edits the model too; [`ModelStore::verify`](crate::ModelStore::verify) finds that, and `copy_local` avoids it.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Context, Fetched};
use crate::error::ModelError;
use crate::files::{HashedFile, check_space, hash_file, remove_if_exists};
use crate::gguf;
use crate::manifest::{Digest, DigestOrigin, Source};
use crate::progress::{Meter, Phase, REPORT_INTERVAL};

const COPY_BYTES: usize = 1024 * 1024;

pub(super) async fn fetch(context: &Context<'_>, path: &Path) -> Result<Fetched, ModelError> {
    let original = fs::canonicalize(path).map_err(ModelError::io("find", path))?;
    // Said before gigabytes are read.
    gguf::read_file(&original).map_err(|source| ModelError::Gguf {
        what: context.what.clone(),
        source,
    })?;
    let size = fs::metadata(&original)
        .map_err(ModelError::io("read", &original))?
        .len();
    let partial = context.partial();
    context.clear_partial()?;
    let linked = !context.options.copy_local && fs::hard_link(&original, &partial).is_ok();
    if !linked {
        check_space(&context.store.blobs(), size)?;
    }
    let (from, to) = (original.clone(), partial.clone());
    let phase = if linked {
        Phase::Hashing
    } else {
        Phase::Copying
    };
    let result = blocking(context, phase, Some(size), move |job| {
        if linked {
            hash_file(&to, &mut |done| job.at(done))
        } else {
            copy(&from, &to, job)
        }
    })
    .await;
    let (sha256, size_bytes) = result?;
    if let Some((expected, _)) = context.expected
        && let Err(error) = context.check_digest(expected, sha256)
    {
        remove_if_exists(&partial)?;
        return Err(error);
    }
    Ok(Fetched {
        file: partial,
        sha256,
        size_bytes,
        digest_origin: context
            .expected
            .map_or(DigestOrigin::Computed, |(_, origin)| origin),
        source: Source::Path { path: original },
    })
}

fn copy(from: &Path, to: &Path, job: &Job) -> Result<(Digest, u64), ModelError> {
    let mut source = fs::File::open(from).map_err(ModelError::io("open", from))?;
    let mut target = HashedFile::create(to)?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = source
            .read(&mut buffer)
            .map_err(ModelError::io("read", from))?;
        if read == 0 || !job.at(target.len()) {
            target.sync()?;
            return Ok((target.digest(), target.len()));
        }
        target.append(&buffer[..read])?;
    }
}

/// Tells the watching task how far a blocking job is, and the job when nobody watches any more.
pub(super) struct Job {
    done: AtomicU64,
    is_left: AtomicBool,
}

impl Job {
    /// Notes progress. False means: stop.
    pub(super) fn at(&self, done: u64) -> bool {
        self.done.store(done, Ordering::Relaxed);
        !self.is_left.load(Ordering::Relaxed)
    }
}

/// Runs file work on a blocking thread and reports how far it is. If the future is dropped, the work stops at its next
/// step; until then it keeps the store's lock.
pub(super) async fn blocking<T: Send + 'static>(
    context: &Context<'_>,
    phase: Phase,
    bytes_total: Option<u64>,
    work: impl FnOnce(&Job) -> Result<T, ModelError> + Send + 'static,
) -> Result<T, ModelError> {
    struct Leave(Arc<Job>);
    impl Drop for Leave {
        fn drop(&mut self) {
            self.0.is_left.store(true, Ordering::Relaxed);
        }
    }
    let job = Arc::new(Job {
        done: AtomicU64::new(0),
        is_left: AtomicBool::new(false),
    });
    let _leave = Leave(Arc::clone(&job));
    let mut meter = Meter::new(context.progress, phase, bytes_total);
    let (theirs, lock) = (Arc::clone(&job), context.lock.clone());
    let mut task = tokio::task::spawn_blocking(move || {
        let _lock = lock;
        work(&theirs)
    });
    loop {
        tokio::select! {
            finished = &mut task => {
                meter.report(job.done.load(Ordering::Relaxed));
                return finished.unwrap_or_else(|error| {
                    Err(ModelError::io("read", context.partial())(std::io::Error::other(error)))
                });
            }
            () = tokio::time::sleep(REPORT_INTERVAL) => meter.report(job.done.load(Ordering::Relaxed)),
        }
    }
}
