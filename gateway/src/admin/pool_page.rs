//! What `/pool` says of the pods.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use router::TokenizerReport;
use router::bookings::Load;
use router::feed::kv_events::{KvReport, Predictions};
use router::pool::{Endpoint, EngineHints, Record, Role};
use serde::Serialize;
use tokio::time::Instant;

use crate::telemetry::Reading;

/// The pods and what is known of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolPage {
    /// Counts changes of the set.
    pub generation: u64,
    /// How long ago discovery last said that the set is current, in ms; none before the first time.
    pub synced_age_ms: Option<u64>,
    /// Blocks in the approximate index, of what was sent where.
    pub approximate_blocks: usize,
    /// Bytes of it.
    pub approximate_bytes: usize,
    /// Blocks in the exact index, of what pods tell: counted once for each pod that holds it.
    pub exact_blocks: usize,
    /// Bytes of it.
    pub exact_bytes: usize,
    /// Bytes of remembered tokens.
    pub memo_bytes: usize,
    /// Which tokenizers are in force.
    pub tokenizers: Vec<TokenizerRow>,
    /// The pods.
    pub pods: Vec<PodRow>,
}

/// One model's tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenizerRow {
    model: String,
    source: String,
    state: &'static str,
    trouble: Option<String>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodRow {
    pub(super) name: String,
    uid: String,
    pub(super) address: SocketAddr,
    pub(super) role: &'static str,
    /// Where it stands, if that is known.
    topology: Option<String>,
    pub(super) health: &'static str,
    /// Taken out by hand.
    pub(super) cordoned: bool,
    pub(super) record: RecordRow,
    blocks_remembered: usize,
    models: Vec<ModelRow>,
    pub(super) engine: EngineRow,
    pub(super) kv_events: KvRow,
    pub(super) booked: BookedRow,
}

/// What happened to a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RecordRow {
    /// Since when its health is what it is.
    pub(super) since_ms: Option<u64>,
    pub(super) last_failure: Option<FailureRow>,
    failed_requests_in_a_row: u32,
    failed_probes_in_a_row: u32,
    /// Failing, and kept only because `max_ejected_share` of the pods are out.
    kept_by_max_ejected_share: bool,
    /// Negative: it is due since so long.
    next_probe_in_ms: Option<i64>,
    requests: BTreeMap<&'static str, u64>,
}

/// A pod's last failure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FailureRow {
    pub(super) reason: String,
    pub(super) ago_ms: u64,
}

/// One model that a pod lists.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ModelRow {
    id: String,
    parent: Option<String>,
    max_model_len: Option<u32>,
}

/// What the engine's metrics last said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct EngineRow {
    block_size: Option<u32>,
    num_blocks: Option<u64>,
    pub(super) running: f64,
    pub(super) waiting: f64,
    pub(super) kv_usage: f64,
}

/// What a pod told of its cache, since it appeared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct KvRow {
    pub(super) trust: &'static str,
    doubt: Option<&'static str>,
    /// By their words.
    #[serde(flatten)]
    counts: BTreeMap<&'static str, u64>,
    /// The blocks that it named, by what was done with them.
    blocks: BTreeMap<&'static str, usize>,
    last_sequence: Option<u64>,
    age_ms: Option<u64>,
    /// Answers whose reuse was predicted from them, held against the engine's own counts.
    predictions: PredictionsRow,
}

/// How predictions came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct PredictionsRow {
    equal: u64,
    over: u64,
    overtaken: u64,
    under: u64,
    over_tokens: u64,
}

/// What is booked on a pod, and what was learned of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct BookedRow {
    pub(super) requests: u32,
    pub(super) prefill_tokens: u64,
    recent_tokens: f64,
    prefill_ms_per_token: f64,
}

// === impl PoolPage ===

