//! `/files`: uploaded, listed, read, deleted.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use honshu_domain::{
    Entropy, Error, ErrorKind, Ocid, Principal, PublicId, Result, Scope, StoredFile, SystemEntropy,
};
use honshu_policy::{Authorizer as _, Permission, Target};
use honshu_wire::conversations as shapes;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use super::{not_allowed, page, scope};
use crate::app::App;
use crate::context::Context;
use crate::extract::{Id, Parameters};
use crate::{authn, respond};

/// The purposes that a caller may give. Only content parts read files here; the words for the other endpoints are
/// taken, so that a program need not know that.
const PURPOSES: [&str; 6] = [
    "assistants",
    "batch",
    "fine-tune",
    "vision",
    "user_data",
    "evals",
];

/// The shortest and longest life of a file that goes away by itself (OpenAI API reference).
const EXPIRES_SECONDS: std::ops::RangeInclusive<u64> = 3_600..=2_592_000;

/// Objects in one page of a list (OpenAI API reference).
const PAGE_MAX: u32 = 10_000;

/// The longest name of a file that is kept, in characters.
const FILENAME_CHARS_MAX: usize = 255;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/files", get(list).post(upload))
        .route("/files/{id}", get(retrieve).delete(delete))
        .route("/files/{id}/content", get(content))
}

fn allowed(
    app: &App,
    context: &Context,
    parts: &Parts,
    permission: Permission,
    denied: impl FnOnce() -> Error,
) -> Result<Scope> {
    let caller = authn::data_plane(app, context, parts)?;
    let compartment = authn::compartment(&parts.headers, &caller.principal)?;
    authorize(
        app,
        context,
        &caller.principal,
        &compartment,
        permission,
        denied,
    )?;
    Ok(scope::of(&parts.headers, context, &compartment))
}

fn authorize(
    app: &App,
    context: &Context,
    principal: &Principal,
    compartment: &Ocid,
    permission: Permission,
    denied: impl FnOnce() -> Error,
) -> Result<()> {
    let target = Target::new(compartment.as_str());
    app.control
        .authorizer(&context.region)
        .authorize(principal, permission, &target)
        .map(drop)
        .map_err(|refusal| match refusal.decision_id() {
            Some(id) => denied().with_decision_id(id),
            None => denied(),
        })
}

fn missing(id: &str) -> Error {
    scope::not_found("file", id)
}

async fn upload(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = upload_one(&app, &context, request).await;
    respond::finish(&context, result)
}

async fn upload_one(app: &App, context: &Context, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = authn::data_plane(app, context, &parts)?;
    let compartment = authn::compartment(&parts.headers, &caller.principal)?;
    authorize(
        app,
        context,
        &caller.principal,
        &compartment,
        Permission::GENERATIVE_AI_FILE_CREATE,
        not_allowed,
    )?;
    let scope = scope::of(&parts.headers, context, &compartment);
    let body = crate::body::read(body, caller.body_rule.as_ref()).await?;
    let form = Form::read(Request::from_parts(parts, Body::from(body))).await?;
    let now = app.clock.now();
    let (filename, bytes) = form
        .file
        .ok_or_else(|| Error::invalid_at("file", "required and missing: the file"))?;
    let purpose = form
        .purpose
        .ok_or_else(|| Error::invalid_at("purpose", "required and missing"))?;
    if !PURPOSES.contains(&purpose.as_str()) {
        return Err(Error::invalid_at(
            "purpose",
            format!("expected one of `{}`", PURPOSES.join("`, `")),
        ));
    }
    let expires = match form.expires_seconds {
        None => None,
        Some(text) => Some(
            text.parse()
                .ok()
                .filter(|seconds| EXPIRES_SECONDS.contains(seconds))
                .map(|seconds| now.plus(Duration::from_secs(seconds)))
                .ok_or_else(|| {
                    Error::invalid_at(
                        "expires_after.seconds",
                        "expected a whole number from 3600 to 2592000",
                    )
                })?,
        ),
    };
    let entropy: &dyn Entropy = &SystemEntropy;
    let file = StoredFile {
        id: PublicId::generate("file-", entropy).as_str().into(),
        filename,
        purpose,
        bytes: bytes.len() as u64,
        created: now,
        expires,
    };
    app.runtime
        .files()
        .put_file(&scope, file.clone(), bytes)
        .await?;
    Ok(respond::json_bytes(StatusCode::OK, shapes::file(&file)))
}

