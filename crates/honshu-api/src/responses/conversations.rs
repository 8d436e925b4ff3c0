//! `/conversations` and the items in them.

use axum::Router;
use axum::response::Response;
use honshu_domain::{Error, RawJson, Result};
use honshu_wire::conversations as shapes;

use super::visit::{PageRules, Visit, deletes, gets, ok, posts};
use crate::app::App;

const CONVERSATION: &str = "conversation";
const ITEM: &str = "conversation item";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/conversations", posts(create))
        .route(
            "/conversations/{id}",
            gets(retrieve).merge(posts(update)).merge(deletes(delete)),
        )
        .route("/conversations/{id}/items", gets(list).merge(posts(add)))
        .route(
            "/conversations/{id}/items/{item}",
            gets(retrieve_item).merge(deletes(delete_item)),
        )
}

async fn create(mut visit: Visit) -> Result<Response> {
    let body = visit.json_body().await?;
    let scope = visit.scope(super::not_allowed)?;
    let parsed = shapes::parse_conversation(&body)?;
    let metadata = match parsed.metadata {
        Some(metadata) => metadata,
        None => RawJson::parse("{}").map_err(Error::internal)?,
    };
    let runtime = &visit.app.runtime;
    let made = runtime.create_conversation(&scope, metadata, &parsed.items);
    ok(shapes::conversation(&made.await?))
}

async fn retrieve(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of(CONVERSATION)?;
    let found = visit.app.runtime.conversation(&scope, visit.id()).await?;
    ok(shapes::conversation(&found))
}

async fn update(mut visit: Visit) -> Result<Response> {
    let body = visit.json_body().await?;
    let scope = visit.scope_of(CONVERSATION)?;
    let metadata = shapes::parse_metadata(&body)?;
    let runtime = &visit.app.runtime;
    let found = runtime.update_conversation(&scope, visit.id(), metadata);
    ok(shapes::conversation(&found.await?))
}

async fn delete(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of(CONVERSATION)?;
    let runtime = &visit.app.runtime;
    runtime.delete_conversation(&scope, visit.id()).await?;
    ok(shapes::deleted(visit.id(), "conversation.deleted"))
}

async fn add(mut visit: Visit) -> Result<Response> {
    let body = visit.json_body().await?;
    let scope = visit.scope_of(CONVERSATION)?;
    let items = shapes::parse_items(&body)?;
    let runtime = &visit.app.runtime;
    let added = runtime.add_conversation_items(&scope, visit.id(), &items);
    ok(shapes::item_list(&added.await?, false))
}

async fn list(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of(CONVERSATION)?;
    let page = visit.page(PageRules::USUAL)?;
    let runtime = &visit.app.runtime;
    let items = runtime.conversation_items(&scope, visit.id(), page).await?;
    ok(shapes::item_list(&items.data, items.has_more))
}

async fn retrieve_item(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of(ITEM)?;
    let runtime = &visit.app.runtime;
    let found = runtime.conversation_item(&scope, visit.owner_id(), visit.id());
    ok(shapes::item(&found.await?))
}

async fn delete_item(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of(ITEM)?;
    let runtime = &visit.app.runtime;
    let left = runtime.delete_conversation_item(&scope, visit.owner_id(), visit.id());
    ok(shapes::conversation(&left.await?))
}
