//! honshu-gateway.
