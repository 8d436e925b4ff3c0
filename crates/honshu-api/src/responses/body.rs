//! Bodies of streams that a recorder or the store feeds.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream::unfold;
use honshu_responses::{Recorded, Replay, Words};
use honshu_wire::sse;
use http::{HeaderName, HeaderValue, header};

/// A comment is sent after this much silence, so that proxies and clients keep the connection.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(15);

/// Dropping the body cancels the run.
pub(crate) fn recorded(recorded: Recorded) -> Response {
    streamed(Source::Recorded(recorded))
}

/// Dropping the body changes nothing.
pub(crate) fn replay(replay: Replay) -> Response {
    streamed(Source::Replay(Box::new(replay)))
}

enum Source {
    Recorded(Recorded),
    Replay(Box<Replay>),
    Ended,
}

impl Source {
    /// The next frames, and whether they are the last. An error breaks the connection: a clean end reads as success.
    async fn next(&mut self) -> io::Result<(Bytes, bool)> {
        match self {
            Self::Recorded(recorded) => match recorded.next().await {
                Some(Words::Frames(frames)) => Ok((frames, false)),
                Some(Words::End(frames, _)) => Ok((frames, true)),
                Some(Words::Whole(_) | Words::Failed(_)) | None => {
                    Err(io::Error::other("the recorder of a response broke"))
                }
            },
            Self::Replay(replay) => match replay.next().await {
                Ok(Some(frames)) => Ok((frames, false)),
                Ok(None) => Ok((Bytes::new(), true)),
                Err(error) => Err(io::Error::other(error)),
            },
            Self::Ended => Ok((Bytes::new(), true)),
        }
    }
}

fn streamed(source: Source) -> Response {
    let frames = unfold(source, |mut source| async move {
        if matches!(source, Source::Ended) {
            return None;
        }
        let item = match tokio::time::timeout(HEARTBEAT_AFTER, source.next()).await {
            Err(_) => Ok(Bytes::from_static(sse::HEARTBEAT)),
            Ok(Ok((frames, false))) => Ok(frames),
            Ok(Ok((frames, true))) => {
                source = Source::Ended;
                let mut out = BytesMut::with_capacity(frames.len() + sse::DONE.len());
                out.extend_from_slice(&frames);
                out.extend_from_slice(sse::DONE);
                Ok(out.freeze())
            }
            Ok(Err(error)) => {
                source = Source::Ended;
                Err(error)
            }
        };
        Some((item, source))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // Tells nginx not to hold frames back.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}
