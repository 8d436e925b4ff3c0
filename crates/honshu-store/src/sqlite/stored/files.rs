//! Uploaded files.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use honshu_domain::{Page, Paged, StoredFile, Timestamp, UploadId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::load::{damaged, time};
use super::{execute, translate};
use crate::error::StoreError;

const COLUMNS: &str = "id, filename, purpose, bytes, created, expires";

/// The longest that an upload may be under way, in seconds: one of 64 MiB at the slowest rate that the HTTP edge bears
/// takes 18 hours. What is older belongs to nobody.
const UPLOAD_SECONDS_MAX: u64 = 86_400;

/// Files that are deleted in one transaction. Each may have thousands of pages that have to be given back.
const FORGOTTEN_MAX: u32 = 8;

pub(super) fn begin_upload(
    connection: &Connection,
    now: Timestamp,
) -> Result<UploadId, StoreError> {
    execute(
        connection,
        "INSERT INTO uploads (begun) VALUES (?1)",
        params![now.as_micros()],
    )?;
    Ok(UploadId(connection.last_insert_rowid()))
}

pub(super) fn append_upload(
    connection: &Connection,
    upload: UploadId,
    bytes: &[u8],
) -> Result<bool, StoreError> {
    execute(
        connection,
        "INSERT INTO file_pieces (upload, piece, content)
         SELECT number, (SELECT coalesce(max(piece) + 1, 0) FROM file_pieces WHERE upload = ?1), ?2
         FROM uploads WHERE number = ?1 AND file IS NULL",
        params![upload.0, bytes],
    )
    .map(|count| count > 0)
}

pub(super) fn end_upload(
    connection: &Connection,
    scope: i64,
    upload: UploadId,
    file: &StoredFile,
) -> Result<bool, StoreError> {
    let is_there = connection
        .prepare_cached("SELECT 1 FROM uploads WHERE number = ?1 AND file IS NULL")
        .and_then(|mut statement| statement.exists(params![upload.0]))
        .map_err(translate)?;
    if !is_there {
        return Ok(false);
    }
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
        "UPDATE uploads SET file = ?2 WHERE number = ?1",
        params![upload.0, connection.last_insert_rowid()],
    )
    .map(|count| count > 0)
}

pub(super) fn drop_upload(connection: &Connection, upload: UploadId) -> Result<(), StoreError> {
    execute(
        connection,
        "DELETE FROM uploads WHERE number = ?1 AND file IS NULL",
        params![upload.0],
    )
    .map(drop)
}

/// Deletes the uploads that a process which is no more had under way.
pub(super) fn drop_unfinished(connection: &Connection) -> Result<usize, StoreError> {
    execute(connection, "DELETE FROM uploads WHERE file IS NULL", [])
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

/// One piece. Files from before uploads came in pieces are one piece as a whole.
pub(super) fn piece(
    connection: &Connection,
    scope: i64,
    id: &str,
    piece: u32,
    now: Timestamp,
) -> Result<Option<Bytes>, StoreError> {
    connection
        .prepare_cached(
            "SELECT file_pieces.content FROM files JOIN uploads ON uploads.file = files.number
             JOIN file_pieces ON file_pieces.upload = uploads.number AND file_pieces.piece = ?4
             WHERE files.id = ?1 AND files.scope = ?2 AND (files.expires IS NULL OR files.expires > ?3)
             UNION ALL
             SELECT file_contents.content FROM files JOIN file_contents ON file_contents.file = files.number
             WHERE files.id = ?1 AND files.scope = ?2 AND (files.expires IS NULL OR files.expires > ?3) AND ?4 = 0",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![id, scope, now.as_micros(), piece], |row| {
                    row.get::<_, Vec<u8>>(0)
                })
                .optional()
        })
        .map(|content| content.map(Bytes::from))
        .map_err(translate)
}

pub(super) fn content(
    connection: &Connection,
    scope: i64,
    id: &str,
    now: Timestamp,
) -> Result<Option<Bytes>, StoreError> {
    if read(connection, scope, id, now)?.is_none() {
        return Ok(None);
    }
    let mut whole = BytesMut::new();
    for number in 0.. {
        match piece(connection, scope, id, number, now)? {
            Some(bytes) => whole.extend_from_slice(&bytes),
            None => break,
        }
    }
    Ok(Some(whole.freeze()))
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
    let limit = limit.min(FORGOTTEN_MAX);
    let files = execute(
        connection,
        "DELETE FROM files WHERE number IN
         (SELECT number FROM files WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
        params![now.as_micros(), limit],
    )?;
    let begun = now.minus(Duration::from_secs(UPLOAD_SECONDS_MAX));
    let uploads = execute(
        connection,
        "DELETE FROM uploads WHERE number IN
         (SELECT number FROM uploads WHERE file IS NULL AND begun <= ?1 LIMIT ?2)",
        params![begun.as_micros(), limit],
    )?;
    Ok((files + uploads) as u64)
}
