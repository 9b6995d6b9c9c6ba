//! The less busy of two random pods: near least-request, without its herding when many gateways
//! look at the same fleet (Mitzenmacher, "The Power of Two Choices", 2001).

use super::{Ask, Candidate, index_below};

pub(super) fn pick(ask: Ask, candidates: &[Candidate]) -> usize {
    let first = index_below(ask.dice & 0xffff_ffff, candidates.len());
    // The second is another one: an offset of 1 to len - 1 from the first.
    let offset = 1 + index_below(ask.dice >> 32, candidates.len() - 1);
    let second = (first + offset) % candidates.len();
    let requests = |row: usize| candidates[row].load.requests;
    if requests(second) < requests(first) { second } else { first }
}
