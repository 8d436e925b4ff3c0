//! OCI dialect types.
