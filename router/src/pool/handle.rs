//! The handle through which everyone reads the pool and reports on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kv_index::Slot;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use super::registry::Event;
use super::{Health, Outcome, Snapshot};

/// The pool in numbers, for gauges and readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Known pods.
    pub pods: usize,
    /// Pods that may get traffic.
    pub ready: usize,
    /// Pods that failed too often.
    pub ejected: usize,
    /// How long ago discovery last said that the set is current; none before the first list.
    pub synced_age: Option<Duration>,
    /// See [`Snapshot::kept_because_empty`].
    pub kept_because_empty: bool,
    /// Reports that found the pool's queue full.
    pub dropped_reports: u64,
    /// Probes that failed.
    pub failed_probes: u64,
    /// Reads of engine metrics that failed.
    pub failed_metric_reads: u64,
    /// Why discovery fails, while it does.
    pub last_discovery_error: Option<Arc<str>>,
}

/// The handle through which everyone reads the pool and reports on it.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<Event>,
}

/// What the handle and the pool's tasks have in common.
pub(crate) struct Shared {
    current: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    /// Pods with a failure that no answer has cleared yet. While there are none, answers are not
    /// reported at all: at thousands per second each would wake the pool's task to learn nothing.
    pub(super) suspects: AtomicUsize,
    dropped_reports: AtomicU64,
    pub(crate) failed_probes: AtomicU64,
    pub(crate) failed_metric_reads: AtomicU64,
    pub(super) on_removed: RwLock<Vec<SlotHook>>,
    pub(super) on_cache_lost: RwLock<Vec<SlotHook>>,
}

type SlotHook = Arc<dyn Fn(Slot) + Send + Sync>;

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
        let is_failure = matches!(outcome, Outcome::Failed | Outcome::Refused);
        let news = is_failure || self.shared.suspects.load(Ordering::Relaxed) > 0;
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

    /// Calls `hook` for every pod that goes, after the snapshot without it is published and before
    /// its slot is given to another pod. The KV index forgets the pod here. The hook runs on the
    /// pool's task: it must be short.
    pub fn on_removed(&self, hook: impl Fn(Slot) + Send + Sync + 'static) {
        self.shared.on_removed.write().push(Arc::new(hook));
    }

    /// Calls `hook` for every pod that has shown that its process is gone or began anew, so that its
    /// cache is empty. Its slot stays. The hook runs on the pool's task: it must be short.
    pub fn on_cache_lost(&self, hook: impl Fn(Slot) + Send + Sync + 'static) {
        self.shared.on_cache_lost.write().push(Arc::new(hook));
    }

    /// The pool in numbers.
    #[must_use]
    pub fn status(&self) -> Status {
        let snapshot = self.shared.current.load();
        let count = |health| snapshot.endpoints.iter().filter(|e| e.health == health).count();
        Status {
            pods: snapshot.endpoints.len(),
            ready: count(Health::Ready),
            ejected: count(Health::Ejected),
            synced_age: snapshot.synced_at.map(|at| at.elapsed()),
            kept_because_empty: snapshot.kept_because_empty,
            dropped_reports: self.shared.dropped_reports.load(Ordering::Relaxed),
            failed_probes: self.shared.failed_probes.load(Ordering::Relaxed),
            failed_metric_reads: self.shared.failed_metric_reads.load(Ordering::Relaxed),
            last_discovery_error: snapshot.discovery_error.clone(),
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
            failed_probes: AtomicU64::new(0),
            failed_metric_reads: AtomicU64::new(0),
            on_removed: RwLock::default(),
            on_cache_lost: RwLock::default(),
        }
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        self.current.store(Arc::new(snapshot));
        self.generation.send_replace(generation);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("current", &self.current).finish_non_exhaustive()
    }
}
