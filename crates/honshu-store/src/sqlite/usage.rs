//! Usage rows in SQLite's dialect.

use std::sync::Arc;

use honshu_domain::{Timestamp, Usage, UsageRow};
use rusqlite::{Connection, Row, params};

use super::load::{damaged, ocid, time};
use super::translate;
use crate::error::StoreError;

const COLUMNS: &str = "run_id, request_id, started, principal, secret_name, compartment, region, operation,
    model_asked, model_served, deployment, attempts, status, reason, input_tokens, cached_input_tokens,
    cache_write_tokens, output_tokens, reasoning_tokens, usage_exact, first_event_us, total_us";

/// Writes rows; those that are there already change nothing. Gives how many were new.
pub(super) fn ingest(connection: &Connection, rows: &[UsageRow]) -> Result<u64, StoreError> {
    let mut statement = connection
        .prepare_cached(&format!(
            "INSERT OR IGNORE INTO usage ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
             ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)"
        ))
        .map_err(translate)?;
    let mut new = 0;
    for row in rows {
        let count = statement
            .execute(params![
                &*row.run_id,
                &*row.request_id,
                row.started.as_micros(),
                row.principal.as_str(),
                row.secret_name.as_deref(),
                row.compartment.as_str(),
                &*row.region,
                &*row.operation,
                &*row.model_asked,
                &*row.model_served,
                &*row.deployment,
                row.attempts,
                &*row.status,
                row.reason.as_deref(),
                integer(row.usage.input_tokens),
                integer(row.usage.cached_input_tokens),
                integer(row.usage.cache_write_tokens),
                integer(row.usage.output_tokens),
                integer(row.usage.reasoning_tokens),
                row.usage_exact,
                row.first_event_us.map(integer),
                integer(row.total_us)
            ])
            .map_err(translate)?;
        new += count as u64;
    }
    Ok(new)
}

pub(super) fn list(
    connection: &Connection,
    from: Timestamp,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<UsageRow>, StoreError> {
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM usage WHERE started >= ?1 AND started < ?2 ORDER BY started, arrival LIMIT ?3"
        ))
        .map_err(translate)?;
    statement
        .query_map(params![from.as_micros(), until.as_micros(), limit], read)
        .and_then(Iterator::collect)
        .map_err(translate)
}

fn read(row: &Row<'_>) -> rusqlite::Result<UsageRow> {
    let text = |column: usize| -> rusqlite::Result<Arc<str>> { row.get(column) };
    let optional = |column: usize| -> rusqlite::Result<Option<Arc<str>>> { row.get(column) };
    let count = |column: usize| -> rusqlite::Result<u64> {
        let value: i64 = row.get(column)?;
        u64::try_from(value).map_err(|error| damaged(column, error))
    };
    Ok(UsageRow {
        run_id: text(0)?,
        request_id: text(1)?,
        started: time(row, 2)?,
        principal: ocid(row, 3)?,
        secret_name: optional(4)?,
        compartment: ocid(row, 5)?,
        region: text(6)?,
        operation: text(7)?,
        model_asked: text(8)?,
        model_served: text(9)?,
        deployment: text(10)?,
        attempts: row.get(11)?,
        status: text(12)?,
        reason: optional(13)?,
        usage: Usage {
            input_tokens: count(14)?,
            cached_input_tokens: count(15)?,
            cache_write_tokens: count(16)?,
            output_tokens: count(17)?,
            reasoning_tokens: count(18)?,
        },
        usage_exact: row.get(19)?,
        first_event_us: match row.get::<_, Option<i64>>(20)? {
            Some(_) => Some(count(20)?),
            None => None,
        },
        total_us: count(21)?,
    })
}

/// Databases count to 2^63; no run has more tokens or microseconds.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
