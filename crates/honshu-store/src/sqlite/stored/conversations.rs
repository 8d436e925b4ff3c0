//! Conversations: threads of their own, from which single items can be taken.

use honshu_domain::{
    Anchor, History, Page, Paged, RawJson, StoredConversation, StoredItem, Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::load::time;
use super::{execute, forget_old, json, threads, translate};
use crate::error::StoreError;

struct Found {
    number: i64,
    thread: i64,
}

fn find(connection: &Connection, scope: i64, id: &str) -> Result<Option<Found>, StoreError> {
    connection
        .prepare_cached("SELECT number, thread FROM conversations WHERE id = ?1 AND scope = ?2")
        .and_then(|mut statement| {
            statement
                .query_row(params![id, scope], |row| {
                    Ok(Found {
                        number: row.get(0)?,
                        thread: row.get(1)?,
                    })
                })
                .optional()
        })
        .map_err(translate)
}

pub(super) fn create(
    connection: &Connection,
    scope: i64,
    conversation: &StoredConversation,
    items: &[StoredItem],
) -> Result<(), StoreError> {
    let thread = threads::make(connection, None, true)?;
    execute(
        connection,
        "INSERT INTO conversations (id, scope, thread, metadata, created, updated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        params![
            &*conversation.id,
            scope,
            thread,
            conversation.metadata.get(),
            conversation.created.as_micros()
        ],
    )?;
    append_to(connection, scope, thread, items).map(drop)
}

fn append_to(
    connection: &Connection,
    scope: i64,
    thread: i64,
    items: &[StoredItem],
) -> Result<Anchor, StoreError> {
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let from = threads::grow(connection, thread, count)?;
    threads::write(connection, scope, thread, from, items)?;
    Ok(Anchor {
        thread,
        until: from + count,
    })
}

/// Adds items at the end. Gives the place after the last one.
pub(super) fn append(
    connection: &Connection,
    scope: i64,
    id: &str,
    items: &[StoredItem],
    now: Timestamp,
) -> Result<Option<Anchor>, StoreError> {
    let Some(found) = find(connection, scope, id)? else {
        return Ok(None);
    };
    touch(connection, &found, now)?;
    append_to(connection, scope, found.thread, items).map(Some)
}

fn touch(connection: &Connection, found: &Found, now: Timestamp) -> Result<(), StoreError> {
    execute(
        connection,
        "UPDATE conversations SET updated = max(updated, ?2) WHERE number = ?1",
        params![found.number, now.as_micros()],
    )
    .map(drop)
}

pub(super) fn read(
    connection: &Connection,
    scope: i64,
    id: &str,
) -> Result<Option<StoredConversation>, StoreError> {
    let row: Option<(Timestamp, String)> = connection
        .prepare_cached("SELECT created, metadata FROM conversations WHERE id = ?1 AND scope = ?2")
        .and_then(|mut statement| {
            statement
                .query_row(params![id, scope], |row| Ok((time(row, 0)?, row.get(1)?)))
                .optional()
        })
        .map_err(translate)?;
    row.map(|(created, metadata)| {
        Ok(StoredConversation {
            id: id.into(),
            created,
            metadata: json(&metadata)?,
        })
    })
    .transpose()
}

pub(super) fn set_metadata(
    connection: &Connection,
    scope: i64,
    id: &str,
    metadata: &RawJson,
    now: Timestamp,
) -> Result<Option<StoredConversation>, StoreError> {
    execute(
        connection,
        "UPDATE conversations SET metadata = ?3, updated = max(updated, ?4) WHERE id = ?1 AND scope = ?2",
        params![id, scope, metadata.get(), now.as_micros()],
    )?;
    read(connection, scope, id)
}

pub(super) fn delete(connection: &Connection, scope: i64, id: &str) -> Result<bool, StoreError> {
    let Some(found) = find(connection, scope, id)? else {
        return Ok(false);
    };
    execute(
        connection,
        "DELETE FROM conversations WHERE number = ?1",
        [found.number],
    )?;
    execute(
        connection,
        "UPDATE threads SET is_conversation = 0 WHERE number = ?1",
        [found.thread],
    )?;
    threads::remove(connection, found.thread, 0, i64::MAX)?;
    Ok(true)
}

pub(super) fn items(
    connection: &Connection,
    scope: i64,
    id: &str,
    page: &Page,
) -> Result<Option<Paged<StoredItem>>, StoreError> {
    let Some(found) = find(connection, scope, id)? else {
        return Ok(None);
    };
    let paged = threads::page(connection, found.thread, 0, i64::MAX, page)?;
    Ok(Some(paged.unwrap_or(Paged {
        data: Vec::new(),
        has_more: false,
    })))
}

pub(super) fn item(
    connection: &Connection,
    scope: i64,
    id: &str,
    item: &str,
) -> Result<Option<StoredItem>, StoreError> {
    let Some(found) = find(connection, scope, id)? else {
        return Ok(None);
    };
    let Some(place) = threads::place(connection, found.thread, 0, i64::MAX, item)? else {
        return Ok(None);
    };
    let found = threads::stretch(connection, found.thread, place, place + 1)?;
    Ok(found.into_iter().next())
}

pub(super) fn delete_item(
    connection: &Connection,
    scope: i64,
    id: &str,
    item: &str,
) -> Result<bool, StoreError> {
    let Some(found) = find(connection, scope, id)? else {
        return Ok(false);
    };
    let Some(place) = threads::place(connection, found.thread, 0, i64::MAX, item)? else {
        return Ok(false);
    };
    execute(
        connection,
        "UPDATE items SET body = NULL WHERE thread = ?1 AND position = ?2",
        params![found.thread, place],
    )?;
    Ok(true)
}

pub(super) fn history(
    connection: &Connection,
    scope: i64,
    id: &str,
) -> Result<Option<History>, StoreError> {
    let Some(found) = find(connection, scope, id)? else {
        return Ok(None);
    };
    let until = connection
        .prepare_cached("SELECT length FROM threads WHERE number = ?1")
        .and_then(|mut statement| statement.query_row([found.thread], |row| row.get(0)))
        .map_err(translate)?;
    threads::history(
        connection,
        Anchor {
            thread: found.thread,
            until,
        },
    )
}

pub(super) fn forget(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    forget_old(
        connection,
        "SELECT scope, id FROM conversations WHERE updated < ?1 ORDER BY updated LIMIT ?2",
        before,
        limit,
        delete,
    )
}
