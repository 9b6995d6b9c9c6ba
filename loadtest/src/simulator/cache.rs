//! A paged KV cache with prefix reuse, as vLLM keeps it.
//!
//! A full block is known by its chained key: its own tokens and everything before them. A block
//! that nobody uses goes to the end of the free list and keeps its key: it is a hit until it is
//! allocated again. A sequence gives its blocks back tail first, so the tail of a chain is evicted
//! before its beginning.
//!
//! Every block also has a *content*: which KV is in its memory. Normally that is what its key
//! promises; after a transfer from another pod it is what the other pod's memory held at that time,
//! right or not. A chain over a wrong block is tainted, and so is everything computed behind it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ahash::RandomState;

/// The identity of a full block: a hash over the whole prefix that ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct BlockKey(u64);

/// A physical block's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BlockId(usize);

#[derive(Debug, Clone, Default)]
struct Block {
    /// Sequences that hold it.
    users: usize,
    /// Set once the block is full.
    key: Option<BlockKey>,
    /// What KV is in its memory, left there until it is overwritten; 0 at the start.
    content: u64,
    /// Its place in the free list while `users` is 0.
    freed_at: u64,
}

/// What the cache did since it was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEvent {
    /// Consecutive blocks of a chain were filled.
    Stored {
        /// Their names, in order.
        keys: Vec<u64>,
        /// The block before the first; none at the start of a chain.
        parent: Option<u64>,
        /// The tokens of all of them.
        tokens: Vec<u32>,
        /// What the chain was begun with.
        salt: Arc<str>,
    },
    /// A filled block was given to something else.
    Removed(u64),
    /// Nothing is held any more.
    Cleared,
}

/// All blocks of one engine.
#[derive(Debug)]
pub struct BlockCache {
    block_size: usize,
    blocks: Vec<Block>,
    /// Unused blocks by the order in which they were freed: the first is allocated next.
    free: BTreeMap<u64, BlockId>,
    /// Full blocks by key. Two sequences may compute the same block at once: both copies stay.
    cached: HashMap<BlockKey, Vec<BlockId>>,
    hasher: RandomState,
    next_freed_at: u64,
    /// None: they are not recorded.
    events: Option<Vec<CacheEvent>>,
}

/// The blocks that one sequence holds. It must go back through [`BlockCache::release`].
#[derive(Debug)]
pub struct Chain {
    blocks: Vec<BlockId>,
    /// Keys of the blocks that are full, from the first block on.
    keys: Vec<BlockKey>,
    root: BlockKey,
    salt: Arc<str>,
    reused_blocks: usize,
    taint: u64,
}

/// vLLM's block 0 is its null block: what it tells others begins with 1.
const FIRST_BLOCK: usize = 1;

// === impl BlockCache ===

impl BlockCache {
    /// An empty cache of `num_blocks` blocks of `block_size` tokens.
    pub fn new(block_size: usize, num_blocks: usize) -> Self {
        Self {
            block_size,
            blocks: vec![Block::default(); num_blocks],
            free: (0..num_blocks).map(|n| (n as u64, BlockId(n))).collect(),
            cached: HashMap::default(),
            hasher: RandomState::with_seeds(1, 2, 3, 4),
            next_freed_at: num_blocks as u64,
            events: None,
        }
    }

    /// Records events from now on, for [`BlockCache::take_events`].
    pub fn record_events(&mut self) {
        self.events = Some(Vec::new());
    }

