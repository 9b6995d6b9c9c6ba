//! What one pod was sent, as an LRU that mirrors vLLM's.

use std::num::NonZeroUsize;

use ahash::RandomState;
use lru::LruCache;

use crate::BlockHash;

/// What one remembered block costs: a list node (hash, time, two links, allocator header: 48) and
/// a table entry at its load factor (17 / 0.44 on average after doubling: 39).
pub const BYTES_PER_BLOCK: usize = 88;

/// The blocks that a pod was sent, most recently used first, each with the time of its last use.
///
/// vLLM frees a request's blocks tail first, so the tail of a chain is evicted before its head.
/// [`Recency::touch`] does the same: a block is never older than one that continues it. Two things
/// follow, and `tests/approximate.rs` holds them against a naive model: whatever is evicted, the
/// set stays closed under prefixes; and so the depth of a chain can be found by bisection.
#[derive(Debug)]
pub struct Recency {
    blocks: LruCache<BlockHash, u64, RandomState>,
}

// === impl Recency ===

impl Recency {
    /// Remembers at most `capacity` blocks (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        let mut blocks = LruCache::unbounded_with_hasher(RandomState::new());
        blocks.resize(capacity);
        Self { blocks }
    }

    /// Changes the capacity, forgetting the oldest blocks if it shrinks.
    pub fn resize(&mut self, capacity: usize) {
        self.blocks.resize(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN));
    }

    /// Marks the whole chain as used at `now_ms`, its head as the most recent. A chain longer than
    /// the capacity keeps its head.
    pub fn touch(&mut self, chain: &[BlockHash], now_ms: u64) {
        let kept = chain.len().min(self.blocks.cap().get());
        for block in chain[..kept].iter().rev() {
            self.blocks.put(*block, now_ms);
        }
    }

    /// How many leading blocks are remembered and were used at or after `since_ms`, and when the
    /// deepest of them was last used.
    #[must_use]
    pub fn depth(&self, chain: &[BlockHash], since_ms: u64) -> (usize, u64) {
        let held = |block: &BlockHash| self.blocks.peek(block).is_some_and(|at| *at >= since_ms);
        if !chain.first().is_some_and(held) {
            return (0, 0);
        }
        let depth = chain.partition_point(held);
        let touched_ms = chain[..depth].last().and_then(|block| self.blocks.peek(block));
        (depth, touched_ms.copied().unwrap_or(0))
    }

    /// Forgets every block last used at or before `ms`: the pod has shown that one of that age is
    /// gone, and it evicts the oldest first.
    pub fn forget_until(&mut self, ms: u64) {
        while self.blocks.peek_lru().is_some_and(|(_, at)| *at <= ms) {
            self.blocks.pop_lru();
        }
    }

    /// When the next block to be evicted was last used; none while there is room.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let full = self.blocks.len() == self.blocks.cap().get();
        full.then(|| self.blocks.peek_lru().map(|(_, at)| *at)).flatten()
    }

    /// Blocks remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}
