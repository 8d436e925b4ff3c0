//! What is kept of responses, conversations and files, and the seams to where it is kept.
//!
//! A stored object belongs to a [`Scope`]. Every method takes the scope of the caller and finds nothing outside
//! of it, so that an id of somebody else looks exactly like one that never existed.
//!
//! Items lie on threads. A response that continues the last one appends to its thread; one that continues an
//! earlier one begins a thread that hangs on it. The way back from any response is therefore one range for each
//! fork, whatever the number of turns, and a turn writes its own items only.

mod completions;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::id::Ocid;
use crate::json::RawJson;
use crate::time::Timestamp;

pub use completions::{CompletionFilter, CompletionStore, StoredCompletion};

/// An answer of a store on its way. The work is handed over before it is polled; dropping it gives up the answer
/// and never the work.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Where stored objects of the OpenAI plane belong: one compartment, or one project in it, of one region.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The region's name.
    pub region: Arc<str>,
    /// The compartment that the call acts in.
    pub compartment: Ocid,
    /// The project that the call names (`OpenAI-Project`), if it names one.
    pub project: Option<Ocid>,
}

/// An item as it stands on the wire of the Responses dialect, with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredItem {
    /// The item's id.
    pub id: Arc<str>,
    /// The whole item.
    pub json: RawJson,
}

/// A place on a thread, after which a next turn continues. Opaque outside of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Anchor {
    /// The thread.
    pub thread: i64,
    /// How many items lie before the place, the threads before this one included.
    pub until: i64,
}

/// What came before a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Where the next turn continues.
    pub anchor: Anchor,
    /// The items, oldest first.
    pub items: Vec<StoredItem>,
}

/// A stretch of a response's event stream, as it was or will be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSegment {
    /// The `sequence_number` of its first event.
    pub first: u64,
    /// How many events it holds.
    pub count: u64,
    /// The frames, compressed in a way that the writer and the reader agree on. Opaque to the store.
    pub frames: Bytes,
}

/// The state of a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoredStatus {
    /// It waits for its turn (background only).
    Queued,
    /// It runs (background only; others are stored at their end).
    InProgress,
    /// Whole.
    Completed,
    /// Stopped early by a limit or a filter.
    Incomplete,
    /// Broken.
    Failed,
    /// Given up by its caller.
    Cancelled,
}

impl StoredStatus {
    /// The wire word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the wire word.
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Queued,
            Self::InProgress,
            Self::Completed,
            Self::Incomplete,
            Self::Failed,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }

    /// Whether nothing more will happen to it.
    pub const fn is_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::InProgress)
    }

    /// Whether a next turn can continue it.
    pub const fn can_be_continued(self) -> bool {
        matches!(self, Self::Completed | Self::Incomplete)
    }
}

/// A background response as it is accepted.
#[derive(Debug, Clone)]
pub struct QueuedResponse {
    /// Whose.
    pub scope: Scope,
    /// `resp_…`.
    pub id: Arc<str>,
    /// When it was accepted.
    pub created: Timestamp,
    /// What it continues; `None` for a first turn and for a turn of a conversation.
    pub after: Option<Anchor>,
    /// The conversation that it belongs to.
    pub conversation: Option<Arc<str>>,
    /// The response object without its `output`.
    pub object: RawJson,
    /// Its own input.
    pub input: Vec<StoredItem>,
    /// What its runtime needs to run it after a restart. Opaque to the store.
    pub work: Bytes,
    /// Its first events.
    pub events: EventSegment,
}

