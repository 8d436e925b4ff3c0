//! Responses, conversations, files and chat completions on SQLite, in a database of their own: it grows with every turn, and what
//! it holds needs to survive a kill of the process and not a loss of power, so that a turn costs no disk sync.

mod completions;
mod conversations;
mod files;
mod threads;
mod turns;

use std::path::Path;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use honshu_domain::{
    CompletionFilter, CompletionStore, EndedResponse, Error, EventSegment, FileStore, History,
    Page, Paged, Pending, QueuedResponse, RawJson, ResponseStore, Scope, StoredCompletion,
    StoredConversation, StoredFile, StoredItem, StoredResponse, Timestamp, UnfinishedResponse,
    UploadId,
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Durability, open_connection, readers, translate, writer};
use crate::directory::DataDir;
use crate::error::{OpenError, Reason, StoreError};
use crate::migrations;

/// Threads that read.
const READERS: usize = 2;

/// The store of responses, conversations and files on SQLite. Closing waits for the work that was handed over.
pub struct SqliteResponses {
    writer: writer::Writer,
    readers: readers::Readers,
}

impl SqliteResponses {
    /// Opens or makes the database of a data directory.
    ///
    /// # Errors
    /// An [`OpenError`], one line with the next step.
    pub fn open(directory: &DataDir) -> Result<Self, OpenError> {
        Self::open_file(&directory.responses())
    }

    /// Opens or makes a database by its path. The caller sees to it that no other process has it.
    ///
    /// # Errors
    /// An [`OpenError`], one line with the next step.
    pub fn open_file(path: &Path) -> Result<Self, OpenError> {
        let connection = open_connection(path, Durability::ProcessKill, migrations::RESPONSES)?;
        if let Err(error) = files::drop_unfinished(&connection) {
            // On a full disk, say. They cost room and nothing else, and retention tries again.
            tracing::warn!(%error, "unfinished uploads could not be deleted");
        }
        Ok(Self {
            writer: writer::Writer::start(connection, Arc::new(RwLock::new(None)))?,
            readers: readers::Readers::start(path, READERS)?,
        })
    }

    /// Limits the file to `pages` pages of 4 KiB, so that tests can fill it.
    #[cfg(any(test, feature = "suite"))]
    pub fn limit_pages(&self, pages: Option<u32>) {
        self.writer.limit_pages(pages);
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        pending(self.writer.write(work))
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        pending(self.readers.submit(move |connection| {
            // Several statements of one answer see the same state.
            let transaction = connection.transaction().map_err(translate)?;
            work(&transaction)
        }))
    }

    fn read_in<T: Send + Default + 'static>(
        &self,
        scope: &Scope,
        work: impl FnOnce(&Connection, i64) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        let scope = scope.clone();
        self.read(move |connection| match find_scope(connection, &scope)? {
            Some(number) => work(connection, number),
            // Nothing was ever stored here.
            None => Ok(T::default()),
        })
    }

    fn write_in<T: Send + 'static>(
        &self,
        scope: &Scope,
        work: impl FnOnce(&Connection, i64) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        let scope = scope.clone();
        self.write(move |connection| {
            let number = make_scope(connection, &scope)?;
            work(connection, number)
        })
    }

    fn change_in<T: Send + Default + 'static>(
        &self,
        scope: &Scope,
        work: impl FnOnce(&Connection, i64) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        let scope = scope.clone();
        self.write(move |connection| match find_scope(connection, &scope)? {
            Some(number) => work(connection, number),
            None => Ok(T::default()),
        })
    }
}

fn pending<T: Send + 'static>(
    receiver: Result<tokio::sync::oneshot::Receiver<Result<T, StoreError>>, StoreError>,
) -> Pending<T> {
    Box::pin(async move {
        receiver
            .map_err(Error::from)?
            .await
            .unwrap_or(Err(StoreError::unavailable(Reason::Stopped)))
            .map_err(Error::from)
    })
}

fn project(scope: &Scope) -> &str {
    scope
        .project
        .as_ref()
        .map_or("", |project| project.as_str())
}

fn find_scope(connection: &Connection, scope: &Scope) -> Result<Option<i64>, StoreError> {
    connection
        .prepare_cached(
            "SELECT number FROM scopes WHERE region = ?1 AND compartment = ?2 AND project = ?3",
        )
        .and_then(|mut statement| {
            statement
                .query_row(
                    params![&*scope.region, scope.compartment.as_str(), project(scope)],
                    |row| row.get(0),
                )
                .optional()
        })
        .map_err(translate)
}

fn make_scope(connection: &Connection, scope: &Scope) -> Result<i64, StoreError> {
    if let Some(number) = find_scope(connection, scope)? {
        return Ok(number);
    }
    execute(
        connection,
        "INSERT INTO scopes (region, compartment, project) VALUES (?1, ?2, ?3)",
        params![&*scope.region, scope.compartment.as_str(), project(scope)],
    )?;
    Ok(connection.last_insert_rowid())
}

