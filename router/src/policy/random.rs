//! Any pod, each as likely as the others.

use super::{Ask, Candidate, index_below};

pub(super) fn pick(ask: Ask, candidates: &[Candidate]) -> usize {
    index_below(ask.dice, candidates.len())
}
