//! The pods that exist, as one immutable snapshot that one task publishes.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use kv_index::Slot;
use tokio::time::Instant;

/// What a pod is for, from its `llm-d.ai/role` label or the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
}

/// Whether a pod may get traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet: no traffic.
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

/// The handle through which everyone reads the pool and reports on it.
#[derive(Clone, Debug)]
pub struct Pool {
    current: Arc<ArcSwap<Snapshot>>,
}

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

// === impl Pool ===

impl Pool {
    /// The current set. Cheap: no lock, no copy.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Tells the pool's task what a request saw. Never waits; a report that finds the queue full
    /// is dropped, since the next one says the same.
    pub fn report(&self, _slot: Slot, _outcome: Outcome) {}
}
