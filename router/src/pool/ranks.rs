//! Which pods are data-parallel: one address, several engines with caches of their own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::discovery::Sighting;

/// Ranks of the pods that have several, by what discovery calls them.
#[derive(Debug, Default)]
pub(super) struct Ranks(HashMap<Arc<str>, u16>);

// === impl Ranks ===

impl Ranks {
    /// The pod has so many ranks.
    pub(super) fn learn(&mut self, uid: &Arc<str>, ranks: u16) {
        self.0.insert(Arc::clone(uid), ranks);
    }

    /// These are all the pods that there are: of others nothing is known any more.
    pub(super) fn keep<'a>(&mut self, uids: impl Iterator<Item = &'a Arc<str>>) {
        if !self.0.is_empty() {
            let uids: HashSet<_> = uids.collect();
            self.0.retain(|uid, _ranks| uids.contains(uid));
        }
    }

    /// What a source names now, each rank as a pod.
    pub(super) fn spread(&self, named: Vec<Sighting>) -> Vec<Sighting> {
        if self.0.is_empty() {
            return named;
        }
        let ranks = |mut sighting: Sighting| {
            let ranks = self.0.get(&sighting.pod.uid).copied().unwrap_or(1);
            let other = |rank| Sighting { pod: sighting.pod.of_rank(rank), ..sighting.clone() };
            let mut all: Vec<_> = (1..ranks).map(other).collect();
            sighting.pod.rank = (ranks > 1).then_some(0);
            all.push(sighting);
            all
        };
        named.into_iter().flat_map(ranks).collect()
    }
}
