//! Chat completions that their callers asked to keep (`store: true`).

use std::sync::Arc;

use super::{Page, Paged, Pending, Scope, StoredItem};
use crate::json::RawJson;
use crate::time::Timestamp;

/// A chat completion as it is kept. It is kept whole or not at all: there is no state of one that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCompletion {
    /// `chatcmpl-…`.
    pub id: Arc<str>,
    /// When its run was admitted.
    pub created: Timestamp,
    /// The model that answered.
    pub model: Arc<str>,
    /// The name that the caller gave.
    pub model_asked: Arc<str>,
    /// The caller's metadata, an object of strings.
    pub metadata: RawJson,
    /// The completion without its metadata.
    pub object: RawJson,
}

/// Which of the stored completions are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompletionFilter {
    /// Only those of this model, by the name of the one that answered or by the name that was asked for.
    pub model: Option<String>,
    /// Only those whose metadata has all of these pairs.
    pub metadata: Vec<(String, String)>,
}

/// Where chat completions are kept. A change is atomic and survives a kill of the process once it is answered.
/// `None` and `false` say that the id names nothing in the scope.
pub trait CompletionStore: Send + Sync {
    /// Keeps a completion with the messages that it answers.
    fn put_completion(
        &self,
        scope: &Scope,
        completion: StoredCompletion,
        messages: Vec<StoredItem>,
    ) -> Pending<()>;

    /// Reads a completion.
    fn completion(&self, scope: &Scope, id: &str) -> Pending<Option<StoredCompletion>>;

    /// Lists completions. `None` when the page begins after one that is not there.
    fn completions(
        &self,
        scope: &Scope,
        filter: CompletionFilter,
        page: Page,
    ) -> Pending<Option<Paged<StoredCompletion>>>;

    /// Lists the messages that a completion answers. The inner `None` says that the page begins after one that is
    /// not there.
    fn completion_messages(
        &self,
        scope: &Scope,
        id: &str,
        page: Page,
    ) -> Pending<Option<Option<Paged<StoredItem>>>>;

    /// Replaces a completion's metadata.
    fn set_completion_metadata(
        &self,
        scope: &Scope,
        id: &str,
        metadata: RawJson,
    ) -> Pending<Option<StoredCompletion>>;

    /// Deletes a completion with its messages.
    fn delete_completion(&self, scope: &Scope, id: &str) -> Pending<bool>;
}
