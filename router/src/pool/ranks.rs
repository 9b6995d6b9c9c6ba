//! Which pods are data-parallel: one address, several engines with caches of their own.

use std::collections::HashMap;
use std::sync::Arc;

use crate::discovery::{Sighting, Source};

/// Ranks of the pods that have several, by what discovery calls them.
#[derive(Debug, Default)]
pub(super) struct Ranks(HashMap<Arc<str>, (Source, u16)>);

// === impl Ranks ===

impl Ranks {
    /// The pod has so many ranks.
    pub(super) fn learn(&mut self, source: Source, uid: &Arc<str>, ranks: u16) {
        self.0.insert(Arc::clone(uid), (source, ranks));
    }

    /// What the source names now, each rank as a pod. Pods that it does not name any more are forgotten:
    /// another may have their address.
    pub(super) fn spread(&mut self, source: Source, named: Vec<Sighting>) -> Vec<Sighting> {
        if self.0.is_empty() {
            return named;
        }
        self.0.retain(|uid, (of, _)| *of != source || named.iter().any(|it| it.pod.uid == *uid));
        let ranks = |mut sighting: Sighting| {
            let ranks = self.0.get(&sighting.pod.uid).map_or(1, |(_, ranks)| *ranks);
            let other = |rank| Sighting { pod: sighting.pod.of_rank(rank), ..sighting.clone() };
            let mut all: Vec<_> = (1..ranks).map(other).collect();
            sighting.pod.rank = (ranks > 1).then_some(0);
            all.push(sighting);
            all
        };
        named.into_iter().flat_map(ranks).collect()
    }
}
