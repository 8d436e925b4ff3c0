//! honshu-domain.
