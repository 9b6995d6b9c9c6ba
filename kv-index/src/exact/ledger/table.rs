//! A hash table of 7-byte entries that needs nothing else to grow.
//!
//! An entry is 24 bits of the hash and 32 bits of whatever it leads to; nine of them and a byte of
//! bookkeeping make a bucket, which is a cache line. A hash's home is its share of the buckets
//! (`hash * buckets / 2^24`), so that the table may have any size and grows by a fifth: it is 73
//! to 88 % full, where a table that doubles is 66 % full on average. What does not fit into its
//! home goes to the next bucket with room, and each bucket that it passed counts it.

/// Bits of the hash that an entry keeps.
pub(super) const TAG_BITS: u32 = 24;

const ENTRY: usize = 7;
const SLOTS: usize = 9;
const LEAST: usize = 4;
/// How full it may be, in percent.
const FULL: usize = 88;

/// Tags to values. A tag may be there more than once.
#[derive(Debug, Default)]
pub(super) struct Table {
    buckets: Vec<Bucket>,
    len: usize,
}

/// Entries, the first ones in use; in the last byte how many (lower half), and how many passed by
/// (upper half; 15 means that many or more, and stays).
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([u8; 64]);

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    bucket: usize,
    slot: usize,
}

// === impl Table ===

impl Table {
    /// Bytes that this takes.
    pub(super) fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    /// Reads where a tag would be: whoever does so for many tags in a row waits for memory once.
    #[inline]
    pub(super) fn touch(&self, tag: u32) -> usize {
        self.buckets.get(self.home(tag)).map_or(0, Bucket::len)
    }

    /// The first value under the tag that `is_it`, and where it is.
    #[inline]
    pub(super) fn find(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<(At, u32)> {
        let mut bucket = self.home(tag);
        for _ in 0..self.buckets.len() {
            let entries = &self.buckets[bucket];
            for slot in 0..entries.len() {
                let (found, value) = entries.get(slot);
                if found == tag && is_it(value) {
                    return Some((At { bucket, slot }, value));
                }
            }
            if entries.passed() == 0 {
                return None;
            }
            bucket = self.after(bucket);
        }
        None
    }

    pub(super) fn insert(&mut self, tag: u32, value: u32) {
        self.len += 1;
        if self.len * 100 > self.buckets.len() * SLOTS * FULL {
            self.rebuild((self.buckets.len() + self.buckets.len() / 5 + 1).max(LEAST));
        }
        self.put(tag, value);
    }

    /// Puts another value in the place of one that was just found.
    pub(super) fn replace(&mut self, at: At, tag: u32, value: u32) {
        self.buckets[at.bucket].set(at.slot, (tag, value));
    }

    /// Takes out what was just found.
    pub(super) fn remove(&mut self, at: At) {
        let entries = &mut self.buckets[at.bucket];
        let last = entries.len() - 1;
        let (tag, _) = entries.get(at.slot);
        entries.set(at.slot, entries.get(last));
        entries.set_len(last);
        let mut passed = self.home(tag);
        while passed != at.bucket {
            self.buckets[passed].count_passed(-1);
            passed = self.after(passed);
        }
        self.len -= 1;
        if self.len * 2 < self.buckets.len() * SLOTS && self.buckets.len() > LEAST {
            self.rebuild((self.len * 5 / 4 / SLOTS + 1).max(LEAST));
        }
    }

    fn rebuild(&mut self, buckets: usize) {
        let mut new = Vec::new();
        new.reserve_exact(buckets);
        new.resize(buckets, Bucket([0; 64]));
        let old = std::mem::replace(&mut self.buckets, new);
        for entries in &old {
            for slot in 0..entries.len() {
                let (tag, value) = entries.get(slot);
                self.put(tag, value);
            }
        }
    }

    fn put(&mut self, tag: u32, value: u32) {
        let mut bucket = self.home(tag);
        while self.buckets[bucket].len() == SLOTS {
            self.buckets[bucket].count_passed(1);
            bucket = self.after(bucket);
        }
        let entries = &mut self.buckets[bucket];
        let len = entries.len();
        entries.set(len, (tag, value));
        entries.set_len(len + 1);
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        (tag as usize * self.buckets.len()) >> TAG_BITS
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }
}

// === impl Bucket ===

impl Bucket {
    #[inline]
    fn len(&self) -> usize {
        usize::from(self.0[63] & 15)
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most nine")]
    #[inline]
    fn set_len(&mut self, len: usize) {
        self.0[63] = self.0[63] & 0xf0 | len as u8;
    }

    #[inline]
    fn passed(&self) -> u8 {
        self.0[63] >> 4
    }

    fn count_passed(&mut self, change: i8) {
        let passed = self.passed();
        if passed < 15 {
            self.0[63] = self.0[63] & 15 | passed.saturating_add_signed(change) << 4;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "32 and 24 bits")]
    #[inline]
    fn get(&self, slot: usize) -> (u32, u32) {
        let bytes = &self.0[slot * ENTRY..][..8];
        let entry = u64::from_le_bytes(bytes.try_into().expect("eight were taken"));
        ((entry >> 32) as u32 & ((1 << TAG_BITS) - 1), entry as u32)
    }

    #[inline]
    fn set(&mut self, slot: usize, (tag, value): (u32, u32)) {
        let entry = u64::from(tag) << 32 | u64::from(value);
        self.0[slot * ENTRY..][..ENTRY].copy_from_slice(&entry.to_le_bytes()[..ENTRY]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_equals_a_set(ops in proptest::collection::vec((0..40_u32, 0..4_u32, any::<bool>()), 0..600)) {
            let (mut table, mut set) = (Table::default(), BTreeSet::new());
            for (tag, value, is_insert) in ops {
                // Tags at both ends, so that buckets overflow and the search wraps around.
                let tag = if tag < 20 { tag } else { (1 << TAG_BITS) - 1 - tag % 20 };
                let found = table.find(tag, |found| found == value);
                prop_assert_eq!(found.is_some(), set.contains(&(tag, value)));
                match found {
                    None if is_insert => {
                        table.insert(tag, value);
                        set.insert((tag, value));
                    }
                    Some((at, _)) if !is_insert => {
                        table.remove(at);
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
