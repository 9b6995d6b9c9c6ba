//! Dense numbers for pods, recycled with a generation.

/// A pod's dense number, good as a vector index, until the pod is released.
///
/// The index is reused by a later pod; the generation is not, so a stale `Slot` never speaks for
/// its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    index: u32,
    generation: u32,
}

/// Hands out [`Slot`]s: the lowest free index first, so that vectors over slots stay short.
#[derive(Debug, Default)]
pub struct Slots {
    generations: Vec<u32>,
    free: std::collections::BTreeSet<u32>,
}

// === impl Slot ===

impl Slot {
    /// The position in vectors over slots.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// How many pods had this index before.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.generation
    }
}

// === impl Slots ===

impl Slots {
    /// Takes the lowest free index.
    pub fn acquire(&mut self) -> Slot {
        if let Some(index) = self.free.pop_first() {
            return Slot { index, generation: self.generations[index as usize] };
        }
        let index = u32::try_from(self.generations.len()).expect("fewer than 2^32 pods are alive");
        self.generations.push(0);
        Slot { index, generation: 0 }
    }

    /// Gives a slot back. A stale slot (already given back) is ignored.
    pub fn release(&mut self, slot: Slot) {
        if self.is_current(slot) && self.free.insert(slot.index) {
            self.generations[slot.index()] = slot.generation.wrapping_add(1);
        }
    }

    /// Whether this slot still names the pod that it was acquired for.
    #[must_use]
    pub fn is_current(&self, slot: Slot) -> bool {
        self.generations.get(slot.index()) == Some(&slot.generation)
            && !self.free.contains(&slot.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_index_gets_a_new_generation_and_the_old_slot_is_stale() {
        let mut slots = Slots::default();
        let (a, b) = (slots.acquire(), slots.acquire());
        slots.release(a);
        slots.release(a);
        assert!(!slots.is_current(a) && slots.is_current(b));
        let c = slots.acquire();
        assert_eq!((c.index(), c.generation()), (a.index(), 1));
        slots.release(a);
        assert!(slots.is_current(c), "a stale release must not free the successor");
        assert_eq!(slots.acquire().index(), 2);
    }
}
