//! The models directory: what is installed, by manifest.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::catalogue::Catalogue;
use crate::error::ModelError;
use crate::files::{hash_file, remove_if_exists, set_mode, sync_directory, write_atomically};
use crate::manifest::{Digest, InstalledModel, Manifest};
use crate::progress::{Meter, Phase, Progress, PullEvent};
use crate::spec::is_safe_id;

/// Largest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 256 * 1024;
/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// The models of one directory. Cheap to clone; holds no state but the path, so it sees what other processes do.
#[derive(Debug, Clone)]
pub struct ModelStore {
    directory: PathBuf,
}

/// What is installed.
#[derive(Debug, Default)]
pub struct Listing {
    /// The models, by id.
    pub models: Vec<InstalledModel>,
    /// Manifests that cannot be used, with the reason, for the log and `honshu doctor`.
    pub problems: Vec<String>,
}

/// What a removal freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Bytes of files that are gone; 0 if another model has the same file.
    pub bytes_freed: u64,
}

/// Held while the directory is changed. Clones share it, and the last one gives it back.
#[derive(Debug, Clone)]
pub(crate) struct StoreLock {
    _file: Arc<File>,
}

impl ModelStore {
    /// Opens the models directory, and makes it if need be.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let store = Self {
            directory: directory.into(),
        };
        for directory in [store.blobs(), store.manifests()] {
            fs::create_dir_all(&directory).map_err(ModelError::io("create", &directory))?;
        }
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Everything that is installed. Blocks on the file system for a moment.
    ///
    /// # Errors
    /// If the directory cannot be read. A manifest that cannot be read is a problem of the listing, not an error.
    pub fn list(&self) -> Result<Listing, ModelError> {
        let directory = self.manifests();
        let mut listing = Listing::default();
        for entry in fs::read_dir(&directory).map_err(ModelError::io("read", &directory))? {
            let path = entry.map_err(ModelError::io("read", &directory))?.path();
            let is_manifest = path.extension().is_some_and(|e| e == "json");
            let hidden = path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if !is_manifest || hidden {
                continue;
            }
            match self.load(&path) {
                Ok(model) => listing.models.push(model),
                Err(reason) => listing
                    .problems
                    .push(format!("`{}`: {reason}", path.display())),
            }
        }
        listing
            .models
            .sort_by(|a, b| a.manifest.id.cmp(&b.manifest.id));
        Ok(listing)
    }

    /// The installed model with this id or catalogue name.
    ///
    /// # Errors
    /// [`ModelError::NotInstalled`], or if its manifest cannot be read.
    pub fn find(&self, name: &str) -> Result<InstalledModel, ModelError> {
        let not_installed = || ModelError::NotInstalled {
            id: name.to_owned(),
        };
        let id = self.id_of(name).ok_or_else(not_installed)?;
        let path = self.manifest_path(&id);
        if !path.exists() {
            return Err(not_installed());
        }
        self.load(&path).map_err(|reason| ModelError::Io {
            operation: "use the manifest",
            path,
            source: io::Error::new(io::ErrorKind::InvalidData, reason),
        })
    }

    /// Removes a model, its file unless another model has the same, and what an interrupted pull of it left.
    /// A running server that has the file open keeps it until it unloads the model.
    ///
    /// # Errors
    /// [`ModelError::NotInstalled`], [`ModelError::Locked`] while somebody pulls, or a file operation's error.
    pub fn remove(&self, name: &str) -> Result<Removed, ModelError> {
        let id = self.id_of(name).ok_or_else(|| ModelError::NotInstalled {
            id: name.to_owned(),
        })?;
        let _lock = self.try_lock()?.ok_or_else(|| ModelError::Locked {
            path: self.lock_path(),
        })?;
        let installed = self.load(&self.manifest_path(&id)).ok();
        let mut bytes_freed = self.remove_partial(&id)?;
        let had_partial = bytes_freed > 0;
        let had_manifest = remove_if_exists(&self.manifest_path(&id))?;
        if !had_manifest && !had_partial {
            return Err(ModelError::NotInstalled {
                id: name.to_owned(),
            });
        }
        if let Some(model) = installed
            && !self.is_referenced(&model.manifest.sha256)?
            && remove_if_exists(&model.path)?
        {
            bytes_freed += model.manifest.size_bytes;
        }
        Ok(Removed { bytes_freed })
    }

    /// Reads the whole file of an installed model and compares its digest. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`ModelError::DigestMismatch`] if the file was changed.
    pub fn verify(
        &self,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<InstalledModel, ModelError> {
        let model = self.find(name)?;
        let mut meter = Meter::new(progress, Phase::Hashing, Some(model.manifest.size_bytes));
        let (found, _) = hash_file(&model.path, &mut |done| {
            meter.advance(done);
            true
        })?;
        if found != model.manifest.sha256 {
            let what = format!("`{}`", model.path.display());
            return Err(ModelError::DigestMismatch {
                what,
                expected: model.manifest.sha256,
                found,
            });
        }
        Ok(model)
    }

    /// A number that changes whenever a model is installed, replaced or removed, by any process. Costs one look at a
    /// small directory, so a server can ask every second.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn generation(&self) -> io::Result<u64> {
        let mut sum = 0u64;
        for entry in fs::read_dir(self.manifests())? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let mut hasher = DefaultHasher::new();
            entry.file_name().hash(&mut hasher);
            metadata.len().hash(&mut hasher);
            metadata.modified().ok().hash(&mut hasher);
            #[cfg(unix)]
            std::os::unix::fs::MetadataExt::ino(&metadata).hash(&mut hasher);
            // Added up, because a directory has no order.
            sum = sum.wrapping_add(hasher.finish());
        }
        Ok(sum)
    }

    fn id_of(&self, name: &str) -> Option<String> {
        let id = Catalogue::embedded()
            .find(name)
            .map_or_else(|| name.to_owned(), |m| m.id.clone());
        is_safe_id(&id).then_some(id)
    }

    fn load(&self, path: &Path) -> Result<InstalledModel, String> {
        let metadata = fs::metadata(path).map_err(|e| e.to_string())?;
        if metadata.len() > MANIFEST_BYTES_MAX {
            return Err("it is too large for a manifest".to_owned());
        }
        let text = fs::read(path).map_err(|e| e.to_string())?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        if manifest.version != 1 {
            return Err(format!(
                "manifest version {} is newer than this program",
                manifest.version
            ));
        }
        if path.file_stem().and_then(|s| s.to_str()) != Some(&manifest.id) {
            return Err("its id is not its file name".to_owned());
        }
        let blob = self.blob_path(&manifest.sha256);
        let size = fs::metadata(&blob)
            .map_err(|e| format!("its model file `{}`: {e}", blob.display()))?
            .len();
        if size != manifest.size_bytes {
            return Err(format!(
                "its model file has {size} bytes instead of {}",
                manifest.size_bytes
            ));
        }
        Ok(InstalledModel {
            manifest,
            path: blob,
        })
    }

    fn is_referenced(&self, digest: &Digest) -> Result<bool, ModelError> {
        Ok(self
            .list()?
            .models
            .iter()
            .any(|m| m.manifest.sha256 == *digest))
    }

    /// Moves a verified file, already in `blobs/`, to its final name, and writes the manifest last.
    pub(crate) fn install(
        &self,
        file: &Path,
        manifest: Manifest,
    ) -> Result<InstalledModel, ModelError> {
        let blob = self.blob_path(&manifest.sha256);
        let install = || -> io::Result<()> {
            File::open(file)?.sync_all()?;
            fs::rename(file, &blob)?;
            sync_directory(&self.blobs())
        };
        install().map_err(ModelError::io("install", &blob))?;
        let replaced = self.load(&self.manifest_path(&manifest.id)).ok();
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| {
            ModelError::io("write", self.manifest_path(&manifest.id))(io::Error::other(e))
        })?;
        write_atomically(&self.manifest_path(&manifest.id), &text)?;
        if let Some(old) = replaced
            && old.manifest.sha256 != manifest.sha256
            && !self.is_referenced(&old.manifest.sha256)?
        {
            remove_if_exists(&old.path)?;
        }
        self.remove_partial(&manifest.id)?;
        Ok(InstalledModel {
            manifest,
            path: blob,
        })
    }

    fn remove_partial(&self, id: &str) -> Result<u64, ModelError> {
        let path = self.partial_path(id);
        let bytes = fs::metadata(&path).map_or(0, |m| m.len());
        remove_if_exists(&path)?;
        remove_if_exists(&self.partial_state_path(id))?;
        Ok(bytes)
    }

    /// The lock, or `None` if somebody else has it.
    pub(crate) fn try_lock(&self) -> Result<Option<StoreLock>, ModelError> {
        let path = self.lock_path();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(ModelError::io("open", &path))?;
        set_mode(&file, 0o600).map_err(ModelError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(StoreLock {
                _file: Arc::new(file),
            })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => Err(ModelError::Io {
                operation: "lock",
                path,
                source,
            }),
        }
    }

    /// Waits for the lock, at most `patience`.
    pub(crate) async fn lock(
        &self,
        patience: Duration,
        progress: &dyn Progress,
    ) -> Result<StoreLock, ModelError> {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if waited >= patience {
                return Err(ModelError::Locked {
                    path: self.lock_path(),
                });
            }
            if waited.is_zero() {
                progress.event(&PullEvent::Waiting);
            }
            tokio::time::sleep(LOCK_POLL).await;
            waited += LOCK_POLL;
        }
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.directory.join("blobs")
    }

    fn manifests(&self) -> PathBuf {
        self.directory.join("manifests")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    fn lock_path(&self) -> PathBuf {
        self.directory.join(".lock")
    }

    fn manifest_path(&self, id: &str) -> PathBuf {
        self.manifests().join(format!("{id}.json"))
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(format!("sha256-{digest}"))
    }

    pub(crate) fn partial_path(&self, id: &str) -> PathBuf {
        self.blobs().join(format!("{id}.partial"))
    }

    pub(crate) fn partial_state_path(&self, id: &str) -> PathBuf {
        self.blobs().join(format!("{id}.partial.json"))
    }
}
