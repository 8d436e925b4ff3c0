//! Responses: queued, running, ended, read, deleted.

use std::sync::Arc;

use honshu_domain::{
    Anchor, EndedResponse, EventSegment, History, Ocid, Page, Paged, QueuedResponse, Scope,
    StoredItem, StoredResponse, StoredStatus, Timestamp, UnfinishedResponse,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::load::{damaged, ocid, time};
use super::{conversations, execute, forget_old, json, threads, translate};
use crate::error::StoreError;

/// Bytes of events that are read at once.
const EVENT_BYTES_MAX: usize = 1 << 20;

pub(super) fn queue(
    connection: &Connection,
    scope: i64,
    response: &QueuedResponse,
) -> Result<(), StoreError> {
    let place = threads::put(connection, scope, response.after, &response.input)?;
    let input_from = place.until - length(&response.input);
    execute(
        connection,
        "INSERT INTO responses (id, scope, status, background, created, thread, input_from, output_from,
             until, conversation, object, work)
         VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10)",
        params![
            &*response.id,
            scope,
            StoredStatus::Queued.as_str(),
            response.created.as_micros(),
            place.thread,
            input_from,
            place.until,
            response.conversation.as_deref(),
            response.object.get(),
            &response.work[..],
        ],
    )?;
    put_events(
        connection,
        connection.last_insert_rowid(),
        std::slice::from_ref(&response.events),
    )
}

fn length(items: &[StoredItem]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

fn put_events(
    connection: &Connection,
    number: i64,
    segments: &[EventSegment],
) -> Result<(), StoreError> {
    for segment in segments {
        execute(
            connection,
            "INSERT INTO response_events (response, first, count, frames) VALUES (?1, ?2, ?3, ?4)",
            params![
                number,
                integer(segment.first),
                integer(segment.count),
                &segment.frames[..]
            ],
        )?;
    }
    Ok(())
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn append_events(
    connection: &Connection,
    scope: i64,
    id: &str,
    segment: &EventSegment,
) -> Result<bool, StoreError> {
    let number: Option<i64> = connection
        .prepare_cached(
            "UPDATE responses SET status = ?3
             WHERE id = ?1 AND scope = ?2 AND work IS NOT NULL RETURNING number",
        )
        .and_then(|mut statement| {
            statement
                .query_row(
                    params![id, scope, StoredStatus::InProgress.as_str()],
                    |row| row.get(0),
                )
                .optional()
        })
        .map_err(translate)?;
    match number {
        Some(number) => {
            put_events(connection, number, std::slice::from_ref(segment)).map(|()| true)
        }
        None => Ok(false),
    }
}

pub(super) fn end(
    connection: &Connection,
    scope: i64,
    response: &EndedResponse,
) -> Result<bool, StoreError> {
    let number = if response.was_queued {
        let Some(number) = end_queued(connection, scope, response)? else {
            return Ok(false);
        };
        number
    } else {
        insert_ended(connection, scope, response)?
    };
    put_events(connection, number, &response.events)?;
    if let Some(conversation) = &response.conversation
        && response.status.can_be_continued()
    {
        let items = [&response.input[..], &response.output[..]].concat();
        // A conversation that was deleted meanwhile takes nothing more; the response stands by itself.
        let place =
            conversations::append(connection, scope, conversation, &items, response.created)?;
        if let Some(place) = place {
            execute(
                connection,
                "UPDATE responses SET conversation_thread = ?2, conversation_until = ?3 WHERE number = ?1",
                params![number, place.thread, place.until],
            )?;
        }
    }
    Ok(true)
}

fn end_queued(
    connection: &Connection,
    scope: i64,
    response: &EndedResponse,
) -> Result<Option<i64>, StoreError> {
    let row = connection
        .prepare_cached(
            "SELECT number, thread, until FROM responses
             WHERE id = ?1 AND scope = ?2 AND work IS NOT NULL",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![&*response.id, scope], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
        })
        .map_err(translate)?;
    let Some((number, thread, until)) = row else {
        return Ok(None);
    };
    let number: i64 = number;
    let after = Anchor { thread, until };
    let place = threads::put(connection, scope, Some(after), &response.output)?;
    if place.thread != thread {
        // Nothing continues a response before its end, so that its place is free.
        return Err(StoreError::Corrupt(format!(
            "something lies after the unfinished response {}",
            response.id
        )));
    }
    execute(
        connection,
        "UPDATE responses SET status = ?2, until = ?3, object = ?4, work = NULL WHERE number = ?1",
        params![
            number,
            response.status.as_str(),
            place.until,
            response.object.get()
        ],
    )?;
    Ok(Some(number))
}

fn insert_ended(
    connection: &Connection,
    scope: i64,
    response: &EndedResponse,
) -> Result<i64, StoreError> {
    let items = [&response.input[..], &response.output[..]].concat();
    let place = threads::put(connection, scope, response.after, &items)?;
    let output_from = place.until - length(&response.output);
    execute(
        connection,
        "INSERT INTO responses (id, scope, status, background, created, thread, input_from, output_from,
             until, conversation, object)
         VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            &*response.id,
            scope,
            response.status.as_str(),
            response.created.as_micros(),
            place.thread,
            output_from - length(&response.input),
            output_from,
            place.until,
            response.conversation.as_deref(),
            response.object.get(),
        ],
    )?;
    Ok(connection.last_insert_rowid())
}

