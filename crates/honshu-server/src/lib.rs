//! honshu-server.
