//! The metrics of pods, bookings and index, read when they are scraped: there is no second account
//! to keep, and a pod that has gone is gone from the next scrape.
//!
//! The `inference_pool_*` names are those of the Gateway API inference extension's endpoint picker
//! (v0.5), which dashboards made for it ask for.

use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Gauge, GaugeVec, IntCounterVec, Opts};
use router::pool::{Endpoint, Health, Snapshot};
use tokio::time::Instant;

use super::reading::{Reading, Readings};

/// The value of the label `name`: the pool's name in the systems that these dashboards come from.
const POOL_NAME: &str = "llm-d";

/// Collects the metrics of what the router knows.
pub struct RouterCollector {
    readings: Readings,
    families: Families,
}

/// One scrape's worth of families.
struct Families {
    bookings: Gauge,
    index_blocks: Gauge,
    index_bytes: Gauge,
    memo_bytes: Gauge,
    memo_tokens: CounterVec,
    discovery_age: Gauge,
    endpoints: GaugeVec,
    ready_pods: GaugeVec,
    average_queue: GaugeVec,
    average_kv_usage: GaugeVec,
    pod_queue: GaugeVec,
    pod_requests: IntCounterVec,
    pod_health: GaugeVec,
}

// === impl RouterCollector ===

impl RouterCollector {
    /// Collects from these readings.
    ///
    /// # Errors
    /// None in practice: the names are fixed and well formed.
    pub fn new(readings: Readings) -> Result<Self, prometheus::Error> {
        Ok(Self { readings, families: Families::new()? })
    }
}

impl fmt::Debug for RouterCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterCollector").finish_non_exhaustive()
    }
}

impl Collector for RouterCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.families.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Fresh families: two scrapes at once must not see each other half filled.
        let families = Families::new().expect("the same names were well formed before");
        families.fill(&self.readings.take(), Instant::now());
        families.all().into_iter().flat_map(Collector::collect).collect()
    }
}

// === impl Families ===

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        let family =
            |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            bookings: Gauge::new(
                "hearth_bookings",
                "Requests booked on pods; 0 when none is in flight.",
            )?,
            index_blocks: Gauge::new("hearth_kv_index_blocks", "Blocks in the KV index.")?,
            index_bytes: Gauge::new("hearth_kv_index_bytes", "Bytes of the KV index.")?,
            memo_bytes: Gauge::new("hearth_token_memo_bytes", "Bytes of remembered tokens.")?,
            memo_tokens: CounterVec::new(
                Opts::new(
                    "hearth_prompt_tokenized_total",
                    "Prompt tokens by where they came from: found in the memo, or made.",
                ),
                &["from"],
            )?,
            discovery_age: Gauge::new(
                "hearth_discovery_age_seconds",
                "How long ago discovery last said that the set of pods is current; -1 before the \
                 first time.",
            )?,
            endpoints: family(
                "hearth_endpoints",
                "Pods by state: unproven, ready or ejected.",
                &["state"],
            )?,
            ready_pods: family(
                "inference_pool_ready_pods",
                "Pods that may get traffic.",
                &["name"],
            )?,
            average_queue: family(
                "inference_pool_average_queue_size",
                "Requests waiting in an engine, the mean over ready pods.",
                &["name"],
            )?,
            average_kv_usage: family(
                "inference_pool_average_kv_cache_utilization",
                "Share of KV blocks in use, 0 to 1, the mean over ready pods.",
                &["name"],
            )?,
            pod_queue: family(
                "inference_pool_per_pod_queue_size",
                "Requests waiting in the engine of each ready pod.",
                &["name", "model_server_pod"],
            )?,
            pod_requests: IntCounterVec::new(
                Opts::new(
                    "hearth_pod_requests_total",
                    "Attempts at each pod by what came of them: answered, busy or failed.",
                ),
                &["pod", "outcome"],
            )?,
            pod_health: family(
                "hearth_pod_health",
                "1 for the state that each pod is in: unproven, ready or ejected.",
                &["pod", "state"],
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 13] {
        [
            &self.bookings,
            &self.index_blocks,
            &self.index_bytes,
            &self.memo_bytes,
            &self.memo_tokens,
            &self.discovery_age,
            &self.endpoints,
            &self.ready_pods,
            &self.average_queue,
            &self.average_kv_usage,
            &self.pod_queue,
            &self.pod_requests,
            &self.pod_health,
        ]
    }

    fn fill(&self, reading: &Reading, now: Instant) {
        self.bookings.set(as_f64(reading.booked.requests));
        self.index_blocks.set(as_f64(reading.index_blocks));
        self.index_bytes.set(as_f64(reading.index_bytes));
        self.memo_bytes.set(as_f64(reading.memo.bytes));
        for (from, tokens) in
            [("memo", reading.memo.found_tokens), ("tokenizer", reading.memo.made_tokens)]
        {
            self.memo_tokens.with_label_values(&[from]).inc_by(as_f64(tokens));
        }
        self.fill_pods(&reading.snapshot, now);
    }

    fn fill_pods(&self, snapshot: &Snapshot, now: Instant) {
        let age = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        self.discovery_age.set(snapshot.synced_at.map_or(-1.0, age));
        for state in [Health::Unproven, Health::Ready, Health::Ejected] {
            let count = snapshot.endpoints.iter().filter(|it| it.health == state).count();
            self.endpoints.with_label_values(&[state.name()]).set(as_f64(count));
        }
        snapshot.endpoints.iter().for_each(|endpoint| self.fill_pod(endpoint));
        let ready: Vec<_> = snapshot.endpoints.iter().filter(|it| it.is_ready()).collect();
        self.ready_pods.with_label_values(&[POOL_NAME]).set(as_f64(ready.len()));
        let mean = |of: fn(&Endpoint) -> f64| {
            let sum: f64 = ready.iter().map(|it| of(it)).sum();
            if ready.is_empty() { 0.0 } else { sum / as_f64(ready.len()) }
        };
        self.average_queue.with_label_values(&[POOL_NAME]).set(mean(|it| it.engine.waiting));
        self.average_kv_usage.with_label_values(&[POOL_NAME]).set(mean(|it| it.engine.kv_usage));
        for endpoint in &ready {
            let labels = [POOL_NAME, &endpoint.pod.name];
            self.pod_queue.with_label_values(&labels).set(endpoint.engine.waiting);
        }
    }

    /// A pod that has gone is not in the snapshot, and so not in the scrape.
    fn fill_pod(&self, endpoint: &Endpoint) {
        let addr = endpoint.pod.addr.to_string();
        for (outcome, count) in endpoint.record.tally.counts() {
            self.pod_requests.with_label_values(&[addr.as_str(), outcome]).inc_by(count);
        }
        for state in [Health::Unproven, Health::Ready, Health::Ejected] {
            let gauge = self.pod_health.with_label_values(&[addr.as_str(), state.name()]);
            gauge.set(as_f64(u8::from(endpoint.health == state)));
        }
    }
}

/// A count as a gauge's value.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn as_f64(count: impl TryInto<u64>) -> f64 {
    count.try_into().map_or(f64::INFINITY, |count: u64| count as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_age_counts_from_the_last_word_of_discovery() {
        let families = Families::new().expect("well formed");
        let now = Instant::now();
        families.fill_pods(&Snapshot::default(), now);
        assert!(families.discovery_age.get() < 0.0, "never synced");
        let synced = Snapshot { synced_at: Some(now), ..Snapshot::default() };
        families.fill_pods(&synced, now + Duration::from_secs(7));
        assert!((families.discovery_age.get() - 7.0).abs() < 1e-9);
    }
}
