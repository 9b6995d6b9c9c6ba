//! The pool's state: what is known of every pod, changed by one event after the other.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use kv_index::{Slot, Slots};
use tokio::time::Instant;

use super::health::Probe;
use super::known::Known;
use super::ranks::Ranks;
use super::sources::Sources;
use super::{Endpoint, Health, ModelCard, Out, Outcome, PoolSettings, Snapshot};
use crate::discovery::{Desired, Report, Sighting, Source};
use crate::feed::{News, ProbeError};

/// Something that the pool's task learns.
#[derive(Debug)]
pub(crate) enum Event {
    /// What a source of pods says.
    Reported(Source, Report),
    /// A pod was heard.
    Heard(News),
    /// A request saw something of a pod; `reason` says what, if that was a failure.
    Outcome { slot: Slot, outcome: Outcome, reason: &'static str },
    /// Somebody takes a pod out by hand, or puts it back.
    Cordon { slot: Slot, is_cordoned: bool },
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
    /// Pods whose probe has to make the engine generate from now on, or no more.
    pub(super) token_owed: Vec<(Slot, bool)>,
    /// Pods whose process is gone or began anew: nothing is in their caches.
    pub(super) lost: Vec<Slot>,
}

/// Everything known, owned by one writer.
#[derive(Debug)]
pub(super) struct Registry {
    settings: PoolSettings,
    slots: Slots,
    /// By slot, which is also the order of the snapshot.
    pods: BTreeMap<Slot, Known>,
    sources: Sources,
    ranks: Ranks,
    generation: u64,
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(settings: PoolSettings, sources: &[Source]) -> Self {
        Self {
            settings,
            slots: Slots::default(),
            pods: BTreeMap::new(),
            sources: Sources::new(sources),
            ranks: Ranks::default(),
            generation: 0,
        }
    }

    /// Takes one event in.
    pub(super) fn apply(&mut self, event: Event, now: Instant, effects: &mut Effects) {
        match event {
            Event::Reported(source, Report::Desired(set)) => {
                self.sources.synced(source, set.trouble.clone(), now);
                effects.changed = true;
                self.desired(source, set, now, effects);
            }
            Event::Reported(source, Report::Alive) => {
                self.sources.synced(source, None, now);
                effects.changed = true;
            }
            Event::Reported(source, Report::Lost(error)) => {
                effects.changed |= self.sources.troubled(source, Some(error));
            }
            Event::Heard(News::Probed { slot, result, generated, next }) => {
                self.probed(slot, (result, generated), now, effects);
                if let Some(known) = self.pods.get_mut(&slot) {
                    let record = &mut Arc::make_mut(&mut known.endpoint).record;
                    record.next_probe = Some(now + next);
                    effects.changed = true;
                }
            }
            Event::Heard(News::Metrics { slot, hints }) => {
                if let Some(known) = self.pods.get_mut(&slot) {
                    if hints.has_restarted_since(&known.endpoint.engine) {
                        effects.lost.push(slot);
                    }
                    known.read(hints, now);
                    effects.changed = true;
                    self.look_for_standstill(slot, now, effects);
                }
            }
            Event::Heard(News::Ranks { slot, ranks }) => self.has_ranks(slot, ranks, now, effects),
            Event::Outcome { slot, outcome, reason } => {
                self.saw(slot, (outcome, reason), now, effects);
            }
            Event::Cordon { slot, is_cordoned } => {
                if let Some(known) = self.pods.get_mut(&slot) {
                    let endpoint = Arc::make_mut(&mut known.endpoint);
                    tracing::info!(pod = %endpoint.pod.name, addr = %endpoint.pod.addr, is_cordoned, "pod cordon");
                    endpoint.is_cordoned = is_cordoned;
                    effects.changed = true;
                }
            }
            Event::Tick => {}
        }
        let half_opens = self
            .pods
            .iter_mut()
            .filter_map(|(slot, known)| known.health.half_opens(now).then_some(*slot));
        effects.doubted.extend(half_opens);
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
        let doubted = self.sources.doubted().map(|(_, since)| since).min();
        let believed = doubted.map(|since| since + self.settings.keep_when_empty.get());
        let half_open = self.pods.values().filter_map(|known| known.health.half_open_at()).min();
        believed.into_iter().chain(half_open).min()
    }

