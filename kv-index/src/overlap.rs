//! How many leading blocks of one chain each pod holds.

use crate::Slot;

/// Depth in blocks per slot index. The caller keeps one and lends it to each lookup, so that
/// looking up allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Overlap {
    depths: Vec<Depth>,
}

/// What one pod holds of the chain, and how full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Depth {
    blocks: u32,
    touched_ms: u64,
    eviction_age_ms: Option<u64>,
}

// === impl Overlap ===

impl Overlap {
    /// Forgets everything, keeping its memory.
    pub fn clear(&mut self) {
        self.depths.clear();
    }

    /// Notes that the pod holds the first `blocks` blocks, the last of them used at `touched_ms`,
    /// and how long ago the block was used that it would evict next.
    pub fn set(
        &mut self,
        slot: Slot,
        blocks: usize,
        touched_ms: u64,
        eviction_age_ms: Option<u64>,
    ) {
        if self.depths.len() <= slot.index() {
            self.depths.resize(slot.index() + 1, Depth::default());
        }
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.depths[slot.index()] = Depth { blocks, touched_ms, eviction_age_ms };
    }

    /// Leading blocks that the pod holds.
    #[must_use]
    pub fn blocks(&self, slot: Slot) -> u32 {
        self.depths.get(slot.index()).map_or(0, |depth| depth.blocks)
    }

    /// How long ago the block was used that the pod would evict next, in milliseconds; none while
    /// it has room.
    #[must_use]
    pub fn eviction_age_ms(&self, slot: Slot) -> Option<u64> {
        self.depths.get(slot.index()).and_then(|depth| depth.eviction_age_ms)
    }

    /// When the pod last used the deepest block that it holds of this chain.
    #[must_use]
    pub fn touched_ms(&self, slot: Slot) -> u64 {
        self.depths.get(slot.index()).map_or(0, |depth| depth.touched_ms)
    }
}
