//! Threads and the items on them.

use std::sync::Arc;

use honshu_domain::{Anchor, History, Page, Paged, StoredItem};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{execute, json, translate};
use crate::error::StoreError;

/// Makes a thread that begins at `after`, or at nothing.
pub(super) fn make(
    connection: &Connection,
    after: Option<Anchor>,
    is_conversation: bool,
) -> Result<i64, StoreError> {
    let until = after.map_or(0, |anchor| anchor.until);
    execute(
        connection,
        "INSERT INTO threads (parent, parent_until, length, is_conversation) VALUES (?1, ?2, ?2, ?3)",
        params![after.map(|anchor| anchor.thread), until, is_conversation],
    )?;
    Ok(connection.last_insert_rowid())
}

/// Puts `items` after `anchor`: on its thread when nothing was put there before, else on a new one that forks off.
/// Gives where the last of them lies.
pub(super) fn put(
    connection: &Connection,
    scope: i64,
    after: Option<Anchor>,
    items: &[StoredItem],
) -> Result<Anchor, StoreError> {
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let grown = match after {
        None => 0,
        Some(anchor) => execute(
            connection,
            "UPDATE threads SET length = length + ?1
             WHERE number = ?2 AND length = ?3 AND is_conversation = 0",
            params![count, anchor.thread, anchor.until],
        )?,
    };
    let (thread, from) = match after {
        Some(anchor) if grown == 1 => (anchor.thread, anchor.until),
        _ => {
            let thread = make(connection, after, false)?;
            grow(connection, thread, count)?;
            (thread, after.map_or(0, |anchor| anchor.until))
        }
    };
    write(connection, scope, thread, from, items)?;
    Ok(Anchor {
        thread,
        until: from + count,
    })
}

/// Makes a thread longer. Gives its length before.
pub(super) fn grow(connection: &Connection, thread: i64, count: i64) -> Result<i64, StoreError> {
    connection
        .prepare_cached(
            "UPDATE threads SET length = length + ?1 WHERE number = ?2 RETURNING length - ?1",
        )
        .and_then(|mut statement| statement.query_row(params![count, thread], |row| row.get(0)))
        .map_err(translate)
}

/// Writes items at their places.
pub(super) fn write(
    connection: &Connection,
    scope: i64,
    thread: i64,
    from: i64,
    items: &[StoredItem],
) -> Result<(), StoreError> {
    for (position, item) in (from..).zip(items) {
        execute(
            connection,
            "INSERT INTO items (thread, position, scope, id, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![thread, position, scope, &*item.id, item.json.get()],
        )?;
    }
    Ok(())
}

/// Everything before `anchor`, forks and all, by one query. `None` when a place is missing.
pub(super) fn history(
    connection: &Connection,
    anchor: Anchor,
) -> Result<Option<History>, StoreError> {
    let mut statement = connection
        .prepare_cached(
            "WITH RECURSIVE stretch (thread, until, parent, parent_until) AS (
                 SELECT number, ?2, parent, parent_until FROM threads WHERE number = ?1
                 UNION ALL
                 SELECT threads.number, stretch.parent_until, threads.parent, threads.parent_until
                 FROM stretch JOIN threads ON threads.number = stretch.parent
             )
             SELECT items.position, items.id, items.body
             FROM stretch JOIN items ON items.thread = stretch.thread AND items.position < stretch.until
             ORDER BY items.position",
        )
        .map_err(translate)?;
    let mut rows = statement
        .query(params![anchor.thread, anchor.until])
        .map_err(translate)?;
    let mut expected = 0_i64;
    let mut items = Vec::new();
    while let Some(row) = rows.next().map_err(translate)? {
        let position: i64 = row.get(0).map_err(translate)?;
        if position != expected {
            return Ok(None);
        }
        expected += 1;
        if let Some(body) = row.get::<_, Option<String>>(2).map_err(translate)? {
            items.push(StoredItem {
                id: row.get(1).map_err(translate)?,
                json: json(&body)?,
            });
        }
    }
    Ok((expected == anchor.until).then_some(History { anchor, items }))
}

/// The items of a stretch of one thread.
pub(super) fn stretch(
    connection: &Connection,
    thread: i64,
    from: i64,
    until: i64,
) -> Result<Vec<StoredItem>, StoreError> {
    connection
        .prepare_cached(
            "SELECT id, body FROM items
             WHERE thread = ?1 AND position >= ?2 AND position < ?3 AND body IS NOT NULL
             ORDER BY position",
        )
        .map_err(translate)?
        .query_map(params![thread, from, until], texts)
        .map_err(translate)?
        .map(|row| item(row.map_err(translate)?))
        .collect()
}

