//! From a snapshot, beliefs and the bookings to a table of candidates, and a pick. Pure.

use kv_index::Slot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::belief::Beliefs;
use crate::bookings::Load;
use crate::openai::{Api, CacheUse};
use crate::policy::{self, Ask, Candidate, Rule};
use crate::pool::{Endpoint, Role, Snapshot};
use crate::query::Query;
use crate::queue::QueueSettings;

/// What deciding looks at, apart from the bookings.
#[derive(Debug)]
pub struct View<'a> {
    /// The pods.
    pub snapshot: &'a Snapshot,
    /// How deep each holds this prompt, or is about to.
    pub beliefs: Beliefs<'a>,
    /// The request.
    pub query: &'a Query,
    /// Pods that were tried already.
    pub tried: &'a [Slot],
    /// Whether no pod is left that is ready: those that failed requests are better than none.
    pub at_need: bool,
    /// How many requests a pod may have at once; none: as many as there are.
    pub queue: Option<&'a QueueSettings>,
}

/// What a pod is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// To answer: with a prefill of its own, or with another pod's.
    Answer,
    /// To prefill for another.
    Prefill,
}

// === impl View ===

impl View<'_> {
    fn is_full(&self, endpoint: &Endpoint, load: Load) -> bool {
        let places = self.queue.and_then(|queue| queue.places(endpoint.record.capacity));
        places.is_some_and(|places| load.requests >= places)
    }
}

// === impl Leg ===

impl Leg {
    /// Whether the pod may take it for this request at all; `at_need`: where no pod is ready.
    #[must_use]
    pub fn may_take(
        self,
        endpoint: &Endpoint,
        (query, at_need): (&Query, bool),
        tried: &[Slot],
    ) -> bool {
        let is_for_it = match self {
            Self::Answer => endpoint.can_answer() || (at_need && endpoint.may_answer_at_need()),
            Self::Prefill => endpoint.is_ready() && endpoint.pod.role == Role::Prefill,
        };
        is_for_it
            && !tried.contains(&endpoint.slot)
            && query.model.as_deref().is_none_or(|model| endpoint.serves(model))
            && query.subset.as_ref().is_none_or(|subset| subset.has(endpoint.pod.addr))
    }
}

/// Fills `candidates` with a row per pod that may take the leg, and returns the row that the policy
/// picks. Sessions mean nothing to pods that only prefill.
pub fn decide(
    settings: &policy::Settings,
    (view, leg): (&View<'_>, Leg),
    ask: Ask,
    load: impl FnMut(Slot) -> Load,
    candidates: &mut Vec<Candidate>,
) -> Option<usize> {
    tabulate(view, leg, load, candidates);
    let has_session = ask.has_session && leg == Leg::Answer;
    policy::pick(settings, Ask { has_session, ..ask }, candidates)
}

/// Who answers, by another rule than a policy of ours.
pub fn decide_by(
    rule: &Rule<'_>,
    view: &View<'_>,
    ask: Ask,
    load: impl FnMut(Slot) -> Load,
    candidates: &mut Vec<Candidate>,
) -> Option<usize> {
    tabulate(view, Leg::Answer, load, candidates);
    rule(ask, candidates)
}

fn tabulate(
    view: &View<'_>,
    leg: Leg,
    mut load: impl FnMut(Slot) -> Load,
    candidates: &mut Vec<Candidate>,
) {
    candidates.clear();
    let prompt = &view.query.prompt;
    let prefills = view.query.api.is_some_and(Api::prefills);
    let session = view.query.session.as_ref().map(|key| xxh3_64_with_seed(key.value.as_bytes(), 0));
    for (position, endpoint) in view.snapshot.endpoints.iter().enumerate() {
        if !leg.may_take(endpoint, (view.query, view.at_need), view.tried) {
            continue;
        }
        let slot = endpoint.slot;
        let belief = view.beliefs.of(endpoint);
        let is_of_use = view.query.cache_use != CacheUse::Unread;
        let belief = if is_of_use { belief } else { belief.unread() };
        let matched_tokens = prompt.matched_tokens(belief.likely_blocks);
        let load = load(slot);
        if leg == Leg::Answer && view.is_full(endpoint, load) {
            continue;
        }
        let queued = u32::try_from(load.prefill_tokens).unwrap_or(u32::MAX);
        let uncached_tokens = prompt.tokens.saturating_sub(matched_tokens).max(1);
        candidates.push(Candidate {
            matched_tokens,
            known_tokens: prompt.matched_tokens(belief.known_blocks),
            trust: belief.trust,
            on_its_way_tokens: if belief.is_on_its_way { matched_tokens.min(queued) } else { 0 },
            uncached_tokens,
            cold_tokens: if prefills { prompt.cold_tokens(uncached_tokens) } else { 0 },
            // To prefill for it, any pod that holds its history is as good.
            is_home: view.query.home.is_some_and(|home| {
                (home.slot == slot || leg == Leg::Prefill)
                    && home.blocks <= belief.likely_blocks as usize
            }),
            eviction_age_ms: view.beliefs.approximate.eviction_age_ms(slot),
            session_rank: session.map_or(0, |session| rank(session, endpoint)),
            ..Candidate::new(slot, position, load)
        });
    }
}

/// The pod's place in the session's own order (rendezvous hashing). The hash is fixed, so that all
/// replicas of the gateway agree, whatever built them.
fn rank(session: u64, endpoint: &Endpoint) -> u64 {
    xxh3_64_with_seed(endpoint.pod.uid.as_bytes(), session)
}
