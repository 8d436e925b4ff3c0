//! Responses and conversations of the OpenAI plane: the routes over the stateful runtime.

mod body;
mod conversations;
mod files;
mod scope;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use honshu_domain::{Dialect, Error, ErrorKind, InferenceRequest, Page, Result};
use honshu_gateway::Call;
use honshu_responses::{Answer, Asked, Words};
use honshu_wire::{ResponseHead, conversations as shapes};
use http::StatusCode;
use http::request::Parts;

use crate::app::{App, post_only};
use crate::context::Context;
use crate::extract::{Id, Parameters};
use crate::{authn, openai, respond, stream};

/// Objects in one page of a list (OpenAI API reference).
const PAGE_DEFAULT: u32 = 20;
const PAGE_MAX: u32 = 100;

/// The routes below each base.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/responses", post_only(create).get(websocket::open))
        .route("/responses/{id}", get(retrieve).delete(delete))
        // Names of other operations, and not ids.
        .route("/responses/compact", post_only(compact))
        .route("/responses/input_tokens", post_only(count_input))
        .route("/responses/{id}/cancel", post_only(cancel))
        .route("/responses/{id}/input_items", get(input_items))
        .merge(conversations::routes())
        .merge(files::routes())
}

async fn create(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = respond_to(&app, &context, request).await;
    respond::finish(&context, result)
}

/// A turn as it came in: authenticated, read, parsed.
async fn ask(
    app: &App,
    context: &Context,
    request: Request,
    operation: &'static str,
) -> Result<Asked> {
    let (parts, body) = request.into_parts();
    let caller = authn::data_plane(app, context, &parts)?;
    openai::json_content_type(&parts.headers)?;
    let compartment = authn::compartment(&parts.headers, &caller.principal)?;
    let scope = scope::of(&parts.headers, context, &compartment);
    // The head holds a buffer of its connection, and the run may last for minutes.
    drop(parts);
    let body = crate::body::read(body, caller.body_rule.as_ref()).await?;
    let request = Arc::new(openai::parse(Dialect::Responses, body).await?);
    Ok(Asked {
        call: Call {
            principal: caller.principal,
            region: context.region.clone(),
            compartment,
            request_id: context.request_id.as_str().into(),
            operation,
            timeouts: app.timeouts,
        },
        scope,
        stream: request.stream,
        request,
    })
}

/// One turn, left to right: authenticate, read, parse, run, answer.
async fn respond_to(app: &App, context: &Context, request: Request) -> Result<Response> {
    let asked = ask(app, context, request, Dialect::Responses.as_str()).await?;
    let request = Arc::clone(&asked.request);
    match app.runtime.respond(asked, None).await? {
        Answer::Direct { run, id } => direct(app, *run, id, &request).await,
        Answer::Recorded(mut recorded) => {
            let ignored = recorded.ignored.join(", ");
            let response = if request.stream {
                body::recorded(recorded)
            } else {
                match recorded.next().await {
                    Some(Words::Whole(body)) => respond::json_bytes(StatusCode::OK, body),
                    Some(Words::Failed(error)) => return Err(error),
                    _ => return Err(Error::internal("the recorder of a response broke")),
                }
            };
            Ok(with_ignored(response, &ignored))
        }
        Answer::Queued(body) => Ok(respond::json_bytes(StatusCode::OK, body)),
        Answer::Replay(replay) => Ok(body::replay(replay)),
    }
}

/// A turn that is kept nowhere.
async fn direct(
    app: &App,
    run: honshu_gateway::Run,
    id: Arc<str>,
    request: &InferenceRequest,
) -> Result<Response> {
    let head = ResponseHead {
        id,
        created: app.clock.now(),
        model: Arc::clone(&run.facts.model.id),
        service_tier: None,
    };
    let ignored = run.facts.ignored.join(", ");
    let response = if request.stream {
        stream::streamed(
            run,
            Dialect::Responses,
            head,
            request,
            Arc::clone(&app.clock),
        )
    } else {
        stream::whole(run, Dialect::Responses, head, request, app.clock.as_ref()).await?
    };
    Ok(with_ignored(response, &ignored))
}

