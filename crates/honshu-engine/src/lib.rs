//! honshu-engine.
