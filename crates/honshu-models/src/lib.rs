//! Model files on this machine: what can be pulled, pulling it, what is there, and what a GGUF file says of itself.
//!
//! Everything lives below one directory, by default `<data-dir>/models/`:
//!
//! | path | what |
//! |---|---|
//! | `blobs/sha256-<hex>` | a verified model file; never changed after it got this name |
//! | `blobs/<id>.partial`, `.partial.json` | a pull under way or interrupted, and where it came from |
//! | `manifests/<id>.json` | one [`Manifest`] for each installed model |
//! | `tmp/` | scratch space of a pull, emptied by the next one |
//! | `.lock` | held by whoever changes any of this; readers need no lock |
//!
//! A model exists when its manifest does, and the manifest is renamed into place last. So a crash, a full disk or a
//! cancelled pull leaves partial files, which the next pull continues, and never a model that is not whole.
//!
//! What this crate must never do: install a file whose digest it did not compute itself, send a hub token to any host
//! but the hub, or trust a number inside a model file before it was checked against the file.

mod catalogue;
mod error;
mod files;
pub mod gguf;
mod manifest;
mod progress;
mod pull;
mod spec;
mod store;

pub use catalogue::{Catalogue, CatalogueModel, CatalogueSource, Size};
pub use error::ModelError;
pub use manifest::{Digest, DigestOrigin, InstalledModel, Manifest, ParseDigestError, Source};
pub use progress::{NoProgress, Phase, Progress, PullEvent, RateWindow, Transfer};
pub use pull::{HubToken, PullOptions, Pulled};
pub use spec::{HubFile, ModelSpec, SpecError};
pub use store::{Listing, ModelStore, Removed};
