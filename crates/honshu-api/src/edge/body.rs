//! A request's body under limits of size, silence and rate.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::io::FramingError;
use super::limits::EdgeLimits;
use super::reply::Refusal;

/// Why a body did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeBodyError {
    /// It is larger than it may be.
    #[error("body is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It stopped coming, or came too slowly.
    #[error("body arrived too slowly")]
    TooSlow,
    /// Its framing is wrong.
    #[error("body is malformed: {0}")]
    Malformed(Refusal),
    /// It broke off.
    #[error("body broke off: {0}")]
    Cut(#[source] hyper::Error),
}

impl EdgeBodyError {
    fn from_hyper(error: hyper::Error) -> Self {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = source {
            if let Some(FramingError(refusal)) = cause
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .and_then(|inner| inner.downcast_ref())
            {
                return Self::Malformed(*refusal);
            }
            source = cause.source();
        }
        Self::Cut(error)
    }
}

/// How many bytes a request's body may have. It rides in the request's extensions, for routes that take more than
/// others: the handler knows who asks before it raises it.
#[derive(Debug, Clone)]
pub struct BodyLimit {
    bytes_max: Arc<AtomicU64>,
    upload_bytes_max: u64,
}

impl BodyLimit {
    pub(super) fn new(limits: &EdgeLimits) -> Self {
        Self {
            bytes_max: Arc::new(AtomicU64::new(limits.body_bytes_max)),
            upload_bytes_max: limits.upload_bytes_max,
        }
    }

    /// From now on the body may be as large as an upload.
    pub fn take_upload(&self) {
        self.bytes_max
            .store(self.upload_bytes_max, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }
}

/// The body of a request. An error ends it; the connection is closed after the answer.
#[derive(Debug)]
pub struct EdgeBody {
    inner: Incoming,
    received: u64,
    bytes_max: BodyLimit,
    idle_timeout: Duration,
    rate_min: u64,
    grace: Duration,
    started: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl EdgeBody {
    pub(super) fn new(inner: Incoming, limits: &EdgeLimits, bytes_max: BodyLimit) -> Self {
        Self {
            inner,
            received: 0,
            bytes_max,
            idle_timeout: limits.body_idle_timeout,
            rate_min: limits.body_rate_min.max(1),
            grace: limits.body_grace,
            started: Instant::now(),
            timer: None,
            ended: false,
        }
    }

    /// When the body has to have brought its next bytes: the earlier of silence and mean rate.
    fn deadline(&self) -> Instant {
        let by_rate =
            self.started + self.grace + Duration::from_secs(self.received / self.rate_min);
        by_rate.min(Instant::now() + self.idle_timeout)
    }

    fn fail(&mut self, error: EdgeBodyError) -> Poll<Option<Result<Frame<Bytes>, EdgeBodyError>>> {
        self.ended = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = EdgeBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EdgeBodyError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let limit = this.bytes_max.bytes();
        // An announced length is believed before a byte of it is read.
        if this.received.saturating_add(this.inner.size_hint().lower()) > limit {
            return this.fail(EdgeBodyError::TooLarge { limit });
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.received = this.received.saturating_add(data.len() as u64);
                    if this.received > limit {
                        return this.fail(EdgeBodyError::TooLarge { limit });
                    }
                }
                this.timer = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => this.fail(EdgeBodyError::from_hyper(error)),
            Poll::Ready(None) => {
                this.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let deadline = this.deadline();
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                if timer.as_mut().poll(cx).is_ready() {
                    return this.fail(EdgeBodyError::TooSlow);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