/// Deletes what `old` selects by scope and id, given a time and how many at most; returns how many went.
fn forget_old<T>(
    connection: &Connection,
    old: &str,
    before: Timestamp,
    limit: u32,
    delete: impl Fn(&Connection, i64, &str) -> Result<T, StoreError>,
) -> Result<u64, StoreError> {
    let found: Vec<(i64, String)> = connection
        .prepare_cached(old)
        .map_err(translate)?
        .query_map(params![before.as_micros(), limit], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .and_then(Iterator::collect)
        .map_err(translate)?;
    for (scope, id) in &found {
        delete(connection, *scope, id)?;
    }
    Ok(found.len() as u64)
}

fn execute(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<usize, StoreError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(parameters))
        .map_err(translate)
}

fn json(text: &str) -> Result<RawJson, StoreError> {
    RawJson::parse(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

impl ResponseStore for SqliteResponses {
    fn queue(&self, response: QueuedResponse) -> Pending<()> {
        let scope = response.scope.clone();
        self.write_in(&scope, move |connection, scope| {
            turns::queue(connection, scope, &response)
        })
    }

    fn append_events(&self, scope: &Scope, id: &str, segment: EventSegment) -> Pending<bool> {
        let id = id.to_owned();
        self.change_in(scope, move |connection, scope| {
            turns::append_events(connection, scope, &id, &segment)
        })
    }

    fn end(&self, response: EndedResponse) -> Pending<bool> {
        let scope = response.scope.clone();
        self.write_in(&scope, move |connection, scope| {
            turns::end(connection, scope, &response)
        })
    }

    fn response(&self, scope: &Scope, id: &str) -> Pending<Option<StoredResponse>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            turns::response(connection, scope, &id)
        })
    }

    fn input_items(
        &self,
        scope: &Scope,
        id: &str,
        page: Page,
    ) -> Pending<Option<Paged<StoredItem>>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            turns::input_items(connection, scope, &id, &page)
        })
    }

    fn events(
        &self,
        scope: &Scope,
        id: &str,
        after: Option<u64>,
    ) -> Pending<Option<(Vec<EventSegment>, bool)>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            turns::events(connection, scope, &id, after)
        })
    }

    fn history(&self, scope: &Scope, id: &str) -> Pending<Option<History>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            turns::history(connection, scope, &id)
        })
    }

    fn items(&self, scope: &Scope, ids: Vec<String>) -> Pending<Vec<StoredItem>> {
        self.read_in(scope, move |connection, scope| {
            threads::items(connection, scope, &ids)
        })
    }

    fn delete_response(&self, scope: &Scope, id: &str) -> Pending<bool> {
        let id = id.to_owned();
        self.change_in(scope, move |connection, scope| {
            turns::delete(connection, scope, &id)
        })
    }

    fn unfinished(&self) -> Pending<Vec<UnfinishedResponse>> {
        self.read(turns::unfinished)
    }

    fn create_conversation(
        &self,
        scope: &Scope,
        conversation: StoredConversation,
        items: Vec<StoredItem>,
    ) -> Pending<()> {
        self.write_in(scope, move |connection, scope| {
            conversations::create(connection, scope, &conversation, &items)
        })
    }

    fn conversation(&self, scope: &Scope, id: &str) -> Pending<Option<StoredConversation>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            conversations::read(connection, scope, &id)
        })
    }

    fn set_conversation_metadata(
        &self,
        scope: &Scope,
        id: &str,
        metadata: RawJson,
        now: Timestamp,
    ) -> Pending<Option<StoredConversation>> {
        let id = id.to_owned();
        self.change_in(scope, move |connection, scope| {
            conversations::set_metadata(connection, scope, &id, &metadata, now)
        })
    }

    fn delete_conversation(&self, scope: &Scope, id: &str) -> Pending<bool> {
        let id = id.to_owned();
        self.change_in(scope, move |connection, scope| {
            conversations::delete(connection, scope, &id)
        })
    }

    fn add_conversation_items(
        &self,
        scope: &Scope,
        id: &str,
        items: Vec<StoredItem>,
        now: Timestamp,
    ) -> Pending<bool> {
        let id = id.to_owned();
        self.change_in(scope, move |connection, scope| {
            conversations::append(connection, scope, &id, &items, now).map(|place| place.is_some())
        })
    }

    fn conversation_items(
        &self,
        scope: &Scope,
        id: &str,
        page: Page,
    ) -> Pending<Option<Paged<StoredItem>>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            conversations::items(connection, scope, &id, &page)
        })
    }

    fn conversation_item(
        &self,
        scope: &Scope,
        id: &str,
        item: &str,
    ) -> Pending<Option<StoredItem>> {
        let (id, item) = (id.to_owned(), item.to_owned());
        self.read_in(scope, move |connection, scope| {
            conversations::item(connection, scope, &id, &item)
        })
    }

    fn delete_conversation_item(&self, scope: &Scope, id: &str, item: &str) -> Pending<bool> {
        let (id, item) = (id.to_owned(), item.to_owned());
        self.change_in(scope, move |connection, scope| {
            conversations::delete_item(connection, scope, &id, &item)
        })
    }

    fn conversation_history(&self, scope: &Scope, id: &str) -> Pending<Option<History>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            conversations::history(connection, scope, &id)
        })
    }

    fn forget(
        &self,
        responses: Timestamp,
        conversations: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Pending<u64> {
        self.write(move |connection| {
            let gone = turns::forget(connection, responses, limit)?
                + completions::forget(connection, responses, limit)?
                + conversations::forget(connection, conversations, limit)?
                + files::forget(connection, now, limit)?;
            Ok(gone)
        })
    }
}

