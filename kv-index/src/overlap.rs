//! How many leading blocks of one chain each pod holds.

use std::sync::Arc;

use crate::Slot;
use crate::exact::Roster;

/// Depth in blocks per slot index. The caller keeps one and lends it to each lookup, so that
/// looking up allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Overlap {
    depths: Depths,
    recency: Vec<Recent>,
    /// Whose the slot indices were at the lookup; none: whoever asks.
    roster: Option<Arc<Roster>>,
}

/// What a lookup writes, and what it needs meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Depths {
    /// Per slot index: leading blocks held in any medium.
    pub(crate) blocks: Vec<u32>,
    /// The same on the GPU alone, once some run has holders elsewhere.
    pub(crate) on_gpu: Vec<u32>,
    pub(crate) is_split: bool,
    /// A bit per slot index: has held everything so far.
    pub(crate) alive: Vec<u64>,
    pub(crate) alive_on_gpu: Vec<u64>,
    /// A bit per slot index: holds the run at hand.
    pub(crate) kept: Vec<u64>,
    /// The run's holders, copied.
    pub(crate) words: Vec<u64>,
}

/// When a pod last used the deepest block that it holds of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastUse {
    /// Then, in milliseconds of the caller's clock.
    AtMs(u64),
    /// Not yet: the block is on its way there.
    OnItsWay,
}

/// When the deepest block was used, and how full the pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Recent {
    last_use: LastUse,
    eviction_age_ms: Option<u64>,
}

// === impl LastUse ===

impl Default for LastUse {
    fn default() -> Self {
        Self::AtMs(0)
    }
}

// === impl Overlap ===

impl Overlap {
    /// Forgets everything, keeping its memory.
    pub fn clear(&mut self) {
        self.depths.start(0, &[]);
        self.recency.clear();
        self.roster = None;
    }

    /// Notes that the pod holds the first `blocks` blocks, when it used the last of them, and how
    /// long ago the block was used that it would evict next.
    pub fn set(
        &mut self,
        slot: Slot,
        blocks: usize,
        last_use: LastUse,
        eviction_age_ms: Option<u64>,
    ) {
        if self.recency.len() <= slot.index() {
            self.recency.resize(slot.index() + 1, Recent::default());
        }
        self.recency[slot.index()] = Recent { last_use, eviction_age_ms };
        self.depths.set(slot.index(), blocks, blocks);
    }

    /// Leading blocks that the pod holds, in whatever medium.
    #[must_use]
    pub fn blocks(&self, slot: Slot) -> u32 {
        self.depth(slot, &self.depths.blocks)
    }

    /// Leading blocks that the pod holds in device memory.
    #[must_use]
    pub fn gpu_blocks(&self, slot: Slot) -> u32 {
        let split = self.depths.is_split;
        self.depth(slot, if split { &self.depths.on_gpu } else { &self.depths.blocks })
    }

    /// How long ago the block was used that the pod would evict next, in milliseconds; none while
    /// it has room.
    #[must_use]
    pub fn eviction_age_ms(&self, slot: Slot) -> Option<u64> {
        self.recency.get(slot.index()).and_then(|recent| recent.eviction_age_ms)
    }

    /// When the pod last used the deepest block that it holds of this chain.
    #[must_use]
    pub fn last_use(&self, slot: Slot) -> LastUse {
        self.recency.get(slot.index()).map_or_else(LastUse::default, |recent| recent.last_use)
    }

    /// Starts a lookup among the pods of `roster`.
    pub(crate) fn lend(&mut self, roster: Arc<Roster>) -> (&Roster, &mut Depths) {
        self.recency.clear();
        (self.roster.insert(roster), &mut self.depths)
    }

    fn depth(&self, slot: Slot, depths: &[u32]) -> u32 {
        let is_current = self.roster.as_ref().is_none_or(|roster| roster.is_current(slot));
        let depth = depths.get(slot.index()).copied().unwrap_or(0);
        if is_current { depth } else { 0 }
    }
}

// === impl Depths ===

impl Depths {
    /// Nobody holds anything yet; `alive` may.
    pub(crate) fn start(&mut self, slots: usize, alive: &[u64]) {
        self.blocks.clear();
        self.blocks.resize(slots, 0);
        self.is_split = false;
        self.alive.clear();
        self.alive.extend_from_slice(alive);
        self.kept.resize(alive.len(), 0);
    }

    /// Notes one pod's depths, whatever was noted of it before.
    pub(crate) fn set(&mut self, index: usize, blocks: usize, on_gpu: usize) {
        let [blocks, on_gpu] = [blocks, on_gpu].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        if self.blocks.len() <= index {
            self.blocks.resize(index + 1, 0);
        }
        if on_gpu != blocks && !self.is_split {
            self.is_split = true;
            self.on_gpu.clone_from(&self.blocks);
        }
        self.blocks[index] = blocks;
        if self.is_split {
            self.on_gpu.resize(self.blocks.len(), 0);
            self.on_gpu[index] = on_gpu;
        }
    }
}
