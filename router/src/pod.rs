//! What a pod is, and what it says of itself: the words that its feeds and the pool have in common.

mod ports;
mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use ports::{KvPorts, PortsError};
pub use traffic::{Traffic, Visit};

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
    /// Where it stands, as a label or the configuration says it: KV blocks are moved faster between
    /// two pods of one place.
    pub topology: Option<Arc<str>>,
    /// Where its KV events are, if its annotation says so.
    pub kv_ports: Option<KvPorts>,
    /// The data-parallel rank that it is of all that answer at its address; none: it is alone there.
    pub rank: Option<u16>,
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
    /// Of which engine they are, of several behind one address; none: of all that there are.
    pub engine: Option<u16>,
    /// When its metrics were read; none before the first time. A pod whose metrics stop answering
    /// keeps its last hints, and they age.
    pub read_at: Option<Instant>,
}

// === impl Pod ===

impl Pod {
    /// One that does everything and of which nothing is known but its name, which is its uid, too.
    #[must_use]
    pub fn plain(name: &str, addr: SocketAddr) -> Self {
        let name: Arc<str> = name.into();
        Self {
            uid: Arc::clone(&name),
            name,
            addr,
            role: Role::Both,
            topology: None,
            kv_ports: None,
            rank: None,
        }
    }

    /// Another rank behind the same address: an engine with a cache of its own.
    #[must_use]
    pub(crate) fn of_rank(&self, rank: u16) -> Self {
        let Self { uid, name, .. } = self;
        Self {
            uid: format!("{uid}/{rank}").into(),
            name: format!("{name}/{rank}").into(),
            rank: Some(rank),
            ..self.clone()
        }
    }

    /// A name or uid of its own without what tells it from the first rank's.
    pub(crate) fn shared<'a>(&self, own: &'a str) -> &'a str {
        let first = own.rsplit_once('/').filter(|_| self.rank.is_some_and(|rank| rank > 0));
        first.map_or(own, |(first, _rank)| first)
    }
}

// === impl EngineHints ===

impl EngineHints {
    /// Whether it says that any request is in it.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.running + self.waiting > 0.0
    }

    /// Whether the engine that says this is not the one that said `before`: its process has begun
    /// anew, and its cache is empty.
    #[must_use]
    pub fn has_restarted_since(&self, before: &Self) -> bool {
        /// Clocks are read anew by each process; a restart takes seconds.
        const SAME_S: f64 = 0.5;
        let later = |now: f64, then: f64| now - then > SAME_S;
        let started = self.started_s.zip(before.started_s);
        let computed = self.prompt_tokens.zip(before.prompt_tokens);
        started.is_some_and(|(now, then)| later(now, then))
            || self.engine == before.engine && computed.is_some_and(|(now, then)| now < then)
    }
}
