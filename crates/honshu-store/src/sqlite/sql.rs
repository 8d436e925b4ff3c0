//! The writes of the control plane in SQLite's dialect. Ids and tags are texts and times are integers, so that
//! PostgreSQL can take the same statements but for `INSERT OR IGNORE` and the row numbers.
//! Parameters are written `?1`: SQLite takes `$1` for a name and numbers names by where they first stand.

use honshu_domain::Ocid;
use rusqlite::{Connection, ToSql, params};

use super::translate;
use crate::command::{Applied, Change, Command};
use crate::error::StoreError;
use crate::rows::{ApiKeyRow, SecretRow};

type Result<T> = std::result::Result<T, StoreError>;

/// Most expired retry tokens that one command clears away: keeps each command short.
const RETRY_SWEEP_MAX: i64 = 32;

/// Carries out a command inside a savepoint of its caller.
pub(super) fn apply(connection: &Connection, command: &Command) -> Result<Applied> {
    if let Some(retry) = &command.retry {
        run(
            connection,
            "DELETE FROM retry_tokens WHERE rowid IN (SELECT rowid FROM retry_tokens WHERE expires <= ?1 LIMIT ?2)",
            params![command.at.as_micros(), RETRY_SWEEP_MAX],
        )?;
        run(
            connection,
            "DELETE FROM retry_tokens WHERE principal = ?1 AND operation = ?2 AND token = ?3 AND expires <= ?4",
            params![
                retry.principal,
                retry.operation,
                retry.token,
                command.at.as_micros()
            ],
        )?;
        let taken = run(
            connection,
            "INSERT OR IGNORE INTO retry_tokens (principal, operation, token, request_digest, resource, expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                retry.principal,
                retry.operation,
                retry.token,
                &retry.request_digest[..],
                retry.resource,
                retry.expires.as_micros()
            ],
        )?;
        if taken == 0 {
            return Err(StoreError::RetryTokenTaken);
        }
    }
    for change in &command.changes {
        make(connection, change)?;
    }
    if command.operation.is_empty() {
        return Ok(Applied { sequence: 0 });
    }
    let resource = command.changes.first().and_then(Change::resource);
    run(
        connection,
        "INSERT INTO change_log (at, principal, request_id, operation, resource) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            command.at.as_micros(),
            command.principal,
            command.request_id,
            command.operation,
            resource
        ],
    )?;
    Ok(Applied {
        sequence: connection.last_insert_rowid(),
    })
}

