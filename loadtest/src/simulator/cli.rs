//! `loadtest simulate`: pods for hands and for other programs.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{Config, Connector, EngineConfig, Fleet, KvEventsConfig, OnFailure, TransferConfig};

/// Options of `loadtest simulate`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many pods.
    #[arg(long, default_value_t = 1)]
    pub pods: u16,
    /// Address to listen on.
    #[arg(long, default_value_t = Config::default().listen.ip())]
    pub host: IpAddr,
    /// Port of the first pod; the others take the next ones. 0 takes free ports.
    #[arg(long, default_value_t = Config::default().listen.port())]
    pub port: u16,
    /// The base model's served name.
    #[arg(long, default_value_t = Config::default().model)]
    pub model: String,
    /// A served LoRA adapter (repeatable).
    #[arg(long)]
    pub lora: Vec<String>,
    /// Folder with tokenizer.json and a chat template, instead of the embedded small tokenizer.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// Prompt plus output tokens of one request.
    #[arg(long, default_value_t = Config::default().max_model_len)]
    pub max_model_len: usize,
    /// Render prompts to token ids for others (`/v1/chat/completions/render`).
    #[arg(long)]
    pub enable_scale_out: bool,
    /// Tokens per KV block.
    #[arg(long, default_value_t = EngineConfig::default().block_size)]
    pub block_size: usize,
    /// KV blocks per pod.
    #[arg(long, default_value_t = EngineConfig::default().num_blocks)]
    pub num_blocks: usize,
    /// Prompt tokens computed per second.
    #[arg(long, default_value_t = EngineConfig::default().prefill_tokens_per_s)]
    pub prefill_tokens_per_s: f64,
    /// Milliseconds of a decode step.
    #[arg(long, default_value_t = EngineConfig::default().decode_ms)]
    pub decode_ms: f64,
    /// Milliseconds that each decoding sequence adds to a step.
    #[arg(long, default_value_t = EngineConfig::default().decode_ms_per_seq)]
    pub decode_ms_per_seq: f64,
    /// Sequences in one batch.
    #[arg(long, default_value_t = EngineConfig::default().max_num_seqs)]
    pub max_num_seqs: usize,
    /// Tokens computed in one step.
    #[arg(long, default_value_t = EngineConfig::default().max_num_batched_tokens)]
    pub max_num_batched_tokens: usize,
    /// Requests in flight above which new ones get 503. No limit if not given.
    #[arg(long)]
    pub max_num_queued_reqs: Option<usize>,
    /// Publish KV events as vLLM does (`/kv_event_sources` says where).
    #[arg(long, default_value_t = EngineConfig::default().kv_events, action = clap::ArgAction::Set)]
    pub kv_events: bool,
    /// Port of the first pod's KV events; the others take every second one after it. 0 takes free
    /// ports.
    #[arg(long, default_value_t = KvEventsConfig::default().port)]
    pub kv_events_port: u16,
    /// Port of the first pod's replay of KV events; the others likewise. 0 takes free ports.
    #[arg(long, default_value_t = KvEventsConfig::default().replay_port)]
    pub kv_events_replay_port: u16,
    /// Give KV to other pods and take it from them, as a vLLM with this connector does.
    #[arg(long)]
    pub connector: Option<Connector>,
    /// Port of the first pod's side channel; the others take the next ones. 0 takes free ports.
    #[arg(long, default_value_t = TransferConfig::default().port)]
    pub side_channel_port: u16,
    /// Seconds for which a finished prefill's blocks are kept for another pod.
    #[arg(long, default_value_t = TransferConfig::default().lease.as_secs_f64())]
    pub kv_lease_s: f64,
    /// Tokens whose KV is read from another pod per second.
    #[arg(long, default_value_t = TransferConfig::default().tokens_per_s)]
    pub transfer_tokens_per_s: f64,
    /// What a request does whose KV did not come.
    #[arg(long, value_enum, default_value_t = TransferConfig::default().on_failure)]
    pub kv_load_failure_policy: OnFailure,
}

/// Starts the pods, prints one URL a line, and serves until Ctrl-C, SIGTERM, or until every pod
/// has died of its `exit` fault.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut fleet = Fleet::start(args.pods, args.config()).await?;
    let mut out = std::io::stdout().lock();
    for pod in fleet.pods() {
        writeln!(out, "http://{}", pod.addr())?;
    }
    out.flush()?;
    drop(out);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminate.recv() => {}
        () = fleet.exited() => {}
    }
    fleet.shutdown().await;
    Ok(())
}

// === impl Args ===

impl Args {
    /// The configuration that these options describe.
    pub fn config(&self) -> Config {
        Config {
            listen: SocketAddr::new(self.host, self.port),
            model: self.model.clone(),
            loras: self.lora.clone(),
            tokenizer_dir: self.tokenizer.clone(),
            max_model_len: self.max_model_len,
            scale_out: self.enable_scale_out,
            kv_events: KvEventsConfig {
                port: self.kv_events_port,
                replay_port: self.kv_events_replay_port,
            },
            transfer: TransferConfig {
                connector: self.connector,
                port: self.side_channel_port,
                lease: Duration::from_secs_f64(self.kv_lease_s),
                tokens_per_s: self.transfer_tokens_per_s,
                on_failure: self.kv_load_failure_policy,
                ..TransferConfig::default()
            },
            engine: EngineConfig {
                block_size: self.block_size,
                num_blocks: self.num_blocks,
                prefill_tokens_per_s: self.prefill_tokens_per_s,
                decode_ms: self.decode_ms,
                decode_ms_per_seq: self.decode_ms_per_seq,
                max_num_seqs: self.max_num_seqs,
                max_num_batched_tokens: self.max_num_batched_tokens,
                max_num_queued_reqs: self.max_num_queued_reqs,
                kv_events: self.kv_events,
            },
        }
    }
}

#[cfg(test)]
mod tests;
