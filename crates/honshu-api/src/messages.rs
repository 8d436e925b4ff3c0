//! The routes of the Anthropic Messages dialect, over the same runs as the others.
//!
//! `anthropic-version` and `anthropic-beta` are taken and decide nothing: there is one form of each answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use honshu_domain::{Dialect, Result};
use honshu_wire::messages;
use http::StatusCode;

use crate::app::{App, post_only};
use crate::context::Context;
use crate::{openai, respond};

/// The routes below each base.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/messages", post_only(create_message))
        .route("/messages/count_tokens", post_only(count_tokens))
}

async fn create_message(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = openai::generate(&app, &context, request, Dialect::Messages).await;
    respond::finish(&context, result)
}

async fn count_tokens(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = count(&app, &context, request).await;
    respond::finish(&context, result)
}

async fn count(app: &App, context: &Context, request: Request) -> Result<Response> {
    let operation = Dialect::Messages.as_str();
    let taken = openai::take(app, context, request, operation).await?;
    let request = openai::parse_with(messages::parse_count_request, taken.body).await?;
    let input_tokens = app
        .gateway(&context.region)?
        .count_input_tokens(taken.call, Arc::new(request))
        .await?;
    Ok(respond::json_bytes(
        StatusCode::OK,
        messages::token_count(input_tokens),
    ))
}