fn make(connection: &Connection, change: &Change) -> Result<()> {
    match change {
        Change::InsertTenancy(row) => run(
            connection,
            "INSERT INTO tenancy (id, name, home_region, deny_enabled, created) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![row.id.as_str(), row.name, row.home_region, row.deny_enabled, row.created.as_micros()],
        )
        .map(drop),
        Change::PutTenancy(row) => match run(
            connection,
            "UPDATE tenancy SET name = ?2, deny_enabled = ?3 WHERE id = ?1",
            params![row.id.as_str(), row.name, row.deny_enabled],
        )? {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        },
        Change::InsertCompartment(row) => run(
            connection,
            "INSERT INTO compartments (id, parent, name, name_folded, description, freeform_tags, defined_tags, created, updated, version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                row.id.as_str(),
                row.parent.as_ref().map(Ocid::as_str),
                row.name,
                row.name.to_lowercase(),
                row.description,
                row.freeform_tags,
                row.defined_tags,
                row.created.as_micros(),
                row.updated.as_micros(),
                row.version
            ],
        )
        .map(drop),
        Change::PutCompartment(row, expect) => changed(
            connection,
            "compartments",
            &row.id,
            run(
                connection,
                "UPDATE compartments SET name = ?3, name_folded = ?4, description = ?5, freeform_tags = ?6,
                 defined_tags = ?7, updated = ?8, version = ?9 WHERE id = ?1 AND version = ?2",
                params![
                    row.id.as_str(),
                    expect,
                    row.name,
                    row.name.to_lowercase(),
                    row.description,
                    row.freeform_tags,
                    row.defined_tags,
                    row.updated.as_micros(),
                    row.version
                ],
            )?,
        ),
        Change::DeleteCompartment(id, expect) => {
            for (table, column, what) in [
                ("compartments", "parent", "compartments"),
                ("api_keys", "compartment", "API keys"),
                ("policies", "compartment", "policies"),
            ] {
                if exists(connection, table, column, id)? {
                    return Err(StoreError::NotEmpty { what });
                }
            }
            delete(connection, "compartments", id, *expect)
        }
        Change::InsertUser(row) => run(
            connection,
            "INSERT INTO users (id, name, name_folded, description, email, active, created, version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                row.id.as_str(),
                row.name,
                row.name.to_lowercase(),
                row.description,
                row.email,
                row.active,
                row.created.as_micros(),
                row.version
            ],
        )
        .map(drop),
        Change::InsertSigningKey(row) => run(
            connection,
            "INSERT INTO signing_keys (user_id, fingerprint, public_key_pem, created) VALUES (?1, ?2, ?3, ?4)",
            params![row.user.as_str(), row.fingerprint, row.public_key_pem, row.created.as_micros()],
        )
        .map(drop),
        Change::DeleteSigningKey { user, fingerprint } => {
            let gone = run(
                connection,
                "DELETE FROM signing_keys WHERE user_id = ?1 AND fingerprint = ?2",
                params![user.as_str(), fingerprint],
            )?;
            if gone == 0 { Err(StoreError::NotFound) } else { Ok(()) }
        }
        Change::InsertGroup(row) => run(
            connection,
            "INSERT INTO groups (id, name, name_folded, description, created, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                row.id.as_str(),
                row.name,
                row.name.to_lowercase(),
                row.description,
                row.created.as_micros(),
                row.version
            ],
        )
        .map(drop),
        Change::InsertMembership(row) => run(
            connection,
            "INSERT INTO memberships (user_id, group_id, created) VALUES (?1, ?2, ?3)",
            params![row.user.as_str(), row.group.as_str(), row.created.as_micros()],
        )
        .map(drop),
        Change::InsertPolicy(row) => run(
            connection,
            "INSERT INTO policies (id, compartment, name, name_folded, description, statements, version_date,
             freeform_tags, defined_tags, created, updated, version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                row.id.as_str(),
                row.compartment.as_str(),
                row.name,
                row.name.to_lowercase(),
                row.description,
                texts(&row.statements)?,
                row.version_date,
                row.freeform_tags,
                row.defined_tags,
                row.created.as_micros(),
                row.updated.as_micros(),
                row.version
            ],
        )
        .map(drop),
        Change::PutPolicy(row, expect) => changed(
            connection,
            "policies",
            &row.id,
            run(
                connection,
                "UPDATE policies SET description = ?3, statements = ?4, version_date = ?5, freeform_tags = ?6,
                 defined_tags = ?7, updated = ?8, version = ?9 WHERE id = ?1 AND version = ?2",
                params![
                    row.id.as_str(),
                    expect,
                    row.description,
                    texts(&row.statements)?,
                    row.version_date,
                    row.freeform_tags,
                    row.defined_tags,
                    row.updated.as_micros(),
                    row.version
                ],
            )?,
        ),
        Change::DeletePolicy(id, expect) => delete(connection, "policies", id, *expect),
        Change::InsertApiKey(row) => {
            run(
                connection,
                "INSERT INTO api_keys (id, compartment, region, display_name, description, freeform_tags, defined_tags,
                 created, updated, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    row.id.as_str(),
                    row.compartment.as_str(),
                    row.region,
                    row.display_name,
                    row.description,
                    row.freeform_tags,
                    row.defined_tags,
                    row.created.as_micros(),
                    row.updated.as_micros(),
                    row.version
                ],
            )?;
            put_secrets(connection, row)
        }
        Change::PutApiKey(row, expect) => {
            let count = run(
                connection,
                "UPDATE api_keys SET compartment = ?3, display_name = ?4, description = ?5, freeform_tags = ?6,
                 defined_tags = ?7, updated = ?8, version = ?9 WHERE id = ?1 AND version = ?2",
                params![
                    row.id.as_str(),
                    expect,
                    row.compartment.as_str(),
                    row.display_name,
                    row.description,
                    row.freeform_tags,
                    row.defined_tags,
                    row.updated.as_micros(),
                    row.version
                ],
            )?;
            changed(connection, "api_keys", &row.id, count)?;
            put_secrets(connection, row)
        }
        Change::DeleteApiKey(id, expect) => delete(connection, "api_keys", id, *expect),
        Change::TouchSecrets(touched) => {
            for (id, name, at) in touched {
                run(
                    connection,
                    "UPDATE api_key_secrets SET last_used = ?3
                     WHERE api_key = ?1 AND name = ?2 AND created <= ?3 AND coalesce(last_used, 0) < ?3",
                    params![id.as_str(), name, at.as_micros()],
                )?;
            }
            Ok(())
        }
        Change::SetSetting(name, value) => run(
            connection,
            "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
            params![name, value],
        )
        .map(drop),
    }
}