    fn desired(&mut self, source: Source, set: Desired, now: Instant, effects: &mut Effects) {
        let Desired { pods, by_removal, .. } = set;
        let pods = self.ranks.spread(pods).into_iter();
        let mut wanted: BTreeMap<_, _> =
            pods.map(|sighting| (Arc::clone(&sighting.pod.uid), sighting)).collect();
        for known in self.pods.values_mut() {
            let sighting = wanted.get(&known.endpoint.pod.uid);
            if sighting.is_some_and(|it| it.pod == known.endpoint.pod) {
                known.sources.insert(source, true);
            } else if let Some(is_named) = known.sources.get_mut(&source) {
                *is_named = false;
            }
        }
        // Told that its last pod went, a source knows what it says; a list that is empty may be a
        // wrong selector.
        if wanted.is_empty() && !by_removal && self.answers(source) {
            self.sources.doubt(source, now, self.settings.keep_when_empty.get());
            return;
        }
        // What comes back after such a list has to prove itself: until then the kept ones serve.
        let is_doubted = self.sources.doubted().any(|(doubted, _)| doubted == source);
        if !is_doubted || by_removal {
            self.believe(source, effects);
        }
        let settings = &self.settings.health;
        for known in self.pods.values_mut().filter(|known| known.is_named_by(source)) {
            if let Some(sighting) = wanted.remove(&known.endpoint.pod.uid) {
                known.serving = sighting.serving;
                known.terminates(sighting.grace, now);
                known.settle(now, settings);
            }
        }
        for sighting in wanted.into_values() {
            self.add(BTreeMap::from([(source, true)]), &sighting, now, effects);
        }
        self.keep_ranks();
    }

    fn add(
        &mut self,
        sources: BTreeMap<Source, bool>,
        sighting: &Sighting,
        now: Instant,
        effects: &mut Effects,
    ) {
        let (slot, pod) = (self.slots.acquire(), &sighting.pod);
        tracing::info!(pod = %pod.name, addr = %pod.addr, role = ?pod.role, rank = pod.rank, "pod appeared");
        let mut known = Known::new(sources, sighting, slot, now);
        known.terminates(sighting.grace, now);
        effects.added.push(Arc::clone(&known.endpoint));
        self.pods.insert(slot, known);
    }

    /// The pod has turned out to be the first of several ranks: the others are pods of their own.
    fn has_ranks(&mut self, slot: Slot, ranks: u16, now: Instant, effects: &mut Effects) {
        let Some(known) = self.pods.get_mut(&slot) else { return };
        if known.endpoint.pod.rank.is_some() {
            return;
        }
        let (sources, serving) = (known.sources.clone(), known.serving);
        let grace = known.grace(now);
        let first = &mut Arc::make_mut(&mut known.endpoint).pod;
        self.ranks.learn(&first.uid, ranks);
        let sighting = |rank| Sighting { pod: first.of_rank(rank), serving, grace };
        let others: Vec<_> = (1..ranks).map(sighting).collect();
        first.rank = Some(0);
        for other in &others {
            self.add(sources.clone(), other, now, effects);
        }
        effects.changed = true;
    }

    fn probed(
        &mut self,
        slot: Slot,
        (result, generated): (Result<Vec<ModelCard>, ProbeError>, bool),
        now: Instant,
        effects: &mut Effects,
    ) {
        let settings = self.settings.health.clone();
        let Some(known) = self.pods.get_mut(&slot) else { return };
        let probe = match &result {
            Ok(_) if generated => Probe::Generated,
            Ok(_) => Probe::Good,
            Err(error) if error.means_dead() => Probe::Dead,
            Err(_) => Probe::Doubtful,
        };
        if let Err(error) = &result {
            known.failed(error.in_full().into(), now);
            if error.is_ours() {
                effects.changed = true;
                return;
            }
            if error.is_refused() {
                effects.lost.push(slot);
            }
        }
        if let Ok(models) = result
            && !same_models(&known.endpoint.models, &models)
        {
            Arc::make_mut(&mut known.endpoint).models = models.into();
            effects.changed = true;
        }
        let owed = known.health.owes_token();
        known.health.probed(probe, now, &settings);
        effects.changed |= known.settle(now, &settings);
        if owed && !known.health.owes_token() {
            effects.token_owed.push((slot, false));
        }
    }

