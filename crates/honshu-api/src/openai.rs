//! The OpenAI-compatible routes: Responses, Chat Completions, models.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use honshu_domain::{
    Dialect, Entropy, Error, ErrorKind, InferenceRequest, PublicId, Resolved, Result, Scope,
    SystemEntropy,
};
use honshu_gateway::{Call, model_not_found};
use honshu_responses::Asked;
use honshu_wire::models::{self, ModelEntry};
use honshu_wire::{
    ResponseHead, chat, completions, embeddings, messages, responses as wire_responses,
};
use http::{StatusCode, header};

use crate::app::App;
use crate::authn;
use crate::body;
use crate::context::Context;
use crate::extract::Id;
use crate::stream;
use crate::{respond, responses};

/// Bodies above this many bytes are parsed beside the async threads, so that a long prompt of one caller
/// does not hold up the frames of another.
const PARSE_INLINE_BYTES_MAX: usize = 512 * 1024;

/// The routes below each base.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .merge(responses::routes())
        .route("/models", get(list_models))
        // Ids may hold slashes, and the official SDKs send them escaped or not.
        .route("/models/{*id}", get(retrieve_model))
}

/// One generation, left to right: authenticate, read, parse, run, answer.
pub(crate) async fn generate(
    app: &App,
    context: &Context,
    request: Request,
    dialect: Dialect,
) -> Result<Response> {
    let Taken { call, scope, body } = take(app, context, request, dialect.as_str()).await?;
    let request = Arc::new(parse(dialect, body).await?);
    if chat::is_stored(&request) {
        let stream = request.stream;
        let asked = Asked {
            call,
            scope,
            request,
            stream,
        };
        return responses::complete(app, asked).await;
    }
    let run = app
        .gateway(&context.region)?
        .generate(call, Arc::clone(&request))
        .await?;
    let head = ResponseHead {
        id: response_id(dialect),
        created: app.clock.now(),
        model: Arc::clone(&run.facts.model.id),
        service_tier: None,
    };
    let ignored = run.facts.ignored.join(", ");
    let response = if request.stream {
        stream::streamed(run, dialect, head, &request, Arc::clone(&app.clock))
    } else {
        stream::whole(run, dialect, head, &request, app.clock.as_ref()).await?
    };
    Ok(responses::with_ignored(response, &ignored))
}

/// A request whose caller is known and whose body is there, before its dialect has a say.
pub(crate) struct Taken {
    /// Who and where.
    pub(crate) call: Call,
    /// Whose what is kept of it will be.
    pub(crate) scope: Scope,
    pub(crate) body: Bytes,
}

/// Authenticates the caller and reads the body: everything before the dialect has a say.
pub(crate) async fn take(
    app: &App,
    context: &Context,
    request: Request,
    operation: &'static str,
) -> Result<Taken> {
    let (parts, body) = request.into_parts();
    let caller = authn::data_plane(app, context, &parts)?;
    json_content_type(&parts.headers)?;
    let compartment = authn::compartment(&parts.headers, &caller.principal)?;
    let scope = responses::scope::of(&parts.headers, context, &compartment);
    // The head holds a buffer of its connection, and the run may last for minutes.
    drop(parts);
    let body = body::read(body, caller.body_rule.as_ref()).await?;
    let call = Call {
        principal: caller.principal,
        region: context.region.clone(),
        compartment,
        request_id: context.request_id.as_str().into(),
        operation,
        timeouts: app.timeouts,
    };
    Ok(Taken { call, scope, body })
}

fn response_id(dialect: Dialect) -> Arc<str> {
    let prefix = match dialect {
        Dialect::Responses => "resp_",
        Dialect::ChatCompletions => "chatcmpl-",
        Dialect::Messages => "msg_",
        Dialect::Completions => "cmpl-",
        // The answer has none.
        Dialect::Embeddings => "embd-",
    };
    PublicId::generate(prefix, &SystemEntropy as &dyn Entropy)
        .as_str()
        .into()
}

pub(crate) fn json_content_type(headers: &http::HeaderMap) -> Result<()> {
    // Absent is taken: curl users forget it, and nothing else is ever meant here.
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    // `curl -d` without a header says form data and sends JSON all the same.
    if essence == "application/json"
        || essence.ends_with("+json")
        || essence == "application/x-www-form-urlencoded"
        || essence == "text/plain"
    {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::UnsupportedMedia,
            format!(
                "the content type `{}` is not taken here; send `application/json`",
                respond::shown(&essence)
            ),
        ))
    }
}

fn parser(dialect: Dialect) -> fn(Bytes) -> Result<InferenceRequest> {
    match dialect {
        Dialect::Responses => wire_responses::parse_request,
        Dialect::ChatCompletions => chat::parse_request,
        Dialect::Messages => messages::parse_request,
        Dialect::Completions => completions::parse_request,
        Dialect::Embeddings => embeddings::parse_request,
    }
}

pub(crate) async fn parse(dialect: Dialect, body: Bytes) -> Result<InferenceRequest> {
    parse_with(parser(dialect), body).await
}

/// Parses a body where its size lets nobody else wait.
pub(crate) async fn parse_with<T: Send + 'static>(
    parser: fn(Bytes) -> Result<T>,
    body: Bytes,
) -> Result<T> {
    if body.len() <= PARSE_INLINE_BYTES_MAX {
        parser(body)
    } else {
        tokio::task::spawn_blocking(move || parser(body))
            .await
            .map_err(Error::internal)?
    }
}

/// 426 lets clients that try WebSocket first go on with POST at once.
pub(crate) async fn websocket_refused(request: Request) -> Response {
    let context = respond::context_of(&request);
    let upgrade = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let error = Error::new(
        ErrorKind::MethodNotAllowed,
        "WebSocket is not available here; use POST",
    );
    let mut response = respond::error(&context, &error);
    if upgrade {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    }
    response
}

async fn list_models(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = callable_models(&app, &context, &parts).map(|models| {
        let body = models::list(models.iter().map(|(name, resolved)| entry(name, resolved)));
        respond::json_bytes(StatusCode::OK, body)
    });
    respond::finish(&context, result)
}

async fn retrieve_model(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = callable_models(&app, &context, &parts).and_then(|models| {
        models
            .iter()
            .find(|(name, _)| **name == *id)
            .map(|(name, resolved)| {
                respond::json_bytes(StatusCode::OK, models::object(entry(name, resolved)))
            })
            .ok_or_else(|| model_not_found(&id))
    });
    respond::finish(&context, result)
}

/// The names that this caller may chat with, in the region it addressed.
fn callable_models(
    app: &App,
    context: &Context,
    parts: &http::request::Parts,
) -> Result<Vec<(Arc<str>, Resolved)>> {
    let caller = authn::data_plane(app, context, parts)?;
    let compartment = authn::compartment(&parts.headers, &caller.principal)?;
    Ok(app
        .catalogue
        .list(&context.region)
        .into_iter()
        .filter(|(_, resolved)| {
            app.control.may_use_model(
                &caller.principal,
                &context.region,
                &compartment,
                &resolved.model.id,
            )
        })
        .collect())
}

fn entry<'a>(name: &'a str, resolved: &'a Resolved) -> ModelEntry<'a> {
    ModelEntry {
        id: name,
        created: resolved.model.created,
        owned_by: &resolved.model.vendor,
    }
}