/// A response at its end.
#[derive(Debug, Clone)]
pub struct EndedResponse {
    /// Whose.
    pub scope: Scope,
    /// `resp_…`.
    pub id: Arc<str>,
    /// When it was accepted.
    pub created: Timestamp,
    /// How it ended.
    pub status: StoredStatus,
    /// What it continued. Not looked at for a response that was queued.
    pub after: Option<Anchor>,
    /// The conversation that it belongs to, to which its items are added if it can be continued.
    pub conversation: Option<Arc<str>>,
    /// The response object without its `output`.
    pub object: RawJson,
    /// Its own input.
    pub input: Vec<StoredItem>,
    /// Its output.
    pub output: Vec<StoredItem>,
    /// Events that were not stored before.
    pub events: Vec<EventSegment>,
    /// Whether it was queued before: it then counts only if it was not deleted meanwhile.
    pub was_queued: bool,
}

/// A stored response.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResponse {
    /// `resp_…`.
    pub id: Arc<str>,
    /// Where it stands.
    pub status: StoredStatus,
    /// Whether it was queued as a background response.
    pub background: bool,
    /// The response object without its `output`.
    pub object: RawJson,
    /// Its output.
    pub output: Vec<StoredItem>,
    /// Whether its events are kept.
    pub has_events: bool,
}

/// A background response that has not ended, as a restarted runtime finds it.
#[derive(Debug, Clone)]
pub struct UnfinishedResponse {
    /// Whose.
    pub scope: Scope,
    /// `resp_…`.
    pub id: Arc<str>,
    /// When it was accepted.
    pub created: Timestamp,
    /// The conversation that it belongs to.
    pub conversation: Option<Arc<str>>,
    /// The response object without its `output`.
    pub object: RawJson,
    /// What its runtime kept.
    pub work: Bytes,
    /// The `sequence_number` that its next event will have.
    pub next_event: u64,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Only what comes after the object with this id, in the list's order.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// Oldest first; newest first otherwise.
    pub ascending: bool,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Paged<T> {
    /// The objects.
    pub data: Vec<T>,
    /// Whether there are more after them.
    pub has_more: bool,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredConversation {
    /// `conv_…`.
    pub id: Arc<str>,
    /// When it was made.
    pub created: Timestamp,
    /// Its metadata, an object.
    pub metadata: RawJson,
}

/// A file that a caller has uploaded, without its content.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredFile {
    /// `file-…`.
    pub id: Arc<str>,
    /// Its name.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was uploaded.
    pub created: Timestamp,
    /// When it goes away by itself.
    pub expires: Option<Timestamp>,
}

/// Where responses and conversations are kept. A change is atomic and survives a kill of the process once it is
/// answered. `None` and `false` say that the id names nothing in the scope.
pub trait ResponseStore: Send + Sync {
    /// Accepts a background response.
    fn queue(&self, response: QueuedResponse) -> Pending<()>;

    /// Adds events of a background response and notes that it runs. `false` when it is gone or has ended.
    fn append_events(&self, scope: &Scope, id: &str, segment: EventSegment) -> Pending<bool>;

    /// Keeps a response at its end: its state, its items, its last events, all or nothing. `false` when it was
    /// queued and is gone or has ended already.
    fn end(&self, response: EndedResponse) -> Pending<bool>;

    /// Reads a response.
    fn response(&self, scope: &Scope, id: &str) -> Pending<Option<StoredResponse>>;

    /// Reads a part of a response's own input.
    fn input_items(
        &self,
        scope: &Scope,
        id: &str,
        page: Page,
    ) -> Pending<Option<Paged<StoredItem>>>;

    /// The events of a response after the one numbered `after`, oldest first, at most about a mebibyte at once,
    /// and whether these are the last that there will be.
    fn events(
        &self,
        scope: &Scope,
        id: &str,
        after: Option<u64>,
    ) -> Pending<Option<(Vec<EventSegment>, bool)>>;

    /// Everything up to and with a response that can be continued. `None` too when an earlier link of its chain
    /// was deleted.
    fn history(&self, scope: &Scope, id: &str) -> Pending<Option<History>>;

    /// Items by their ids, in any order; ids that name nothing are left out.
    fn items(&self, scope: &Scope, ids: Vec<String>) -> Pending<Vec<StoredItem>>;

    /// Deletes a response with its items and events.
    fn delete_response(&self, scope: &Scope, id: &str) -> Pending<bool>;

