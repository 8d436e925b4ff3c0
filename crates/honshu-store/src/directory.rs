//! The data directory: private to its owner, and used by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Name of the file whose lock says that the directory is in use.
const LOCK_FILE: &str = "honshu.lock";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it.
    #[error("data directory `{path}` is in use by process {pid}; stop that process, or name another directory with HONSHU_DATA_DIR", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The holder's process id, or `unknown`.
        pid: String,
    },
    /// It cannot be made, read or written.
    #[error("cannot use data directory `{path}`: {source}", path = path.display())]
    Io {
        /// The directory or the file in it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A data directory that this process has locked. The lock ends with the process, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory (mode 0700) if it is missing, takes group and others their access, and locks it.
    ///
    /// # Errors
    /// [`DirectoryError::InUse`] with the holder's process id when another process has it.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| DirectoryError::Io { path, source }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io(path))?;
        let path = &path.canonicalize().map_err(io(path))?;
        restrict(path, 0o700).map_err(io(path))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = lock.take(20).read_to_string(&mut pid);
                let pid = pid.trim();
                let known = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
                return Err(DirectoryError::InUse {
                    path: path.clone(),
                    pid: if known {
                        pid.to_owned()
                    } else {
                        "unknown".to_owned()
                    },
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(&lock_path)(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(io(&lock_path))?;
        Ok(Self {
            path: path.clone(),
            _lock: lock,
        })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The control database's file.
    pub fn database(&self) -> PathBuf {
        self.path.join("honshu.db")
    }

    /// The database of responses, conversations and files.
    pub fn responses(&self) -> PathBuf {
        self.path.join("responses.db")
    }

    /// The usage spool's file.
    pub fn spool(&self) -> PathBuf {
        self.path.join("usage-spool.db")
    }

    /// Whether a control database is there, without making one.
    pub fn has_database(&self) -> bool {
        self.database().exists()
    }
}

/// Takes away the access that `mode` does not give.
pub(crate) fn restrict(path: &Path, mode: u32) -> std::io::Result<()> {
    let current = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if current & !mode != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(current & mode))?;
    }
    Ok(())
}

/// Makes an empty file of mode 0600 if there is none, so that what SQLite makes beside it is private too.
pub(crate) fn touch_private(path: &Path) -> std::io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    restrict(path, 0o600)
}

/// Writes a file of mode 0600 so that after a crash there is the old file, the new one or none, never a
/// half: a temporary file beside it, synced, renamed over it, and the directory synced.
///
/// # Errors
/// Any I/O error; the temporary file is removed then.
pub fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let parent = path
        .parent()
        .ok_or_else(|| std::io::Error::other("the path has no directory"))?;
    let mut name = path
        .file_name()
        .ok_or_else(|| std::io::Error::other("the path has no file name"))?
        .to_owned();
    name.push(".tmp");
    let temporary = parent.join(name);
    let result = (|| {
        let _ = std::fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_directory_is_private_and_an_open_one_is_closed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let directory = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(LOCK_FILE)), 0o600);
        drop(directory);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let _directory = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_second_holder_is_refused_in_one_line_that_names_the_process() {
        let home = tempfile::tempdir().unwrap();
        let first = DataDir::open(home.path()).unwrap();
        let message = DataDir::open(home.path()).unwrap_err().to_string();
        assert!(
            message.contains(&format!("in use by process {};", std::process::id())),
            "{message}"
        );
        assert!(!message.contains('\n'));
        drop(first);
        DataDir::open(home.path()).unwrap();
    }

    #[test]
    fn a_private_file_is_replaced_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
