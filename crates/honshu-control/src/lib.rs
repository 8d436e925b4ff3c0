//! honshu-control.
