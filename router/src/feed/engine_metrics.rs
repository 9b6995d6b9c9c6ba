//! The engine's own metrics, read gently and taken as hints.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_parse::{Scrape, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::kv_events::KvStatus;
use super::{News, Voice, read_body, spaced};
use crate::pod::{EngineHints, Traffic};
use crate::story::story;
use crate::units::HumanDuration;

/// How the engines' `/metrics` are polled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineMetricsSettings {
    /// Whether they are polled at all. Without, blocks are taken to be of 16 tokens and a pod's
    /// capacity is not known.
    pub enabled: bool,
    /// Time between two reads of a pod that works; of more than 50 such pods longer, so that all
    /// pods together are read at most 50 times a second.
    pub interval: HumanDuration,
    /// The same for a pod at which no request is and whose counters have not moved for 5 s; of more
    /// than 100 pods longer. A request that goes there has it read at once.
    pub idle_interval: HumanDuration,
    /// Bound of one read.
    pub timeout: HumanDuration,
}

/// Why a pod's metrics could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("no answer")]
    NoAnswer(#[from] reqwest::Error),
    #[error("/metrics says {0}")]
    Status(StatusCode),
    #[error("/metrics is longer than {METRICS_LIMIT} bytes")]
    TooLong,
    #[error("/metrics is not Prometheus text")]
    NotText(#[from] std::io::Error),
}

/// Reads of all working pods together are so far apart: a read costs about a third of a millisecond, which
/// for 500 pods every second was a sixth of a core.
const SPACING: Duration = Duration::from_millis(20);
/// A pod whose counters have not moved for so long is quiet. The feed of KV events needs two reads
/// after the last token to tell a silent stream from an idle engine.
const CALM: Duration = Duration::from_secs(5);

/// 4 MiB: vLLM 0.32 says 60 KB.
const METRICS_LIMIT: usize = 4 << 20;
const PREFIX: &str = "vllm:";
const RUNNING: &str = "num_requests_running";
const WAITING: &str = "num_requests_waiting";
const KV_USAGE: &str = "kv_cache_usage_perc";
const CACHE_CONFIG: &str = "cache_config_info";
const PROMPT_TOKENS: &str = "prompt_tokens_total";
const GENERATION_TOKENS: &str = "generation_tokens_total";
const CACHE_HITS: &str = "prefix_cache_hits_total";
const ENDED: &str = "request_success_total";
/// Not vLLM's own name: the Prometheus client of its process gives it.
const STARTED: &str = "process_start_time_seconds";
/// The families that are read.
const WANTED: [&str; 9] = [
    RUNNING,
    WAITING,
    KV_USAGE,
    CACHE_CONFIG,
    PROMPT_TOKENS,
    GENERATION_TOKENS,
    CACHE_HITS,
    ENDED,
    STARTED,
];

// === impl EngineMetricsSettings ===

impl Default for EngineMetricsSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: HumanDuration::from_secs(1),
            idle_interval: HumanDuration::from_secs(10),
            timeout: HumanDuration::from_secs(1),
        }
    }
}

/// Reads the pod's metrics until the task is aborted or the pool ends. A failure is counted and
/// lets the hints age; it never blames the pod.
pub(super) async fn run(
    (voice, traffic): (Voice, Arc<Traffic>),
    (status, latest): (Arc<KvStatus>, watch::Sender<EngineHints>),
    client: reqwest::Client,
    settings: Arc<EngineMetricsSettings>,
) {
    let (mut before, mut moved_at) = (EngineHints::default(), Instant::now());
    loop {
        let began = Instant::now();
        // The engines of several ranks are told apart where each rank is a pod of its own.
        let engine = (status.ranks() > 1).then(|| voice.pod.rank.unwrap_or(0));
        match read(&voice, &client, engine).await {
            Ok(mut hints) => {
                if hints != before || hints.has_work() || traffic.is_any() {
                    (before, moved_at) = (hints, began);
                }
                hints.read_at = Some(Instant::now());
                latest.send_replace(hints);
                if voice.tell(News::Metrics { slot: voice.slot, hints }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                moved_at = began;
                Voice::failed(&voice.counts.failed_metric_reads);
                tracing::debug!(pod = %voice.pod.name, addr = %voice.pod.addr, error = story(&error), "metrics not read");
            }
        }
        let is_quiet = began.saturating_duration_since(moved_at) >= CALM;
        let wait = if is_quiet {
            voice.quiet(settings.idle_interval.get().max(settings.interval.get()))
        } else {
            spaced(settings.interval.get(), SPACING, voice.counts.pods())
        };
        tokio::select! {
            // Never zero: that would be a busy loop.
            () = sleep_until(began + wait.max(SPACING)) => {}
            () = traffic.begins(), if is_quiet => {}
        }
    }
}

async fn read(
    voice: &Voice,
    client: &reqwest::Client,
    engine: Option<u16>,
) -> Result<EngineHints, ReadError> {
    let response = client.get(voice.url("/metrics")).send().await?;
    if response.status() != StatusCode::OK {
        return Err(ReadError::Status(response.status()));
    }
    let body = read_body(response, METRICS_LIMIT).await?.ok_or(ReadError::TooLong)?;
    Ok(parse(&String::from_utf8_lossy(&body), engine)?)
}

/// The families we want of vLLM's text, of this engine if it has several. All the engines behind one
/// port are summed (requests) or taken at their fullest (usage); families that are missing stay at zero
/// or none. Of blocks each engine says what all of them have (seen on 0.32 with two ranks).
fn parse(text: &str, engine: Option<u16>) -> Result<EngineHints, std::io::Error> {
    // The parser knows no colon in names, and 560 lines per pod and second are better skipped.
    let ours = text.lines().map(|line| line.strip_prefix(PREFIX).unwrap_or(line)).filter(|line| {
        let name = line.split(['{', ' ']).next();
        name.is_some_and(|name| WANTED.contains(&name))
    });
    let mut hints = EngineHints { engine, ..EngineHints::default() };
    let mut engines = 0;
    for sample in Scrape::parse(ours.map(|line| Ok(line.to_owned())))?.samples {
        let (Value::Untyped(value) | Value::Gauge(value) | Value::Counter(value)) = sample.value
        else {
            continue;
        };
        engines += u64::from(sample.metric == CACHE_CONFIG);
        let label = |name| sample.labels.get(name);
        let is_of = |wanted: u16| label("engine").is_none_or(|it| it.parse() == Ok(wanted));
        if !engine.is_none_or(is_of) {
            continue;
        }
        let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
        match sample.metric.as_str() {
            RUNNING => hints.running += value,
            WAITING => hints.waiting += value,
            PROMPT_TOKENS => {
                hints.computed_tokens += value;
                hints.prompt_tokens = Some(hints.prompt_tokens.unwrap_or(0.0) + value);
            }
            GENERATION_TOKENS => hints.computed_tokens += value,
            CACHE_HITS => hints.computed_tokens -= value,
            ENDED => hints.ended_requests += value,
            STARTED => hints.started_s = Some(hints.started_s.unwrap_or(0.0).max(value)),
            KV_USAGE => hints.kv_usage = hints.kv_usage.max(value),
            _ => {
                let number = |name| label(name).and_then(|text| text.parse::<u64>().ok());
                hints.block_size =
                    number("block_size").and_then(|tokens| u32::try_from(tokens).ok());
                hints.num_blocks = number("num_gpu_blocks").or(hints.num_blocks);
            }
        }
    }
    if engine.is_some() {
        hints.num_blocks = hints.num_blocks.map(|blocks| blocks / engines.max(1));
    }
    Ok(hints)
}
