//! honshu-wire.
