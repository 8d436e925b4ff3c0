//! The old Completions and embeddings of OpenAI's API, over the same runs as the others.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use honshu_domain::Dialect;

use crate::app::{App, post_only};
use crate::{openai, respond};

/// The routes below each base.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/completions", post_only(create_completion))
        .route("/embeddings", post_only(create_embedding))
}

async fn create_completion(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = openai::generate(&app, &context, request, Dialect::Completions).await;
    respond::finish(&context, result)
}

async fn create_embedding(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = openai::generate(&app, &context, request, Dialect::Embeddings).await;
    respond::finish(&context, result)
}
