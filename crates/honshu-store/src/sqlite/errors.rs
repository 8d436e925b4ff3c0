//! SQLite's error codes in the words of the store.

use std::sync::Arc;

use rusqlite::{Error, ErrorCode, ffi};

use crate::error::{Reason, StoreError};

/// Sorts an error by what a caller can do about it.
pub(crate) fn translate(error: Error) -> StoreError {
    let reason = match &error {
        Error::SqliteFailure(code, message) => {
            if code.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE
                || code.extended_code == ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            {
                return StoreError::Duplicate {
                    what: duplicate(message.as_deref()),
                };
            }
            match code.code {
                ErrorCode::DiskFull => Reason::DiskFull,
                ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                    Reason::ReadOnly
                }
                ErrorCode::SystemIoFailure => Reason::Io,
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Reason::Busy,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                    return StoreError::Corrupt(error.to_string());
                }
                _ => return StoreError::Internal(Arc::new(error)),
            }
        }
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..) => return StoreError::Corrupt(error.to_string()),
        _ => return StoreError::Internal(Arc::new(error)),
    };
    StoreError::Unavailable {
        reason,
        cause: Some(Arc::new(error)),
    }
}

/// Whether the whole transaction is lost and not only the statement.
pub(crate) fn is_fatal(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable { .. } | StoreError::Corrupt(_)
    )
}

/// SQLite says `UNIQUE constraint failed: table.column, …`.
fn duplicate(message: Option<&str>) -> &'static str {
    let columns = message.unwrap_or_default();
    for (column, what) in [
        ("compartments.name_folded", "compartment name"),
        ("policies.name_folded", "policy name"),
        ("users.name_folded", "user name"),
        ("groups.name_folded", "group name"),
        ("signing_keys.", "signing key"),
        ("memberships.", "group membership"),
        ("api_key_secrets.digest", "secret"),
        ("api_key_secrets.", "secret name"),
        ("tenancy.", "tenancy"),
    ] {
        if columns.contains(column) {
            return what;
        }
    }
    "id"
}