fn with_ignored(response: Response, ignored: &str) -> Response {
    if ignored.is_empty() {
        response
    } else {
        respond::with_header(response, "honshu-ignored", ignored)
    }
}

async fn compact(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let asked = ask(&app, &context, request, "responses_compact").await?;
        let body = app.runtime.compact(asked).await?;
        Ok(respond::json_bytes(StatusCode::OK, body))
    };
    respond::finish(&context, result.await)
}

async fn count_input(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let asked = ask(&app, &context, request, "responses_input_tokens").await?;
        let count = app.runtime.count_input(asked).await?;
        let body = serde_json::json!({"object": "response.input_tokens", "input_tokens": count});
        respond::json(&body)
    };
    respond::finish(&context, result.await)
}

async fn retrieve(
    State(app): State<App>,
    Id(id): Id,
    parameters: Parameters,
    request: Request,
) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = retrieve_one(&app, &context, &parts, &id, &parameters).await;
    respond::finish(&context, result)
}

async fn retrieve_one(
    app: &App,
    context: &Context,
    parts: &Parts,
    id: &str,
    parameters: &Parameters,
) -> Result<Response> {
    let scope = scope::allowed(app, context, parts, || scope::not_found("response", id))?;
    if flag(parameters, "stream")? {
        let after = match parameters.get("starting_after")? {
            Some(text) => Some(text.parse().map_err(|_| {
                Error::invalid_at("starting_after", "expected the number of an event")
            })?),
            None => None,
        };
        return Ok(body::replay(app.runtime.replay(&scope, id, after).await?));
    }
    let body = app.runtime.retrieve(&scope, id).await?;
    Ok(respond::json_bytes(StatusCode::OK, body))
}

fn flag(parameters: &Parameters, name: &'static str) -> Result<bool> {
    match parameters.get(name)? {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(Error::invalid_at(name, "expected `true` or `false`")),
    }
}

async fn delete(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let scope = scope::allowed(&app, &context, &parts, || scope::not_found("response", &id))?;
        app.runtime.delete(&scope, &id).await?;
        let body = shapes::deleted(&id, "response");
        Ok(respond::json_bytes(StatusCode::OK, body))
    };
    respond::finish(&context, result.await)
}

async fn cancel(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, body) = request.into_parts();
    let result = async {
        let caller = authn::data_plane(&app, &context, &parts)?;
        crate::body::read(body, caller.body_rule.as_ref()).await?;
        let scope = scope::allowed(&app, &context, &parts, || scope::not_found("response", &id))?;
        let body = app.runtime.cancel(&scope, &id).await?;
        Ok(respond::json_bytes(StatusCode::OK, body))
    };
    respond::finish(&context, result.await)
}

async fn input_items(
    State(app): State<App>,
    Id(id): Id,
    parameters: Parameters,
    request: Request,
) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let scope = scope::allowed(&app, &context, &parts, || scope::not_found("response", &id))?;
        let page = page(&parameters, PAGE_DEFAULT, PAGE_MAX)?;
        let body = app.runtime.input_items(&scope, &id, page).await?;
        Ok(respond::json_bytes(StatusCode::OK, body))
    };
    respond::finish(&context, result.await)
}

/// `after`, `limit` and `order` of a list.
pub(crate) fn page(parameters: &Parameters, default: u32, max: u32) -> Result<Page> {
    let limit = match parameters.get("limit")? {
        None => default,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=max).contains(limit))
            .ok_or_else(|| {
                Error::invalid_at("limit", format!("expected a whole number from 1 to {max}"))
            })?,
    };
    let ascending = match parameters.get("order")? {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(Error::invalid_at("order", "expected `asc` or `desc`")),
    };
    Ok(Page {
        after: parameters.text("after")?.filter(|after| !after.is_empty()),
        limit,
        ascending,
    })
}

/// The error of who may do nothing here.
pub(crate) fn not_allowed() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "Authorization failed or requested resource not found.",
    )
}
