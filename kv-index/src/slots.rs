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

/// A set of slots as a bitset over their indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotSet {
    words: Vec<u64>,
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

// === impl SlotSet ===

impl SlotSet {
    /// Adds a slot index; says whether it was new.
    pub fn insert(&mut self, index: usize) -> bool {
        let (word, bit) = (index / 64, 1_u64 << (index % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Removes a slot index; says whether it was there.
    pub fn remove(&mut self, index: usize) -> bool {
        let (word, bit) = (index / 64, 1_u64 << (index % 64));
        let Some(entry) = self.words.get_mut(word) else { return false };
        let was = *entry & bit != 0;
        *entry &= !bit;
        was
    }

    /// Whether the slot index is in the set.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Whether no slot is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Keeps only what is also in `other`.
    pub fn intersect(&mut self, other: &Self) {
        for (i, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(i).copied().unwrap_or(0);
        }
    }

    /// The slot indices in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(i * 64 + bit)
            })
        })
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

    #[test]
    fn a_slot_set_is_a_set() {
        let mut set = SlotSet::default();
        assert!(set.insert(3) && set.insert(130) && !set.insert(3));
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 130]);
        assert!(set.remove(3) && !set.remove(3) && !set.remove(9999));
        assert!(!set.contains(3) && set.contains(130) && !set.is_empty());
    }
}