/// The fields of an upload.
#[derive(Default)]
struct Form {
    file: Option<(String, Bytes)>,
    purpose: Option<String>,
    expires_seconds: Option<String>,
}

impl Form {
    async fn read(request: Request) -> Result<Self> {
        let mut form = Self::default();
        let mut fields = Multipart::from_request(request, &())
            .await
            .map_err(|error| {
                Error::new(
                    ErrorKind::UnsupportedMedia,
                    "the body must be `multipart/form-data` with the fields `file` and `purpose`",
                )
                .with_cause(error)
            })?;
        let broken = |error: axum::extract::multipart::MultipartError| {
            Error::invalid_at("", "the body is not well-formed multipart").with_cause(error)
        };
        while let Some(field) = fields.next_field().await.map_err(broken)? {
            let name = field.name().unwrap_or_default().to_owned();
            let filename = field.file_name().map(ToOwned::to_owned);
            let value = field.bytes().await.map_err(broken)?;
            let text = || String::from_utf8_lossy(&value).into_owned();
            match name.as_str() {
                "file" => {
                    let filename = filename.unwrap_or_else(|| "upload".to_owned());
                    let filename = filename.chars().take(FILENAME_CHARS_MAX).collect();
                    form.file = Some((filename, value));
                }
                "purpose" => form.purpose = Some(text()),
                "expires_after[seconds]" => form.expires_seconds = Some(text()),
                // The anchor has one value, and what we do not know is no reason to refuse a file.
                _ => {}
            }
        }
        Ok(form)
    }
}

async fn list(State(app): State<App>, parameters: Parameters, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let permission = Permission::GENERATIVE_AI_FILE_INSPECT;
        let scope = allowed(&app, &context, &parts, permission, not_allowed)?;
        let page = page(&parameters, PAGE_MAX, PAGE_MAX)?;
        let purpose = parameters.text("purpose")?;
        let now = app.clock.now();
        let files = app
            .runtime
            .files()
            .files(&scope, purpose, page, now)
            .await?;
        let body = shapes::file_list(&files.data, files.has_more);
        Ok(respond::json_bytes(StatusCode::OK, body))
    };
    respond::finish(&context, result.await)
}

async fn retrieve(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let permission = Permission::GENERATIVE_AI_FILE_READ;
        let scope = allowed(&app, &context, &parts, permission, || missing(&id))?;
        let file = app
            .runtime
            .files()
            .file(&scope, &id, app.clock.now())
            .await?;
        let file = file.ok_or_else(|| missing(&id))?;
        Ok(respond::json_bytes(StatusCode::OK, shapes::file(&file)))
    };
    respond::finish(&context, result.await)
}

async fn content(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let permission = Permission::GENERATIVE_AI_FILE_READ;
        let scope = allowed(&app, &context, &parts, permission, || missing(&id))?;
        let now = app.clock.now();
        let content = app.runtime.files().file_content(&scope, &id, now).await?;
        let mut response = Response::new(Body::from(content.ok_or_else(|| missing(&id))?));
        // Never a type that a browser would run.
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        Ok(response)
    };
    respond::finish(&context, result.await)
}

async fn delete(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = async {
        let permission = Permission::GENERATIVE_AI_FILE_DELETE;
        let scope = allowed(&app, &context, &parts, permission, || missing(&id))?;
        if app.runtime.files().delete_file(&scope, &id).await? {
            let body = shapes::deleted(&id, "file");
            Ok(respond::json_bytes(StatusCode::OK, body))
        } else {
            Err(missing(&id))
        }
    };
    respond::finish(&context, result.await)
}
