//! honshu-signature.
