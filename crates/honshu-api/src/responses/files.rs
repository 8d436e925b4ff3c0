//! `/files`: uploaded, listed, read, deleted.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::stream;
use honshu_domain::{Entropy, Error, PublicId, Result, Scope, StoredFile, SystemEntropy};
use honshu_policy::Permission;
use honshu_wire::conversations as shapes;
use http::{HeaderValue, header};

use super::not_allowed;
use super::upload::Form;
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
    let body = visit.upload()?;
    let now = visit.app.clock.now();
    let files = Arc::clone(visit.app.runtime.files());
    let form = Form::read(&visit.parts.headers, body, &files, now).await?;
    let (filename, upload) = form
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
        bytes: upload.bytes(),
        created: now,
        expires,
    };
    upload.end(&scope, file.clone()).await?;
    ok(shapes::file(&file))
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
    let files = Arc::clone(visit.app.runtime.files());
    let file = files.file(&scope, visit.id(), now).await?;
    let file = file.ok_or_else(|| visit.missing("file"))?;
    let length = file.bytes;
    // Read with the time of the beginning, so that a file which expires meanwhile still arrives whole. One that is
    // deleted meanwhile breaks off before its announced length.
    let pieces = stream::try_unfold((0, 0), move |(piece, sent)| {
        let next = (sent < length).then(|| files.file_piece(&scope, &file.id, piece, now));
        async move {
            let Some(next) = next else {
                return Ok(None);
            };
            let bytes = next
                .await?
                .ok_or_else(|| Error::internal("the file was deleted while it was read"))?;
            let sent = sent + bytes.len() as u64;
            Ok::<_, Error>(Some((bytes, (piece + 1, sent))))
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    // Never a type that a browser would run.
    headers.insert(
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
