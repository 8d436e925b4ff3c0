//! honshu-policy.
