//! The pool's state: what is known of every pod, changed by one event after the other.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use kv_index::{Slot, Slots};
use tokio::time::Instant;

use super::health::{PodHealth, Probe};
use super::sources::Sources;
use super::{Endpoint, EngineHints, Health, ModelCard, Outcome, PoolSettings, Snapshot};
use crate::discovery::{Sighting, Source};
use crate::feed::ProbeError;

/// Something that the pool's task learns.
#[derive(Debug)]
pub(crate) enum Event {
    /// All pods that a source names now, whole: what is not in it is gone. `trouble` says what
    /// keeps it from seeing more.
    Desired { source: Source, pods: Vec<Sighting>, trouble: Option<Arc<str>> },
    /// What the source said last is still so.
    Alive { source: Source },
    /// The source cannot say.
    Lost { source: Source, error: Arc<str> },
    /// A probe came back.
    Probed { slot: Slot, result: Result<Vec<ModelCard>, ProbeError> },
    /// A pod's metrics were read.
    Metrics { slot: Slot, hints: EngineHints },
    /// A request saw something of a pod.
    Outcome { slot: Slot, outcome: Outcome },
    /// Nothing but time has passed.
    Tick,
}

/// What the pool's task must do after events.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// The snapshot is not what it was.
    pub(super) changed: bool,
    /// New pods: their feeds start.
    pub(super) added: Vec<Arc<Endpoint>>,
    /// Gone pods: their feeds end, the index forgets them, then [`Registry::recycle`] is called.
    pub(super) removed: Vec<Slot>,
    /// Pods whose probe should look at once.
    pub(super) doubted: Vec<Slot>,
}

/// Everything known, owned by one writer.
#[derive(Debug)]
pub(super) struct Registry {
    settings: PoolSettings,
    slots: Slots,
    /// By slot, which is also the order of the snapshot.
    pods: BTreeMap<Slot, Known>,
    sources: Sources,
    generation: u64,
}

#[derive(Debug)]
struct Known {
    source: Source,
    /// Whether its source lets it have traffic.
    serving: bool,
    health: PodHealth,
    endpoint: Arc<Endpoint>,
}

// === impl Known ===

impl Known {
    fn new(source: Source, sighting: &Sighting, slot: Slot) -> Self {
        Self {
            source,
            serving: sighting.serving,
            health: PodHealth::new(),
            endpoint: Arc::new(Endpoint {
                pod: sighting.pod.clone(),
                slot,
                health: Health::Unproven,
                models: Arc::default(),
                engine: EngineHints::default(),
                kv_events: Arc::default(),
            }),
        }
    }

    fn health(&self) -> Health {
        if self.serving { self.health.health() } else { Health::Unproven }
    }

    /// Brings the published health up to date; returns whether it changed.
    fn settle(&mut self) -> bool {
        let health = self.health();
        if self.endpoint.health == health {
            return false;
        }
        let pod = &self.endpoint.pod;
        tracing::info!(pod = %pod.name, addr = %pod.addr, from = ?self.endpoint.health, to = ?health, "pod health");
        Arc::make_mut(&mut self.endpoint).health = health;
        true
    }
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(settings: PoolSettings, sources: &[Source]) -> Self {
        Self {
            settings,
            slots: Slots::default(),
            pods: BTreeMap::new(),
            sources: Sources::new(sources),
            generation: 0,
        }
    }

    /// Takes one event in.
    pub(super) fn apply(&mut self, event: Event, now: Instant, effects: &mut Effects) {
        match event {
            Event::Desired { source, pods, trouble } => {
                self.sources.synced(source, trouble, now);
                effects.changed = true;
                self.desired(source, pods, now, effects);
            }
            Event::Alive { source } => {
                self.sources.synced(source, None, now);
                effects.changed = true;
            }
            Event::Lost { source, error } => {
                effects.changed |= self.sources.troubled(source, Some(error));
            }
            Event::Probed { slot, result } => self.probed(slot, result, now, effects),
            Event::Metrics { slot, hints } => {
                if let Some(known) = self.pods.get_mut(&slot) {
                    Arc::make_mut(&mut known.endpoint).engine = hints;
                    effects.changed = true;
                }
            }
            Event::Outcome { slot, outcome } => self.saw(slot, outcome, now, effects),
            Event::Tick => {}
        }
        self.give_up_empty(now, effects);
    }