fn put_secrets(connection: &Connection, row: &ApiKeyRow) -> Result<()> {
    run(
        connection,
        "DELETE FROM api_key_secrets WHERE api_key = ?1",
        params![row.id.as_str()],
    )?;
    for (place, secret) in row.secrets.iter().enumerate() {
        put_secret(connection, &row.id, place, secret)?;
    }
    Ok(())
}

fn put_secret(connection: &Connection, key: &Ocid, place: usize, secret: &SecretRow) -> Result<()> {
    let micros =
        |time: Option<honshu_domain::Timestamp>| time.map(honshu_domain::Timestamp::as_micros);
    run(
        connection,
        "INSERT INTO api_key_secrets (api_key, name, place, digest, mask, state, created, expires, activated,
         deactivated, revoked, last_used) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            key.as_str(),
            secret.name,
            i64::try_from(place).unwrap_or(i64::MAX),
            &secret.digest[..],
            secret.mask,
            secret.state.as_str(),
            secret.created.as_micros(),
            secret.expires.as_micros(),
            micros(secret.activated),
            micros(secret.deactivated),
            micros(secret.revoked),
            micros(secret.last_used)
        ],
    )
    .map(drop)
}

fn run(connection: &Connection, sql: &str, params: &[&dyn ToSql]) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(translate)
}

/// Tells a stale version from a row that is not there. `table` is one of our own names.
fn changed(connection: &Connection, table: &str, id: &Ocid, count: usize) -> Result<()> {
    if count > 0 {
        Ok(())
    } else if exists(connection, table, "id", id)? {
        Err(StoreError::Stale)
    } else {
        Err(StoreError::NotFound)
    }
}

fn delete(connection: &Connection, table: &str, id: &Ocid, expect: i64) -> Result<()> {
    let count = run(
        connection,
        &format!("DELETE FROM {table} WHERE id = ?1 AND version = ?2"),
        params![id.as_str(), expect],
    )?;
    changed(connection, table, id, count)
}

fn exists(connection: &Connection, table: &str, column: &str, id: &Ocid) -> Result<bool> {
    connection
        .prepare_cached(&format!(
            "SELECT 1 FROM {table} WHERE {column} = ?1 LIMIT 1"
        ))
        .and_then(|mut statement| statement.exists(params![id.as_str()]))
        .map_err(translate)
}

fn texts(list: &[String]) -> Result<String> {
    serde_json::to_string(list).map_err(|error| StoreError::Internal(std::sync::Arc::new(error)))
}
