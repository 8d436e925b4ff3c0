//! Conversations and their items.

use std::sync::Arc;

use honshu_domain::{Error, Page, Paged, PublicId, RawJson, Scope, StoredConversation, StoredItem};
use honshu_wire::responses::own_items;

use crate::live::Locks;
use crate::{Runtime, not_found};

fn conversation_not_found(id: &str) -> Error {
    not_found("conversation", id)
}

impl Runtime {
    /// Makes a conversation.
    ///
    /// # Errors
    /// What the store says.
    pub async fn create_conversation(
        &self,
        scope: &Scope,
        metadata: RawJson,
        items: &[RawJson],
    ) -> Result<StoredConversation, Error> {
        let shared = &self.shared;
        let conversation = StoredConversation {
            id: PublicId::generate("conv_", &*shared.entropy)
                .as_str()
                .into(),
            created: shared.clock.now(),
            metadata,
        };
        let items = own_items(items, &*shared.entropy);
        shared
            .store
            .create_conversation(scope, conversation.clone(), items)
            .await?;
        Ok(conversation)
    }

    /// Reads a conversation.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn conversation(&self, scope: &Scope, id: &str) -> Result<StoredConversation, Error> {
        let found = self.shared.store.conversation(scope, id).await?;
        found.ok_or_else(|| conversation_not_found(id))
    }

    /// Replaces a conversation's metadata.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn update_conversation(
        &self,
        scope: &Scope,
        id: &str,
        metadata: RawJson,
    ) -> Result<StoredConversation, Error> {
        let now = self.shared.clock.now();
        let found = self
            .shared
            .store
            .set_conversation_metadata(scope, id, metadata, now)
            .await?;
        found.ok_or_else(|| conversation_not_found(id))
    }

    /// Deletes a conversation with its items.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a response runs in it.
    pub async fn delete_conversation(&self, scope: &Scope, id: &str) -> Result<(), Error> {
        let _held = Locks::take(&self.shared, scope, id)?;
        if self.shared.store.delete_conversation(scope, id).await? {
            Ok(())
        } else {
            Err(conversation_not_found(id))
        }
    }

    /// Adds items to a conversation. Gives them with their ids.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a response runs in it.
    pub async fn add_conversation_items(
        &self,
        scope: &Scope,
        id: &str,
        items: &[RawJson],
    ) -> Result<Vec<StoredItem>, Error> {
        let shared = &self.shared;
        let _held = Locks::take(shared, scope, id)?;
        let items = own_items(items, &*shared.entropy);
        let now = shared.clock.now();
        let added = shared
            .store
            .add_conversation_items(scope, id, items.clone(), now);
        if added.await? {
            Ok(items)
        } else {
            Err(conversation_not_found(id))
        }
    }

    /// Lists a conversation's items.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn conversation_items(
        &self,
        scope: &Scope,
        id: &str,
        page: Page,
    ) -> Result<Paged<StoredItem>, Error> {
        let found = self
            .shared
            .store
            .conversation_items(scope, id, page)
            .await?;
        found.ok_or_else(|| conversation_not_found(id))
    }

    /// Reads one item of a conversation.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn conversation_item(
        &self,
        scope: &Scope,
        id: &str,
        item: &str,
    ) -> Result<StoredItem, Error> {
        let found = self.shared.store.conversation_item(scope, id, item).await?;
        found.ok_or_else(|| not_found("conversation item", item))
    }

    /// Removes one item from a conversation. Gives the conversation.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a response runs in it.
    pub async fn delete_conversation_item(
        &self,
        scope: &Scope,
        id: &str,
        item: &str,
    ) -> Result<StoredConversation, Error> {
        let _held = Locks::take(&self.shared, scope, id)?;
        if self
            .shared
            .store
            .delete_conversation_item(scope, id, item)
            .await?
        {
            self.conversation(scope, id).await
        } else {
            Err(not_found("conversation item", item))
        }
    }

    /// Where files are kept.
    pub fn files(&self) -> &Arc<dyn honshu_domain::FileStore> {
        &self.shared.files
    }
}
