//! The pods that exist, as one immutable snapshot that one task publishes.
//!
//! Reading is [`Pool::snapshot`]; what requests saw of a pod goes back by [`Pool::report`]. The
//! registry and the health rules are pure; the task feeds them time and events.

mod handle;
mod health;
mod hooks;
mod record;
mod registry;
mod settings;
mod sources;
mod task;

use std::net::SocketAddr;
use std::sync::Arc;

use kv_index::Slot;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::feed::kv_events::{KvPorts, KvStatus};

pub use handle::{CordonError, Failures, Pool};
pub use health::HealthSettings;
pub use hooks::{Hooks, SlotHook};
pub use record::{LastFailure, Record, Tally};
pub use settings::PoolSettings;
pub use task::{PoolGuard, StartError, start, start_with_events};

pub(crate) use handle::Shared;
pub(crate) use registry::Event;

/// vLLM's block on a GPU, until a pod has told its own.
pub(crate) const DEFAULT_BLOCK_TOKENS: u32 = 16;

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
    /// Where its KV events are, if its annotation says so.
    pub kv_ports: Option<KvPorts>,
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
    /// Tokens computed since its start, prompts and answers, those found in the cache left out
    /// (`vllm:prompt_tokens_total` − `prefix_cache_hits_total` + `generation_tokens_total`).
    pub computed_tokens: f64,
    /// Requests ended since its start (`vllm:request_success_total`).
    pub ended_requests: f64,
    /// When the engine's process began, in seconds since 1970 (`process_start_time_seconds`).
    pub started_s: Option<f64>,
    /// Prompt tokens that it has computed (`vllm:prompt_tokens_total`): less than before means that
    /// it began anew.
    pub prompt_tokens: Option<f64>,
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
    /// Whether somebody has taken it out by hand: it gets no new requests, however well it is.
    pub is_cordoned: bool,
    /// What it serves.
    pub models: Arc<[ModelCard]>,
    /// What its metrics last said.
    pub engine: EngineHints,
    /// What it tells of its cache, and how far that can be believed: shared with the feed, so
    /// always current.
    pub kv_events: Arc<KvStatus>,
    /// What happened to it.
    pub record: Record,
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
    /// Reset, timed out, or a 5xx that says the engine is gone.
    Failed,
    /// Nobody listens there: its process is gone, and with it all that its cache held.
    Refused,
}

// === impl Health ===

impl Health {
    /// The word for it, in metrics, pages and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Ready => "ready",
            Self::Ejected => "ejected",
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether requests may be sent to it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.health == Health::Ready && !self.is_cordoned
    }

    /// Whether it can answer requests: a pod that only prefills cannot.
    #[must_use]
    pub fn can_answer(&self) -> bool {
        self.is_ready() && self.pod.role != Role::Prefill
    }

    /// Whether its `/v1/models` lists this name.
    #[must_use]
    pub fn serves(&self, model: &str) -> bool {
        self.models.iter().any(|card| &*card.id == model)
    }
}

// === impl EngineHints ===

impl EngineHints {
    /// Whether the engine that says this is not the one that said `before`: its process has begun
    /// anew, and its cache is empty.
    #[must_use]
    pub fn has_restarted_since(&self, before: &Self) -> bool {
        /// Clocks are read anew by each process; a restart takes seconds.
        const SAME_S: f64 = 0.5;
        let later = |now: f64, then: f64| now - then > SAME_S;
        self.started_s.zip(before.started_s).is_some_and(|(now, then)| later(now, then))
            || self.prompt_tokens.zip(before.prompt_tokens).is_some_and(|(now, then)| now < then)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The pods that may get traffic.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.is_ready())
    }
}
