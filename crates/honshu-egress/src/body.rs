//! The answer's body, as it arrives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::error::EgressError;
use crate::pool::{Host, Http1, Pool, StreamGuard};

/// A streamed body. Reading it to the end gives the connection back to the pool; dropping it earlier closes the
/// connection (HTTP/1.1) or resets the stream (HTTP/2), which tells the upstream to stop working.
#[derive(Debug)]
#[must_use = "dropping the body cancels the request"]
pub struct EgressBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

#[derive(Debug)]
pub(crate) enum Lease {
    Http1 {
        sender: Http1,
        host: Arc<Host>,
        pool: Arc<Pool>,
    },
    Http2 {
        _stream: StreamGuard,
    },
}

impl EgressBody {
    pub(crate) fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
        };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// [`EgressError::TooLarge`] as soon as more than `bytes_max` bytes are announced or have arrived, otherwise as the
    /// body itself. The connection is closed on every error.
    pub async fn collect_bounded(mut self, bytes_max: u64) -> Result<Bytes, EgressError> {
        let too_large = EgressError::TooLarge { bytes_max };
        if self.incoming.size_hint().lower() > bytes_max {
            return Err(too_large);
        }
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if (first.len() + all.len() + data.len()) as u64 > bytes_max {
                return Err(too_large);
            }
            // Most small answers are one piece, which needs no copy.
            if all.is_empty() && first.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&first);
                first = Bytes::new();
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    fn release(&mut self) {
        if let Some(Lease::Http1 { sender, host, pool }) = self.lease.take() {
            pool.release(&host, sender);
        }
    }
}

impl Body for EgressBody {
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if self.incoming.is_end_stream() {
                    self.release();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.lease = None;
                Some(Err(EgressError::from_hyper(error, true)))
            }
            None => {
                self.release();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
