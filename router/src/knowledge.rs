//! What is known of the pods' caches: what they told, and what they were sent.

mod watch;

use std::sync::Arc;

use kv_index::{
    Applied, ApproximateIndex, BlockHash, ChainHasher, Event, ExactIndex, ExactSettings, Settings,
    Slot,
};

pub(crate) use watch::Watch;
use watch::Watches;

use crate::feed::kv_events::KvSink;

/// Both indexes, and the hasher that makes their chains.
#[derive(Debug)]
pub struct Knowledge {
    /// What pods told of their caches.
    pub exact: ExactIndex,
    /// What pods were sent.
    pub approximate: ApproximateIndex,
    /// Makes the chains by which both are asked.
    pub hasher: ChainHasher,
    watches: Arc<Watches>,
}

// === impl Knowledge ===

impl Default for Knowledge {
    fn default() -> Self {
        Self::new(ExactSettings::default(), Settings::default())
    }
}

impl Knowledge {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(exact: ExactSettings, approximate: Settings) -> Self {
        let hasher = ChainHasher::default();
        let exact = ExactIndex::new(exact, hasher.clone());
        Self {
            exact,
            approximate: ApproximateIndex::new(approximate),
            hasher,
            watches: Arc::default(),
        }
    }

    /// A prompt goes to a pod that tells of its cache: what of it is told to be gone is noted.
    pub(crate) fn watch(&self, slot: Slot, chain: &Arc<Vec<BlockHash>>) -> Watch {
        self.watches.watch(slot, chain)
    }

    /// The pod is gone.
    pub fn remove(&self, slot: Slot) {
        self.exact.remove(slot);
        self.approximate.remove(slot);
    }
}

impl KvSink for Knowledge {
    fn apply(&self, slot: Slot, event: &Event) -> Applied {
        if matches!(event, Event::Stored(_)) {
            self.watches.look(slot, &self.exact);
            return self.exact.apply(slot, event);
        }
        let applied = self.exact.apply(slot, event);
        self.watches.lost(slot);
        if *event == Event::Cleared {
            self.approximate.clear(slot);
        }
        applied
    }

    fn clear(&self, slot: Slot) {
        self.exact.clear(slot);
        self.watches.lost(slot);
        self.approximate.clear(slot);
    }
}

#[cfg(test)]
mod tests;
