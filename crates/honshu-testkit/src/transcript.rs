//! Golden transcripts: `<case>/{request.json, upstream.sse | upstream.json, …}` folders, read as they are.

use std::path::{Path, PathBuf};

/// One recorded exchange.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// The folder's name.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
}

impl Transcript {
    /// A file of the folder, if it is there.
    #[must_use]
    pub fn read(&self, file: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path.join(file)).ok()
    }
}

/// The transcripts under `folder`, by name, at any depth. A folder is one if it holds `upstream.sse` or
/// `upstream.json`.
#[must_use]
pub fn transcripts_in(folder: &Path) -> Vec<Transcript> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&path) else {
            continue;
        };
        open.extend(entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            path.is_dir().then_some(path)
        }));
        if path.join("upstream.sse").exists() || path.join("upstream.json").exists() {
            let name = path
                .strip_prefix(folder)
                .unwrap_or(&path)
                .display()
                .to_string();
            found.push(Transcript { name, path });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The frames of an SSE body, each with its closing blank line.
#[must_use]
pub fn frames_of(body: &[u8]) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(body).expect("transcripts are UTF-8");
    text.split_inclusive("\n\n")
        .map(|frame| frame.as_bytes().to_vec())
        .collect()
}
