//! Which pods a lookup may speak of: one immutable list that readers share.

use std::sync::Arc;

use super::hybrid::Hybrid;
use crate::Slot;

/// The pods at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    /// Of each slot index, the generation that has it.
    pub(crate) generations: Vec<u32>,
    /// A bit per slot index: what we know of the pod may be told.
    pub(crate) live: Vec<u64>,
    /// Pods whose model has several KV-cache groups.
    pub(crate) hybrids: Vec<(Slot, Arc<Hybrid>)>,
}

// === impl Roster ===

impl Roster {
    /// Whether the slot is the pod's that now has its index.
    pub(crate) fn is_current(&self, slot: Slot) -> bool {
        self.generations.get(slot.index()) == Some(&slot.generation())
    }

    /// The pod has its slot; its holdings may (or may not) be told.
    pub(super) fn seat(&mut self, slot: Slot, is_live: bool) {
        let index = slot.index();
        if self.generations.len() <= index {
            self.generations.resize(index + 1, 0);
            self.live.resize(index / 64 + 1, 0);
        }
        self.generations[index] = slot.generation();
        let bit = 1 << (index % 64);
        let word = &mut self.live[index / 64];
        *word = if is_live { *word | bit } else { *word & !bit };
        if !is_live {
            self.hybrids.retain(|(other, _)| other.index() != index);
        }
    }
}
