//! From an engine's name for a block to the block, shared by every pod that uses the same name.
//!
//! An entry is 7 bytes (`ledger/table.rs`): 24 bits of the name's hash, the run's number (22 bits)
//! and the offset in it (10). The name itself lies beside the block's key in the run, where every
//! find is checked against it.

mod table;

use table::{TAG_BITS, Table};

/// Where a block is: a run, and which of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) run: u32,
    pub(super) offset: u32,
}

/// Names to places.
#[derive(Debug)]
pub(super) struct Ledger {
    shards: Vec<Table>,
    secret: u64,
    len: usize,
}

/// Tables, so that none takes long to grow: at 10^8 blocks, 800,000 entries each.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 7;
const OFFSET_BITS: u32 = 10;
/// The most runs that a place can name; the last number would make an entry look empty.
pub(super) const MOST_RUNS: usize = (1 << (32 - OFFSET_BITS)) - 1;

// === impl Ledger ===

impl Ledger {
    /// An empty ledger; `secret` keeps who can choose engine hashes from choosing our buckets.
    pub(super) fn new(secret: u64) -> Self {
        Self { shards: (0..SHARDS).map(|_| Table::default()).collect(), secret, len: 0 }
    }

    /// Blocks named.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that this takes.
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(Table::bytes).sum()
    }

    /// Fetches what the next calls with these names will read, all at once.
    pub(super) fn fetch(&self, names: &[u64]) {
        let touch = |name: &u64| {
            let (shard, tag) = self.split(*name);
            self.shards[shard].touch(tag)
        };
        std::hint::black_box(names.iter().map(touch).fold(0, |all, word| all ^ word));
    }

    /// The block that this name stands for. `name_at` reads the name beside a block.
    pub(super) fn find(&self, name: u64, name_at: impl Fn(Place) -> u64) -> Option<Place> {
        let (shard, tag) = self.split(name);
        let found = self.shards[shard].find(tag, |value| name_at(place(value)) == name);
        found.map(|(_, value)| place(value))
    }

    /// Enters a block; if the name is taken, says by which block and changes nothing.
    pub(super) fn insert(
        &mut self,
        name: u64,
        at: Place,
        name_at: impl Fn(Place) -> u64,
    ) -> Option<Place> {
        let (shard, tag) = self.split(name);
        let shard = &mut self.shards[shard];
        if let Some((_, taken)) = shard.find(tag, |value| name_at(place(value)) == name) {
            return Some(place(taken));
        }
        shard.insert(tag, value(at));
        self.len += 1;
        None
    }

    /// Strikes a block out.
    pub(super) fn remove(&mut self, name: u64, at: Place) {
        let (shard, tag) = self.split(name);
        let shard = &mut self.shards[shard];
        if let Some((slot, _)) = shard.find(tag, |found| found == value(at)) {
            shard.remove(slot);
            self.len -= 1;
        }
    }

    /// The block has moved.
    pub(super) fn relocate(&mut self, name: u64, from: Place, to: Place) {
        let (shard, tag) = self.split(name);
        let shard = &mut self.shards[shard];
        if let Some((slot, _)) = shard.find(tag, |found| found == value(from)) {
            shard.replace(slot, tag, value(to));
        }
    }

    /// The shard, and the bits that its entry keeps.
    #[inline]
    fn split(&self, name: u64) -> (usize, u32) {
        let mixed = (name ^ self.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(self.secret | 1);
        let tag = mixed >> (64 - SHARD_BITS - TAG_BITS) & ((1 << TAG_BITS) - 1);
        #[expect(clippy::cast_possible_truncation, reason = "24 bits")]
        let tag = tag as u32;
        ((mixed >> (64 - SHARD_BITS)) as usize, tag)
    }
}

fn value(at: Place) -> u32 {
    at.run << OFFSET_BITS | at.offset
}

fn place(value: u32) -> Place {
    Place { run: value >> OFFSET_BITS, offset: value & ((1 << OFFSET_BITS) - 1) }
}
