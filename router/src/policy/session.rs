//! The session's own pod by rendezvous hashing, bounded: a pod with more than 1.25 times the mean
//! of requests in flight passes the session on to the next in its order (Mirrokni, Thorup,
//! Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016). No key: the least busy pod.

use super::{Ask, Candidate, least_request};

/// How far above the mean a pod may be.
const BOUND: f64 = 1.25;

pub(super) fn pick(ask: Ask, candidates: &[Candidate]) -> usize {
    if !ask.has_session {
        return least_request::pick(ask, candidates);
    }
    let total: f64 = candidates.iter().map(|c| f64::from(c.load.requests)).sum();
    let pods = f64::from(u32::try_from(candidates.len()).unwrap_or(u32::MAX));
    // The request itself counts, and the bound is rounded up: an idle fleet takes everyone.
    let bound = (BOUND * (total + 1.0) / pods).ceil();
    let fits = |c: &Candidate| f64::from(c.load.requests) < bound;
    let rows = candidates.iter().enumerate();
    let (row, _) = rows
        .max_by_key(|(_, candidate)| (fits(candidate), candidate.session_rank))
        .unwrap_or((0, &candidates[0]));
    row
}
