//! The reads of the control plane in SQLite's dialect.

use std::collections::{BTreeMap, HashMap};

use honshu_domain::{Ocid, Timestamp};
use rusqlite::types::{FromSql, Type};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::translate;
use crate::command::RetryEntry;
use crate::error::StoreError;
use crate::rows::{
    ApiKeyRow, CompartmentRow, ControlState, GroupRow, LogEntry, MembershipRow, PolicyRow,
    SecretRow, SecretState, SigningKeyRow, TenancyRow, UserRow,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Reads everything in one transaction, so that the parts fit together.
pub(super) fn load(connection: &mut Connection) -> Result<ControlState> {
    let transaction = connection.transaction().map_err(translate)?;
    load_in(&transaction).map_err(translate)
}

fn load_in(connection: &Connection) -> rusqlite::Result<ControlState> {
    let tenancy = connection
        .query_row(
            "SELECT id, name, home_region, deny_enabled, created FROM tenancy",
            [],
            |row| {
                Ok(TenancyRow {
                    id: ocid(row, 0)?,
                    name: row.get(1)?,
                    home_region: row.get(2)?,
                    deny_enabled: row.get(3)?,
                    created: time(row, 4)?,
                })
            },
        )
        .optional()?;
    let compartments = all(
        connection,
        "WITH RECURSIVE tree (id, depth) AS (
             SELECT id, 0 FROM compartments WHERE parent IS NULL
             UNION ALL SELECT child.id, tree.depth + 1 FROM compartments child JOIN tree ON child.parent = tree.id
         )
         SELECT c.id, parent, name, description, freeform_tags, defined_tags, created, updated, version
         FROM tree JOIN compartments c ON c.id = tree.id ORDER BY depth, c.id",
        |row| {
            Ok(CompartmentRow {
                id: ocid(row, 0)?,
                parent: optional_ocid(row, 1)?,
                name: row.get(2)?,
                description: row.get(3)?,
                freeform_tags: row.get(4)?,
                defined_tags: row.get(5)?,
                created: time(row, 6)?,
                updated: time(row, 7)?,
                version: row.get(8)?,
            })
        },
    )?;
    let users = all(
        connection,
        "SELECT id, name, description, email, active, created, version FROM users ORDER BY id",
        |row| {
            Ok(UserRow {
                id: ocid(row, 0)?,
                name: row.get(1)?,
                description: row.get(2)?,
                email: row.get(3)?,
                active: row.get(4)?,
                created: time(row, 5)?,
                version: row.get(6)?,
            })
        },
    )?;
    let signing_keys = all(
        connection,
        "SELECT user_id, fingerprint, public_key_pem, created FROM signing_keys ORDER BY user_id, fingerprint",
        |row| {
            Ok(SigningKeyRow {
                user: ocid(row, 0)?,
                fingerprint: row.get(1)?,
                public_key_pem: row.get(2)?,
                created: time(row, 3)?,
            })
        },
    )?;
    let groups = all(
        connection,
        "SELECT id, name, description, created, version FROM groups ORDER BY id",
        |row| {
            Ok(GroupRow {
                id: ocid(row, 0)?,
                name: row.get(1)?,
                description: row.get(2)?,
                created: time(row, 3)?,
                version: row.get(4)?,
            })
        },
    )?;
    let memberships = all(
        connection,
        "SELECT user_id, group_id, created FROM memberships ORDER BY user_id, group_id",
        |row| {
            Ok(MembershipRow {
                user: ocid(row, 0)?,
                group: ocid(row, 1)?,
                created: time(row, 2)?,
            })
        },
    )?;
    let policies = all(
        connection,
        "SELECT id, compartment, name, description, statements, version_date, freeform_tags, defined_tags,
         created, updated, version FROM policies ORDER BY id",
        |row| {
            let statements: String = row.get(4)?;
            Ok(PolicyRow {
                id: ocid(row, 0)?,
                compartment: ocid(row, 1)?,
                name: row.get(2)?,
                description: row.get(3)?,
                statements: serde_json::from_str(&statements).map_err(|error| damaged(4, error))?,
                version_date: row.get(5)?,
                freeform_tags: row.get(6)?,
                defined_tags: row.get(7)?,
                created: time(row, 8)?,
                updated: time(row, 9)?,
                version: row.get(10)?,
            })
        },
    )?;
    let settings: BTreeMap<String, String> =
        all(connection, "SELECT name, value FROM settings", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .into_iter()
        .collect();
    let sequence = connection.query_row(
        "SELECT coalesce(max(sequence), 0) FROM change_log",
        [],
        |row| row.get(0),
    )?;
    Ok(ControlState {
        sequence,
        tenancy,
        compartments,
        users,
        signing_keys,
        groups,
        memberships,
        policies,
        api_keys: load_api_keys(connection)?,
        settings,
    })
}

fn load_api_keys(connection: &Connection) -> rusqlite::Result<Vec<ApiKeyRow>> {
    let mut secrets: HashMap<String, Vec<SecretRow>> = HashMap::new();
    for (key, secret) in all(
        connection,
        "SELECT api_key, name, digest, mask, state, created, expires, activated, deactivated, revoked, last_used
         FROM api_key_secrets ORDER BY api_key, place",
        |row| {
            let state: String = row.get(4)?;
            let secret = SecretRow {
                name: row.get(1)?,
                digest: row.get(2)?,
                mask: row.get(3)?,
                state: SecretState::parse(&state).ok_or_else(|| damaged(4, "unknown state"))?,
                created: time(row, 5)?,
                expires: time(row, 6)?,
                activated: optional_time(row, 7)?,
                deactivated: optional_time(row, 8)?,
                revoked: optional_time(row, 9)?,
                last_used: optional_time(row, 10)?,
            };
            Ok((row.get::<_, String>(0)?, secret))
        },
    )? {
        secrets.entry(key).or_default().push(secret);
    }
    all(
        connection,
        "SELECT id, compartment, region, display_name, description, freeform_tags, defined_tags, created, updated,
         version FROM api_keys ORDER BY id",
        |row| {
            let id = ocid(row, 0)?;
            Ok(ApiKeyRow {
                secrets: secrets.remove(id.as_str()).unwrap_or_default(),
                id,
                compartment: ocid(row, 1)?,
                region: row.get(2)?,
                display_name: row.get(3)?,
                description: row.get(4)?,
                freeform_tags: row.get(5)?,
                defined_tags: row.get(6)?,
                created: time(row, 7)?,
                updated: time(row, 8)?,
                version: row.get(9)?,
            })
        },
    )
}

pub(super) fn find_retry(
    connection: &Connection,
    principal: &str,
    operation: &str,
    token: &str,
    now: Timestamp,
) -> Result<Option<RetryEntry>> {
    connection
        .query_row(
            "SELECT principal, operation, token, request_digest, resource, expires FROM retry_tokens
             WHERE principal = ?1 AND operation = ?2 AND token = ?3 AND expires > ?4",
            params![principal, operation, token, now.as_micros()],
            |row| {
                Ok(RetryEntry {
                    principal: row.get(0)?,
                    operation: row.get(1)?,
                    token: row.get(2)?,
                    request_digest: row.get(3)?,
                    resource: row.get(4)?,
                    expires: time(row, 5)?,
                })
            },
        )
        .optional()
        .map_err(translate)
}

pub(super) fn list_log(
    connection: &Connection,
    sequence: i64,
    limit: u32,
) -> Result<Vec<LogEntry>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT sequence, at, principal, request_id, operation, resource FROM change_log
             WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
        )
        .map_err(translate)?;
    let entries = statement.query_map(params![sequence, limit], |row| {
        Ok(LogEntry {
            sequence: row.get(0)?,
            at: time(row, 1)?,
            principal: row.get(2)?,
            request_id: row.get(3)?,
            operation: row.get(4)?,
            resource: row.get(5)?,
        })
    });
    entries.and_then(Iterator::collect).map_err(translate)
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map([], read)?.collect()
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_micros)
}

fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row
        .get::<_, Option<i64>>(column)?
        .map(Timestamp::from_micros))
}

pub(super) fn ocid(row: &Row<'_>, column: usize) -> rusqlite::Result<Ocid> {
    checked(row, column, |text: String| Ocid::parse(&text))
}

fn optional_ocid(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Ocid>> {
    checked(row, column, |text: Option<String>| {
        text.map(|text| Ocid::parse(&text)).transpose()
    })
}

fn checked<S: FromSql, T, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: usize,
    check: impl FnOnce(S) -> std::result::Result<T, E>,
) -> rusqlite::Result<T> {
    check(row.get(column)?).map_err(|error| damaged(column, error))
}

pub(super) fn damaged(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}
