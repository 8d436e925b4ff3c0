//! The gate's place in the stream: between the socket and the HTTP/1 parser.
//!
//! Reading goes through the [`Framer`]; a head reaches the parser only when it is whole and good. A refusal is
//! written here, after the answer before it, and the connection ends. Deadlines of heads, of idle connections
//! and of readers that take nothing are kept here too, since this is where the waiting happens.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::gate::Framer;
use super::limits::EdgeLimits;
use super::reply::Refusal;
use super::service::Exchange;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 8 * 1024;

/// A connection behind the gate.
pub(super) struct GateIo<S> {
    socket: S,
    framer: Framer,
    limits: Arc<EdgeLimits>,
    exchange: Arc<Exchange>,
    /// Bytes from the socket; the first `cleared` of them may go to the parser.
    held: BytesMut,
    cleared: usize,
    /// How much of `held` the framer has seen, so that it is asked only about more.
    seen: usize,
    refusal: Option<Refusing>,
    read_timer: Option<(Pin<Box<Sleep>>, Waiting)>,
    write_timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The first byte of the next request.
    Idle,
    /// The rest of a head.
    Head,
}

/// A refusal on its way out.
struct Refusing {
    out: io::Cursor<Vec<u8>>,
    /// After the last byte the client is listened to for a moment: unread data would reset the connection
    /// under the answer.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> GateIo<S> {
    pub(super) fn new(socket: S, limits: Arc<EdgeLimits>, exchange: Arc<Exchange>) -> Self {
        Self {
            socket,
            framer: Framer::new(),
            limits,
            exchange,
            held: BytesMut::new(),
            cleared: 0,
            seen: 0,
            refusal: None,
            read_timer: None,
            write_timer: None,
            ended: false,
        }
    }

    fn hand_over(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.cleared.min(buffer.remaining());
        buffer.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.cleared -= length;
        self.seen -= length;
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(Refusing {
            out: io::Cursor::new(refusal.http1()),
            linger: None,
        });
    }

    /// Writes the refusal once the answer before it is out, listens a moment, and ends.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.is_answering(cx) {
            return Poll::Pending;
        }
        let Some(refusing) = self.refusal.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        if refusing.linger.is_none() {
            while refusing.out.has_remaining() {
                let written = ready!(Pin::new(&mut self.socket).poll_write(cx, refusing.out.chunk()))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                refusing.out.advance(written);
            }
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            refusing.linger = Some(Box::pin(tokio::time::sleep(self.limits.linger_timeout)));
        }
        let Some(linger) = refusing.linger.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        let mut waste = [0_u8; 1_024];
        loop {
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut waste);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Runs the deadline of what is waited for. Ready when it has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Waiting> {
        if !self.framer.at_head() || self.exchange.is_answering(cx) {
            self.read_timer = None;
            return Poll::Pending;
        }
        let (waiting, timeout) = if self.held.is_empty() {
            (Waiting::Idle, self.limits.keep_alive_idle_timeout)
        } else {
            (Waiting::Head, self.limits.header_timeout)
        };
        match &mut self.read_timer {
            Some((sleep, before)) if *before == waiting => {
                ready!(sleep.as_mut().poll(cx));
                Poll::Ready(waiting)
            }
            timer => {
                let mut sleep = Box::pin(tokio::time::sleep(timeout));
                let passed = sleep.as_mut().poll(cx).is_ready();
                *timer = Some((sleep, waiting));
                if passed { Poll::Ready(waiting) } else { Poll::Pending }
            }
        }
    }

    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let timeout: Duration = self.limits.write_stall_timeout;
        self.write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)))
            .as_mut()
            .poll(cx)
            .is_ready()
    }

    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_timer = None;
            return result;
        }
        if self.stalled(cx) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client takes nothing",
            )));
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for GateIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.cleared > 0 {
                this.read_timer = None;
                this.hand_over(buffer);
                return Poll::Ready(Ok(()));
            }
            if this.refusal.is_some() {
                ready!(this.poll_refusal(cx))?;
                this.ended = true;
                this.refusal = None;
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            // The next request waits until the one before it is answered.
            let held_back = this.framer.at_head() && this.exchange.is_answering(cx);
            if this.held.len() > this.seen && !held_back {
                let advance = this.framer.advance(&this.held, &this.limits);
                this.cleared = advance.cleared;
                this.seen = if this.framer.at_head() && advance.cleared > 0 {
                    // What follows a whole message is looked at when it is its turn.
                    advance.cleared
                } else {
                    this.held.len()
                };
                if let Some(refusal) = advance.refusal {
                    this.held.truncate(this.cleared);
                    this.seen = this.cleared;
                    this.refuse(refusal);
                }
                continue;
            }
            // Behind an answer under way, reading goes on for one buffer only: it shows that the client is
            // still there, and a client that sends more than that has to wait.
            if held_back && this.held.len() >= READ_BYTES {
                return Poll::Pending;
            }
            this.held.reserve(READ_BYTES);
            let read = {
                let mut chunk = [0_u8; READ_BYTES];
                let mut into = ReadBuf::new(&mut chunk);
                match Pin::new(&mut this.socket).poll_read(cx, &mut into) {
                    Poll::Ready(Ok(())) => {
                        this.held.extend_from_slice(into.filled());
                        Some(into.filled().len())
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => None,
                }
            };
            match read {
                Some(0) => {
                    this.ended = true;
                    return Poll::Ready(Ok(()));
                }
                Some(_) => {}
                None => {
                    match ready!(this.poll_deadline(cx)) {
                        Waiting::Idle => this.ended = true,
                        Waiting::Head => this.refuse(Refusal::HEAD_TIMEOUT),
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GateIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.watch_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.watch_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.socket).poll_flush(cx);
        self.watch_write(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
