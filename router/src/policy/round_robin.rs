//! Each pod in turn: the floor that every other policy is measured against.

use super::{Ask, Candidate, index_below};

pub(super) fn pick(ask: Ask, candidates: &[Candidate]) -> usize {
    index_below(ask.ticket, candidates.len())
}
