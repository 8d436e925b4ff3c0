//! `/files`: uploaded, listed, read, deleted.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::response::Response;
use bytes::Bytes;
use honshu_domain::{
    Entropy, Error, ErrorKind, PublicId, Result, Scope, StoredFile, SystemEntropy,
};
use honshu_policy::Permission;
use honshu_wire::conversations as shapes;
use http::{HeaderValue, header};

use super::not_allowed;
use super::visit::{PageRules, Visit, deletes, gets, ok, posts};
use crate::app::App;

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
const PAGE: PageRules = PageRules {
    default: 10_000,
    max: 10_000,
    ascending: false,
};

/// The longest name of a file that is kept, in characters.
const FILENAME_CHARS_MAX: usize = 255;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/files", gets(list).merge(posts(upload)))
        .route("/files/{id}", gets(retrieve).merge(deletes(delete)))
        .route("/files/{id}/content", gets(content))
}

/// The scope of a caller who may do this to the file that is named.
fn allowed(visit: &Visit, permission: Permission) -> Result<Scope> {
    visit.permitted(permission, || visit.missing("file"))
}

async fn upload(mut visit: Visit) -> Result<Response> {
    let scope = visit.permitted(Permission::GENERATIVE_AI_FILE_CREATE, not_allowed)?;
    let body = visit.body().await?;
    let (app, _context, request) = visit.into_request();
    let (parts, _read) = request.into_parts();
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
    ok(shapes::file(&file))
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

async fn list(visit: Visit) -> Result<Response> {
    let scope = visit.permitted(Permission::GENERATIVE_AI_FILE_INSPECT, not_allowed)?;
    let page = visit.page(PAGE)?;
    let purpose = visit.parameters().text("purpose")?;
    let now = visit.app.clock.now();
    let files = visit.app.runtime.files();
    let files = files.files(&scope, purpose, page, now).await?;
    ok(shapes::file_list(&files.data, files.has_more))
}

async fn retrieve(visit: Visit) -> Result<Response> {
    let scope = allowed(&visit, Permission::GENERATIVE_AI_FILE_READ)?;
    let now = visit.app.clock.now();
    let file = visit.app.runtime.files().file(&scope, visit.id(), now);
    let file = file.await?.ok_or_else(|| visit.missing("file"))?;
    ok(shapes::file(&file))
}

async fn content(visit: Visit) -> Result<Response> {
    let scope = allowed(&visit, Permission::GENERATIVE_AI_FILE_CONTENT_READ)?;
    let now = visit.app.clock.now();
    let files = visit.app.runtime.files();
    let content = files.file_content(&scope, visit.id(), now).await?;
    let mut response = Response::new(Body::from(content.ok_or_else(|| visit.missing("file"))?));
    // Never a type that a browser would run.
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

async fn delete(visit: Visit) -> Result<Response> {
    let scope = allowed(&visit, Permission::GENERATIVE_AI_FILE_DELETE)?;
    let files = visit.app.runtime.files();
    if files.delete_file(&scope, visit.id()).await? {
        ok(shapes::deleted(visit.id(), "file"))
    } else {
        Err(visit.missing("file"))
    }
}
