//! From an engine's name for a block to the block, shared by every pod that uses the same name.
//!
//! An entry is one word: 30 bits of the name's hash, the run's number (24 bits) and the offset in
//! it (10). The name itself lies beside the block's key in the run, where every find is checked
//! against it. The table can grow without looking there, because an entry's own bits say where it
//! belongs.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Where a block is: a run, and which of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) run: u32,
    pub(super) offset: u32,
}

/// Names to places.
#[derive(Debug)]
pub(super) struct Ledger {
    shards: Vec<HashTable<u64>>,
    secret: u64,
    len: usize,
}

/// Tables, so that none takes long to grow. They are unequally filled on purpose (the fullest
/// twice as the emptiest), so that they do not all double at the same time.
const SHARDS: usize = 128;
const OFFSET_BITS: u32 = 10;
const PLACE_BITS: u32 = 34;
/// The most runs that a place can name.
pub(super) const MOST_RUNS: usize = 1 << (PLACE_BITS - OFFSET_BITS);

// === impl Ledger ===

impl Ledger {
    /// An empty ledger; `secret` keeps who can choose engine hashes from choosing our buckets.
    pub(super) fn new(secret: u64) -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), secret, len: 0 }
    }

    /// Blocks named.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that this takes: a word and a control byte per bucket.
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.allocation_size()).sum()
    }

    /// The block that this name stands for. `name_at` reads the name beside a block.
    pub(super) fn find(&self, name: u64, name_at: impl Fn(Place) -> u64) -> Option<Place> {
        let (shard, tag) = self.split(name);
        let is_it = |entry: &u64| is_named(*entry, tag, name, &name_at);
        self.shards[shard].find(spread(tag), is_it).map(|entry| place(*entry))
    }

    /// Enters a block; if the name is taken, says by which block and changes nothing.
    pub(super) fn insert(
        &mut self,
        name: u64,
        at: Place,
        name_at: impl Fn(Place) -> u64,
    ) -> Option<Place> {
        let (shard, tag) = self.split(name);
        let is_it = |entry: &u64| is_named(*entry, tag, name, &name_at);
        match self.shards[shard].entry(spread(tag), is_it, |entry| spread(entry >> PLACE_BITS)) {
            Entry::Occupied(taken) => Some(place(*taken.get())),
            Entry::Vacant(vacant) => {
                vacant.insert(entry(tag, at));
                self.len += 1;
                None
            }
        }
    }

    /// Strikes a block out.
    pub(super) fn remove(&mut self, name: u64, at: Place) {
        let (shard, tag) = self.split(name);
        let wanted = entry(tag, at);
        if let Ok(found) = self.shards[shard].find_entry(spread(tag), |entry| *entry == wanted) {
            found.remove();
            self.len -= 1;
        }
    }

    /// The block has moved.
    pub(super) fn relocate(&mut self, name: u64, from: Place, to: Place) {
        let (shard, tag) = self.split(name);
        let wanted = entry(tag, from);
        if let Some(found) = self.shards[shard].find_mut(spread(tag), |entry| *entry == wanted) {
            *found = entry(tag, to);
        }
    }

    /// The shard, and the 30 bits that the entry keeps.
    fn split(&self, name: u64) -> (usize, u64) {
        let mixed = (name ^ self.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(self.secret | 1);
        // x + x^2 / 2 over [0, 1) has twice the slope at its end: densities from 1 down to 1/2.
        let x = mixed >> 40 & 0xff_ffff;
        let scaled = (x << 25) + x * x;
        let shard = scaled * SHARDS as u64 / (3 << 48);
        let shard = shard as usize;
        (shard.min(SHARDS - 1), mixed & ((1 << (64 - PLACE_BITS)) - 1))
    }
}

fn is_named(entry: u64, tag: u64, name: u64, name_at: impl Fn(Place) -> u64) -> bool {
    entry >> PLACE_BITS == tag && name_at(place(entry)) == name
}

fn entry(tag: u64, at: Place) -> u64 {
    tag << PLACE_BITS | u64::from(at.run) << OFFSET_BITS | u64::from(at.offset)
}

#[expect(clippy::cast_possible_truncation, reason = "24 and 10 bits")]
fn place(entry: u64) -> Place {
    let run = (entry >> OFFSET_BITS) & (MOST_RUNS as u64 - 1);
    Place { run: run as u32, offset: (entry & ((1 << OFFSET_BITS) - 1)) as u32 }
}

/// The bits that the table uses, its low and its top seven ones, from the 30 that are kept.
fn spread(tag: u64) -> u64 {
    tag.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
