//! Uploaded files.

use bytes::Bytes;
use honshu_domain::{Page, Paged, StoredFile, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::load::{damaged, time};
use super::{execute, translate};
use crate::error::StoreError;

const COLUMNS: &str = "id, filename, purpose, bytes, created, expires";

pub(super) fn put(
    connection: &Connection,
    scope: i64,
    file: &StoredFile,
    content: &Bytes,
) -> Result<(), StoreError> {
    execute(
        connection,
        "INSERT INTO files (id, scope, filename, purpose, bytes, created, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            &*file.id,
            scope,
            file.filename,
            file.purpose,
            i64::try_from(file.bytes).unwrap_or(i64::MAX),
            file.created.as_micros(),
            file.expires.map(Timestamp::as_micros),
        ],
    )?;
    execute(
        connection,
        "INSERT INTO file_contents (file, content) VALUES (?1, ?2)",
        params![connection.last_insert_rowid(), &content[..]],
    )
    .map(drop)
}

fn file(row: &Row<'_>) -> rusqlite::Result<StoredFile> {
    let bytes: i64 = row.get(3)?;
    Ok(StoredFile {
        id: row.get(0)?,
        filename: row.get(1)?,
        purpose: row.get(2)?,
        bytes: u64::try_from(bytes).map_err(|error| damaged(3, error))?,
        created: time(row, 4)?,
        expires: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
    })
}

pub(super) fn read(
    connection: &Connection,
    scope: i64,
    id: &str,
    now: Timestamp,
) -> Result<Option<StoredFile>, StoreError> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM files
             WHERE id = ?1 AND scope = ?2 AND (expires IS NULL OR expires > ?3)"
        ))
        .and_then(|mut statement| {
            statement
                .query_row(params![id, scope, now.as_micros()], file)
                .optional()
        })
        .map_err(translate)
}

pub(super) fn content(
    connection: &Connection,
    scope: i64,
    id: &str,
    now: Timestamp,
) -> Result<Option<Bytes>, StoreError> {
    connection
        .prepare_cached(
            "SELECT file_contents.content FROM files JOIN file_contents ON file_contents.file = files.number
             WHERE files.id = ?1 AND files.scope = ?2 AND (files.expires IS NULL OR files.expires > ?3)",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![id, scope, now.as_micros()], |row| {
                    row.get::<_, Vec<u8>>(0)
                })
                .optional()
        })
        .map(|content| content.map(Bytes::from))
        .map_err(translate)
}

pub(super) fn list(
    connection: &Connection,
    scope: i64,
    purpose: Option<&str>,
    page: &Page,
    now: Timestamp,
) -> Result<Paged<StoredFile>, StoreError> {
    let (edge, order, beyond) = if page.ascending {
        ("0", "ASC", ">")
    } else {
        ("9223372036854775807", "DESC", "<")
    };
    let mut data: Vec<StoredFile> = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM files
             WHERE scope = ?1 AND (?2 IS NULL OR purpose = ?2) AND (expires IS NULL OR expires > ?3)
             AND number {beyond} coalesce((SELECT number FROM files WHERE id = ?4 AND scope = ?1), {edge})
             ORDER BY number {order} LIMIT ?5"
        ))
        .map_err(translate)?
        .query_map(
            params![scope, purpose, now.as_micros(), page.after, page.limit + 1],
            file,
        )
        .and_then(Iterator::collect)
        .map_err(translate)?;
    let has_more = data.len() > page.limit as usize;
    data.truncate(page.limit as usize);
    Ok(Paged { data, has_more })
}

pub(super) fn delete(connection: &Connection, scope: i64, id: &str) -> Result<bool, StoreError> {
    execute(
        connection,
        "DELETE FROM files WHERE id = ?1 AND scope = ?2",
        params![id, scope],
    )
    .map(|count| count > 0)
}

pub(super) fn forget(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    execute(
        connection,
        "DELETE FROM files WHERE number IN
         (SELECT number FROM files WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
        params![now.as_micros(), limit],
    )
    .map(|count| count as u64)
}
