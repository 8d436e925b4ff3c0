//! `run/endpoints.json`: where the regions of the running server answer, for the command line.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::StartError;

/// A region's address.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoint {
    /// The region's name.
    pub region: String,
    /// `http://ADDRESS:PORT`.
    pub url: String,
}

#[derive(Serialize)]
struct File<'a> {
    regions: &'a [Endpoint],
}

/// Removes the file when the server ends, so that nobody is sent to a server that is gone.
pub(crate) struct EndpointsFile(PathBuf);

impl EndpointsFile {
    /// Writes the file whole or not at all.
    pub(crate) fn write(data_dir: &Path, endpoints: &[Endpoint]) -> Result<Self, StartError> {
        let folder = data_dir.join("run");
        let path = folder.join("endpoints.json");
        let fail = |source| StartError::File {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(&folder).map_err(fail)?;
        let text = serde_json::to_vec_pretty(&File { regions: endpoints })
            .map_err(|error| fail(error.into()))?;
        let fresh = folder.join("endpoints.json.new");
        std::fs::write(&fresh, text).map_err(fail)?;
        std::fs::rename(&fresh, &path).map_err(fail)?;
        Ok(Self(path))
    }
}

impl Drop for EndpointsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