    /// Background responses that have not ended, oldest first.
    fn unfinished(&self) -> Pending<Vec<UnfinishedResponse>>;

    /// Makes a conversation with its first items.
    fn create_conversation(
        &self,
        scope: &Scope,
        conversation: StoredConversation,
        items: Vec<StoredItem>,
    ) -> Pending<()>;

    /// Reads a conversation.
    fn conversation(&self, scope: &Scope, id: &str) -> Pending<Option<StoredConversation>>;

    /// Replaces a conversation's metadata.
    fn set_conversation_metadata(
        &self,
        scope: &Scope,
        id: &str,
        metadata: RawJson,
        now: Timestamp,
    ) -> Pending<Option<StoredConversation>>;

    /// Deletes a conversation with its items. Responses that were made in it stay.
    fn delete_conversation(&self, scope: &Scope, id: &str) -> Pending<bool>;

    /// Adds items to a conversation.
    fn add_conversation_items(
        &self,
        scope: &Scope,
        id: &str,
        items: Vec<StoredItem>,
        now: Timestamp,
    ) -> Pending<bool>;

    /// Reads a part of a conversation's items.
    fn conversation_items(
        &self,
        scope: &Scope,
        id: &str,
        page: Page,
    ) -> Pending<Option<Paged<StoredItem>>>;

    /// Reads one item of a conversation.
    fn conversation_item(&self, scope: &Scope, id: &str, item: &str)
    -> Pending<Option<StoredItem>>;

    /// Removes one item from a conversation.
    fn delete_conversation_item(&self, scope: &Scope, id: &str, item: &str) -> Pending<bool>;

    /// Everything in a conversation.
    fn conversation_history(&self, scope: &Scope, id: &str) -> Pending<Option<History>>;

    /// Deletes ended responses and chat completions that were made before `responses`, conversations that were last
    /// changed before `conversations`, and files that expired before `now`; at most `limit` of each. Gives how many went.
    fn forget(
        &self,
        responses: Timestamp,
        conversations: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Pending<u64>;
}

/// An upload under way, for the store that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadId(pub i64);

/// Where uploaded files are kept. A file comes and goes in pieces, so that nobody has to hold it whole, and exists for
/// readers from the end of its upload.
pub trait FileStore: Send + Sync {
    /// Begins an upload. One that is never ended is gone at the next start, or a day later.
    fn begin_upload(&self, now: Timestamp) -> Pending<UploadId>;

    /// Keeps the next bytes of an upload. `false` when there is no such upload.
    fn append_upload(&self, upload: UploadId, bytes: Bytes) -> Pending<bool>;

    /// Makes a file of what an upload has brought. `false` when there is no such upload.
    fn end_upload(&self, scope: &Scope, upload: UploadId, file: StoredFile) -> Pending<bool>;

    /// Deletes an upload that has not ended, with its bytes.
    fn drop_upload(&self, upload: UploadId) -> Pending<()>;

    /// Reads what is known of a file. Expired ones are gone.
    fn file(&self, scope: &Scope, id: &str, now: Timestamp) -> Pending<Option<StoredFile>>;

    /// Reads a file's content whole, for a caller who knows that it is short.
    fn file_content(&self, scope: &Scope, id: &str, now: Timestamp) -> Pending<Option<Bytes>>;

    /// Reads one piece of a file's content, counted from 0, for a caller who reads one after the other until it has
    /// as many bytes as the file.
    fn file_piece(
        &self,
        scope: &Scope,
        id: &str,
        piece: u32,
        now: Timestamp,
    ) -> Pending<Option<Bytes>>;

    /// Lists files.
    fn files(
        &self,
        scope: &Scope,
        purpose: Option<String>,
        page: Page,
        now: Timestamp,
    ) -> Pending<Paged<StoredFile>>;

    /// Deletes a file.
    fn delete_file(&self, scope: &Scope, id: &str) -> Pending<bool>;
}
