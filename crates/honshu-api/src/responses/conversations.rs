//! `/conversations` and the items in them.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use honshu_domain::{Error, RawJson, Result, Scope};
use honshu_wire::conversations as shapes;
use http::StatusCode;

use super::{PAGE_DEFAULT, PAGE_MAX, page, scope};
use crate::app::App;
use crate::context::Context;
use crate::extract::{Id, Parameters};
use crate::{authn, openai, respond};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/conversations", post(create))
        .route(
            "/conversations/{id}",
            get(retrieve).post(update).delete(delete),
        )
        .route("/conversations/{id}/items", get(list).post(add))
        .route(
            "/conversations/{id}/items/{item}",
            get(retrieve_item).delete(delete_item),
        )
}

/// The scope and the body of a request that changes something.
async fn read(
    app: &App,
    context: &Context,
    request: Request,
    denied: impl FnOnce() -> Error,
) -> Result<(Scope, Bytes)> {
    let (parts, body) = request.into_parts();
    let caller = authn::data_plane(app, context, &parts)?;
    openai::json_content_type(&parts.headers)?;
    let body = crate::body::read(body, caller.body_rule.as_ref()).await?;
    Ok((scope::allowed(app, context, &parts, denied)?, body))
}

fn missing(id: &str) -> Error {
    scope::not_found("conversation", id)
}

fn ok(body: Bytes) -> Response {
    respond::json_bytes(StatusCode::OK, body)
}

async fn create(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let (scope, body) = read(&app, &context, request, super::not_allowed).await?;
        let parsed = shapes::parse_conversation(&body, false)?;
        let metadata = match parsed.metadata {
            Some(metadata) => metadata,
            None => RawJson::parse("{}").map_err(Error::internal)?,
        };
        let made = app
            .runtime
            .create_conversation(&scope, metadata, &parsed.items)
            .await?;
        Ok(ok(shapes::conversation(&made)))
    };
    respond::finish(&context, result.await)
}

async fn retrieve(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let scope = scope::allowed(&app, &context, &parts, || missing(&id))?;
        let found = app.runtime.conversation(&scope, &id).await?;
        Ok(ok(shapes::conversation(&found)))
    };
    respond::finish(&context, result.await)
}

async fn update(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let (scope, body) = read(&app, &context, request, || missing(&id)).await?;
        let parsed = shapes::parse_conversation(&body, true)?;
        let metadata = parsed
            .metadata
            .ok_or_else(|| Error::invalid_at("metadata", "required and missing"))?;
        let found = app
            .runtime
            .update_conversation(&scope, &id, metadata)
            .await?;
        Ok(ok(shapes::conversation(&found)))
    };
    respond::finish(&context, result.await)
}

async fn delete(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let scope = scope::allowed(&app, &context, &parts, || missing(&id))?;
        app.runtime.delete_conversation(&scope, &id).await?;
        Ok(ok(shapes::deleted(&id, "conversation.deleted")))
    };
    respond::finish(&context, result.await)
}

async fn add(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let (scope, body) = read(&app, &context, request, || missing(&id)).await?;
        let items = shapes::parse_items(&body)?;
        let added = app
            .runtime
            .add_conversation_items(&scope, &id, &items)
            .await?;
        Ok(ok(shapes::item_list(&added, false)))
    };
    respond::finish(&context, result.await)
}

async fn list(
    State(app): State<App>,
    Id(id): Id,
    parameters: Parameters,
    request: Request,
) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let scope = scope::allowed(&app, &context, &parts, || missing(&id))?;
        let page = page(&parameters, PAGE_DEFAULT, PAGE_MAX)?;
        let items = app.runtime.conversation_items(&scope, &id, page).await?;
        Ok(ok(shapes::item_list(&items.data, items.has_more)))
    };
    respond::finish(&context, result.await)
}

type Two = Path<(String, String)>;

async fn retrieve_item(
    State(app): State<App>,
    Path((id, item)): Two,
    request: Request,
) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let denied = || scope::not_found("conversation item", &item);
        let scope = scope::allowed(&app, &context, &parts, denied)?;
        let found = app.runtime.conversation_item(&scope, &id, &item).await?;
        Ok(ok(shapes::item(&found)))
    };
    respond::finish(&context, result.await)
}

async fn delete_item(State(app): State<App>, Path((id, item)): Two, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let denied = || scope::not_found("conversation item", &item);
        let scope = scope::allowed(&app, &context, &parts, denied)?;
        let left = app
            .runtime
            .delete_conversation_item(&scope, &id, &item)
            .await?;
        Ok(ok(shapes::conversation(&left)))
    };
    respond::finish(&context, result.await)
}
