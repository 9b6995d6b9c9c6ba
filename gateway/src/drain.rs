//! The way from the first signal to the end: say so, keep accepting for a moment, let the running
//! requests finish, go.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config;

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    #[default]
    Serving,
    /// `/readyz` says 503 and connections are closed after their answer; requests are still taken,
    /// since load balancers need seconds to hear of it.
    Lingering,
    /// New requests are refused and idle connections closed; the running requests finish.
    Closing,
    /// What still runs is told so and ends.
    Cutting,
}

/// A signal that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: the cluster wants the pod back.
    Terminate,
    /// SIGINT: a person at a terminal; no load balancer has to hear of it.
    Interrupt,
}

/// How the drain came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every request has ended.
    Drained,
    /// So many requests were still running when the limit was reached, and were cut.
    LimitReached(usize),
    /// A second signal came, and cut so many requests.
    Forced(usize),
}

/// The state of the drain, and the count of running requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Drain(Arc<Shared>);

/// A request that is running, until dropped.
#[derive(Debug)]
pub struct InFlight {
    _token: TaskTrackerToken,
}

#[derive(Default)]
struct Shared {
    phase: watch::Sender<Phase>,
    lingering: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    in_flight: TaskTracker,
}

/// What requests that are cut get to say so to their clients and to the log.
const LAST_WORDS: Duration = Duration::from_millis(500);

// === impl Drain ===

impl Drain {
    /// How far the end has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Resolves when the end has come so far.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.0.phase.subscribe();
        if phases.wait_for(|now| *now >= phase).await.is_err() {
            // The sender lives as long as `self`.
            std::future::pending::<()>().await;
        }
    }

    /// Turns true when an HTTP/2 connection that begins now should say GOAWAY: at the first signal,
    /// or, if that has come, at the end of the linger, so that the requests it came with are served.
    #[must_use]
    pub fn goaway(&self) -> watch::Receiver<bool> {
        if self.is_draining() { self.0.closing.subscribe() } else { self.0.lingering.subscribe() }
    }

    fn enter_phase(&self, phase: Phase) {
        self.0.phase.send_replace(phase);
        self.0.lingering.send_replace(phase >= Phase::Lingering);
        self.0.closing.send_replace(phase >= Phase::Closing);
    }

    /// Whether connections should be closed after their answer.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() != Phase::Serving
    }

    /// Whether new requests are refused.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.phase() >= Phase::Closing
    }

    /// Counts a request until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        InFlight { _token: self.0.in_flight.token() }
    }

    /// How many requests are running.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.len()
    }

    /// Waits for the first signal, then drains. What still runs at the limit, or at a second signal,
    /// is cut: it gets half a second to say so. `signals` may end; no signal comes after that.
    pub async fn run(
        &self,
        signals: impl Stream<Item = Signal> + Unpin,
        settings: config::Drain,
    ) -> Outcome {
        let mut signals = signals.chain(stream::pending());
        let first = signals.next().await.unwrap_or(Signal::Terminate);
        self.enter_phase(Phase::Lingering);
        // From now on `wait` resolves once none is left; further ones are still counted.
        self.0.in_flight.close();
        tracing::info!(signal = %first, in_flight = self.in_flight(), "draining");
        let outcome = tokio::select! {
            biased;
            _ = signals.next() => Outcome::Forced(self.in_flight()),
            outcome = self.drain(first == Signal::Terminate, settings) => outcome,
        };
        if outcome.cut() > 0 {
            tracing::warn!(%outcome, cut = outcome.cut(), "requests are cut");
            self.enter_phase(Phase::Cutting);
            if timeout(LAST_WORDS, self.0.in_flight.wait()).await.is_err() {
                tracing::warn!(in_flight = self.in_flight(), "requests did not end when cut");
            }
        } else {
            tracing::info!(%outcome, "drained");
        }
        outcome
    }

    async fn drain(&self, linger: bool, settings: config::Drain) -> Outcome {
        if linger {
            sleep(settings.linger.get()).await;
        }
        self.enter_phase(Phase::Closing);
        match timeout(settings.limit.get(), self.0.in_flight.wait()).await {
            Ok(()) => Outcome::Drained,
            Err(_elapsed) => Outcome::LimitReached(self.in_flight()),
        }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("phase", &self.phase())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

// === impl Signal ===

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        })
    }
}

// === impl Outcome ===

impl Outcome {
    /// How many requests were cut.
    #[must_use]
    pub fn cut(self) -> usize {
        match self {
            Self::Drained => 0,
            Self::LimitReached(cut) | Self::Forced(cut) => cut,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drained => "drained",
            Self::LimitReached(_) => "limit_reached",
            Self::Forced(_) => "second_signal",
        })
    }
}

/// The signals that end the process.
///
/// # Errors
/// The system takes no handler.
pub fn signals() -> io::Result<impl Stream<Item = Signal> + Unpin + Send> {
    let mut sources = [
        (unix::signal(SignalKind::terminate())?, Signal::Terminate),
        (unix::signal(SignalKind::interrupt())?, Signal::Interrupt),
    ];
    Ok(stream::poll_fn(move |context| {
        let mut ready = sources
            .iter_mut()
            .filter_map(|(source, signal)| source.poll_recv(context).is_ready().then_some(*signal));
        ready.next().map_or(Poll::Pending, |signal| Poll::Ready(Some(signal)))
    }))
}

/// SIGHUP, again and again: the files are to be read again. It ends nothing.
///
/// # Errors
/// The system takes no handler.
pub fn hangups() -> io::Result<impl Stream<Item = ()> + Unpin + Send> {
    let mut hangups = unix::signal(SignalKind::hangup())?;
    Ok(stream::poll_fn(move |context| hangups.poll_recv(context)))
}