/// Where the items of a response lie.
struct Place {
    number: i64,
    status: StoredStatus,
    thread: i64,
    input_from: i64,
    output_from: i64,
    until: i64,
    conversation: Option<String>,
    in_conversation: Option<Anchor>,
}

fn find(connection: &Connection, scope: i64, id: &str) -> Result<Option<Place>, StoreError> {
    connection
        .prepare_cached(
            "SELECT number, status, thread, input_from, output_from, until, conversation,
                 conversation_thread, conversation_until
             FROM responses WHERE id = ?1 AND scope = ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![id, scope], |row| {
                    let thread: Option<i64> = row.get(7)?;
                    let until: Option<i64> = row.get(8)?;
                    Ok(Place {
                        number: row.get(0)?,
                        status: status(row, 1)?,
                        thread: row.get(2)?,
                        input_from: row.get(3)?,
                        output_from: row.get(4)?,
                        until: row.get(5)?,
                        conversation: row.get(6)?,
                        in_conversation: thread
                            .zip(until)
                            .map(|(thread, until)| Anchor { thread, until }),
                    })
                })
                .optional()
        })
        .map_err(translate)
}

fn status(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<StoredStatus> {
    let word: String = row.get(column)?;
    StoredStatus::parse(&word).ok_or_else(|| damaged(column, format!("no status: {word}")))
}

pub(super) fn response(
    connection: &Connection,
    scope: i64,
    id: &str,
) -> Result<Option<StoredResponse>, StoreError> {
    let Some(place) = find(connection, scope, id)? else {
        return Ok(None);
    };
    let (background, object, has_events): (bool, String, bool) = connection
        .prepare_cached(
            "SELECT background, object, EXISTS (SELECT 1 FROM response_events WHERE response = ?1)
             FROM responses WHERE number = ?1",
        )
        .and_then(|mut statement| {
            statement.query_row([place.number], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
        })
        .map_err(translate)?;
    Ok(Some(StoredResponse {
        id: id.into(),
        status: place.status,
        background,
        object: json(&object)?,
        output: threads::stretch(connection, place.thread, place.output_from, place.until)?,
        has_events,
    }))
}

pub(super) fn input_items(
    connection: &Connection,
    scope: i64,
    id: &str,
    page: &Page,
) -> Result<Option<Paged<StoredItem>>, StoreError> {
    let Some(place) = find(connection, scope, id)? else {
        return Ok(None);
    };
    let found = threads::page(
        connection,
        place.thread,
        place.input_from,
        place.output_from,
        page,
    )?;
    // A cursor that names nothing leads to the end of the list.
    Ok(Some(found.unwrap_or(Paged {
        data: Vec::new(),
        has_more: false,
    })))
}

pub(super) fn events(
    connection: &Connection,
    scope: i64,
    id: &str,
    after: Option<u64>,
) -> Result<Option<(Vec<EventSegment>, bool)>, StoreError> {
    let Some(place) = find(connection, scope, id)? else {
        return Ok(None);
    };
    let next = after.map_or(0, |after| integer(after).saturating_add(1));
    let mut statement = connection
        .prepare_cached(
            "SELECT first, count, frames FROM response_events
             WHERE response = ?1 AND first + count > ?2 ORDER BY first",
        )
        .map_err(translate)?;
    let mut rows = statement
        .query(params![place.number, next])
        .map_err(translate)?;
    let (mut segments, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().map_err(translate)? {
        if bytes >= EVENT_BYTES_MAX {
            return Ok(Some((segments, false)));
        }
        let frames: Vec<u8> = row.get(2).map_err(translate)?;
        bytes += frames.len();
        segments.push(EventSegment {
            first: count(row, 0)?,
            count: count(row, 1)?,
            frames: frames.into(),
        });
    }
    Ok(Some((segments, place.status.is_ended())))
}

fn count(row: &rusqlite::Row<'_>, column: usize) -> Result<u64, StoreError> {
    let value: i64 = row.get(column).map_err(translate)?;
    u64::try_from(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn history(
    connection: &Connection,
    scope: i64,
    id: &str,
) -> Result<Option<History>, StoreError> {
    let Some(place) = find(connection, scope, id)? else {
        return Ok(None);
    };
    if !place.status.can_be_continued() {
        return Ok(None);
    }
    let anchor = match (place.conversation, place.in_conversation) {
        (None, _) => Anchor {
            thread: place.thread,
            until: place.until,
        },
        (Some(_), Some(anchor)) => anchor,
        // Its conversation was deleted before it ended, and with it what it continued.
        (Some(_), None) => return Ok(None),
    };
    threads::history(connection, anchor)
}

pub(super) fn delete(connection: &Connection, scope: i64, id: &str) -> Result<bool, StoreError> {
    match find(connection, scope, id)? {
        Some(place) => remove(connection, &place).map(|()| true),
        None => Ok(false),
    }
}

fn remove(connection: &Connection, place: &Place) -> Result<(), StoreError> {
    execute(
        connection,
        "DELETE FROM responses WHERE number = ?1",
        [place.number],
    )?;
    threads::remove(connection, place.thread, place.input_from, place.until)
}

pub(super) fn forget(
    connection: &Connection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    forget_old(
        connection,
        "SELECT scope, id FROM responses WHERE created < ?1 AND work IS NULL ORDER BY created LIMIT ?2",
        before,
        limit,
        delete,
    )
}

pub(super) fn unfinished(connection: &Connection) -> Result<Vec<UnfinishedResponse>, StoreError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT scopes.region, scopes.compartment, scopes.project, responses.id, responses.created,
                 responses.conversation, responses.object, responses.work,
                 (SELECT coalesce(max(first + count), 0) FROM response_events
                  WHERE response = responses.number)
             FROM responses JOIN scopes ON scopes.number = responses.scope
             WHERE responses.work IS NOT NULL ORDER BY responses.number",
        )
        .map_err(translate)?;
    let mut rows = statement.query([]).map_err(translate)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(translate)? {
        found.push(read_unfinished(row)?);
    }
    Ok(found)
}

fn read_unfinished(row: &rusqlite::Row<'_>) -> Result<UnfinishedResponse, StoreError> {
    let project: String = row.get(2).map_err(translate)?;
    let object: String = row.get(6).map_err(translate)?;
    let work: Vec<u8> = row.get(7).map_err(translate)?;
    let conversation: Option<Arc<str>> = row.get(5).map_err(translate)?;
    Ok(UnfinishedResponse {
        scope: Scope {
            region: row.get(0).map_err(translate)?,
            compartment: ocid(row, 1).map_err(translate)?,
            project: match project.as_str() {
                "" => None,
                text => Some(
                    Ocid::parse(text).map_err(|error| StoreError::Corrupt(error.to_string()))?,
                ),
            },
        },
        id: row.get(3).map_err(translate)?,
        created: time(row, 4).map_err(translate)?,
        conversation,
        object: json(&object)?,
        work: work.into(),
        next_event: count(row, 8)?,
    })
}
