//! The way from the first signal to the end: say so, keep accepting for a moment, let the running
//! requests finish, go.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::config;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// `/readyz` says 503 and connections are closed after their answer; requests are still taken,
    /// since load balancers need seconds to hear of it.
    Lingering,
    /// New requests are refused; the running ones finish.
    Closing,
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
    /// So many requests were still running when the limit was reached.
    LimitReached(usize),
    /// A second signal came.
    Forced,
}

/// The state of the drain, and the count of running requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Drain(Arc<Shared>);

/// A request that is running, until dropped.
#[derive(Debug)]
pub struct InFlight(Drain);

#[derive(Default)]
struct Shared {
    phase: AtomicU8,
    in_flight: AtomicUsize,
    none_left: Notify,
}

// === impl Drain ===

impl Drain {
    /// How far the end has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::SeqCst) {
            0 => Phase::Serving,
            1 => Phase::Lingering,
            _ => Phase::Closing,
        }
    }

    /// Whether connections should be closed after their answer.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() != Phase::Serving
    }

    /// Whether new requests are refused.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.phase() == Phase::Closing
    }

    /// Counts a request until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(self.clone())
    }

    /// How many requests are running.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }

    /// Waits for the first signal, then drains. `signals` may end; no signal comes after that.
    pub async fn run(
        &self,
        signals: impl Stream<Item = Signal> + Unpin,
        settings: config::Drain,
    ) -> Outcome {
        let mut signals = signals.chain(stream::pending());
        let first = signals.next().await;
        self.0.phase.store(Phase::Lingering as u8, Ordering::SeqCst);
        tracing::info!(signal = ?first, in_flight = self.in_flight(), "draining");
        let outcome = tokio::select! {
            biased;
            _ = signals.next() => Outcome::Forced,
            outcome = self.drain(first == Some(Signal::Terminate), settings) => outcome,
        };
        tracing::info!(?outcome, "drained");
        outcome
    }

    async fn drain(&self, linger: bool, settings: config::Drain) -> Outcome {
        if linger {
            sleep(settings.linger.get()).await;
        }
        self.0.phase.store(Phase::Closing as u8, Ordering::SeqCst);
        match timeout(settings.limit.get(), self.none_left()).await {
            Ok(()) => Outcome::Drained,
            Err(_elapsed) => Outcome::LimitReached(self.in_flight()),
        }
    }

    /// Resolves when no request is running.
    async fn none_left(&self) {
        loop {
            // Listening before looking, so that the last one cannot slip out in between.
            let notified = self.0.none_left.notified();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
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

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        let Self(drain) = self;
        if drain.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && drain.is_draining() {
            drain.0.none_left.notify_waiters();
        }
    }
}

/// The process's own signals.
///
/// # Errors
/// The system takes no handler.
pub fn signals() -> io::Result<impl Stream<Item = Signal> + Unpin + Send> {
    let mut terminate = unix::signal(SignalKind::terminate())?;
    let mut interrupt = unix::signal(SignalKind::interrupt())?;
    Ok(stream::poll_fn(move |context| {
        let terminated = terminate.poll_recv(context).map(|it| it.map(|()| Signal::Terminate));
        if terminated.is_ready() {
            return terminated;
        }
        interrupt.poll_recv(context).map(|it| it.map(|()| Signal::Interrupt))
    }))
}
