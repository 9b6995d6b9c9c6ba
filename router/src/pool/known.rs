//! One pod as the pool knows it: what is published of it, and what lies behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kv_index::Slot;
use tokio::time::Instant;

use super::capacity::Capacity;
use super::health::PodHealth;
use super::standing::Standing;
use super::{Endpoint, EngineHints, Health, HealthSettings, LastFailure, Record};
use crate::discovery::{Sighting, Source};

/// A pod with what the pool knows of it beyond what it publishes.
#[derive(Debug)]
pub(super) struct Known {
    /// Who names it (two InferencePools may select one pod), and whether that was so last time; if
    /// not, it is kept since that list is not believed.
    pub(super) sources: BTreeMap<Source, bool>,
    /// Whether its source lets it have traffic.
    pub(super) serving: bool,
    pub(super) health: PodHealth,
    pub(super) standing: Standing,
    pub(super) capacity: Capacity,
    pub(super) endpoint: Arc<Endpoint>,
}

/// Whoever makes a pod says how long its grace is, up to what no clock can count.
const LONGEST_GRACE: Duration = Duration::from_secs(24 * 3600);

// === impl Known ===

impl Known {
    pub(super) fn new(
        sources: BTreeMap<Source, bool>,
        sighting: &Sighting,
        slot: Slot,
        now: Instant,
    ) -> Self {
        Self {
            sources,
            serving: sighting.serving,
            health: PodHealth::new(),
            standing: Standing::default(),
            capacity: Capacity::default(),
            endpoint: Arc::new(Endpoint {
                pod: sighting.pod.clone(),
                slot,
                health: Health::Unproven,
                is_cordoned: false,
                models: Arc::default(),
                engine: EngineHints::default(),
                kv_events: Arc::default(),
                record: Record { since: Some(now), ..Record::default() },
            }),
        }
    }

    /// Whether the source named it last time.
    pub(super) fn is_named_by(&self, source: Source) -> bool {
        self.sources.get(&source) == Some(&true)
    }

    pub(super) fn health(&self) -> Health {
        if self.serving { self.health.health() } else { Health::Unproven }
    }

    /// Its engine's counters were read.
    pub(super) fn read(&mut self, hints: EngineHints, now: Instant) {
        self.standing.read(now, &hints);
        self.capacity.read(&hints);
        let endpoint = Arc::make_mut(&mut self.endpoint);
        endpoint.engine = hints;
        endpoint.record.idle_since = self.standing.idle_since();
        endpoint.record.capacity = self.capacity.limit();
    }

    /// Notes when it will be gone. Every telling of the same deletion seems to begin anew: the first
    /// counts, unless a later one leaves it less.
    pub(super) fn terminates(&mut self, grace: Option<Duration>, now: Instant) {
        let Some(gone_at) = grace.map(|grace| now + grace.min(LONGEST_GRACE)) else { return };
        let record = &mut Arc::make_mut(&mut self.endpoint).record;
        if record.leaves.is_none_or(|(known, _)| gone_at < known) {
            record.leaves = Some((gone_at, now));
        }
    }

    /// How long it has, if it terminates.
    pub(super) fn grace(&self, now: Instant) -> Option<Duration> {
        let (gone_at, _said_at) = self.endpoint.record.leaves?;
        Some(gone_at.saturating_duration_since(now))
    }

    /// Notes a failure's reason, for people.
    pub(super) fn failed(&mut self, reason: Arc<str>, now: Instant) {
        let record = &mut Arc::make_mut(&mut self.endpoint).record;
        record.last_failure = Some(LastFailure { reason, at: now });
    }

    /// Brings what is published up to date; returns whether that changed anything.
    pub(super) fn settle(&mut self, now: Instant, settings: &HealthSettings) -> bool {
        let (failed_requests, failed_probes) = self.health.failures();
        let kept_by_share = self.health.is_kept_by_share(settings);
        let out = self.health.out();
        let (was, health) = (&self.endpoint, self.health());
        let before = (was.record.failed_requests, was.record.failed_probes);
        let is_same = before == (failed_requests, failed_probes)
            && was.record.kept_by_share == kept_by_share
            && was.record.out == out
            && was.health == health;
        if is_same {
            return false;
        }
        if was.health != health {
            tell(was, health);
        }
        let endpoint = Arc::make_mut(&mut self.endpoint);
        if endpoint.health != health {
            (endpoint.health, endpoint.record.since) = (health, Some(now));
        }
        let record = &mut endpoint.record;
        (record.failed_requests, record.failed_probes) = (failed_requests, failed_probes);
        (record.kept_by_share, record.out) = (kept_by_share, out);
        true
    }
}

/// Logs that a pod's health changes: loudly, with the reason, when it is taken out.
fn tell(was: &Endpoint, health: Health) {
    let (pod, from) = (&was.pod, was.health.name());
    let to = health.name();
    if health == Health::Ejected {
        let reason = was.record.last_failure.as_ref().map(|failure| &*failure.reason);
        tracing::warn!(pod = %pod.name, addr = %pod.addr, from, to, reason, "pod health");
    } else {
        tracing::info!(pod = %pod.name, addr = %pod.addr, from, to, "pod health");
    }
}
