//! From a snapshot, beliefs and the bookings to a table of candidates, and a pick. Pure.

use kv_index::Slot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::belief::Beliefs;
use crate::bookings::Load;
use crate::openai::Api;
use crate::policy::{self, Ask, Candidate};
use crate::pool::{Endpoint, Role, Snapshot};
use crate::query::Query;
use crate::router::Rule;

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
}

/// Whether the pod may take this request at all.
#[must_use]
pub fn is_eligible(endpoint: &Endpoint, query: &Query, tried: &[Slot]) -> bool {
    endpoint.can_answer()
        && !tried.contains(&endpoint.slot)
        && query.model.as_deref().is_none_or(|model| endpoint.serves(model))
}

/// Whether the pod may prefill this request for another.
#[must_use]
pub fn can_prefill(endpoint: &Endpoint, query: &Query, tried: &[Slot]) -> bool {
    endpoint.is_ready()
        && endpoint.pod.role == Role::Prefill
        && !tried.contains(&endpoint.slot)
        && query.model.as_deref().is_none_or(|model| endpoint.serves(model))
}

/// Fills `candidates` with a row per eligible pod and returns the row that the policy picks.
pub fn decide(
    settings: &policy::Settings,
    view: &View<'_>,
    ask: Ask,
    load: impl FnMut(Slot) -> Load,
    candidates: &mut Vec<Candidate>,
) -> Option<usize> {
    tabulate(view, is_eligible, load, candidates);
    policy::pick(settings, ask, candidates)
}

/// The same by another rule than a policy of ours.
pub fn decide_by(
    rule: &Rule<'_>,
    view: &View<'_>,
    ask: Ask,
    load: impl FnMut(Slot) -> Load,
    candidates: &mut Vec<Candidate>,
) -> Option<usize> {
    tabulate(view, is_eligible, load, candidates);
    rule(ask, candidates)
}

/// The same for the pods that may prefill. Sessions mean nothing to them.
pub fn decide_prefill(
    settings: &policy::Settings,
    view: &View<'_>,
    ask: Ask,
    load: impl FnMut(Slot) -> Load,
    candidates: &mut Vec<Candidate>,
) -> Option<usize> {
    tabulate(view, can_prefill, load, candidates);
    policy::pick(settings, Ask { has_session: false, ..ask }, candidates)
}

fn tabulate(
    view: &View<'_>,
    is_eligible: impl Fn(&Endpoint, &Query, &[Slot]) -> bool,
    mut load: impl FnMut(Slot) -> Load,
    candidates: &mut Vec<Candidate>,
) {
    candidates.clear();
    let prompt = &view.query.prompt;
    let prefills = view.query.api.is_some_and(Api::prefills);
    let session = view.query.session.as_ref().map(|key| xxh3_64_with_seed(key.value.as_bytes(), 0));
    for (position, endpoint) in view.snapshot.endpoints.iter().enumerate() {
        if !is_eligible(endpoint, view.query, view.tried) {
            continue;
        }
        let slot = endpoint.slot;
        let belief = view.beliefs.of(endpoint);
        let matched_tokens = prompt.matched_tokens(belief.likely_blocks);
        let load = load(slot);
        let queued = u32::try_from(load.prefill_tokens).unwrap_or(u32::MAX);
        let uncached_tokens = prompt.tokens.saturating_sub(matched_tokens).max(1);
        candidates.push(Candidate {
            matched_tokens,
            known_tokens: prompt.matched_tokens(belief.known_blocks),
            trust: belief.trust,
            on_its_way_tokens: if belief.is_on_its_way { matched_tokens.min(queued) } else { 0 },
            uncached_tokens,
            cold_tokens: if prefills { prompt.cold_tokens(uncached_tokens) } else { 0 },
            is_home: view.query.home.is_some_and(|home| {
                home.slot == slot && home.blocks <= belief.likely_blocks as usize
            }),
            eviction_age_ms: view.beliefs.sent.eviction_age_ms(slot),
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
