//! honshu-store.