    /// Takes a pod out whose engine has work and does none.
    fn look_for_standstill(&mut self, slot: Slot, now: Instant, effects: &mut Effects) {
        let may_eject = self.may_eject(slot);
        let settings = self.settings.health.clone();
        let Some(known) = self.pods.get_mut(&slot) else { return };
        let still_for =
            known.standing.still_since().map(|since| now.saturating_duration_since(since));
        let is_still = still_for.is_some_and(|still| still >= settings.still_after.get());
        if is_still && may_eject && known.health() == Health::Ready {
            known.failed("its engine stands still".into(), now);
            known.health.stands_still(now, &settings);
            effects.token_owed.push((slot, true));
            effects.changed |= known.settle(now, &settings);
        }
    }

    fn saw(
        &mut self,
        slot: Slot,
        (outcome, reason): (Outcome, &'static str),
        now: Instant,
        effects: &mut Effects,
    ) {
        let may_eject = self.may_eject(slot);
        let settings = self.settings.health.clone();
        let Some(known) = self.pods.get_mut(&slot) else { return };
        if matches!(outcome, Outcome::Failed | Outcome::Refused | Outcome::Stalled) {
            known.failed(reason.into(), now);
        }
        if outcome == Outcome::Refused {
            effects.lost.push(slot);
        }
        let owed = known.health.owes_token();
        if known.health.saw(outcome, now, may_eject, &settings) {
            effects.doubted.push(slot);
        }
        if !owed && known.health.owes_token() {
            effects.token_owed.push((slot, true));
        }
        effects.changed |= known.settle(now, &settings);
    }

    /// Whether this pod may be taken out though it answers its probes: of the pods that are for the same
    /// only a share may. Others cannot do its work.
    fn may_eject(&self, slot: Slot) -> bool {
        let role = self.pods.get(&slot).map(|known| known.endpoint.pod.role);
        let is_peer = |known: &&Known| known.serving && Some(known.endpoint.pod.role) == role;
        let serving = || self.pods.values().filter(is_peer);
        let by_word =
            |known: &&Known| matches!(known.health.out(), Some(Out::Requests | Out::Standstill));
        let out = serving().filter(by_word).count();
        let ready = serving().filter(|known| known.health() == Health::Ready).count();
        let bound = self.settings.health.max_ejected_share.clamp(0.0, 1.0) * count(ready + out);
        count(out + 1) <= bound
    }

    /// Whether a pod of this source answers its probes.
    fn answers(&self, source: Source) -> bool {
        let is_of = |k: &Known| k.sources.contains_key(&source) && k.health() == Health::Ready;
        self.pods.values().any(is_of)
    }

    /// Whether a pod that this source named last time answers its probes.
    fn named_answers(&self, source: Source) -> bool {
        let is_named = |k: &Known| k.is_named_by(source) && k.health() == Health::Ready;
        self.pods.values().any(is_named)
    }

    /// Gives up pods that a list no longer names, in the end: when its time is up, when one that it
    /// names answers, or when no kept pod does.
    fn give_up_empty(&mut self, now: Instant, effects: &mut Effects) {
        let keep = self.settings.keep_when_empty.get();
        let over = |&(source, since): &(Source, Instant)| {
            now >= since + keep || self.named_answers(source) || !self.answers(source)
        };
        let over: Vec<_> = self.sources.doubted().filter(over).collect();
        for (source, _) in over {
            tracing::warn!(?source, "the pods that discovery no longer names are given up");
            self.believe(source, effects);
            effects.changed = true;
            self.keep_ranks();
        }
    }

    /// Whoever comes back under a name that is gone is asked anew. A pod that only changed, its role
    /// say, is gone and back within one event, and has its ranks still.
    fn keep_ranks(&mut self) {
        let pods = self.pods.values().map(|known| &known.endpoint.pod.uid);
        self.ranks.keep(pods);
    }

    /// What the source said last is so.
    fn believe(&mut self, source: Source, effects: &mut Effects) {
        self.sources.believe(source);
        for known in self.pods.values_mut().filter(|known| !known.is_named_by(source)) {
            known.sources.remove(&source);
        }
        self.pods.retain(|_, known| {
            if !known.sources.is_empty() {
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