impl CompletionStore for SqliteResponses {
    fn put_completion(
        &self,
        scope: &Scope,
        completion: StoredCompletion,
        messages: Vec<StoredItem>,
    ) -> Pending<()> {
        self.write_in(scope, move |connection, scope| {
            completions::put(connection, scope, &completion, &messages)
        })
    }

    fn completion(&self, scope: &Scope, id: &str) -> Pending<Option<StoredCompletion>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            completions::read(connection, scope, &id)
        })
    }

    fn completions(
        &self,
        scope: &Scope,
        filter: CompletionFilter,
        page: Page,
    ) -> Pending<Option<Paged<StoredCompletion>>> {
        let scope = scope.clone();
        self.read(move |connection| match find_scope(connection, &scope)? {
            Some(number) => completions::list(connection, number, &filter, &page),
            None => Ok(page.after.is_none().then(|| Paged {
                data: Vec::new(),
                has_more: false,
            })),
        })
    }

    fn completion_messages(
        &self,
        scope: &Scope,
        id: &str,
        page: Page,
    ) -> Pending<Option<Option<Paged<StoredItem>>>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            completions::messages(connection, scope, &id, &page)
        })
    }

    fn set_completion_metadata(
        &self,
        scope: &Scope,
        id: &str,
        metadata: RawJson,
    ) -> Pending<Option<StoredCompletion>> {
        let id = id.to_owned();
        self.change_in(scope, move |connection, scope| {
            completions::set_metadata(connection, scope, &id, &metadata)
        })
    }

    fn delete_completion(&self, scope: &Scope, id: &str) -> Pending<bool> {
        let id = id.to_owned();
        self.change_in(scope, move |connection, scope| {
            completions::delete(connection, scope, &id)
        })
    }
}

impl FileStore for SqliteResponses {
    fn begin_upload(&self, now: Timestamp) -> Pending<UploadId> {
        self.write(move |connection| files::begin_upload(connection, now))
    }

    fn append_upload(&self, upload: UploadId, bytes: Bytes) -> Pending<bool> {
        self.write(move |connection| files::append_upload(connection, upload, &bytes))
    }

    fn end_upload(&self, scope: &Scope, upload: UploadId, file: StoredFile) -> Pending<bool> {
        self.write_in(scope, move |connection, scope| {
            files::end_upload(connection, scope, upload, &file)
        })
    }

    fn drop_upload(&self, upload: UploadId) -> Pending<()> {
        self.write(move |connection| files::drop_upload(connection, upload))
    }

    fn file(&self, scope: &Scope, id: &str, now: Timestamp) -> Pending<Option<StoredFile>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            files::read(connection, scope, &id, now)
        })
    }

    fn file_content(&self, scope: &Scope, id: &str, now: Timestamp) -> Pending<Option<Bytes>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            files::content(connection, scope, &id, now)
        })
    }

    fn file_piece(
        &self,
        scope: &Scope,
        id: &str,
        piece: u32,
        now: Timestamp,
    ) -> Pending<Option<Bytes>> {
        let id = id.to_owned();
        self.read_in(scope, move |connection, scope| {
            files::piece(connection, scope, &id, piece, now)
        })
    }

    fn files(
        &self,
        scope: &Scope,
        purpose: Option<String>,
        page: Page,
        now: Timestamp,
    ) -> Pending<Paged<StoredFile>> {
        let scope = scope.clone();
        self.read(move |connection| match find_scope(connection, &scope)? {
            Some(number) => files::list(connection, number, purpose.as_deref(), &page, now),
            None => Ok(Paged {
                data: Vec::new(),
                has_more: false,
            }),
        })
    }

    fn delete_file(&self, scope: &Scope, id: &str) -> Pending<bool> {
        let id = id.to_owned();
        self.change_in(scope, move |connection, scope| {
            files::delete(connection, scope, &id)
        })
    }
}
