//! The pods that exist, as one immutable snapshot that one task publishes.
//!
//! Reading is [`Pool::snapshot`]; what requests saw of a pod goes back by [`Pool::report`]. The
//! registry and the health rules are pure; the task feeds them time and events.

mod health;
mod registry;
mod settings;
mod task;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kv_index::Slot;
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use health::HealthSettings;
pub use settings::PoolSettings;
pub use task::{PoolGuard, StartError, start};

pub(crate) use registry::Event;

/// What a pod is for, from its `llm-d.ai/role` label or the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Prefill and decode (`both`, or no label).
    #[default]
    Both,
    /// Only prefill legs go here.
    Prefill,
    /// Decode legs and whole requests go here.
    Decode,
}

/// A pod as discovery sees it. Frozen: anything that changes makes it another pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// The Kubernetes uid, or `static/ip:port`.
    pub uid: Arc<str>,
    /// For people: the pod's name, or `ip:port`.
    pub name: Arc<str>,
    /// Where its OpenAI API listens (plain HTTP/1.1).
    pub addr: SocketAddr,
    /// What it is for.
    pub role: Role,
}

/// One entry of a pod's own `/v1/models`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// The name that requests use.
    pub id: Arc<str>,
    /// The base model's name, for a LoRA adapter.
    pub parent: Option<Arc<str>>,
    /// Longest prompt plus answer in tokens; adapters say none and mean their parent's.
    pub max_model_len: Option<u32>,
    /// The card as the pod wrote it: one JSON object.
    pub raw: Arc<str>,
}

/// What the engine's own metrics last said. Hints, not the truth: they are a second old.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineHints {
    /// Tokens per KV block (`vllm:cache_config_info{block_size}`).
    pub block_size: Option<u32>,
    /// KV blocks in all (`vllm:cache_config_info{num_gpu_blocks}`).
    pub num_blocks: Option<u64>,
    /// Requests running (`vllm:num_requests_running`).
    pub running: f64,
    /// Requests waiting (`vllm:num_requests_waiting`).
    pub waiting: f64,
    /// Share of KV blocks in use by running requests, 0 to 1 (`vllm:kv_cache_usage_perc`).
    pub kv_usage: f64,
    /// When its metrics were read; none before the first time. A pod whose metrics stop answering
    /// keeps its last hints, and they age.
    pub read_at: Option<Instant>,
}

/// Whether a pod may get traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet, or not Ready for Kubernetes: no traffic.
    Unproven,
    /// Probed and not failing.
    Ready,
    /// Failed too often; no traffic until a probe succeeds.
    Ejected,
}

/// A pod with all that is known of it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its identity.
    pub pod: Pod,
    /// Its dense number in the KV index and in the bookings.
    pub slot: Slot,
    /// Whether it may get traffic.
    pub health: Health,
    /// What it serves.
    pub models: Arc<[ModelCard]>,
    /// What its metrics last said.
    pub engine: EngineHints,
}

/// Everything that routing reads, published whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// All known pods, in a stable order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Counts publications.
    pub generation: u64,
    /// When discovery last said that this set is current; none before the first list.
    pub synced_at: Option<Instant>,
    /// A re-list named no pod while known pods answered probes: they are kept, for a while.
    pub kept_because_empty: bool,
    /// Why discovery fails, while it does.
    pub discovery_error: Option<Arc<str>>,
}

/// What a request saw of a pod: passive health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered (any 2xx or 4xx: a client's mistake never blames a pod).
    Answered,
    /// It is busy (429, 503 from the engine): not sick.
    Busy,
    /// Connection refused, reset, timed out, or a 5xx that says the engine is gone.
    Failed,
}

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
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
}

/// What the handle and the pool's tasks have in common.
pub(crate) struct Shared {
    current: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    /// Pods with a failure that no answer has cleared yet. While there are none, answers are not
    /// reported at all: at thousands per second each would wake the pool's task to learn nothing.
    suspects: AtomicUsize,
    dropped_reports: AtomicU64,
    pub(crate) failed_probes: AtomicU64,
    pub(crate) failed_metric_reads: AtomicU64,
    on_removed: RwLock<Vec<RemovedHook>>,
}

type RemovedHook = Arc<dyn Fn(Slot) + Send + Sync>;

// === impl Endpoint ===

impl Endpoint {
    /// Whether requests may be sent to it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.health == Health::Ready
    }

    /// Whether its `/v1/models` lists this name.
    #[must_use]
    pub fn serves(&self, model: &str) -> bool {
        self.models.iter().any(|card| &*card.id == model)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The pods that may get traffic.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.is_ready())
    }
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
        let news = outcome == Outcome::Failed || self.shared.suspects.load(Ordering::Relaxed) > 0;
        if news && self.events.try_send(Event::Outcome { slot, outcome }).is_err() {
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
    fn new(snapshot: Snapshot) -> Self {
        Self {
            generation: watch::Sender::new(snapshot.generation),
            current: ArcSwap::from_pointee(snapshot),
            suspects: AtomicUsize::new(0),
            dropped_reports: AtomicU64::new(0),
            failed_probes: AtomicU64::new(0),
            failed_metric_reads: AtomicU64::new(0),
            on_removed: RwLock::default(),
        }
    }

    fn publish(&self, snapshot: Snapshot) {
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
