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

/// After an error of a Chat stream the connection is broken off, because a clean end would read as success. This is
/// the time its last bytes get to leave first.
const BREAK_AFTER: Duration = Duration::from_millis(20);

/// Dropping the body cancels the run.
pub(crate) fn recorded(recorded: Recorded) -> Response {
    streamed(Source::Recorded(recorded))
}

/// A chat completion that is kept. Dropping the body cancels the run.
pub(crate) fn completion(recorded: Recorded) -> Response {
    streamed(Source::Completion(recorded))
}

/// Dropping the body changes nothing.
pub(crate) fn replay(replay: Replay) -> Response {
    streamed(Source::Replay(Box::new(replay)))
}

enum Source {
    Recorded(Recorded),
    Completion(Recorded),
    Replay(Box<Replay>),
    Breaking,
    Ended,
}

/// What comes next of a stream.
enum Portion {
    More(Bytes),
    Last(Bytes),
    /// The last, after which the connection breaks.
    Broken(Bytes),
}

impl Source {
    /// The next frames. An error breaks the connection: a clean end reads as success.
    async fn next(&mut self) -> io::Result<Portion> {
        match self {
            Self::Recorded(recorded) => match recorded.next().await {
                Some(Words::Frames(frames)) => Ok(Portion::More(frames)),
                Some(Words::End(frames, _)) => Ok(Portion::Last(with_mark(&frames))),
                _ => Err(io::Error::other("the recorder of a response broke")),
            },
            Self::Completion(recorded) => match recorded.next().await {
                Some(Words::Frames(frames)) => Ok(Portion::More(frames)),
                Some(Words::End(frames, _)) => Ok(Portion::Last(frames)),
                Some(Words::Broken(frames)) => Ok(Portion::Broken(frames)),
                _ => Err(io::Error::other("the recorder of a chat completion broke")),
            },
            Self::Replay(replay) => match replay.next().await {
                Ok(Some(frames)) => Ok(Portion::More(frames)),
                Ok(None) => Ok(Portion::Last(with_mark(&Bytes::new()))),
                Err(error) => Err(io::Error::other(error)),
            },
            Self::Breaking => {
                tokio::time::sleep(BREAK_AFTER).await;
                Err(io::Error::other("the run failed"))
            }
            Self::Ended => Ok(Portion::Last(Bytes::new())),
        }
    }
}

fn with_mark(frames: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(frames.len() + sse::DONE.len());
    out.extend_from_slice(frames);
    out.extend_from_slice(sse::DONE);
    out.freeze()
}

fn streamed(source: Source) -> Response {
    let frames = unfold(source, |mut source| async move {
        if matches!(source, Source::Ended) {
            return None;
        }
        let item = match tokio::time::timeout(HEARTBEAT_AFTER, source.next()).await {
            Err(_) => Ok(Bytes::from_static(sse::HEARTBEAT)),
            Ok(Ok(Portion::More(frames))) => Ok(frames),
            Ok(Ok(Portion::Last(frames))) => {
                source = Source::Ended;
                Ok(frames)
            }
            Ok(Ok(Portion::Broken(frames))) => {
                source = Source::Breaking;
                Ok(frames)
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
