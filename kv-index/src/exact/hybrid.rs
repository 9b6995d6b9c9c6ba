//! A pod whose model keeps several KV-cache groups: what it can reuse is what all of them can.
//!
//! A full-attention group serves a hit of depth d if it holds the first d blocks; a group with a
//! sliding window, if it holds the blocks with the last `window - 1` tokens before the token that
//! is computed next (vLLM's rule: `cdiv(window - 1, block_size)` blocks). Few pods are like this,
//! so they pay for it alone: a set of their own behind a lock of their own. One that outgrows its
//! share of the budget is forgotten as a whole.

use std::collections::BTreeMap;

use ahash::AHashMap;
use parking_lot::RwLock;

use super::applied::Applied;
use super::run::MEDIA;
use super::store::plane;
use crate::{BlockHash, ChainHasher, EngineHash, Removed, Stored};

/// One such pod.
#[derive(Debug, Default)]
pub(crate) struct Hybrid {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each group's window in blocks; none: full attention.
    groups: BTreeMap<u32, Option<usize>>,
    /// The pod's names for its blocks.
    names: AHashMap<EngineHash, BlockHash>,
    /// Copies of a block in a group, per medium.
    held: AHashMap<(BlockHash, u32), [u16; MEDIA]>,
}

/// Known models have two or three groups. Each costs every look-up a pass over the chain.
const MOST_GROUPS: usize = 16;

// === impl Hybrid ===

impl Hybrid {
    /// Takes over a block that was held before the pod showed its second group.
    pub(super) fn adopt(&self, block: (EngineHash, u64), medium: usize, copies: u16) {
        let mut state = self.state.write();
        let key = BlockHash::of(block.1);
        state.groups.entry(0).or_insert(None);
        state.names.insert(block.0, key);
        state.held.entry((key, 0)).or_default()[medium] = copies;
    }

    pub(super) fn store(&self, hasher: &ChainHasher, stored: &Stored) -> Applied {
        let mut applied = Applied::default();
        let mut state = self.state.write();
        if !state.groups.contains_key(&stored.group) && state.groups.len() == MOST_GROUPS {
            return Applied { malformed: stored.blocks.len(), ..applied };
        }
        let window = stored.window.map(|window| {
            (window.saturating_sub(1)).div_ceil(stored.block_tokens.max(1)).max(1) as usize
        });
        let count = stored.blocks.len();
        let mut keys = Vec::new();
        if stored.tokens.is_empty() {
            let known = stored.blocks.iter().map_while(|block| state.names.get(block));
            keys.extend(known.map(|key| key.get()));
            applied.unknown_block += count - keys.len();
        } else if stored.tokens.len() == count * stored.block_tokens as usize {
            let parent = stored.parent.map(|parent| state.names.get(&parent).map(|key| key.get()));
            if parent == Some(None) {
                return Applied { unknown_parent: count, lost: count, ..applied };
            }
            hasher.chain_stored(parent.flatten(), stored, &mut keys);
        } else {
            return Applied { malformed: count, ..applied };
        }
        // Only of what was stored: a group that is never held would hide what all others hold.
        state.groups.insert(stored.group, window);
        for (name, key) in stored.blocks.iter().zip(keys) {
            let key = BlockHash::of(key);
            if let Some(other) = state.names.insert(*name, key).filter(|other| *other != key) {
                applied.renamed += 1;
                state.held.retain(|(held, _), _| *held != other);
            }
            let copies = state.held.entry((key, stored.group)).or_default();
            let copies = &mut copies[plane(stored.medium)];
            if *copies == 0 {
                applied.stored += 1;
                *copies = 1;
            } else {
                applied.duplicate += 1;
                *copies = copies.saturating_add(u16::from(!stored.is_announcement));
            }
        }
        applied
    }

    pub(super) fn remove(&self, removed: &Removed) -> Applied {
        let mut applied = Applied::default();
        let mut state = self.state.write();
        for name in &removed.blocks {
            let key = state.names.get(name).copied();
            let held = key.and_then(|key| state.held.get_mut(&(key, removed.group)));
            let copies = held.map(|held| &mut held[plane(removed.medium)]);
            let (Some(key), Some(copies)) = (key, copies.filter(|copies| **copies > 0)) else {
                applied.unknown_block += 1;
                continue;
            };
            *copies -= 1;
            applied.removed += 1;
            state.tidy(*name, key, removed.group);
        }
        applied
    }

    /// The engine does not hold the chain's block `from`, in some group.
    pub(super) fn truncate(&self, chain: &[BlockHash], from: usize) -> usize {
        let mut state = self.state.write();
        let before = state.held.len();
        let gone: ahash::AHashSet<_> = chain[from.min(chain.len())..].iter().collect();
        state.held.retain(|(key, _), _| !gone.contains(key));
        state.names.retain(|_, key| !gone.contains(key));
        before - state.held.len()
    }

    /// Forgets everything; how many holdings that were.
    pub(super) fn forget(&self) -> usize {
        let lost = self.blocks();
        let mut state = self.state.write();
        state.held = AHashMap::new();
        state.names = AHashMap::new();
        lost
    }

    /// Leading blocks of the chain that all groups can serve: from any medium, and from the GPU.
    pub(super) fn depths(&self, chain: &[BlockHash]) -> (usize, usize) {
        let state = self.state.read();
        let in_any = state.depth(chain, |copies| copies.iter().any(|copies| *copies > 0));
        let on_gpu = state.depth(chain, |copies| copies[0] > 0);
        (in_any, on_gpu)
    }

    /// Holdings, counted once per group and medium.
    pub(super) fn blocks(&self) -> usize {
        let state = self.state.read();
        let media = |copies: &[u16; MEDIA]| copies.iter().filter(|copies| **copies > 0).count();
        state.held.values().map(media).sum()
    }

    /// Bytes that this takes, about: 24 per holding and 16 per name over the tables' load.
    pub(super) fn bytes(&self) -> usize {
        let state = self.state.read();
        (state.held.capacity() * 25 + state.names.capacity() * 17) * 8 / 7
    }
}

// === impl State ===

impl State {
    fn depth(&self, chain: &[BlockHash], is_held: impl Fn(&[u16; MEDIA]) -> bool) -> usize {
        let mut runs = [0_usize; MOST_GROUPS];
        let mut depth = 0;
        for (at, key) in chain.iter().enumerate() {
            for ((group, window), run) in self.groups.iter().zip(&mut runs) {
                let held = self.held.get(&(*key, *group)).is_some_and(&is_held);
                *run = if held { *run + 1 } else { 0 };
                if window.is_none() && !held {
                    return depth;
                }
            }
            let needed = |window: &Option<usize>| window.unwrap_or(at + 1).min(at + 1);
            if self.groups.values().zip(&runs).all(|(window, run)| *run >= needed(window)) {
                depth = at + 1;
            }
        }
        depth
    }

    /// Drops what nobody needs once a copy is gone.
    fn tidy(&mut self, name: EngineHash, key: BlockHash, group: u32) {
        if self.held.get(&(key, group)).is_some_and(|copies| *copies == [0; MEDIA]) {
            self.held.remove(&(key, group));
            if !self.groups.keys().any(|group| self.held.contains_key(&(key, *group))) {
                self.names.remove(&name);
            }
        }
    }
}
