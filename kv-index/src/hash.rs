//! Chained block hashes, keyed per process.

use std::hash::{BuildHasher, Hash, Hasher};

use ahash::RandomState;

use crate::{ExtraKey, Milestones, Stored};

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
        let mut hasher = self.after(parent, tokens);
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
        let blocks = tokens.chunks_exact(block_tokens.max(1));
        chain.reserve(blocks.len());
        let mut parent = root;
        for block in blocks {
            parent = self.block(parent, block, &[]);
            chain.push(parent);
        }
    }

    /// The milestones of a prompt that we cannot tokenize, in blocks of `block_bytes`; what comes
    /// after the last milestone has no hash.
    #[must_use]
    pub fn milestones(&self, root: BlockHash, bytes: &[u8], block_bytes: usize) -> Milestones {
        let (mut parent, mut rest, mut hashes) = (root, bytes, Vec::new());
        loop {
            let step = Milestones::stride(hashes.len() + 1).saturating_mul(block_bytes.max(1));
            let Some((run, after)) = rest.split_at_checked(step) else { break };
            parent = BlockHash(self.after(parent, run).finish());
            hashes.push(parent);
            rest = after;
        }
        Milestones::hashed(hashes)
    }

    fn after<T: Hash>(&self, parent: BlockHash, content: &[T]) -> impl Hasher + use<T> {
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(parent.0);
        Hash::hash_slice(content, &mut hasher);
        hasher
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
    fn a_longer_text_keeps_the_milestones_of_what_it_continues() {
        let hasher = ChainHasher::with_seed(7);
        let text: Vec<u8> = (0..60_000_u32).map(|i| (i % 251) as u8).collect();
        let of = |bytes: usize| hasher.milestones(hasher.root(&["m"]), &text[..bytes], 4);
        let (whole, part) = (of(60_000), of(30_000));
        let depth = part.hashes().len();
        assert_eq!(&whole.hashes()[..depth], part.hashes());
        assert!(Milestones::position(depth) <= 7_500 && 7_500 < Milestones::position(depth + 1));
        assert_ne!(hasher.milestones(hasher.root(&["n"]), &text, 4).hashes()[0], whole.hashes()[0]);
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
