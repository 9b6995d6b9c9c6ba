//! What we sent where: the index for pods that do not tell us.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::{BYTES_PER_BLOCK, BlockHash, Overlap, Recency, Slot};

/// Bounds of the [`ApproximateIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes for all pods together. Each pod may use the share of one in `MAX_SHARE`, so that a
    /// fleet that grows does not have to shrink what it knows.
    pub bytes: usize,
    /// A block that was not used for so long is taken as gone, in milliseconds.
    pub max_age_ms: u64,
}

/// Remembers per pod which chains it was sent, and assumes that the pod evicts as vLLM does.
///
/// Readers of one pod never wait for a writer of another.
#[derive(Debug)]
pub struct ApproximateIndex {
    settings: Settings,
    cells: RwLock<Vec<Arc<Cell>>>,
}

/// One slot index: whose it is now, and what that pod was sent.
#[derive(Debug)]
struct Cell {
    pod: RwLock<Option<(Slot, Recency)>>,
}

/// 64 pods share the budget; more than that and each pod's memory shrinks with the fleet.
const MAX_SHARE: usize = 64;

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        // 256 MiB: about 3 million blocks of 16 tokens. 30 minutes: vLLM pods at work turn their
        // cache over in minutes; an idle one keeps it, but then nobody asks.
        Self { bytes: 256 << 20, max_age_ms: 30 * 60 * 1000 }
    }
}

// === impl ApproximateIndex ===

impl ApproximateIndex {
    /// An empty index.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, cells: RwLock::default() }
    }

    /// The pod was sent this chain. `capacity` is how many blocks the pod can hold, if known.
    pub fn record(&self, slot: Slot, chain: &[BlockHash], capacity: Option<usize>, now_ms: u64) {
        let capacity = self.bounded(capacity);
        let cell = self.cell(slot);
        let mut pod = cell.pod.write();
        match pod.as_mut() {
            Some((owner, recency)) if *owner == slot => {
                recency.resize(capacity);
                recency.touch(chain, now_ms);
            }
            Some((owner, _)) if owner.generation() > slot.generation() => {}
            _ => {
                let mut recency = Recency::new(capacity);
                recency.touch(chain, now_ms);
                *pod = Some((slot, recency));
            }
        }
    }

    /// Writes into `overlap` how many leading blocks each of `slots` holds. Allocates nothing once
    /// `overlap` has grown to the fleet's size.
    pub fn overlap(
        &self,
        chain: &[BlockHash],
        slots: impl Iterator<Item = Slot>,
        now_ms: u64,
        overlap: &mut Overlap,
    ) {
        overlap.clear();
        let since_ms = now_ms.saturating_sub(self.settings.max_age_ms);
        let cells = self.cells.read();
        for slot in slots {
            let Some(cell) = cells.get(slot.index()) else { continue };
            if let Some((owner, recency)) = cell.pod.read().as_ref()
                && *owner == slot
            {
                let (blocks, touched_ms) = recency.depth(chain, since_ms);
                overlap.set(slot, blocks, touched_ms);
            }
        }
    }

    /// The pod has shown that a block last used at `touched_ms` is gone.
    pub fn forget_until(&self, slot: Slot, touched_ms: u64) {
        self.with(slot, |recency| recency.forget_until(touched_ms));
    }

    /// The pod is gone.
    pub fn remove(&self, slot: Slot) {
        if let Some(cell) = self.cells.read().get(slot.index()) {
            let mut pod = cell.pod.write();
            if pod.as_ref().is_some_and(|(owner, _)| *owner == slot) {
                *pod = None;
            }
        }
    }

    /// How long ago the block that the pod would evict next was used, in milliseconds; none while
    /// it has room.
    #[must_use]
    pub fn eviction_age_ms(&self, slot: Slot, now_ms: u64) -> Option<u64> {
        let cells = self.cells.read();
        let pod = cells.get(slot.index())?.pod.read();
        let (owner, recency) = pod.as_ref()?;
        let oldest_ms = recency.oldest_ms().filter(|_| *owner == slot)?;
        Some(now_ms.saturating_sub(oldest_ms))
    }

    /// Blocks remembered for all pods.
    #[must_use]
    pub fn blocks(&self) -> usize {
        let count = |cell: &Arc<Cell>| cell.pod.read().as_ref().map_or(0, |(_, r)| r.len());
        self.cells.read().iter().map(count).sum()
    }

    /// About how many bytes that takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks() * BYTES_PER_BLOCK
    }

    fn bounded(&self, capacity: Option<usize>) -> usize {
        let pods = self.cells.read().len().max(MAX_SHARE);
        let share = self.settings.bytes / BYTES_PER_BLOCK / pods;
        capacity.unwrap_or(share).min(share)
    }

    fn cell(&self, slot: Slot) -> Arc<Cell> {
        if let Some(cell) = self.cells.read().get(slot.index()) {
            return Arc::clone(cell);
        }
        let mut cells = self.cells.write();
        while cells.len() <= slot.index() {
            cells.push(Arc::new(Cell { pod: RwLock::new(None) }));
        }
        Arc::clone(&cells[slot.index()])
    }

    fn with(&self, slot: Slot, change: impl FnOnce(&mut Recency)) {
        if let Some(cell) = self.cells.read().get(slot.index())
            && let Some((owner, recency)) = cell.pod.write().as_mut()
            && *owner == slot
        {
            change(recency);
        }
    }
}
