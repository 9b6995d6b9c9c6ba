//! From a snapshot, an overlap and the bookings to a table of candidates, and a pick. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use kv_index::{Overlap, Slot};

use crate::bookings::Load;
use crate::policy::{self, Ask, Candidate};
use crate::pool::{Endpoint, Role, Snapshot};
use crate::query::Query;

/// What deciding looks at, apart from the bookings.
#[derive(Debug)]
pub struct View<'a> {
    /// The pods.
    pub snapshot: &'a Snapshot,
    /// How deep each holds this prompt.
    pub overlap: &'a Overlap,
    /// The request.
    pub query: &'a Query,
    /// Pods that were tried already.
    pub tried: &'a [Slot],
}

/// Whether the pod may take this request at all.
#[must_use]
pub fn is_eligible(endpoint: &Endpoint, query: &Query, tried: &[Slot]) -> bool {
    endpoint.is_ready()
        && endpoint.pod.role != Role::Prefill
        && !tried.contains(&endpoint.slot)
        && query.model.as_deref().is_none_or(|model| endpoint.serves(model))
}

/// Fills `candidates` with a row per eligible pod and returns the row that the policy picks.
pub fn decide(
    settings: &policy::Settings,
    view: &View<'_>,
    ask: Ask,
    load: impl FnMut(Slot) -> (Load, Option<u64>),
    candidates: &mut Vec<Candidate>,
) -> Option<usize> {
    tabulate(view, load, candidates);
    policy::pick(settings, ask, candidates)
}

fn tabulate(
    view: &View<'_>,
    mut load: impl FnMut(Slot) -> (Load, Option<u64>),
    candidates: &mut Vec<Candidate>,
) {
    candidates.clear();
    let prompt = &view.query.prompt;
    for (position, endpoint) in view.snapshot.endpoints.iter().enumerate() {
        if !is_eligible(endpoint, view.query, view.tried) {
            continue;
        }
        let slot = endpoint.slot;
        let matched_tokens = prompt.matched_tokens(view.overlap.blocks(slot));
        let uncached_tokens = prompt.tokens.saturating_sub(matched_tokens).max(1);
        let (load, eviction_age_ms) = load(slot);
        candidates.push(Candidate {
            slot,
            position,
            matched_tokens,
            uncached_tokens,
            cold_tokens: prompt.cold_tokens(uncached_tokens),
            load,
            eviction_age_ms,
            session_rank: view.query.session.as_deref().map_or(0, |key| rank(key, endpoint)),
            cost_ms: 0.0,
        });
    }
}

/// The pod's place in the session's own order (rendezvous hashing). The hash has fixed keys, so
/// that all replicas of the gateway agree.
fn rank(session: &str, endpoint: &Endpoint) -> u64 {
    let mut hasher = DefaultHasher::new();
    session.hash(&mut hasher);
    endpoint.pod.uid.hash(&mut hasher);
    hasher.finish()
}
