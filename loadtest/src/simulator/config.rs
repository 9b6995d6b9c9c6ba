//! What a simulated pod is like. Every knob has its one default here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

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
    /// Whether prompts are rendered for others (vLLM's `--enable-scale-out`).
    pub scale_out: bool,
    /// Where KV events are published, if the engine records them.
    pub kv_events: KvEventsConfig,
    /// How it gives KV to other pods and takes it from them.
    pub transfer: TransferConfig,
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

/// A pod's KV connector (vLLM's `--kv-transfer-config`).
#[derive(Debug, Clone, PartialEq)]
pub struct TransferConfig {
    /// None: transfer parameters are ignored, as by a vLLM without a connector.
    pub connector: Option<Connector>,
    /// Port of the side channel that other pods read from, on the address that the pod listens on;
    /// 0 takes a free one. It is NIXL's side channel, Mooncake's and SGLang's bootstrap server.
    pub port: u16,
    /// How long a finished prefill's blocks are kept (vLLM's `kv_lease_duration`, 30 s).
    pub lease: Duration,
    /// Tokens whose KV is read per second.
    pub tokens_per_s: f64,
    /// After how long an engine that cannot be reached, or has another id, is given up (5 s).
    pub handshake: Duration,
    /// How long a decode leg that was sent beside its prefill waits for it (Mooncake's
    /// `VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT`, 480 s).
    pub patience: Duration,
    /// What a transfer that failed does (vLLM's `kv_load_failure_policy`).
    pub on_failure: OnFailure,
}

/// Whose transfer parameters a pod speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Connector {
    /// `NixlConnector`: the decode leg names the prefill leg's blocks.
    Nixl,
    /// `MooncakeConnector`: both legs carry a transfer id of the gateway.
    Mooncake,
    /// SGLang's bootstrap rooms, as fields of the body.
    Sglang,
    /// `OffloadingConnector` between pods: both legs carry a request id of the gateway.
    Offload,
}

/// What a request does whose KV did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFailure {
    /// It fails, with 500 or an error event: vLLM's default.
    Fail,
    /// It computes its prompt itself.
    Recompute,
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
            scale_out: false,
            kv_events: KvEventsConfig::default(),
            transfer: TransferConfig::default(),
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

// === impl TransferConfig ===

impl Default for TransferConfig {
    /// Without a connector. 500,000 tokens a second are 64 GB/s of a model with 128 KiB a token.
    fn default() -> Self {
        Self {
            connector: None,
            port: 0,
            lease: Duration::from_secs(30),
            tokens_per_s: 500_000.0,
            handshake: Duration::from_secs(5),
            patience: Duration::from_secs(480),
            on_failure: OnFailure::Fail,
        }
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
