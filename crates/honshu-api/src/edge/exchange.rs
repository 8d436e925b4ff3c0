//! What the two halves of a connection tell each other: the half that reads, in
//! front of the parser, and the half that answers, behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// Whether a connection is answering a request.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// A request was let through to the parser and its answer has not ended.
    is_awaited: AtomicBool,
    /// The socket takes nothing at the moment.
    is_blocked: AtomicBool,
    /// Answers that are being made or sent.
    under_way: AtomicUsize,
    /// Requests since the connection was opened.
    requests: AtomicUsize,
    waker: AtomicWaker,
    /// The connection was upgraded: its bytes are no HTTP any more.
    is_tunnel: AtomicBool,
    /// The tunnel is to end.
    is_cut: AtomicBool,
    cut_waker: AtomicWaker,
    /// The tunnel has ended.
    closed: Notify,
}

impl Exchange {
    /// Whether an answer is under way or still lies in a buffer. If so, `cx` is
    /// woken when that changes.
    pub(super) fn is_answering(&self, cx: &Context<'_>) -> bool {
        let answering =
            || self.is_awaited.load(Ordering::Acquire) || self.is_blocked.load(Ordering::Acquire);
        if !answering() {
            return false;
        }
        self.waker.register(cx.waker());
        answering()
    }

    /// A request goes to the parser.
    pub(super) fn await_answer(&self) {
        self.is_awaited.store(true, Ordering::Release);
    }

    /// Notes whether the socket takes bytes.
    pub(super) fn set_blocked(&self, blocked: bool) {
        if self.is_blocked.load(Ordering::Relaxed) != blocked {
            self.is_blocked.store(blocked, Ordering::Release);
            if !blocked {
                self.waker.wake();
            }
        }
    }

    /// Whether nothing would be lost if the connection ended now.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way() == 0
            && !self.is_awaited.load(Ordering::Acquire)
            && !self.is_blocked.load(Ordering::Acquire)
    }

    /// The connection becomes a tunnel.
    pub(super) fn tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Release);
    }

    /// Whether the connection is a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Acquire)
    }

    /// Whether the tunnel is to end. If not, `cx` is woken when it is.
    pub(super) fn is_cut(&self, cx: &Context<'_>) -> bool {
        self.cut_waker.register(cx.waker());
        self.is_cut.load(Ordering::Acquire)
    }

    /// Ends the tunnel.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.cut_waker.wake();
    }

    /// The connection's socket is gone.
    pub(super) fn close(&self) {
        self.closed.notify_one();
    }

    /// Resolves when the connection's socket is gone.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Answers that are being made or sent.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Requests since the connection was opened.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }
}

/// Counts an answer as under way until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Exchange>);

impl UnderWay {
    pub(super) fn begin(exchange: &Arc<Exchange>) -> Self {
        exchange.under_way.fetch_add(1, Ordering::AcqRel);
        exchange.requests.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(exchange))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.is_awaited.store(false, Ordering::Release);
        self.0.waker.wake();
    }
}
