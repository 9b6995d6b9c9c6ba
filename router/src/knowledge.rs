//! What is known of the pods' caches: what they told, and what they were sent.

use kv_index::{
    Applied, ApproximateIndex, ChainHasher, Event, ExactIndex, ExactSettings, Settings, Slot,
};

use crate::feed::kv_events::{KvHolder, KvSink};

/// Both indexes, and the hasher that makes their chains.
#[derive(Debug)]
pub struct Knowledge {
    /// What pods told of their caches.
    pub told: ExactIndex,
    /// What pods were sent.
    pub sent: ApproximateIndex,
    /// Makes the chains by which both are asked.
    pub hasher: ChainHasher,
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
        Self { told, sent: ApproximateIndex::new(sent), hasher }
    }

    /// The pod is gone.
    pub fn remove(&self, slot: Slot) {
        self.told.remove(slot);
        self.sent.remove(slot);
    }
}

/// Of a pod with several data-parallel ranks only the first is heard: the ranks' caches are apart,
/// and what one holds must not be said of the other.
impl KvSink for Knowledge {
    fn apply(&self, holder: KvHolder, event: &Event) -> Applied {
        if holder.rank > 0 {
            return Applied::default();
        }
        let applied = self.told.apply(holder.slot, event);
        if *event == Event::Cleared {
            self.sent.clear(holder.slot);
        }
        applied
    }

    fn clear(&self, holder: KvHolder) {
        if holder.rank == 0 {
            self.told.clear(holder.slot);
            self.sent.clear(holder.slot);
        }
    }
}