    /// The state to publish.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        self.generation += 1;
        Snapshot {
            endpoints: self.pods.values().map(|known| Arc::clone(&known.endpoint)).collect(),
            generation: self.generation,
            synced_at: self.sources.synced_at(),
            kept_because_empty: self.sources.doubted().next().is_some(),
            discovery_error: self.sources.trouble(),
        }
    }

    /// The slot's pod is forgotten by everyone: another pod may have it.
    pub(super) fn recycle(&mut self, slot: Slot) {
        self.slots.release(slot);
    }

    /// Pods of which an answered request would be news.
    pub(super) fn suspects(&self) -> usize {
        self.pods.values().filter(|known| known.health.is_suspect()).count()
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.sources.doubted().map(|(_, since)| since).min()?;
        Some(since + self.settings.keep_when_empty.get())
    }

    fn desired(
        &mut self,
        source: Source,
        pods: Vec<Sighting>,
        now: Instant,
        effects: &mut Effects,
    ) {
        if pods.is_empty() && self.answers(source) {
            self.sources.doubt(source, now, self.settings.keep_when_empty.get());
            return;
        }
        self.sources.believe(source);
        let mut wanted: BTreeMap<_, _> =
            pods.into_iter().map(|sighting| (Arc::clone(&sighting.pod.uid), sighting)).collect();
        self.remove_where(effects, |known| {
            let same = |sighting: &Sighting| sighting.pod == known.endpoint.pod;
            known.source == source && !wanted.get(&known.endpoint.pod.uid).is_some_and(same)
        });
        for known in self.pods.values_mut().filter(|known| known.source == source) {
            if let Some(sighting) = wanted.remove(&known.endpoint.pod.uid) {
                known.serving = sighting.serving;
                known.settle();
            }
        }
        for sighting in wanted.into_values() {
            let (slot, pod) = (self.slots.acquire(), &sighting.pod);
            tracing::info!(pod = %pod.name, addr = %pod.addr, role = ?pod.role, "pod appeared");
            let known = Known::new(source, &sighting, slot);
            effects.added.push(Arc::clone(&known.endpoint));
            self.pods.insert(slot, known);
        }
    }

    fn probed(
        &mut self,
        slot: Slot,
        result: Result<Vec<ModelCard>, ProbeError>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let settings = self.settings.health.clone();
        let Some(known) = self.pods.get_mut(&slot) else { return };
        let probe = match &result {
            Ok(_) => Probe::Good,
            Err(error) if error.means_dead() => Probe::Dead,
            Err(_) => Probe::Doubtful,
        };
        if let Ok(models) = result
            && !same_models(&known.endpoint.models, &models)
        {
            Arc::make_mut(&mut known.endpoint).models = models.into();
            effects.changed = true;
        }
        known.health.probed(probe, now, &settings);
        effects.changed |= known.settle();
    }

    fn saw(&mut self, slot: Slot, outcome: Outcome, now: Instant, effects: &mut Effects) {
        let may_eject = self.may_eject();
        let settings = self.settings.health.clone();
        let Some(known) = self.pods.get_mut(&slot) else { return };
        if known.health.saw(outcome, now, may_eject, &settings) {
            effects.doubted.push(slot);
        }
        effects.changed |= known.settle();
    }

    /// Whether requests alone may take one more pod out.
    fn may_eject(&self) -> bool {
        let serving = || self.pods.values().filter(|known| known.serving);
        let out = serving().filter(|known| known.health.is_out_by_requests()).count();
        let ready = serving().filter(|known| known.health() == Health::Ready).count();
        let bound = self.settings.health.max_ejected_share.clamp(0.0, 1.0) * count(ready + out);
        count(out + 1) <= bound
    }

    /// Whether a pod of this source answers its probes.
    fn answers(&self, source: Source) -> bool {
        self.pods.values().any(|k| k.source == source && k.health() == Health::Ready)
    }

    /// Believes an empty list in the end: when its time is up, or when no kept pod answers.
    fn give_up_empty(&mut self, now: Instant, effects: &mut Effects) {
        let keep = self.settings.keep_when_empty.get();
        let over =
            |&(source, since): &(Source, Instant)| now >= since + keep || !self.answers(source);
        let over: Vec<_> = self.sources.doubted().filter(over).collect();
        for (source, _) in over {
            tracing::warn!(?source, "the pods that discovery no longer names are given up");
            self.sources.believe(source);
            self.remove_where(effects, |known| known.source == source);
            effects.changed = true;
        }
    }

    fn remove_where(&mut self, effects: &mut Effects, gone: impl Fn(&Known) -> bool) {
        self.pods.retain(|_, known| {
            if !gone(known) {
                return true;
            }
            let pod = &known.endpoint.pod;
            tracing::info!(pod = %pod.name, addr = %pod.addr, "pod gone");
            effects.removed.push(known.endpoint.slot);
            false
        });
    }
}

/// Whether two lists say the same. The cards' text differs with every call: vLLM stamps `created`
/// with the time of the request.
fn same_models(old: &[ModelCard], new: &[ModelCard]) -> bool {
    let key = |card: &ModelCard| (card.id.clone(), card.parent.clone(), card.max_model_len);
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| key(old) == key(new))
}

fn count(pods: usize) -> f64 {
    f64::from(u32::try_from(pods).unwrap_or(u32::MAX))
}
