//! honshu-models.
