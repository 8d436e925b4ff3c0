//! The edge's place in the stream: between the socket and the parsers.
//!
//! For HTTP/1 reading goes through the [`Framer`]: a head reaches the parser only
//! when it is whole and good, and the next one only when the answer to the one
//! before it is out. While an answer is under way reading goes on into a small
//! buffer, so that a client that leaves is noticed also when it sent more than
//! one request. For HTTP/2 a [`FrameMeter`] looks on.
//!
//! Deadlines of heads, of idle connections and of readers that take nothing are
//! kept here too, since this is where the waiting happens.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::exchange::Exchange;
use super::gate::Framer;
use super::limits::EdgeLimits;
use super::meter::FrameMeter;
use super::reply::Refusal;

/// Bytes read at once where the reader behind has no buffer for them.
const READ_BYTES: usize = 4 * 1024;

/// Bytes of following requests that are read while an answer is under way. A
/// client that sends more has to wait.
const HELD_BACK_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a refused client that are read and thrown away after the answer.
const LINGER_BYTES_MAX: usize = 512 * 1024;

/// Why reading failed inside a request body: the framing was refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct FramingError(pub(super) Refusal);

/// A connection behind the edge.
pub(super) struct EdgeIo<S> {
    socket: S,
    limits: Arc<EdgeLimits>,
    exchange: Arc<Exchange>,
    protocol: Protocol,
    /// Bytes from the socket that the parser has not got yet. Empty, and without
    /// memory, except for heads in pieces and for pipelined requests.
    held: Vec<u8>,
    /// How many of them may go to the parser.
    cleared: usize,
    /// The head in `held` is incomplete: asking again needs more bytes.
    wants_more: bool,
    end: Option<End>,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    stall_deadline: Option<Instant>,
    stall_timer: Option<Pin<Box<Sleep>>>,
    closing: Closing,
}

enum Protocol {
    Http1(Framer),
    Http2(FrameMeter),
}

/// How reading ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The parser sees an end of file.
    Clean,
    /// A head was refused: an end of file, and the answer when writing is shut down.
    Refused(Refusal),
    /// A body was refused, whose head had passed: the handler hears it and answers.
    Broken(Refusal),
}

