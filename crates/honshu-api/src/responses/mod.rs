//! Responses, conversations, files and stored chat completions of the OpenAI plane: the routes over the stateful
//! runtime.

mod body;
mod completions;
mod conversations;
mod files;
pub(crate) mod scope;
mod upload;
mod visit;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use honshu_domain::{Dialect, Error, ErrorKind, InferenceRequest, Result};
use honshu_responses::{Answer, Asked, Words};
use honshu_wire::{ResponseHead, conversations as shapes};
use http::StatusCode;

use self::visit::{PageRules, Visit, deletes, gets, ok, posts};
use crate::app::App;
use crate::extract::Parameters;
use crate::{openai, respond, stream};

pub(crate) use self::completions::complete;

/// The routes below each base.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/responses", posts(create).merge(get(websocket::open)))
        .route("/responses/{id}", gets(retrieve).merge(deletes(delete)))
        // Names of other operations, and not ids.
        .route("/responses/compact", posts(compact))
        .route("/responses/input_tokens", posts(count_input))
        .route("/responses/{id}/cancel", posts(cancel))
        .route("/responses/{id}/input_items", gets(input_items))
        .merge(completions::routes())
        .merge(conversations::routes())
        .merge(files::routes())
}

/// A turn as it came in: authenticated, read, parsed.
async fn ask(visit: Visit, operation: &'static str) -> Result<(App, Asked)> {
    let (app, context, request) = visit.into_request();
    let taken = openai::take(&app, &context, request, operation).await?;
    let request = Arc::new(openai::parse(Dialect::Responses, taken.body).await?);
    let asked = Asked {
        call: taken.call,
        scope: taken.scope,
        stream: request.stream,
        request,
    };
    Ok((app, asked))
}

/// One turn, left to right: authenticate, read, parse, run, answer.
async fn create(visit: Visit) -> Result<Response> {
    let (app, asked) = ask(visit, Dialect::Responses.as_str()).await?;
    let request = Arc::clone(&asked.request);
    match app.runtime.respond(asked, None).await? {
        Answer::Direct { run, id } => direct(&app, *run, id, &request).await,
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
        Answer::Queued(body) => ok(body),
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

pub(crate) fn with_ignored(response: Response, ignored: &str) -> Response {
    if ignored.is_empty() {
        response
    } else {
        respond::with_header(response, "honshu-ignored", ignored)
    }
}

async fn compact(visit: Visit) -> Result<Response> {
    let (app, asked) = ask(visit, "responses_compact").await?;
    ok(app.runtime.compact(asked).await?)
}

async fn count_input(visit: Visit) -> Result<Response> {
    let (app, asked) = ask(visit, "responses_input_tokens").await?;
    let count = app.runtime.count_input(asked).await?;
    let body = serde_json::json!({"object": "response.input_tokens", "input_tokens": count});
    respond::json(&body)
}

async fn retrieve(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of("response")?;
    let (runtime, parameters) = (&visit.app.runtime, visit.parameters());
    if flag(&parameters, "stream")? {
        let after = match parameters.get("starting_after")? {
            Some(text) => Some(text.parse().map_err(|_| {
                Error::invalid_at("starting_after", "expected the number of an event")
            })?),
            None => None,
        };
        let replay = runtime.replay(&scope, visit.id(), after).await?;
        return Ok(body::replay(replay));
    }
    ok(runtime.retrieve(&scope, visit.id()).await?)
}

fn flag(parameters: &Parameters, name: &'static str) -> Result<bool> {
    match parameters.get(name)? {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(Error::invalid_at(name, "expected `true` or `false`")),
    }
}

async fn delete(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of("response")?;
    visit.app.runtime.delete(&scope, visit.id()).await?;
    ok(shapes::deleted(visit.id(), "response"))
}

async fn cancel(mut visit: Visit) -> Result<Response> {
    visit.body().await?;
    let scope = visit.scope_of("response")?;
    ok(visit.app.runtime.cancel(&scope, visit.id()).await?)
}

async fn input_items(visit: Visit) -> Result<Response> {
    let scope = visit.scope_of("response")?;
    let page = visit.page(PageRules::USUAL)?;
    let items = visit.app.runtime.input_items(&scope, visit.id(), page);
    ok(items.await?)
}

/// The error of who may do nothing here.
pub(crate) fn not_allowed() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "Authorization failed or requested resource not found.",
    )
}
