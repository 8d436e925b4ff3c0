//! Chat completions that were asked to be kept.

use honshu_domain::{
    CompletionFilter, Page, Paged, RawJson, StoredCompletion, StoredItem, Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::load::{damaged, time};
use super::{execute, forget_old, translate};
use crate::error::StoreError;

const COLUMNS: &str = "id, created, model, model_asked, metadata, object";

/// Metadata that has every pair of the JSON object `?3`. Comparing pair by pair needs no path that a key of a
/// stranger's could break.
const HAS_PAIRS: &str = "NOT EXISTS (
    SELECT 1 FROM json_each(?3) AS wanted WHERE NOT EXISTS (
        SELECT 1 FROM json_each(completions.metadata) AS has
        WHERE has.key = wanted.key AND has.atom = wanted.atom))";

pub(super) fn put(
    connection: &Connection,
    scope: i64,
    completion: &StoredCompletion,
    messages: &[StoredItem],
) -> Result<(), StoreError> {
    execute(
        connection,
        "INSERT INTO completions (id, scope, created, model, model_asked, metadata, object)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            &*completion.id,
            scope,
            completion.created.as_micros(),
            &*completion.model,
            &*completion.model_asked,
            completion.metadata.get(),
            completion.object.get(),
        ],
    )?;
    let number = connection.last_insert_rowid();
    for (message, position) in messages.iter().zip(0_i64..) {
        execute(
            connection,
            "INSERT INTO completion_messages (completion, position, id, body) VALUES (?1, ?2, ?3, ?4)",
            params![number, position, &*message.id, message.json.get()],
        )?;
    }
    Ok(())
}

fn raw(row: &Row<'_>, column: usize) -> rusqlite::Result<RawJson> {
    RawJson::parse(row.get_ref(column)?.as_str()?).map_err(|error| damaged(column, error))
}

fn completion(row: &Row<'_>) -> rusqlite::Result<StoredCompletion> {
    Ok(StoredCompletion {
        id: row.get(0)?,
        created: time(row, 1)?,
        model: row.get(2)?,
        model_asked: row.get(3)?,
        metadata: raw(row, 4)?,
        object: raw(row, 5)?,
    })
}

fn message(row: &Row<'_>) -> rusqlite::Result<StoredItem> {
    Ok(StoredItem {
        id: row.get(0)?,
        json: raw(row, 1)?,
    })
}

fn number(connection: &Connection, scope: i64, id: &str) -> Result<Option<i64>, StoreError> {
    connection
        .prepare_cached("SELECT number FROM completions WHERE id = ?1 AND scope = ?2")
        .and_then(|mut statement| {
            statement
                .query_row(params![id, scope], |row| row.get(0))
                .optional()
        })
        .map_err(translate)
}

pub(super) fn read(
    connection: &Connection,
    scope: i64,
    id: &str,
) -> Result<Option<StoredCompletion>, StoreError> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM completions WHERE id = ?1 AND scope = ?2"
        ))
        .and_then(|mut statement| {
            statement
                .query_row(params![id, scope], completion)
                .optional()
        })
        .map_err(translate)
}

/// The place before the page in the list's order, the order, and what comes after the place.
fn bounds(page: &Page, after: Option<i64>) -> (i64, &'static str, &'static str) {
    if page.ascending {
        (after.unwrap_or(-1), "ASC", ">")
    } else {
        (after.unwrap_or(i64::MAX), "DESC", "<")
    }
}

fn paged<T>(mut data: Vec<T>, page: &Page) -> Paged<T> {
    let has_more = data.len() > page.limit as usize;
    data.truncate(page.limit as usize);
    Paged { data, has_more }
}

pub(super) fn list(
    connection: &Connection,
    scope: i64,
    filter: &CompletionFilter,
    page: &Page,
) -> Result<Option<Paged<StoredCompletion>>, StoreError> {
    let after = match &page.after {
        None => None,
        Some(id) => match number(connection, scope, id)? {
            None => return Ok(None),
            found => found,
        },
    };
    let (edge, order, beyond) = bounds(page, after);
    let pairs: serde_json::Map<String, serde_json::Value> = filter
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    let has_pairs = if pairs.is_empty() {
        "?3 IS NOT NULL"
    } else {
        HAS_PAIRS
    };
    let data = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM completions
             WHERE scope = ?1 AND (?2 IS NULL OR model = ?2 OR model_asked = ?2) AND {has_pairs}
             AND number {beyond} ?4 ORDER BY number {order} LIMIT ?5"
        ))
        .map_err(translate)?
        .query_map(
            params![
                scope,
                filter.model,
                serde_json::Value::Object(pairs).to_string(),
                edge,
                page.limit + 1
            ],
            completion,
        )
        .and_then(Iterator::collect)
        .map_err(translate)?;
    Ok(Some(paged(data, page)))
}

pub(super) fn messages(
    connection: &Connection,
    scope: i64,
    id: &str,
    page: &Page,
) -> Result<Option<Option<Paged<StoredItem>>>, StoreError> {
    let Some(number) = number(connection, scope, id)? else {
        return Ok(None);
    };
    let after = match &page.after {
        None => None,
        Some(message) => {
            let place: Option<i64> = connection
                .prepare_cached(
                    "SELECT position FROM completion_messages WHERE completion = ?1 AND id = ?2",
                )
                .and_then(|mut statement| {
                    statement
                        .query_row(params![number, message], |row| row.get(0))
                        .optional()
                })
                .map_err(translate)?;
            if place.is_none() {
                return Ok(Some(None));
            }
            place
        }
    };
    let (edge, order, beyond) = bounds(page, after);
    let data = connection
        .prepare_cached(&format!(
            "SELECT id, body FROM completion_messages
             WHERE completion = ?1 AND position {beyond} ?2 ORDER BY position {order} LIMIT ?3"
        ))
        .map_err(translate)?
        .query_map(params![number, edge, page.limit + 1], message)
        .and_then(Iterator::collect)
        .map_err(translate)?;
    Ok(Some(Some(paged(data, page))))
}

pub(super) fn set_metadata(
    connection: &Connection,
    scope: i64,
    id: &str,
    metadata: &RawJson,
) -> Result<Option<StoredCompletion>, StoreError> {
    execute(
        connection,
        "UPDATE completions SET metadata = ?3 WHERE id = ?1 AND scope = ?2",
        params![id, scope, metadata.get()],
    )?;
    read(connection, scope, id)
}

pub(super) fn delete(connection: &Connection, scope: i64, id: &str) -> Result<bool, StoreError> {
    execute(
        connection,
        "DELETE FROM completions WHERE id = ?1 AND scope = ?2",
        params![id, scope],
    )
    .map(|count| count > 0)
}

pub(super) fn forget(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    forget_old(
        connection,
        "SELECT scope, id FROM completions WHERE created < ?1 ORDER BY created LIMIT ?2",
        before,
        limit,
        delete,
    )
}
