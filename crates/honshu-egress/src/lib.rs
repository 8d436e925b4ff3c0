//! honshu-egress.
