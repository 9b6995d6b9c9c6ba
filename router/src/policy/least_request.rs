//! The pod with the fewest requests in flight, by our own bookings.

use super::{Ask, Candidate, least};

pub(super) fn pick(ask: Ask, candidates: &[Candidate]) -> usize {
    least(candidates, ask.dice, |candidate| f64::from(candidate.load.requests))
}
