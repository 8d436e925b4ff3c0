//! What can interrupt a run at any await: the subscriber leaves, the server shuts down, a clock runs out.
//!
//! One timer serves all clocks of a run. It is moved when it fires and not at every event, so that a stream of
//! thousands of events costs no timer work.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use honshu_domain::TimeoutKind;
use tokio::time::{Instant, Sleep};

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The subscriber is gone.
    Left,
    /// The server shuts down.
    Shutdown,
    /// The limit of the present phase has passed.
    Phase,
    /// The run's deadline has passed.
    Deadline,
}

impl Interrupt {
    pub(crate) fn timeout(self, phase: TimeoutKind) -> Option<TimeoutKind> {
        match self {
            Self::Phase => Some(phase),
            Self::Deadline => Some(TimeoutKind::Deadline),
            Self::Left | Self::Shutdown => None,
        }
    }
}

type Wake<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

/// The interrupts of one run.
pub(crate) struct Signals<'a> {
    left: Wake<'a>,
    shutdown: Wake<'a>,
    timer: Pin<&'a mut Sleep>,
    has_left: bool,
    deadline: Instant,
    /// The limit of the present phase counts from here.
    phase_began: Instant,
    phase_limit: Duration,
}

impl<'a> Signals<'a> {
    /// `timer` must be set to `deadline` or earlier.
    pub(crate) fn new(
        left: Wake<'a>,
        shutdown: Wake<'a>,
        timer: Pin<&'a mut Sleep>,
        deadline: Instant,
    ) -> Self {
        Self {
            left,
            shutdown,
            timer,
            has_left: false,
            deadline,
            phase_began: deadline,
            phase_limit: Duration::MAX,
        }
    }

    /// Begins a phase: from now on waiting may take `limit`.
    pub(crate) fn begin_phase(&mut self, now: Instant, limit: Duration) {
        self.phase_began = now;
        self.phase_limit = limit;
        let due = self.due();
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
    }

    /// Something happened: the present phase counts from `now` again. Says whether the deadline has passed.
    pub(crate) fn progress(&mut self, now: Instant) -> Result<(), Interrupt> {
        self.phase_began = now;
        if now >= self.deadline {
            Err(Interrupt::Deadline)
        } else {
            Ok(())
        }
    }

    /// When the run must be over.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Ready when something interrupts.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        if self.has_left || self.left.as_mut().poll(cx).is_ready() {
            self.has_left = true;
            return Poll::Ready(Interrupt::Left);
        }
        if self.shutdown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Interrupt::Shutdown);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.deadline {
                return Poll::Ready(Interrupt::Deadline);
            }
            let due = self.due();
            if now >= due {
                return Poll::Ready(Interrupt::Phase);
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Waits until `wait` has passed, or an interrupt.
    pub(crate) async fn sleep(&mut self, wait: Duration) -> Result<(), Interrupt> {
        self.begin_phase(Instant::now(), wait);
        match std::future::poll_fn(|cx| self.poll(cx)).await {
            Interrupt::Phase => Ok(()),
            interrupt => Err(interrupt),
        }
    }

    /// Waits for `future`, or an interrupt. The future is tried first.
    pub(crate) async fn watch<F: Future>(&mut self, future: F) -> Result<F::Output, Interrupt> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll(cx).map(Err)
        })
        .await
    }

    fn due(&self) -> Instant {
        self.phase_began
            .checked_add(self.phase_limit)
            .map_or(self.deadline, |due| due.min(self.deadline))
    }
}

/// `now + duration`, or about thirty years from now if that is beyond what a timer can hold.
pub(crate) fn later(now: Instant, duration: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
    now + duration.min(FAR)
}