fn texts(row: &Row<'_>) -> rusqlite::Result<(String, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn item((id, body): (String, String)) -> Result<StoredItem, StoreError> {
    Ok(StoredItem {
        id: id.into(),
        json: json(&body)?,
    })
}

/// A part of a stretch of one thread. `None` when `page.after` is not in it.
pub(super) fn page(
    connection: &Connection,
    thread: i64,
    from: i64,
    until: i64,
    page: &Page,
) -> Result<Option<Paged<StoredItem>>, StoreError> {
    let (mut from, mut until) = (from, until);
    if let Some(after) = &page.after {
        let Some(position) = place(connection, thread, from, until, after)? else {
            return Ok(None);
        };
        if page.ascending {
            from = position + 1;
        } else {
            until = position;
        }
    }
    let order = if page.ascending { "ASC" } else { "DESC" };
    let mut data: Vec<StoredItem> = connection
        .prepare_cached(&format!(
            "SELECT id, body FROM items
             WHERE thread = ?1 AND position >= ?2 AND position < ?3 AND body IS NOT NULL
             ORDER BY position {order} LIMIT ?4"
        ))
        .map_err(translate)?
        .query_map(params![thread, from, until, page.limit + 1], texts)
        .map_err(translate)?
        .map(|row| item(row.map_err(translate)?))
        .collect::<Result<_, _>>()?;
    let has_more = data.len() > page.limit as usize;
    data.truncate(page.limit as usize);
    Ok(Some(Paged { data, has_more }))
}

/// The place of an item in a stretch of a thread.
pub(super) fn place(
    connection: &Connection,
    thread: i64,
    from: i64,
    until: i64,
    id: &str,
) -> Result<Option<i64>, StoreError> {
    connection
        .prepare_cached(
            "SELECT position FROM items
             WHERE id = ?4 AND thread = ?1 AND position >= ?2 AND position < ?3 AND body IS NOT NULL
             ORDER BY position LIMIT 1",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![thread, from, until, id], |row| row.get(0))
                .optional()
        })
        .map_err(translate)
}

/// Items of a scope by their ids, each once.
pub(super) fn items(
    connection: &Connection,
    scope: i64,
    ids: &[String],
) -> Result<Vec<StoredItem>, StoreError> {
    let list = serde_json::to_string(ids).map_err(|error| StoreError::Internal(Arc::new(error)))?;
    connection
        .prepare_cached(
            "SELECT items.id, items.body FROM json_each(?2) AS wanted
             CROSS JOIN items ON items.id = wanted.value
             WHERE items.scope = ?1 AND items.body IS NOT NULL GROUP BY items.id",
        )
        .map_err(translate)?
        .query_map(params![scope, list], texts)
        .map_err(translate)?
        .map(|row| item(row.map_err(translate)?))
        .collect()
}

/// Removes the items of a stretch, and the thread with its forks' ends if nothing is left that needs it.
pub(super) fn remove(
    connection: &Connection,
    thread: i64,
    from: i64,
    until: i64,
) -> Result<(), StoreError> {
    execute(
        connection,
        "DELETE FROM items WHERE thread = ?1 AND position >= ?2 AND position < ?3",
        params![thread, from, until],
    )?;
    tidy(connection, thread)
}

/// Removes a thread on which nothing lies and nothing hangs, and then its parent if that is such a one too.
pub(super) fn tidy(connection: &Connection, thread: i64) -> Result<(), StoreError> {
    let mut next = Some(thread);
    while let Some(thread) = next {
        next = connection
            .prepare_cached(
                "DELETE FROM threads WHERE number = ?1
                 AND NOT EXISTS (SELECT 1 FROM items WHERE thread = ?1)
                 AND NOT EXISTS (SELECT 1 FROM responses WHERE thread = ?1)
                 AND NOT EXISTS (SELECT 1 FROM threads AS forks WHERE forks.parent = ?1)
                 AND is_conversation = 0
                 RETURNING parent",
            )
            .and_then(|mut statement| {
                statement
                    .query_row([thread], |row| row.get::<_, Option<i64>>(0))
                    .optional()
            })
            .map_err(translate)?
            .flatten();
    }
    Ok(())
}