impl PoolPage {
    /// Shows a reading.
    #[must_use]
    pub fn of(reading: &Reading, now: Instant) -> Self {
        let snapshot = &reading.snapshot;
        let pods = snapshot.endpoints.iter().zip(&reading.loads).zip(&reading.blocks);
        let row = |((endpoint, load), blocks): ((&Arc<Endpoint>, &Load), &usize)| PodRow {
            blocks_remembered: *blocks,
            ..PodRow::of(endpoint, load, now)
        };
        Self {
            generation: snapshot.generation,
            synced_age_ms: snapshot.synced_at.map(|at| ms(now.saturating_duration_since(at))),
            approximate_blocks: reading.approximate_blocks,
            approximate_bytes: reading.approximate_bytes,
            exact_blocks: reading.exact_blocks,
            exact_bytes: reading.exact_bytes,
            memo_bytes: reading.memo.bytes,
            tokenizers: reading.tokenizers.iter().map(TokenizerRow::from).collect(),
            pods: pods.map(row).collect(),
        }
    }
}

// === impl TokenizerRow ===

impl From<&TokenizerReport> for TokenizerRow {
    fn from(report: &TokenizerReport) -> Self {
        let TokenizerReport { model, source, state, trouble } = report.clone();
        Self { model: model.to_string(), source, state, trouble }
    }
}

// === impl PodRow ===

impl PodRow {
    fn of(endpoint: &Endpoint, load: &Load, now: Instant) -> Self {
        let models = endpoint.models.iter().map(|card| ModelRow {
            id: card.id.to_string(),
            parent: card.parent.as_deref().map(str::to_owned),
            max_model_len: card.max_model_len,
        });
        Self {
            name: endpoint.pod.name.to_string(),
            uid: endpoint.pod.uid.to_string(),
            address: endpoint.pod.addr,
            role: match endpoint.pod.role {
                Role::Both => "both",
                Role::Prefill => "prefill",
                Role::Decode => "decode",
            },
            topology: endpoint.pod.topology.as_deref().map(str::to_owned),
            health: endpoint.health.name(),
            cordoned: endpoint.is_cordoned,
            record: RecordRow::of(&endpoint.record, now),
            blocks_remembered: 0,
            models: models.collect(),
            engine: EngineRow::from(&endpoint.engine),
            kv_events: KvRow::from(endpoint.kv_events.report()),
            booked: BookedRow::from(load),
        }
    }
}

// === impl RecordRow ===

impl RecordRow {
    fn of(record: &Record, now: Instant) -> Self {
        let ago = |at: Instant| ms(now.saturating_duration_since(at));
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let until = |at: Instant| signed(ms(at.saturating_duration_since(now))) - signed(ago(at));
        Self {
            since_ms: record.since.map(ago),
            last_failure: record.last_failure.as_ref().map(|failure| FailureRow {
                reason: failure.reason.to_string(),
                ago_ms: ago(failure.at),
            }),
            failed_requests_in_a_row: record.failed_requests,
            failed_probes_in_a_row: record.failed_probes,
            kept_by_max_ejected_share: record.kept_by_share,
            next_probe_in_ms: record.next_probe.map(until),
            requests: record.tally.counts().into(),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// === impl EngineRow ===

impl From<&EngineHints> for EngineRow {
    fn from(hints: &EngineHints) -> Self {
        Self {
            block_size: hints.block_size,
            num_blocks: hints.num_blocks,
            running: hints.running,
            waiting: hints.waiting,
            kv_usage: hints.kv_usage,
        }
    }
}

// === impl KvRow ===

impl From<KvReport> for KvRow {
    fn from(report: KvReport) -> Self {
        let Predictions { equal, over, overtaken, under, over_tokens, .. } = report.predictions;
        Self {
            trust: report.trust.word(),
            doubt: report.trust.doubt(),
            counts: report.counts.iter().map(|(count, value)| (count.word(), value)).collect(),
            blocks: report.blocks.counts().into(),
            last_sequence: report.last_seq,
            age_ms: report.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            predictions: PredictionsRow { equal, over, overtaken, under, over_tokens },
        }
    }
}

// === impl BookedRow ===

impl From<&Load> for BookedRow {
    fn from(load: &Load) -> Self {
        Self {
            requests: load.requests,
            prefill_tokens: load.prefill_tokens,
            recent_tokens: load.recent_tokens,
            prefill_ms_per_token: load.prefill_ms_per_token,
        }
    }
}
