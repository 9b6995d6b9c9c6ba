//! The metrics of the pods, read from the pool's snapshot when they are scraped: a pod that has
//! gone is gone from the next scrape.
//!
//! The `inference_pool_*` names are those of the Gateway API inference extension's endpoint picker
//! (v0.5), which dashboards made for it ask for.

use std::fmt;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, Opts};
use router::pool::{Endpoint, Health, Pool, Snapshot};
use tokio::time::Instant;

/// The value of the label `name`: the pool's name in the systems that these dashboards come from.
const POOL_NAME: &str = "llm-d";

/// Collects the metrics of a pool's pods.
pub struct PoolCollector {
    snapshot: Box<dyn Fn() -> Arc<Snapshot> + Send + Sync>,
    families: Families,
}

/// One scrape's worth of families.
struct Families {
    discovery_age: Gauge,
    endpoints: GaugeVec,
    ready_pods: GaugeVec,
    average_queue: GaugeVec,
    average_kv_usage: GaugeVec,
    pod_queue: GaugeVec,
}

// === impl PoolCollector ===

impl PoolCollector {
    /// Collects from this pool.
    ///
    /// # Errors
    /// None in practice: the names are fixed and well formed.
    pub fn new(pool: Pool) -> Result<Self, prometheus::Error> {
        Self::of(move || Arc::clone(&pool.snapshot()))
    }

    /// Collects from wherever snapshots come from.
    pub(super) fn of(
        snapshot: impl Fn() -> Arc<Snapshot> + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self { snapshot: Box::new(snapshot), families: Families::new()? })
    }
}

impl fmt::Debug for PoolCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolCollector").finish_non_exhaustive()
    }
}

impl Collector for PoolCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.families.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Fresh families: two scrapes at once must not see each other half filled.
        let families = Families::new().expect("the same names were well formed before");
        families.fill(&(self.snapshot)(), Instant::now());
        families.all().into_iter().flat_map(Collector::collect).collect()
    }
}

// === impl Families ===

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        let family =
            |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
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
        })
    }

    fn all(&self) -> [&dyn Collector; 6] {
        [
            &self.discovery_age,
            &self.endpoints,
            &self.ready_pods,
            &self.average_queue,
            &self.average_kv_usage,
            &self.pod_queue,
        ]
    }

    fn fill(&self, snapshot: &Snapshot, now: Instant) {
        let age = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        self.discovery_age.set(snapshot.synced_at.map_or(-1.0, age));
        for (state, label) in
            [(Health::Unproven, "unproven"), (Health::Ready, "ready"), (Health::Ejected, "ejected")]
        {
            let count = snapshot.endpoints.iter().filter(|it| it.health == state).count();
            self.endpoints.with_label_values(&[label]).set(as_f64(count));
        }
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
}

/// A count of pods as a gauge's value.
fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
pub(super) mod tests {
    use kv_index::Slots;
    use router::pool::{EngineHints, Pod, Role};

    use super::*;

    /// Two ready pods, one of them with a queue, and one that is not proven yet.
    pub(in crate::telemetry) fn snapshot() -> Snapshot {
        let mut slots = Slots::default();
        let mut endpoint = |number: u8, health, waiting, kv_usage| {
            let addr = ([10, 0, 0, number], 8000).into();
            Arc::new(Endpoint {
                pod: Pod {
                    uid: format!("uid-{number}").into(),
                    name: format!("pod-{number}").into(),
                    addr,
                    role: Role::Both,
                },
                slot: slots.acquire(),
                health,
                models: Arc::new([]),
                engine: EngineHints { waiting, kv_usage, ..EngineHints::default() },
            })
        };
        let endpoints = vec![
            endpoint(1, Health::Ready, 3.0, 0.5),
            endpoint(2, Health::Ready, 0.0, 0.25),
            endpoint(3, Health::Unproven, 9.0, 1.0),
        ];
        Snapshot { endpoints, ..Snapshot::default() }
    }

    #[test]
    fn the_age_counts_from_the_last_word_of_discovery() {
        let families = Families::new().expect("well formed");
        let now = Instant::now();
        families.fill(&snapshot(), now);
        assert!(families.discovery_age.get() < 0.0, "never synced");
        let synced_at = Some(now);
        let later = now + std::time::Duration::from_secs(7);
        families.fill(&Snapshot { synced_at, ..snapshot() }, later);
        assert!((families.discovery_age.get() - 7.0).abs() < 1e-9);
    }
}
