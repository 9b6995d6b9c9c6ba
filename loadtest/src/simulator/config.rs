//! What a simulated pod is like. Every knob has its one default here.

use std::{net::SocketAddr, path::PathBuf};

/// A simulated pod's model, memory and speed.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The base model's served name.
    pub model: String,
    /// Served LoRA adapters: listed by `/v1/models` with the base model as parent.
    pub loras: Vec<String>,
    /// Folder with `tokenizer.json` and a chat template; none means the embedded small one.
    pub tokenizer_dir: Option<PathBuf>,
    /// Prompt plus output tokens of one request. Never more than the cache holds.
    pub max_model_len: usize,
    /// Where KV events are published, if the engine records them.
    pub kv_events: KvEventsConfig,
    /// Memory, batching and speed.
    pub engine: EngineConfig,
}

/// Where a pod publishes its KV events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvEventsConfig {
    /// Port of the publisher; 0 takes a free one.
    pub port: u16,
    /// Port of the replay; 0 takes a free one.
    pub replay_port: u16,
}

/// The part of [`Config`] that the pure engine knows.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Tokens per KV block.
    pub block_size: usize,
    /// KV blocks of the pod, all usable.
    pub num_blocks: usize,
    /// Prompt tokens computed per second.
    pub prefill_tokens_per_s: f64,
    /// Milliseconds of a decode step with nothing in it yet.
    pub decode_ms: f64,
    /// Milliseconds that each decoding sequence adds to a step.
    pub decode_ms_per_seq: f64,
    /// Sequences in one batch (vLLM's `--max-num-seqs`).
    pub max_num_seqs: usize,
    /// Tokens computed in one step (vLLM's `--max-num-batched-tokens`): longer prompts are
    /// prefilled in chunks.
    pub max_num_batched_tokens: usize,
    /// Requests in flight above which new ones get 503 (vLLM's `--max-num-queued-reqs`).
    pub max_num_queued_reqs: Option<usize>,
    /// Whether what happens in the cache is recorded and published.
    pub kv_events: bool,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            model: "meta-llama/Llama-3.2-3B-Instruct".to_owned(),
            loras: Vec::new(),
            tokenizer_dir: None,
            max_model_len: 32_768,
            kv_events: KvEventsConfig::default(),
            engine: EngineConfig::default(),
        }
    }
}

impl Config {
    /// The longest request that fits both the model and the cache, in tokens.
    pub fn context_tokens(&self) -> usize {
        self.max_model_len.min(self.engine.num_blocks * self.engine.block_size)
    }
}

// === impl EngineConfig ===

impl Default for EngineConfig {
    /// A small GPU pod: 131,072 tokens of cache, 193 cold tokens in about 10 ms, 2 ms a token
    /// alone and about 5 ms in a batch of 30.
    fn default() -> Self {
        Self {
            block_size: 16,
            num_blocks: 8_192,
            prefill_tokens_per_s: 20_000.0,
            decode_ms: 2.0,
            decode_ms_per_seq: 0.1,
            max_num_seqs: 256,
            max_num_batched_tokens: 2_048,
            max_num_queued_reqs: None,
            kv_events: true,
        }
    }
}
