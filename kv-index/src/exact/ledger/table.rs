//! A hash table of 7-byte entries that needs nothing else to grow.
//!
//! An entry is 24 bits of the hash and 32 bits of whatever it leads to; nine of them and a byte of
//! bookkeeping make a bucket, which is a cache line. A hash's home is its share of the buckets
//! (`hash * buckets / 2^24`), so that the table may have any size and grows by a quarter: it is 74
//! to 92 % full, where a table that doubles is 66 % full on average. What does not fit into its
//! home goes to the next bucket with room, and each bucket that it passed counts it.
//!
//! Buckets lie in pages that stay where they are: growing adds some and moves entries up, from the
//! last to the first.
//!
//! By hand, since no library's table is like that: `hashbrown` would take 9 bytes for the same entry
//! (8 aligned, and its own one), is 44 to 87 % full, and holds the old table and the new one while it
//! doubles, which is just what a budget in bytes cannot grant.

/// Bits of the hash that an entry keeps.
pub(super) const TAG_BITS: u32 = 24;

const ENTRY: usize = 7;
const SLOTS: usize = 9;
/// Buckets per page: 4 KiB.
const PAGE: usize = 64;
/// How full it may be, in percent.
const FULL: usize = 92;

/// Tags to values. A tag may be there more than once.
#[derive(Debug, Default)]
pub(super) struct Table {
    pages: Vec<Box<[Bucket; PAGE]>>,
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
        self.pages.len() * size_of::<[Bucket; PAGE]>() + self.pages.capacity() * 8
    }

    /// Reads where a tag would be: whoever does so for many tags in a row waits for memory once.
    #[inline]
    pub(super) fn touch(&self, tag: u32) -> usize {
        if self.pages.is_empty() { 0 } else { self.bucket(self.home(tag)).len() }
    }

    /// The first value under the tag that `is_it`, and where it is.
    #[inline]
    pub(super) fn find(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<(At, u32)> {
        let mut bucket = self.home(tag);
        for _ in 0..self.buckets() {
            let entries = self.bucket(bucket);
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
        if self.len * 100 > self.buckets() * SLOTS * FULL {
            self.grow(self.pages.len() / 4 + 1);
        }
        self.put(tag, value);
    }

    /// Puts another value in the place of one that was just found.
    pub(super) fn replace(&mut self, at: At, tag: u32, value: u32) {
        self.bucket_mut(at.bucket).set(at.slot, (tag, value));
    }

    /// Takes out what was just found.
    pub(super) fn remove(&mut self, at: At) {
        let entries = self.bucket_mut(at.bucket);
        let last = entries.len() - 1;
        let (tag, _) = entries.get(at.slot);
        entries.set(at.slot, entries.get(last));
        entries.set_len(last);
        let mut passed = self.home(tag);
        while passed != at.bucket {
            self.bucket_mut(passed).count_passed(-1);
            passed = self.after(passed);
        }
        self.len -= 1;
        if self.len * 2 < self.buckets() * SLOTS && self.pages.len() > 1 {
            self.shrink(self.len * 5 / 4 / SLOTS / PAGE + 1);
        }
    }

    fn grow(&mut self, pages: usize) {
        let old = self.buckets();
        self.pages.reserve_exact(pages);
        self.pages.extend((0..pages).map(|_| Box::new([Bucket([0; 64]); PAGE])));
        // Nearly every home moves up, to where all has been emptied before. What would not go into
        // its home must wait until no bucket that it passes will be emptied any more.
        let mut later = Vec::new();
        for bucket in (0..old).rev() {
            let entries = std::mem::replace(self.bucket_mut(bucket), Bucket([0; 64]));
            for (tag, value) in entries.iter() {
                let home = self.home(tag);
                if home < bucket || self.bucket(home).len() == SLOTS {
                    later.push((tag, value));
                } else {
                    self.put(tag, value);
                }
            }
        }
        later.into_iter().for_each(|(tag, value)| self.put(tag, value));
    }

    fn shrink(&mut self, pages: usize) {
        let pages = (0..pages).map(|_| Box::new([Bucket([0; 64]); PAGE])).collect();
        for page in std::mem::replace(&mut self.pages, pages) {
            for (tag, value) in page.iter().flat_map(Bucket::iter) {
                self.put(tag, value);
            }
        }
    }

    fn put(&mut self, tag: u32, value: u32) {
        let mut bucket = self.home(tag);
        while self.bucket(bucket).len() == SLOTS {
            self.bucket_mut(bucket).count_passed(1);
            bucket = self.after(bucket);
        }
        let entries = self.bucket_mut(bucket);
        let len = entries.len();
        entries.set(len, (tag, value));
        entries.set_len(len + 1);
    }

    fn buckets(&self) -> usize {
        self.pages.len() * PAGE
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        &self.pages[at / PAGE][at % PAGE]
    }

    #[inline]
    fn bucket_mut(&mut self, at: usize) -> &mut Bucket {
        &mut self.pages[at / PAGE][at % PAGE]
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        (tag as usize * self.buckets()) >> TAG_BITS
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets() { 0 } else { bucket + 1 }
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

    fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.len()).map(|slot| self.get(slot))
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
mod tests;
