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
    pub told: ExactIndex,
    /// What pods were sent.
    pub sent: ApproximateIndex,
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
    pub fn new(told: ExactSettings, sent: Settings) -> Self {
        let hasher = ChainHasher::default();
        let told = ExactIndex::new(told, hasher.clone());
        Self { told, sent: ApproximateIndex::new(sent), hasher, watches: Arc::default() }
    }

    /// A prompt goes to a pod that tells of its cache: what of it is told to be gone is noted.
    pub(crate) fn watch(&self, slot: Slot, chain: &Arc<Vec<BlockHash>>) -> Watch {
        self.watches.watch(slot, chain)
    }

    /// The pod is gone.
    pub fn remove(&self, slot: Slot) {
        self.told.remove(slot);
        self.sent.remove(slot);
    }
}

impl KvSink for Knowledge {
    fn apply(&self, slot: Slot, event: &Event) -> Applied {
        if matches!(event, Event::Stored(_)) {
            self.watches.look(slot, &self.told);
            return self.told.apply(slot, event);
        }
        let applied = self.told.apply(slot, event);
        self.watches.lost(slot);
        if *event == Event::Cleared {
            self.sent.clear(slot);
        }
        applied
    }

    fn clear(&self, slot: Slot) {
        self.told.clear(slot);
        self.watches.lost(slot);
        self.sent.clear(slot);
    }
}

#[cfg(test)]
mod tests;
