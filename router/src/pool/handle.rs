//! The handle through which everyone reads the pool and reports on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use kv_index::Slot;
use tokio::sync::{mpsc, watch};

use super::registry::Event;
use super::{Endpoint, Outcome, Snapshot};
use crate::feed::FeedCounts;

/// Why a pod was not cordoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CordonError {
    /// No pod has this name, uid or address.
    #[error("no such pod")]
    NoSuchPod,
    /// The pool's task has ended.
    #[error("the pool has ended")]
    Ended,
}

/// What went wrong in hearing from pods, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Reports that found the pool's queue full.
    pub dropped_reports: u64,
    /// Probes that failed.
    pub failed_probes: u64,
    /// Reads of engine metrics that failed.
    pub failed_metric_reads: u64,
}

/// The handle through which everyone reads the pool and reports on it.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<Event>,
}

/// What the handle and the pool's tasks have in common.
pub(super) struct Shared {
    current: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    /// Pods with a failure that no answer has cleared yet. While there are none, answers are not
    /// reported at all: at thousands per second each would wake the pool's task to learn nothing.
    pub(super) suspects: AtomicUsize,
    dropped_reports: AtomicU64,
    pub(super) feeds: Arc<FeedCounts>,
}

// === impl Pool ===

impl Pool {
    /// A pool that never changes and ignores reports: for tests and tools without a cluster.
    #[must_use]
    pub fn still(snapshot: Snapshot) -> Self {
        let (events, _) = mpsc::channel(1);
        Self { shared: Arc::new(Shared::new(snapshot)), events }
    }

    /// The current set. Cheap: no lock, no copy.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.shared.current.load()
    }

    /// Tells the pool's task what a request saw. Never waits; a report that finds the queue full
    /// is dropped and counted, since the next one says the same.
    pub fn report(&self, slot: Slot, outcome: Outcome) {
        let reason = if outcome == Outcome::Refused { "connection refused" } else { "failed" };
        self.report_because(slot, outcome, reason);
    }

    /// The same with the reason of a failure, in a word.
    pub fn report_because(&self, slot: Slot, outcome: Outcome, reason: &'static str) {
        if let Some(endpoint) = self.snapshot().endpoints.iter().find(|it| it.slot == slot) {
            endpoint.record.tally.count(outcome);
        }
        let is_quiet = matches!(outcome, Outcome::Answered | Outcome::Busy);
        let news = !is_quiet || self.shared.suspects.load(Ordering::Relaxed) > 0;
        if news && self.events.try_send(Event::Outcome { slot, outcome, reason }).is_err() {
            self.shared.dropped_reports.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The generation of the current snapshot, to wait on.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// Waits until the snapshot satisfies `wanted`, and returns it; none if the pool has ended.
    pub async fn wait_for(
        &self,
        mut wanted: impl FnMut(&Snapshot) -> bool,
    ) -> Option<Arc<Snapshot>> {
        let mut changed = self.changed();
        loop {
            changed.mark_unchanged();
            let snapshot = self.shared.current.load_full();
            if wanted(&snapshot) {
                return Some(snapshot);
            }
            tokio::select! {
                news = changed.changed() => news.ok()?,
                () = self.events.closed() => return None,
            }
        }
    }

    /// Takes a pod out by hand, or puts it back: by its name (all its ports), its uid or its
    /// `ip:port`. Returns when everyone routes by that; what runs there runs on. It lasts as long as
    /// this process knows the pod.
    ///
    /// # Errors
    /// See [`CordonError`].
    pub async fn cordon(&self, pod: &str, is_cordoned: bool) -> Result<Arc<Snapshot>, CordonError> {
        let is_meant = |it: &&Arc<Endpoint>| {
            [&*it.pod.name, &*it.pod.uid].contains(&pod) || it.pod.addr.to_string() == pod
        };
        let meant: Vec<_> =
            self.snapshot().endpoints.iter().filter(is_meant).map(|it| it.slot).collect();
        if meant.is_empty() {
            return Err(CordonError::NoSuchPod);
        }
        for &slot in &meant {
            let event = Event::Cordon { slot, is_cordoned };
            self.events.send(event).await.map_err(|_ended| CordonError::Ended)?;
        }
        let is_done = |snapshot: &Snapshot| {
            let mut pods = snapshot.endpoints.iter().filter(|it| meant.contains(&it.slot));
            pods.all(|it| it.is_cordoned == is_cordoned)
        };
        self.wait_for(is_done).await.ok_or(CordonError::Ended)
    }

    /// What went wrong in hearing from pods so far.
    #[must_use]
    pub fn failures(&self) -> Failures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Failures {
            dropped_reports: read(&self.shared.dropped_reports),
            failed_probes: read(&self.shared.feeds.failed_probes),
            failed_metric_reads: read(&self.shared.feeds.failed_metric_reads),
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self {
            generation: watch::Sender::new(snapshot.generation),
            current: ArcSwap::from_pointee(snapshot),
            suspects: AtomicUsize::new(0),
            dropped_reports: AtomicU64::new(0),
            feeds: Arc::default(),
        }
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        self.feeds.set_pods(snapshot.endpoints.len());
        self.current.store(Arc::new(snapshot));
        self.generation.send_replace(generation);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("current", &self.current).finish_non_exhaustive()
    }
}
