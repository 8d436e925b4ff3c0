//! `/chat/completions`: made, and those that were asked to be kept listed, read, changed, deleted.

use axum::Router;
use axum::response::Response;
use honshu_domain::{CompletionFilter, Dialect, Error, Result};
use honshu_responses::{Asked, Words};
use honshu_wire::{chat, conversations as shapes};

use super::visit::{PageRules, Visit, deletes, gets, ok, posts};
use crate::app::App;
use crate::openai;

const COMPLETION: &str = "chat completion";

/// Twenty, oldest first (OpenAI API reference).
const PAGE: PageRules = PageRules {
    ascending: true,
    ..PageRules::USUAL
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/chat/completions", posts(create).merge(gets(list)))
        .route(
            "/chat/completions/{id}",
            gets(retrieve).merge(posts(update)).merge(deletes(delete)),
        )
        .route("/chat/completions/{id}/messages", gets(messages))
}

async fn create(visit: Visit) -> Result<Response> {
    let (app, context, request) = visit.into_request();
    openai::generate(&app, &context, request, Dialect::ChatCompletions).await
}

/// Answers a request whose answer is to be kept.
pub(crate) async fn complete(app: &App, asked: Asked) -> Result<Response> {
    let stream = asked.stream;
    let mut recorded = app.runtime.complete(asked).await?;
    let ignored = recorded.ignored.join(", ");
    let response = if stream {
        super::body::completion(recorded)
    } else {
        match recorded.next().await {
            Some(Words::Whole(body)) => ok(body)?,
            Some(Words::Failed(error)) => return Err(error),
            _ => return Err(Error::internal("the recorder of a chat completion broke")),
        }
    };
    Ok(super::with_ignored(response, &ignored))
}

async fn list(visit: Visit) -> Result<Response> {
    let scope = visit.scope(super::not_allowed)?;
    let page = visit.page(PAGE)?;
    let parameters = visit.parameters();
    let filter = CompletionFilter {
        model: parameters.text("model")?,
        metadata: parameters.members("metadata")?,
    };
    let found = visit.app.runtime.completions(&scope, filter, page).await?;
    ok(chat::completion_list(&found))
}

async fn retrieve(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of(COMPLETION)?;
    let found = visit.app.runtime.completion(&scope, visit.id()).await?;
    ok(chat::completion(&found))
}

async fn update(mut visit: Visit) -> Result<Response> {
    let body = visit.json_body().await?;
    let scope = visit.scope_of(COMPLETION)?;
    let metadata = shapes::parse_metadata(&body)?;
    let runtime = &visit.app.runtime;
    let found = runtime.update_completion(&scope, visit.id(), metadata);
    ok(chat::completion(&found.await?))
}

async fn delete(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of(COMPLETION)?;
    visit
        .app
        .runtime
        .delete_completion(&scope, visit.id())
        .await?;
    ok(shapes::deleted(visit.id(), "chat.completion.deleted"))
}

async fn messages(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of(COMPLETION)?;
    let page = visit.page(PAGE)?;
    let runtime = &visit.app.runtime;
    let found = runtime
        .completion_messages(&scope, visit.id(), page)
        .await?;
    ok(shapes::item_list(&found.data, found.has_more))
}
