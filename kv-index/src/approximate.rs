//! What we sent where: the index for pods that do not tell us.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::{BYTES_PER_ENTRY, Capacity, LastUse, Milestones, Overlap, Recency, Slot};

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
/// Each pod has a lock of its own: who looks at one pod never waits for a writer of another.
#[derive(Debug)]
pub struct ApproximateIndex {
    settings: Settings,
    cells: RwLock<Vec<Arc<Cell>>>,
}

/// One slot index.
#[derive(Debug, Default)]
struct Cell {
    pod: RwLock<Tenant>,
}

/// Whose the index is now, and what that pod was sent; nothing once it was removed.
#[derive(Debug, Default)]
struct Tenant {
    slot: Option<Slot>,
    sent: Option<Recency>,
}

/// 64 pods share the budget; more than that and each pod's memory shrinks with the fleet.
const MAX_SHARE: usize = 64;

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        // 256 MiB: about 4 million milestones, of one block of 16 tokens or more. 30 minutes: vLLM pods at work turn their
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

    /// The pod was sent this chain. `capacity` is how many blocks the pod can hold, if known. What
    /// comes late for a pod that was removed is ignored.
    pub fn record(&self, slot: Slot, chain: &Milestones, capacity: Option<usize>, now_ms: u64) {
        let capacity = self.bounded(capacity);
        let cell = self.cell(slot);
        let mut tenant = cell.pod.write();
        let is_newer = tenant.slot.is_none_or(|known| known.generation() < slot.generation());
        if is_newer {
            *tenant = Tenant { slot: Some(slot), sent: Some(Recency::new(capacity)) };
        }
        if let Some(sent) = tenant.of(slot) {
            sent.resize(capacity);
            sent.touch(chain, now_ms);
        }
    }

    /// Writes into `overlap` how many leading blocks each of `slots` holds. Allocates nothing once
    /// `overlap` has grown to the fleet's size.
    pub fn overlap(
        &self,
        chain: &Milestones,
        slots: impl Iterator<Item = Slot>,
        now_ms: u64,
        overlap: &mut Overlap,
    ) {
        overlap.clear();
        let since_ms = now_ms.saturating_sub(self.settings.max_age_ms);
        let cells = self.cells.read();
        for slot in slots {
            let Some(cell) = cells.get(slot.index()) else { continue };
            let tenant = cell.pod.read();
            let Some(sent) = tenant.sent.as_ref().filter(|_| tenant.slot == Some(slot)) else {
                continue;
            };
            let (blocks, touched_ms) = sent.depth(chain, since_ms);
            let eviction_age_ms = sent.oldest_ms().map(|oldest| now_ms.saturating_sub(oldest));
            overlap.set(slot, blocks, LastUse::AtMs(touched_ms), eviction_age_ms);
        }
    }

    /// The pod has shown that a block last used at `touched_ms` is gone.
    pub fn forget_until(&self, slot: Slot, touched_ms: u64) {
        if let Some(cell) = self.cells.read().get(slot.index())
            && let Some(sent) = cell.pod.write().of(slot)
        {
            sent.forget_until(touched_ms);
        }
    }

    /// The pod lives and holds nothing: it said so, or has restarted.
    pub fn clear(&self, slot: Slot) {
        if let Some(cell) = self.cells.read().get(slot.index())
            && let Some(sent) = cell.pod.write().of(slot)
        {
            sent.clear();
        }
    }

    /// The pod is gone.
    pub fn remove(&self, slot: Slot) {
        if let Some(cell) = self.cells.read().get(slot.index()) {
            let mut tenant = cell.pod.write();
            if tenant.slot == Some(slot) {
                tenant.sent = None;
            }
        }
    }

    /// Blocks remembered for all pods.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.sum(Recency::blocks)
    }

    /// Blocks remembered for one pod.
    #[must_use]
    pub fn held(&self, slot: Slot) -> usize {
        let cells = self.cells.read();
        let Some(cell) = cells.get(slot.index()) else { return 0 };
        let tenant = cell.pod.read();
        let sent = tenant.sent.as_ref().filter(|_| tenant.slot == Some(slot));
        sent.map_or(0, Recency::blocks)
    }

    /// How many bytes that takes, room for more included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sum(Recency::bytes)
    }

    fn sum(&self, of: impl Fn(&Recency) -> usize) -> usize {
        self.cells.read().iter().map(|cell| cell.pod.read().sent.as_ref().map_or(0, &of)).sum()
    }

    /// A pod of unknown size is taken to hold every block that we can remember.
    fn bounded(&self, capacity: Option<usize>) -> Capacity {
        let pods = self.cells.read().len().max(MAX_SHARE);
        let entries = self.settings.bytes / BYTES_PER_ENTRY / pods;
        Capacity { blocks: capacity.unwrap_or(usize::MAX), entries }
    }

    fn cell(&self, slot: Slot) -> Arc<Cell> {
        if let Some(cell) = self.cells.read().get(slot.index()) {
            return Arc::clone(cell);
        }
        let mut cells = self.cells.write();
        while cells.len() <= slot.index() {
            cells.push(Arc::default());
        }
        Arc::clone(&cells[slot.index()])
    }
}

// === impl Tenant ===

impl Tenant {
    /// What this pod was sent, unless the index is another's or the pod was removed.
    fn of(&mut self, slot: Slot) -> Option<&mut Recency> {
        self.sent.as_mut().filter(|_| self.slot == Some(slot))
    }
}
