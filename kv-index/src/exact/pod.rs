//! What only one pod has: its own names for blocks, its second copies, what it said too early.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::hybrid::Hybrid;
use crate::{EngineHash, Slot, Stored};

/// One pod.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) slot: Slot,
    /// Blocks held, counted once per medium.
    pub(super) blocks: usize,
    /// Every run that it holds a part of, and some that it no longer does.
    pub(super) runs: Vec<u32>,
    /// When to strike the latter out.
    pub(super) sort_at: usize,
    /// Names that mean another block to this pod than to the ledger, or that the ledger lacks.
    pub(super) names: AHashMap<u64, Named>,
    /// Blocks, by the ledger's name, that it holds under names of its own only.
    pub(super) aliased: AHashSet<u64>,
    /// Blocks stored more than once: how often more. By the ledger's name and the medium.
    pub(super) spare: AHashMap<(u64, usize), u32>,
    /// Stores whose parent it has not named yet.
    pub(super) waiting: VecDeque<Stored>,
    /// What it holds if its model has several KV-cache groups.
    pub(super) hybrid: Option<Arc<Hybrid>>,
}

/// A block by the ledger's name; by its key it is seen whether that name still means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: u64,
    pub(super) key: u64,
}

/// Stores that wait for a parent, at most, and their blocks at most.
const MOST_WAITING: usize = 32;
const MOST_WAITING_BLOCKS: usize = 4096;

// === impl Pod ===

impl Pod {
    pub(super) fn new(slot: Slot) -> Self {
        Self {
            slot,
            blocks: 0,
            runs: Vec::new(),
            sort_at: 64,
            names: AHashMap::new(),
            aliased: AHashSet::new(),
            spare: AHashMap::new(),
            waiting: VecDeque::new(),
            hybrid: None,
        }
    }

    /// Keeps a store until its parent is named. Returns how many blocks of older ones had to go.
    pub(super) fn wait(&mut self, stored: &Stored) -> usize {
        self.waiting.push_back(stored.clone());
        let mut lost = 0;
        while self.waiting.len() > MOST_WAITING || self.waiting_blocks() > MOST_WAITING_BLOCKS {
            lost += self.waiting.pop_front().map_or(0, |stored| stored.blocks.len());
        }
        lost
    }

    /// Forgets everything but what it holds in the runs.
    pub(super) fn forget(&mut self) {
        let Self { slot, blocks, .. } = *self;
        let runs = std::mem::take(&mut self.runs);
        *self = Self { blocks, runs, ..Self::new(slot) };
    }

    /// A waiting store whose parent is among `named`.
    pub(super) fn awaited(&mut self, named: &[EngineHash]) -> Option<Stored> {
        if self.waiting.is_empty() {
            return None;
        }
        let named: AHashSet<_> = named.iter().collect();
        let is_due = |stored: &Stored| stored.parent.is_some_and(|parent| named.contains(&parent));
        let at = self.waiting.iter().position(is_due)?;
        self.waiting.remove(at)
    }

    /// A block was removed that may still be waiting: then it and what follows it is forgotten.
    /// Returns how many blocks that were.
    pub(super) fn unwait(&mut self, removed: EngineHash) -> usize {
        let mut lost = 0;
        for stored in &mut self.waiting {
            if let Some(at) = stored.blocks.iter().position(|block| *block == removed) {
                lost += stored.blocks.len() - at;
                stored.blocks.truncate(at);
                stored.tokens.truncate(at * stored.block_tokens as usize);
            }
        }
        self.waiting.retain(|stored| !stored.blocks.is_empty());
        lost
    }

    /// Bytes that this takes, about: 24 (32) per name (spare), one control byte, over the load.
    pub(super) fn bytes(&self) -> usize {
        let names = self.names.capacity() * 8 / 7 * 25;
        let spare = self.spare.capacity() * 8 / 7 * 33;
        let aliased = self.aliased.capacity() * 8 / 7 * 9;
        let waiting = self.waiting_blocks() * 80;
        let hybrid = self.hybrid.as_ref().map_or(0, |hybrid| hybrid.bytes());
        size_of::<Self>() + self.runs.capacity() * 4 + names + aliased + spare + waiting + hybrid
    }

    fn waiting_blocks(&self) -> usize {
        self.waiting.iter().map(|stored| stored.blocks.len()).sum()
    }
}
