//! honshu-provider.
