//! honshu-api.
