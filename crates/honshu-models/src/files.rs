//! Writing files so that a crash leaves the old state or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use crate::error::ModelError;
use crate::manifest::Digest;

/// Left free beside a download, so that the machine goes on working.
const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
const READ_BYTES: usize = 1024 * 1024;

/// Writes a whole file: first beside it, then synced, then renamed over it.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), ModelError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(directory)?;
        file.write_all(content)?;
        set_mode(file.as_file(), 0o644)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        sync_directory(directory)
    };
    write().map_err(ModelError::io("write", path))
}

/// Makes a rename in `directory` survive a power failure.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(unix)]
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(crate) fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

/// Refuses to begin what cannot end for want of space.
pub(crate) fn check_space(directory: &Path, needed: u64) -> Result<(), ModelError> {
    let available = fs4::available_space(directory)
        .map_err(ModelError::io("look at the free space of", directory))?;
    if available < needed.saturating_add(DISK_RESERVE_BYTES) {
        return Err(ModelError::DiskFull {
            path: directory.to_owned(),
            needed,
            available,
        });
    }
    Ok(())
}

pub(crate) fn remove_if_exists(path: &Path) -> Result<bool, ModelError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ModelError::Io {
            operation: "remove",
            path: path.to_owned(),
            source,
        }),
    }
}

/// A file that grows and whose digest is known at every moment.
pub(crate) struct HashedFile {
    path: PathBuf,
    file: File,
    context: Context,
    len: u64,
}

impl HashedFile {
    /// Begins an empty file.
    pub(crate) fn create(path: &Path) -> Result<Self, ModelError> {
        let file = File::create(path).map_err(ModelError::io("create", path))?;
        set_mode(&file, 0o644).map_err(ModelError::io("create", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            context: Context::new(&SHA256),
            len: 0,
        })
    }

    /// Opens what an earlier pull left and reads it through. `watch` gets the bytes read so far and stops the reading
    /// by returning false.
    pub(crate) fn resume(
        path: &Path,
        watch: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Self, ModelError> {
        let file = File::options()
            .read(true)
            .append(true)
            .open(path)
            .map_err(ModelError::io("open", path))?;
        let (context, len) = hash(&file, path, watch)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            context,
            len,
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        if let Err(source) = self.file.write_all(bytes) {
            // Part of it may have been written: what is not in the digest must not be in the file.
            let _ = self.file.set_len(self.len);
            if matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                let directory = self.path.parent().unwrap_or(Path::new(".")).to_owned();
                let available = fs4::available_space(&directory).unwrap_or(0);
                return Err(ModelError::DiskFull {
                    path: directory,
                    needed: bytes.len() as u64,
                    available,
                });
            }
            return Err(ModelError::Io {
                operation: "write",
                path: self.path.clone(),
                source,
            });
        }
        self.context.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.context.clone())
    }

    pub(crate) fn sync(&self) -> Result<(), ModelError> {
        self.file
            .sync_all()
            .map_err(ModelError::io("write", &self.path))
    }
}

/// The digest and size of a file.
pub(crate) fn hash_file(
    path: &Path,
    watch: &mut dyn FnMut(u64) -> bool,
) -> Result<(Digest, u64), ModelError> {
    let file = File::open(path).map_err(ModelError::io("open", path))?;
    let (context, len) = hash(&file, path, watch)?;
    Ok((Digest::of(context), len))
}

fn hash(
    mut file: &File,
    path: &Path,
    watch: &mut dyn FnMut(u64) -> bool,
) -> Result<(Context, u64), ModelError> {
    use io::Read as _;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; READ_BYTES];
    let mut len = 0;
    loop {
        if !watch(len) {
            let source = io::Error::new(io::ErrorKind::Interrupted, "the pull was cancelled");
            return Err(ModelError::Io {
                operation: "read",
                path: path.to_owned(),
                source,
            });
        }
        let read = match file.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(ModelError::Io {
                    operation: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        if read == 0 {
            return Ok((context, len));
        }
        context.update(&buffer[..read]);
        len += read as u64;
    }
}