    /// What happened since the last call, in order. Empty if nothing is recorded.
    pub fn take_events(&mut self) -> Vec<CacheEvent> {
        self.events.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Begins a sequence: takes the longest cached prefix of `tokens`, but at most
    /// `floor((len - 1) / block_size)` blocks, because the last token must be computed to be able
    /// to continue. `salt` separates what must never be shared (LoRA, `cache_salt`).
    pub fn begin(&mut self, salt: &str, tokens: &[u32]) -> Chain {
        let root = BlockKey(self.hasher.hash_one(salt));
        let reusable = tokens.len().saturating_sub(1) / self.block_size;
        let salt = Arc::from(salt);
        let mut chain =
            Chain { blocks: Vec::new(), keys: Vec::new(), root, salt, reused_blocks: 0, taint: 0 };
        for tokens in tokens.chunks_exact(self.block_size).take(reusable) {
            let key = self.key_after(&chain, tokens);
            let Some(&block) = self.cached.get(&key).and_then(|copies| copies.first()) else {
                break;
            };
            self.pin(block);
            chain.taste(self.blocks[block.0].content, self.content(key, 0));
            chain.blocks.push(block);
            chain.keys.push(key);
        }
        chain.reused_blocks = chain.blocks.len();
        chain
    }

    /// Gives the chain room for `tokens` tokens in all; false (and nothing changed) if there are
    /// not enough unused blocks.
    pub fn grow(&mut self, chain: &mut Chain, tokens: usize) -> bool {
        let missing = tokens.div_ceil(self.block_size).saturating_sub(chain.blocks.len());
        if missing > self.free.len() {
            return false;
        }
        for _ in 0..missing {
            let (_, block) = self.free.pop_first().expect("as many free blocks as counted above");
            if let Some(key) = self.evict(block) {
                self.record(|| CacheEvent::Removed(key.0));
            }
            self.blocks[block.0].users = 1;
            chain.blocks.push(block);
        }
        true
    }

    /// Records that the first `tokens.len()` tokens of the chain are computed: its full blocks can
    /// be reused from now on.
    pub fn commit(&mut self, chain: &mut Chain, tokens: &[u32]) {
        self.fill(chain, tokens, None);
    }

    /// Records that the blocks of these tokens were filled from another pod's memory. `contents` is
    /// what was read there, block for block from the first one on: also of blocks that this cache
    /// held already, which stay as they are. A block that was not read holds rubbish.
    pub fn receive(&mut self, chain: &mut Chain, tokens: &[u32], contents: &[u64]) {
        self.fill(chain, tokens, Some(contents));
    }

    /// The blocks' numbers as one pod tells them another.
    pub fn numbers(chain: &Chain) -> Vec<usize> {
        chain.blocks.iter().map(|block| block.0 + FIRST_BLOCK).collect()
    }

    /// What is in the memory of these blocks now, whoever they belong to; 0 for no block of ours.
    pub fn read(&self, numbers: &[usize]) -> Vec<u64> {
        let block = |number: &usize| self.blocks.get(number.checked_sub(FIRST_BLOCK)?);
        numbers.iter().map(|number| block(number).map_or(0, |block| block.content)).collect()
    }

    /// Lets unused blocks hold something else, as if others had used them meanwhile.
    pub fn overwrite(&mut self, numbers: &[usize]) {
        for number in numbers {
            let Some(at) = number.checked_sub(FIRST_BLOCK) else { continue };
            if self.blocks.get(at).is_some_and(|block| block.users == 0) {
                if let Some(key) = self.evict(BlockId(at)) {
                    self.record(|| CacheEvent::Removed(key.0));
                }
                let content = self.blocks[at].content;
                self.blocks[at].content = self.hasher.hash_one(content);
            }
        }
    }

    fn fill(&mut self, chain: &mut Chain, tokens: &[u32], received: Option<&[u64]>) {
        let known = chain.keys.len();
        for run in tokens.chunks(self.block_size).skip(known) {
            let key = self.key_after(chain, run);
            let at = chain.keys.len();
            let block = chain.blocks[at];
            if let Some(received) = received {
                let content = received.get(at).copied().unwrap_or_default();
                chain.taste(content, self.content(key, 0));
            }
            self.blocks[block.0].content = self.content(key, chain.taint);
            if run.len() == self.block_size {
                self.blocks[block.0].key = Some(key);
                self.cached.entry(key).or_default().push(block);
                chain.keys.push(key);
            }
        }
        if chain.keys.len() > known {
            let (from, to) = (known * self.block_size, chain.keys.len() * self.block_size);
            self.record(|| CacheEvent::Stored {
                keys: chain.keys[known..].iter().map(|key| key.0).collect(),
                parent: known.checked_sub(1).map(|last| chain.keys[last].0),
                tokens: tokens[from..to].to_vec(),
                salt: Arc::clone(&chain.salt),
            });
        }
    }

    /// Takes the chain's blocks back, tail first. Those nobody else uses can be allocated again,
    /// and are hits until then.
    pub fn release(&mut self, chain: Chain) {
        for block in chain.blocks.into_iter().rev() {
            let state = &mut self.blocks[block.0];
            state.users -= 1;
            if state.users == 0 {
                state.freed_at = self.next_freed_at;
                self.free.insert(self.next_freed_at, block);
                self.next_freed_at += 1;
            }
        }
    }

    /// Forgets every unused block's content (vLLM's `/reset_prefix_cache`).
    pub fn clear(&mut self) {
        let unused: Vec<BlockId> = self.free.values().copied().collect();
        let all = unused.len() == self.blocks.len();
        for block in unused {
            // vLLM refuses to clear while blocks are in use; we say one by one what went.
            if let Some(key) = self.evict(block)
                && !all
            {
                self.record(|| CacheEvent::Removed(key.0));
            }
        }
        if all {
            self.record(|| CacheEvent::Cleared);
        }
    }

    /// Names of all blocks that would be hits, one for each copy, sorted.
    pub fn cached_keys(&self) -> Vec<u64> {
        let copies = |(key, blocks): (&BlockKey, &Vec<BlockId>)| vec![key.0; blocks.len()];
        let mut keys: Vec<u64> = self.cached.iter().flat_map(copies).collect();
        keys.sort_unstable();
        keys
    }

    /// Blocks in use by running sequences, as a share of all: `vllm:kv_cache_usage_perc`.
    pub fn usage(&self) -> f64 {
        if self.blocks.is_empty() {
            return 0.0;
        }
        1.0 - self.free.len() as f64 / self.blocks.len() as f64
    }

    /// Blocks that nobody uses.
    pub fn free_blocks(&self) -> usize {
        self.free.len()
    }

    /// What a block with this key holds, on a chain with this taint.
    fn content(&self, key: BlockKey, taint: u64) -> u64 {
        self.hasher.hash_one((key.0, taint))
    }

    fn key_after(&self, chain: &Chain, tokens: &[u32]) -> BlockKey {
        let parent = chain.keys.last().unwrap_or(&chain.root);
        BlockKey(self.hasher.hash_one((parent.0, tokens)))
    }

    fn pin(&mut self, block: BlockId) {
        let state = &mut self.blocks[block.0];
        if state.users == 0 {
            self.free.remove(&state.freed_at);
        }
        state.users += 1;
    }

    fn record(&mut self, event: impl FnOnce() -> CacheEvent) {
        if let Some(events) = &mut self.events {
            events.push(event());
        }
    }

    /// Forgets what the block holds, and says what that was.
    fn evict(&mut self, block: BlockId) -> Option<BlockKey> {
        let key = self.blocks[block.0].key.take()?;
        if let Some(copies) = self.cached.get_mut(&key) {
            copies.retain(|copy| *copy != block);
            if copies.is_empty() {
                self.cached.remove(&key);
            }
        }
        Some(key)
    }
}

// === impl Chain ===

impl Chain {
    /// How many blocks it holds.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// How many blocks were found rather than computed.
    pub fn reused_blocks(&self) -> usize {
        self.reused_blocks
    }

    /// 0 if all KV of the chain is what its tokens promise; else a hash of what it is instead.
    pub fn taint(&self) -> u64 {
        self.taint
    }

    /// Takes over one block's content.
    fn taste(&mut self, content: u64, promised: u64) {
        if content != promised {
            // Order matters and 0 must not come out: an odd multiplier and the lowest bit.
            self.taint = self.taint.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(content) | 1;
        }
    }
}

#[cfg(test)]
mod tests;
