//! A hash table of 7-byte entries that needs nothing else to grow.
//!
//! An entry is 24 bits of the hash and 32 bits of whatever it leads to. Its home is its share of
//! the table (`hash * slots / 2^24`), so that the table may have any size and grows by an eighth:
//! it is 78 to 88 % full, where a table that doubles is 66 % full on average. Linear probing,
//! removal by shifting back. Growing reads and writes in order.

/// Bits of the hash that an entry keeps.
pub(super) const TAG_BITS: u32 = 24;

const ENTRY: usize = 7;
const EMPTY: u64 = (1 << 56) - 1;
const LEAST: usize = 32;

/// Tags to values. A tag may be there more than once.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// One byte more than the entries need, so that each can be read as eight.
    bytes: Vec<u8>,
    slots: usize,
    len: usize,
}

// === impl Table ===

impl Table {
    /// Bytes that this takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reads where a tag would be: whoever does so for many tags in a row waits for memory once.
    #[inline]
    pub(super) fn touch(&self, tag: u32) -> u64 {
        if self.slots == 0 { 0 } else { self.get(self.home(tag)) }
    }

    /// The first value under the tag that `is_it`, and its slot.
    #[inline]
    pub(super) fn find(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<(usize, u32)> {
        if self.slots == 0 {
            return None;
        }
        let mut slot = self.home(tag);
        loop {
            let entry = self.get(slot);
            if entry == EMPTY {
                return None;
            }
            let (found, value) = split(entry);
            if found == tag && is_it(value) {
                return Some((slot, value));
            }
            slot = self.after(slot);
        }
    }

    pub(super) fn insert(&mut self, tag: u32, value: u32) {
        if (self.len + 1) * 100 > self.slots * 88 {
            self.rebuild((self.slots + self.slots / 8).max(LEAST));
        }
        self.put(u64::from(tag) << 32 | u64::from(value));
        self.len += 1;
    }

    /// Gives the value in a slot that was just found another one's place.
    pub(super) fn replace(&mut self, slot: usize, tag: u32, value: u32) {
        self.set(slot, u64::from(tag) << 32 | u64::from(value));
    }

    /// Empties a slot that was just found.
    pub(super) fn remove(&mut self, slot: usize) {
        let (mut hole, mut next) = (slot, slot);
        loop {
            next = self.after(next);
            let entry = self.get(next);
            if entry == EMPTY {
                break;
            }
            let home = self.home(split(entry).0);
            if self.distance(home, next) >= self.distance(hole, next) {
                self.set(hole, entry);
                hole = next;
            }
        }
        self.set(hole, EMPTY);
        self.len -= 1;
        if self.len * 2 < self.slots && self.slots > LEAST {
            self.rebuild((self.len + self.len / 4).max(LEAST));
        }
    }

    fn rebuild(&mut self, slots: usize) {
        let old = std::mem::take(&mut self.bytes);
        let old = Self { bytes: old, slots: self.slots, len: self.len };
        self.bytes = Vec::new();
        self.bytes.reserve_exact(slots * ENTRY + 1);
        self.bytes.resize(slots * ENTRY + 1, u8::MAX);
        self.slots = slots;
        let entries = (0..old.slots).map(|slot| old.get(slot)).filter(|entry| *entry != EMPTY);
        entries.for_each(|entry| self.put(entry));
    }

    fn put(&mut self, entry: u64) {
        let mut slot = self.home(split(entry).0);
        while self.get(slot) != EMPTY {
            slot = self.after(slot);
        }
        self.set(slot, entry);
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize * self.slots >> TAG_BITS
    }

    #[inline]
    fn after(&self, slot: usize) -> usize {
        if slot + 1 == self.slots { 0 } else { slot + 1 }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots - from }
    }

    #[inline]
    fn get(&self, slot: usize) -> u64 {
        let bytes = &self.bytes[slot * ENTRY..][..8];
        u64::from_le_bytes(bytes.try_into().expect("eight were taken")) & EMPTY
    }

    #[inline]
    fn set(&mut self, slot: usize, entry: u64) {
        self.bytes[slot * ENTRY..][..ENTRY].copy_from_slice(&entry.to_le_bytes()[..ENTRY]);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "24 and 32 bits")]
#[inline]
fn split(entry: u64) -> (u32, u32) {
    ((entry >> 32) as u32, entry as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_equals_a_set(ops in proptest::collection::vec((0..40_u32, 0..4_u32, any::<bool>()), 0..400)) {
            let (mut table, mut set) = (Table::default(), BTreeSet::new());
            for (tag, value, is_insert) in ops {
                // Tags at both ends, so that probing wraps around.
                let tag = if tag < 20 { tag } else { (1 << TAG_BITS) - 1 - tag % 20 };
                let found = table.find(tag, |found| found == value);
                prop_assert_eq!(found.is_some(), set.contains(&(tag, value)));
                match found {
                    None if is_insert => {
                        table.insert(tag, value);
                        set.insert((tag, value));
                    }
                    Some((slot, _)) if !is_insert => {
                        table.remove(slot);
                        set.remove(&(tag, value));
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len, set.len());
            }
            for (tag, value) in set {
                prop_assert!(table.find(tag, |found| found == value).is_some());
            }
        }
    }
}
