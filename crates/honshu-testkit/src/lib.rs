//! honshu-testkit.