/// Steps of shutting down.
enum Closing {
    NotYet,
    Replying { reply: Vec<u8>, written: usize },
    Flushing,
    ShuttingDown,
    Lingering { until: Pin<Box<Sleep>>, left: usize },
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin> EdgeIo<S> {
    /// A connection that speaks HTTP/1.
    pub(super) fn http1(socket: S, limits: Arc<EdgeLimits>, exchange: Arc<Exchange>) -> Self {
        Self::new(socket, limits, exchange, Protocol::Http1(Framer::new()))
    }

    /// A connection that speaks HTTP/2, from the preface on.
    pub(super) fn http2(
        socket: S,
        limits: Arc<EdgeLimits>,
        exchange: Arc<Exchange>,
        preface_bytes: usize,
    ) -> Self {
        let meter = FrameMeter::new(&limits, preface_bytes);
        Self::new(socket, limits, exchange, Protocol::Http2(meter))
    }

    fn new(
        socket: S,
        limits: Arc<EdgeLimits>,
        exchange: Arc<Exchange>,
        protocol: Protocol,
    ) -> Self {
        // The first head has its own clock from here, also if nothing of it came.
        let deadline = Some(Instant::now() + limits.header_timeout);
        Self {
            socket,
            limits,
            exchange,
            protocol,
            held: Vec::new(),
            cleared: 0,
            wants_more: false,
            end: None,
            deadline,
            timer: None,
            stall_deadline: None,
            stall_timer: None,
            closing: Closing::NotYet,
        }
    }

    fn poll_read_http1(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.cleared > 0 {
                let length = self.cleared.min(out.remaining());
                out.put_slice(&self.held[..length]);
                self.cleared -= length;
                self.release(length);
                return Poll::Ready(Ok(()));
            }
            match self.end {
                None => {}
                Some(End::Clean | End::Refused(_)) => return Poll::Ready(Ok(())),
                Some(End::Broken(refusal)) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        FramingError(refusal),
                    )));
                }
            }
            let Protocol::Http1(framer) = &mut self.protocol else {
                return Poll::Ready(Ok(()));
            };
            let at_head = framer.at_head();
            if at_head && self.exchange.is_answering(cx) {
                return self.poll_watch(cx);
            }
            if !self.held.is_empty() && !self.wants_more {
                self.look_at_held();
                continue;
            }
            if self.held.is_empty() {
                ready!(self.poll_read_through(cx, out, at_head))?;
                if !out.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                ready!(self.poll_more(cx))?;
            }
        }
    }

    /// Waits for a first head that may pass, or for an end. A parser has buffers,
    /// and most connections of an attack never come to need one.
    pub(super) fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.cleared == 0 && self.end.is_none() {
            if self.held.is_empty() || self.wants_more {
                ready!(self.poll_more(cx))?;
            } else {
                self.look_at_held();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether reading ended before any byte could pass.
    pub(super) fn ended_before_it_began(&self) -> bool {
        self.cleared == 0 && self.end.is_some()
    }

    /// Shows the framer what is held.
    fn look_at_held(&mut self) {
        let Protocol::Http1(framer) = &mut self.protocol else {
            return;
        };
        let at_head = framer.at_head();
        let advance = framer.advance(&self.held, &self.limits);
        if let Some(refusal) = advance.refusal {
            self.held.truncate(advance.cleared);
            self.refuse(refusal, advance.cleared, at_head);
        }
        self.cleared = advance.cleared;
        self.wants_more = advance.cleared == 0;
        self.passed(at_head);
    }

    /// Reads more of a head in pieces, under its clock.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_read_held(cx) {
            Poll::Ready(read) => {
                if read? == 0 {
                    self.end = Some(if self.has_begun() {
                        End::Refused(Refusal::bad("the request head is not complete"))
                    } else {
                        End::Clean
                    });
                }
                self.wants_more = false;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.poll_deadline(cx).map(Ok),
        }
    }

    /// The usual case: reads into the parser's own buffer and looks there, so that
    /// nothing is copied. Puts back what may not pass yet.
    fn poll_read_through(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        at_head: bool,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        match Pin::new(&mut self.socket).poll_read(cx, out) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if at_head => return self.poll_deadline(cx).map(Ok),
            Poll::Pending => return Poll::Pending,
        }
        let Protocol::Http1(framer) = &mut self.protocol else {
            return Poll::Ready(Ok(()));
        };
        let input = &out.filled()[before..];
        if input.is_empty() {
            self.end = Some(End::Clean);
            return Poll::Ready(Ok(()));
        }
        let advance = framer.advance(input, &self.limits);
        if let Some(refusal) = advance.refusal {
            self.refuse(refusal, advance.cleared, at_head);
        } else if advance.cleared < input.len() {
            self.held.extend_from_slice(&input[advance.cleared..]);
            self.wants_more = advance.cleared == 0;
            if self.wants_more {
                // These are the first bytes of a head; until now it was idle time.
                self.deadline = self
                    .deadline
                    .map(|deadline| deadline.min(Instant::now() + self.limits.header_timeout))
                    .or_else(|| Some(Instant::now() + self.limits.header_timeout));
            }
        }
        out.set_filled(before + advance.cleared);
        if advance.cleared > 0 {
            self.passed(at_head);
        }
        Poll::Ready(Ok(()))
    }

    /// Notes that bytes passed which began with a head.
    fn passed(&mut self, began_with_head: bool) {
        if began_with_head && !self.wants_more {
            self.deadline = None;
            if self.end.is_none() {
                self.exchange.await_answer();
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal, cleared: usize, began_with_head: bool) {
        self.end = Some(if began_with_head && cleared == 0 {
            End::Refused(refusal)
        } else {
            End::Broken(refusal)
        });
    }

    /// Takes bytes from the front of `held`, and its memory when it is empty.
    fn release(&mut self, length: usize) {
        if length == self.held.len() {
            self.held = Vec::new();
        } else {
            self.held.drain(..length);
        }
    }

    fn poll_read_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0_u8; READ_BYTES];
        let mut chunk = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut chunk))?;
        self.held.extend_from_slice(chunk.filled());
        Poll::Ready(Ok(chunk.filled().len()))
    }

    /// Between two requests, while the first one is answered: reads on a little,
    /// only to see whether the client is still there.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < HELD_BACK_BYTES_MAX {
            if ready!(self.poll_read_held(cx))? == 0 {
                self.end = Some(End::Clean);
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// Runs the clock of a head or of an idle connection. Ready when it ran out,
    /// with the end noted.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = if self.held.is_empty() {
            self.limits.keep_alive_idle_timeout
        } else {
            self.limits.header_timeout
        };
        let deadline = *self
            .deadline
            .get_or_insert_with(|| Instant::now() + timeout);
        ready!(poll_timer(&mut self.timer, deadline, cx));
        self.end = Some(if self.has_begun() {
            End::Refused(Refusal::HEAD_TIMEOUT)
        } else {
            End::Clean
        });
        Poll::Ready(())
    }

    /// Whether anything but the empty lines that may stand between requests has
    /// come of the next head.
    fn has_begun(&self) -> bool {
        !self.held.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    /// Reads what is no HTTP any more: first what the client sent before it heard of the upgrade.
    fn poll_read_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            let length = self.held.len().min(out.remaining());
            out.put_slice(&self.held[..length]);
            self.release(length);
            return Poll::Ready(Ok(()));
        }
        if self.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        if self.exchange.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_read(cx, out)
    }

    fn poll_read_http2(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, out))?;
        if let Protocol::Http2(meter) = &mut self.protocol
            && !meter.advance(&out.filled()[before..])
        {
            tracing::debug!("connection given up: too many control frames");
            return Poll::Ready(Err(io::Error::other("too many control frames")));
        }
        Poll::Ready(Ok(()))
    }

    /// Watches over a write: how long the client has taken nothing.
    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.exchange.set_blocked(result.is_pending());
        if result.is_ready() {
            self.stall_deadline = None;
            return result;
        }
        let timeout = self.limits.write_stall_timeout;
        let deadline = *self
            .stall_deadline
            .get_or_insert_with(|| Instant::now() + timeout);
        if poll_timer(&mut self.stall_timer, deadline, cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client takes nothing",
            )));
        }
        Poll::Pending
    }

    /// Ends the connection: the refusal if there is one, then a moment for a client
    /// that is still sending.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.closing {
                Closing::NotYet => {
                    self.closing = match self.end {
                        Some(End::Refused(refusal)) => Closing::Replying {
                            reply: refusal.http1(),
                            written: 0,
                        },
                        _ => Closing::Flushing,
                    };
                }
                Closing::Replying { reply, written } => {
                    if *written == reply.len() {
                        self.closing = Closing::Flushing;
                        continue;
                    }
                    let result = Pin::new(&mut self.socket).poll_write(cx, &reply[*written..]);
                    let progress = ready!(self.watch_write(cx, result))?;
                    if progress == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    if let Closing::Replying { written, .. } = &mut self.closing {
                        *written += progress;
                    }
                }
                Closing::Flushing => {
                    let result = Pin::new(&mut self.socket).poll_flush(cx);
                    ready!(self.watch_write(cx, result))?;
                    self.closing = Closing::ShuttingDown;
                }
                Closing::ShuttingDown => {
                    let result = Pin::new(&mut self.socket).poll_shutdown(cx);
                    ready!(self.watch_write(cx, result))?;
                    // A client that is still sending would get a reset instead of
                    // our answer if the socket were closed over unread bytes.
                    self.closing = if self.is_mid_message() {
                        Closing::Lingering {
                            until: Box::pin(tokio::time::sleep(self.limits.linger_timeout)),
                            left: LINGER_BYTES_MAX,
                        }
                    } else {
                        Closing::Done
                    };
                }
                Closing::Lingering { until, left } => {
                    let mut bytes = [0_u8; READ_BYTES];
                    let mut chunk = ReadBuf::new(&mut bytes);
                    let is_over = *left == 0 || until.as_mut().poll(cx).is_ready();
                    if is_over {
                        self.closing = Closing::Done;
                        continue;
                    }
                    match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut chunk)) {
                        Ok(()) if !chunk.filled().is_empty() => {
                            *left = left.saturating_sub(chunk.filled().len());
                        }
                        _ => self.closing = Closing::Done,
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    fn is_mid_message(&self) -> bool {
        match (&self.end, &self.protocol) {
            (Some(End::Clean), _) => false,
            (Some(_), _) => true,
            (None, Protocol::Http1(framer)) => !framer.at_head() || !self.held.is_empty(),
            (None, Protocol::Http2(_)) => false,
        }
    }
}

impl<S> Drop for EdgeIo<S> {
    fn drop(&mut self) {
        self.exchange.close();
    }
}

/// Polls a timer that is made once and moved only when it has to fire earlier
/// than it would, because moving it costs more than a wake-up in vain.
fn poll_timer(
    timer: &mut Option<Pin<Box<Sleep>>>,
    deadline: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
    if sleep.deadline() > deadline || sleep.is_elapsed() {
        sleep.as_mut().reset(deadline);
    }
    loop {
        ready!(sleep.as_mut().poll(cx));
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(deadline);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for EdgeIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match self.protocol {
            Protocol::Http1(_) if self.exchange.is_tunnel() => self.poll_read_tunnel(cx, out),
            Protocol::Http1(_) => self.poll_read_http1(cx, out),
            Protocol::Http2(_) => self.poll_read_http2(cx, out),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EdgeIo<S> {
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
        self.poll_close(cx)
    }
}
