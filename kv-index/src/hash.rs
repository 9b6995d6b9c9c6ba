//! Chained block hashes, keyed per process.

use std::hash::{BuildHasher, Hash, Hasher};

use ahash::RandomState;

use crate::{ExtraKey, Stored};

/// The identity of a block: its content and everything before it.
///
/// 64 bits, keyed with secrets of this process, so that no client can craft two prompts that
/// collide. By chance alone, the odds that a lookup of an unknown block meets one of 10^8 known
/// blocks are 10^8 / 2^64, about 5 in 10^12; the odds that any two of 10^8 known blocks are taken
/// for each other are 10^16 / 2^65, about 1 in 3700.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockHash(u64);

/// Turns prompts into chains of [`BlockHash`].
#[derive(Clone, Debug)]
pub struct ChainHasher {
    state: RandomState,
}

// === impl BlockHash ===

impl BlockHash {
    pub(crate) fn of(key: u64) -> Self {
        Self(key)
    }

    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

// === impl ChainHasher ===

impl Default for ChainHasher {
    fn default() -> Self {
        Self { state: RandomState::new() }
    }
}

impl ChainHasher {
    /// A hasher whose chains are the same in every process, for tests and simulations.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self { state: RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 1) }
    }

    /// Where a chain starts: prompts under different roots (model, adapter, cache salt) never
    /// share a block.
    #[must_use]
    pub fn root(&self, parts: &[&str]) -> BlockHash {
        BlockHash(self.state.hash_one(parts))
    }

    /// The root of the prompts that vLLM lets share blocks: same adapter, same cache salt, same
    /// block size. Whoever asks an [`ExactIndex`](crate::ExactIndex) starts here.
    #[must_use]
    pub fn prompt_root(
        &self,
        adapter: Option<&str>,
        salt: Option<&str>,
        block_tokens: u32,
    ) -> BlockHash {
        let block_tokens = block_tokens.to_string();
        self.root(&[adapter.unwrap_or_default(), salt.unwrap_or_default(), &block_tokens])
    }

    /// One block after `parent`. What is part of its identity besides its tokens (an image's
    /// hash) makes it a block that no prompt of text alone can name.
    #[must_use]
    pub fn block(&self, parent: BlockHash, tokens: &[u32], extra: &[ExtraKey]) -> BlockHash {
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(parent.0);
        Hash::hash_slice(tokens, &mut hasher);
        if !extra.is_empty() {
            extra.hash(&mut hasher);
        }
        BlockHash(hasher.finish())
    }

    /// Appends the keys of what an engine stored after the block `parent` (none: at the start).
    /// The one text beside the first block of all is its cache salt, and part of the root.
    pub(crate) fn chain_stored(&self, parent: Option<u64>, stored: &Stored, chain: &mut Vec<u64>) {
        let mut extra = stored.extra_keys.iter().map(Vec::as_slice);
        let mut parent = parent.map(BlockHash);
        for tokens in stored.tokens.chunks_exact((stored.block_tokens as usize).max(1)) {
            let extra = extra.next().unwrap_or_default();
            let block = match (parent, extra) {
                (Some(parent), extra) => self.block(parent, tokens, extra),
                (None, [ExtraKey::Text(salt)]) => {
                    let adapter = stored.adapter.as_deref();
                    let root = self.prompt_root(adapter, Some(salt), stored.block_tokens);
                    self.block(root, tokens, &[])
                }
                (None, extra) => {
                    let adapter = stored.adapter.as_deref();
                    let root = self.prompt_root(adapter, None, stored.block_tokens);
                    self.block(root, tokens, extra)
                }
            };
            chain.push(block.0);
            parent = Some(block);
        }
    }

    /// Appends the hashes of all full blocks of `tokens`; a last partial block has no hash, as in
    /// vLLM.
    pub fn chain_tokens(
        &self,
        root: BlockHash,
        tokens: &[u32],
        block_tokens: usize,
        chain: &mut Vec<BlockHash>,
    ) {
        self.extend(root, tokens.chunks_exact(block_tokens.max(1)), chain);
    }

    /// The same over bytes, for prompts that we cannot tokenize.
    pub fn chain_bytes(
        &self,
        root: BlockHash,
        bytes: &[u8],
        block_bytes: usize,
        chain: &mut Vec<BlockHash>,
    ) {
        self.extend(root, bytes.chunks_exact(block_bytes.max(1)), chain);
    }

    fn extend<'a, T: Hash + 'a>(
        &self,
        root: BlockHash,
        blocks: impl ExactSizeIterator<Item = &'a [T]>,
        chain: &mut Vec<BlockHash>,
    ) {
        chain.reserve(blocks.len());
        let mut parent = root;
        for block in blocks {
            let mut hasher = self.state.build_hasher();
            hasher.write_u64(parent.0);
            Hash::hash_slice(block, &mut hasher);
            parent = BlockHash(hasher.finish());
            chain.push(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(root: &[&str], tokens: &[u32]) -> Vec<BlockHash> {
        let hasher = ChainHasher::with_seed(7);
        let mut chain = Vec::new();
        hasher.chain_tokens(hasher.root(root), tokens, 2, &mut chain);
        chain
    }

    #[test]
    fn a_block_is_its_whole_prefix() {
        let a = chain(&["m"], &[1, 2, 3, 4, 5]);
        let b = chain(&["m"], &[1, 9, 3, 4]);
        assert_eq!(a.len(), 2, "a partial block has no hash");
        assert_ne!(a[0], b[0]);
        assert_ne!(a[1], b[1], "same block content after another prefix is another block");
        assert_eq!(a, chain(&["m"], &[1, 2, 3, 4]));
    }

    #[test]
    fn roots_do_not_mix() {
        assert_ne!(chain(&["m", ""], &[1, 2]), chain(&["m"], &[1, 2]));
        assert_ne!(chain(&["ab", "c"], &[1, 2]), chain(&["a", "bc"], &[1, 2]));
    }

    #[test]
    fn two_processes_do_not_agree() {
        let (a, b) = (ChainHasher::default(), ChainHasher::default());
        assert_ne!(a.root(&["m"]), b.root(&["m"]));
    }
}
