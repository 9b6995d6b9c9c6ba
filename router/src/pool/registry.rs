//! The pool's state: what is known of every pod, changed by one event after the other.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use kv_index::{Slot, Slots};
use tokio::time::Instant;

use super::health::{PodHealth, Probe};
use super::{Endpoint, EngineHints, Health, ModelCard, Outcome, Pod, PoolSettings, Snapshot};
use crate::discovery::{Sighting, Source};
use crate::feed::ProbeError;

/// Something that the pool's task learns.
#[derive(Debug)]
pub(crate) enum Event {
    /// All pods that a source names now, whole: what is not in it is gone.
    Desired { source: Source, pods: Vec<Sighting> },
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
    pub(super) added: Vec<(Pod, Slot)>,
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
    pods: BTreeMap<Arc<str>, Known>,
    sources: BTreeMap<Source, SourceState>,
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

#[derive(Debug, Default)]
struct SourceState {
    synced_at: Option<Instant>,
    /// Since when it names no pod while its known ones answer.
    empty_since: Option<Instant>,
    error: Option<Arc<str>>,
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
        let sources = sources.iter().map(|&source| (source, SourceState::default())).collect();
        Self { settings, slots: Slots::default(), pods: BTreeMap::new(), sources, generation: 0 }
    }

    /// Takes one event in.
    pub(super) fn apply(&mut self, event: Event, now: Instant, effects: &mut Effects) {
        match event {
            Event::Desired { source, pods } => self.desired(source, pods, now, effects),
            Event::Alive { source } => {
                self.source(source).synced_at = Some(now);
                effects.changed |= true;
                self.cleared(source);
            }
            Event::Lost { source, error } => {
                let state = self.source(source);
                if state.error.as_ref() != Some(&error) {
                    tracing::warn!(?source, %error, "discovery fails: the last known pods stay");
                    state.error = Some(error);
                    effects.changed = true;
                }
            }
            Event::Probed { slot, result } => self.probed(slot, result, now, effects),
            Event::Metrics { slot, hints } => {
                if let Some(known) = self.known(slot) {
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
        let mut endpoints: Vec<_> =
            self.pods.values().map(|known| Arc::clone(&known.endpoint)).collect();
        endpoints.sort_unstable_by_key(|endpoint| endpoint.slot);
        // The pool is as old as its oldest source, and not there before each has spoken.
        let synced_at = self.sources.values().map(|source| source.synced_at).min().flatten();
        Snapshot {
            endpoints,
            generation: self.generation,
            synced_at,
            kept_because_empty: self.sources.values().any(|s| s.empty_since.is_some()),
            discovery_error: self.sources.values().find_map(|source| source.error.clone()),
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
        let since = self.sources.values().filter_map(|source| source.empty_since).min()?;
        Some(since + self.settings.keep_when_empty.get())
    }

    fn desired(
        &mut self,
        source: Source,
        pods: Vec<Sighting>,
        now: Instant,
        effects: &mut Effects,
    ) {
        effects.changed = true;
        self.source(source).synced_at = Some(now);
        self.cleared(source);
        if pods.is_empty() && self.answers(source) {
            let state = self.source(source);
            if state.empty_since.is_none() {
                state.empty_since = Some(now);
                let keep = self.settings.keep_when_empty;
                tracing::warn!(?source, %keep, "discovery names no pod, but known pods answer: they are kept (selector? rights?)");
            }
            return;
        }
        self.source(source).empty_since = None;
        let wanted: BTreeMap<_, _> =
            pods.into_iter().map(|sighting| (Arc::clone(&sighting.pod.uid), sighting)).collect();
        self.remove_where(effects, |known| {
            let same = |sighting: &Sighting| sighting.pod == known.endpoint.pod;
            known.source == source && !wanted.get(&known.endpoint.pod.uid).is_some_and(same)
        });
        for (uid, sighting) in wanted {
            if let Some(known) = self.pods.get_mut(&uid) {
                known.serving = sighting.serving;
                known.settle();
                continue;
            }
            let slot = self.slots.acquire();
            tracing::info!(pod = %sighting.pod.name, addr = %sighting.pod.addr, role = ?sighting.pod.role, "pod appeared");
            self.pods.insert(uid, Known::new(source, &sighting, slot));
            effects.added.push((sighting.pod, slot));
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
        let Some(known) = self.known(slot) else { return };
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
        let Some(known) = self.known(slot) else { return };
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
        let over: Vec<Source> = self
            .sources
            .iter()
            .filter(|(source, state)| {
                state.empty_since.is_some_and(|at| now >= at + keep || !self.answers(**source))
            })
            .map(|(source, _)| *source)
            .collect();
        for source in over {
            tracing::warn!(?source, "the pods that discovery no longer names are given up");
            self.source(source).empty_since = None;
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

    fn source(&mut self, source: Source) -> &mut SourceState {
        self.sources.entry(source).or_default()
    }

    fn cleared(&mut self, source: Source) {
        if self.source(source).error.take().is_some() {
            tracing::info!(?source, "discovery works again");
        }
    }

    fn known(&mut self, slot: Slot) -> Option<&mut Known> {
        self.pods.values_mut().find(|known| known.endpoint.slot == slot)
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
