//! The form of an upload. The file's bytes go to the store as they arrive, so that a large one never lies in memory.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::Stream;
use honshu_domain::{Error, ErrorKind, FileStore, Result, Scope, StoredFile, Timestamp, UploadId};
use http::{HeaderMap, header};

/// The longest name of a file that is kept, in characters.
const FILENAME_CHARS_MAX: usize = 255;

/// Bytes that are handed to the store at once, each in a transaction of its own: short enough for other writers, and
/// as much as an upload keeps in memory.
const PIECE_BYTES: usize = 64 * 1024;

/// The longest value of a field that is not the file, in bytes. Purposes and numbers are shorter.
const VALUE_BYTES_MAX: usize = 1024;

/// Bytes that the parser may take in without giving any out. It keeps all that comes before the first boundary and the
/// whole head of a field, and one read of a connection has up to 64 KiB.
const AHEAD_BYTES_MAX: usize = 128 * 1024;

/// The fields of an upload.
#[derive(Default)]
pub(super) struct Form {
    pub(super) file: Option<(String, Upload)>,
    pub(super) purpose: Option<String>,
    pub(super) expires_seconds: Option<String>,
}

impl Form {
    /// Reads the form to the end of `body`.
    ///
    /// # Errors
    /// `UnsupportedMedia` for another kind of body, `Invalid` for a broken one, and whatever `body` or the store says.
    pub(super) async fn read(
        headers: &HeaderMap,
        body: impl Stream<Item = Result<Bytes>> + Send + 'static,
        files: &Arc<dyn FileStore>,
        now: Timestamp,
    ) -> Result<Self> {
        let mut source = Source::new(body);
        let mut request = Request::new(Body::from_stream(source.clone()));
        if let Some(kind) = headers.get(header::CONTENT_TYPE) {
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, kind.clone());
        }
        // The edge bounds the body.
        DefaultBodyLimit::disable().apply(&mut request);
        let mut fields = Multipart::from_request(request, &())
            .await
            .map_err(|error| {
                Error::new(
                    ErrorKind::UnsupportedMedia,
                    "the body must be `multipart/form-data` with the fields `file` and `purpose`",
                )
                .with_cause(error)
            })?;
        let mut form = Self::default();
        while let Some(field) = source.given(fields.next_field().await)? {
            form.take(field, &source, files, now).await?;
        }
        // A signature covers what stands behind the last boundary too.
        while let Some(rest) = source.next().await {
            rest?;
            source.gave();
        }
        Ok(form)
    }

    async fn take(
        &mut self,
        mut field: Field<'_>,
        source: &Source,
        files: &Arc<dyn FileStore>,
        now: Timestamp,
    ) -> Result<()> {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" => {
                if self.file.is_some() {
                    return Err(Error::invalid_at(
                        "file",
                        "given twice; upload one file at a time",
                    ));
                }
                let filename = field.file_name().unwrap_or("upload");
                let filename = filename.chars().take(FILENAME_CHARS_MAX).collect();
                let mut upload = Upload::begin(files, now).await?;
                while let Some(bytes) = source.given(field.chunk().await)? {
                    upload.take(&bytes).await?;
                }
                self.file = Some((filename, upload));
            }
            "purpose" => self.purpose = Some(value(field, source, &name).await?),
            "expires_after[seconds]" => {
                self.expires_seconds = Some(value(field, source, "expires_after.seconds").await?);
            }
            // The anchor has one value, and what we do not know is no reason to refuse a file.
            _ => while source.given(field.chunk().await)?.is_some() {},
        }
        Ok(())
    }
}

async fn value(mut field: Field<'_>, source: &Source, name: &str) -> Result<String> {
    let mut value = Vec::new();
    while let Some(bytes) = source.given(field.chunk().await)? {
        if value.len() + bytes.len() > VALUE_BYTES_MAX {
            let what = format!("longer than {VALUE_BYTES_MAX} bytes");
            return Err(Error::invalid_at(name, what));
        }
        value.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8_lossy(&value).into_owned())
}

/// A file on its way into the store. Dropped before its end, it is deleted.
pub(super) struct Upload {
    files: Arc<dyn FileStore>,
    id: UploadId,
    bytes: u64,
    waiting: BytesMut,
    has_ended: bool,
}

impl Upload {
    async fn begin(files: &Arc<dyn FileStore>, now: Timestamp) -> Result<Self> {
        Ok(Self {
            files: Arc::clone(files),
            id: files.begin_upload(now).await?,
            bytes: 0,
            waiting: BytesMut::new(),
            has_ended: false,
        })
    }

    /// Bytes that were taken so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
        while self.waiting.len() >= PIECE_BYTES {
            self.put(PIECE_BYTES).await?;
        }
        Ok(())
    }

    async fn put(&mut self, count: usize) -> Result<()> {
        let piece = self.waiting.split_to(count).freeze();
        there(self.files.append_upload(self.id, piece).await?)
    }

    /// Makes it a file.
    pub(super) async fn end(mut self, scope: &Scope, file: StoredFile) -> Result<()> {
        if !self.waiting.is_empty() {
            self.put(self.waiting.len()).await?;
        }
        // From here on the store has its answer, whether we hear of it or not.
        let ending = self.files.end_upload(scope, self.id, file);
        self.has_ended = true;
        there(ending.await?)
    }
}

fn there(is_there: bool) -> Result<()> {
    if is_there {
        Ok(())
    } else {
        Err(Error::internal("the upload was deleted under way"))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.has_ended {
            // The work is handed over by the call; if the store cannot take it, retention will.
            drop(self.files.drop_upload(self.id));
        }
    }
}

/// The body, shared by the parser, which owns what it reads, and by the form, which has to see its end and its errors.
#[derive(Clone)]
struct Source(Arc<Mutex<Arriving>>);

struct Arriving {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    /// Bytes that went into the parser since the last that came out of it.
    ahead: usize,
    has_just_given: bool,
    error: Option<Error>,
}

impl Source {
    fn new(pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Arriving {
            pieces: Box::pin(pieces),
            ahead: 0,
            has_just_given: false,
            error: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Arriving> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gave(&self) {
        self.lock().ahead = 0;
    }

    /// What the parser gave. Where the body failed it, the body's own error.
    fn given<T>(&self, given: std::result::Result<T, MultipartError>) -> Result<T> {
        self.gave();
        given.map_err(|error| {
            self.lock().error.take().unwrap_or_else(|| {
                Error::invalid_at("", "the body is not well-formed multipart").with_cause(error)
            })
        })
    }
}

impl Stream for Source {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut arriving = self.lock();
        // The parser takes in whatever is ready before it gives anything out: it gets one piece at a time.
        if std::mem::take(&mut arriving.has_just_given) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = if arriving.ahead > AHEAD_BYTES_MAX {
            let what = "the body is not well-formed multipart: the boundary or the end of a field's head does not come";
            Poll::Ready(Some(Err(Error::invalid_at("", what))))
        } else {
            arriving.pieces.as_mut().poll_next(cx)
        };
        match &next {
            Poll::Ready(Some(Ok(bytes))) => {
                arriving.ahead += bytes.len();
                arriving.has_just_given = true;
            }
            Poll::Ready(Some(Err(error))) => arriving.error = Some(error.clone()),
            Poll::Ready(None) | Poll::Pending => {}
        }
        next
    }
}
