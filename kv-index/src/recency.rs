//! What one pod was sent, as an LRU that mirrors vLLM's.

use ahash::RandomState;
use lru::LruCache;

use crate::{BlockHash, Milestones};

/// What one remembered milestone costs: a list node (hash, time, stride, two links, allocator
/// header: 48) and a table entry at its load factor (17 / 0.44 on average after doubling: 39).
pub const BYTES_PER_ENTRY: usize = 88;

/// The chains that a pod was sent, at their milestones, most recently used first.
///
/// vLLM frees a request's blocks tail first, so the tail of a chain is evicted before its head.
/// [`Recency::touch`] does the same: a block is never older than one that continues it. Two things
/// follow, and `tests/approximate.rs` holds them against a naive model: whatever is evicted, the
/// set stays closed under prefixes; and so the depth of a chain can be found by bisection.
#[derive(Debug)]
pub struct Recency {
    uses: LruCache<BlockHash, Use, RandomState>,
    capacity: Capacity,
    blocks: usize,
}

/// How much is remembered at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// What the pod can hold, in blocks.
    pub blocks: usize,
    /// What we can hold, in milestones.
    pub entries: usize,
}

/// A milestone's last use.
#[derive(Clone, Copy, Debug)]
struct Use {
    at_ms: u64,
    /// Blocks since the milestone before it.
    stride: u32,
}

// === impl Recency ===

impl Recency {
    /// Nothing yet.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let uses = LruCache::unbounded_with_hasher(RandomState::new());
        Self { uses, capacity, blocks: 0 }
    }

    /// Changes the capacity, forgetting the oldest blocks if it shrinks.
    pub fn resize(&mut self, capacity: Capacity) {
        self.capacity = capacity;
        self.shrink();
    }

    /// Marks the whole chain as used at `now_ms`, its head as the most recent. A chain longer than
    /// the capacity keeps its head.
    pub fn touch(&mut self, chain: &Milestones, now_ms: u64) {
        let fits = |number: &usize| {
            *number <= self.capacity.entries
                && Milestones::position(*number) <= self.capacity.blocks
        };
        let kept = (1..=chain.hashes().len()).take_while(fits).count();
        for number in (1..=kept).rev() {
            let stride = u32::try_from(Milestones::stride(number)).unwrap_or(u32::MAX);
            let known = self.uses.put(chain.hashes()[number - 1], Use { at_ms: now_ms, stride });
            if known.is_none() {
                self.blocks += stride as usize;
                self.shrink();
            }
        }
    }

    /// How many leading blocks are remembered and were used at or after `since_ms`, and when the
    /// deepest of them was last used.
    #[must_use]
    pub fn depth(&self, chain: &Milestones, since_ms: u64) -> (usize, u64) {
        let chain = chain.hashes();
        let held = |block: &BlockHash| self.uses.peek(block).is_some_and(|u| u.at_ms >= since_ms);
        if !chain.first().is_some_and(held) {
            return (0, 0);
        }
        let depth = chain.partition_point(held);
        let last = chain[..depth].last().and_then(|block| self.uses.peek(block));
        (Milestones::position(depth), last.map_or(0, |last| last.at_ms))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.uses.clear();
        self.blocks = 0;
    }

    /// Forgets every block last used at or before `ms`: the pod has shown that one of that age is
    /// gone, and it evicts the oldest first.
    pub fn forget_until(&mut self, ms: u64) {
        while self.uses.peek_lru().is_some_and(|(_, last)| last.at_ms <= ms) {
            self.pop();
        }
    }

    /// When the next block to be evicted was last used; none while there is room.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let (_, oldest) = self.uses.peek_lru()?;
        let room = self.capacity.blocks.saturating_sub(self.blocks);
        let is_full = room < oldest.stride as usize || self.uses.len() >= self.capacity.entries;
        is_full.then_some(oldest.at_ms)
    }

    /// Blocks remembered.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Milestones remembered.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.uses.len()
    }

    fn shrink(&mut self) {
        while self.blocks > self.capacity.blocks || self.uses.len() > self.capacity.entries {
            if !self.pop() {
                break;
            }
        }
    }

    fn pop(&mut self) -> bool {
        let popped = self.uses.pop_lru();
        self.blocks -= popped.map_or(0, |(_, last)| last.stride as usize);
        popped.is_some()
    }
}
