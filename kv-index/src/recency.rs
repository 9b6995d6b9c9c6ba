//! What one pod was sent, as an LRU that mirrors vLLM's.

use std::collections::BTreeSet;

use hashbrown::HashTable;
use slab::Slab;

use crate::{BlockHash, Milestones};

/// What one remembered milestone costs: its node (48) and its entry in a table that is 0.44 full on
/// average after doubling ((8 + 1) / 0.44 = 20). The order of the chains' ends takes 16 to 32 more
/// for each chain, not for each milestone.
pub const BYTES_PER_ENTRY: usize = 68;

/// Places by which it grows beyond what it may have.
const SPARE: usize = 16;

/// The chains that a pod was sent, at their milestones, most recently used first.
///
/// vLLM frees a request's blocks tail first, so the tail of a chain is evicted before its head, and
/// a block is never older than one that continues it. So this is a tree: only milestones that none
/// continues are put in order, and to use a chain again is to walk up from its end, not to move each
/// of its milestones to the front of a list (158 of them for 32 KB of text). Two things follow, and
/// `tests/approximate.rs` holds them against a naive model: whatever is evicted, the set stays
/// closed under prefixes; and so the depth of a chain can be found by bisection.
#[derive(Debug)]
pub struct Recency {
    nodes: Slab<Node>,
    /// Where each milestone is in `nodes`. A milestone's hash is keyed already.
    places: HashTable<usize>,
    /// The ends: milestones that none continues, by their last use.
    ends: BTreeSet<(u64, usize)>,
    capacity: Capacity,
    blocks: usize,
    uses: u64,
}

/// How much is remembered at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// What the pod can hold, in blocks.
    pub blocks: usize,
    /// What we can hold, in milestones.
    pub entries: usize,
}

/// A milestone.
#[derive(Debug)]
struct Node {
    block: BlockHash,
    /// The milestone before it.
    before: Option<u32>,
    /// How many milestones continue it.
    continued_by: u32,
    /// Blocks since the milestone before it.
    stride: u32,
    /// Its last use, counted in uses of the whole.
    used: u64,
    /// The same in milliseconds.
    used_ms: u64,
}

// === impl Recency ===

impl Recency {
    /// Nothing yet.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let (nodes, places, ends) = (Slab::new(), HashTable::new(), BTreeSet::new());
        Self { nodes, places, ends, capacity, blocks: 0, uses: 0 }
    }

    /// Changes the capacity, forgetting the oldest blocks if it shrinks, and giving back what it takes
    /// more than twice as much as it may.
    pub fn resize(&mut self, capacity: Capacity) {
        self.capacity = capacity;
        self.shrink();
        if self.nodes.capacity() / 2 > capacity.entries.saturating_add(SPARE) {
            self.compact();
        }
    }

    /// Marks the whole chain as used at `now_ms`, its head as the most recent. A chain longer than
    /// the capacity keeps its head.
    pub fn touch(&mut self, chain: &Milestones, now_ms: u64) {
        let fits = |number: &usize| {
            *number <= self.capacity.entries
                && Milestones::position(*number) <= self.capacity.blocks
        };
        let kept = (1..=chain.hashes().len()).take_while(fits).count();
        let chain = &chain.hashes()[..kept];
        let known = chain.partition_point(|block| self.place(*block).is_some());
        let mut end = known.checked_sub(1).and_then(|last| self.place(chain[last]));
        if let Some(end) = end {
            self.ends.remove(&(self.nodes[end].used, end));
        }
        for (at, block) in chain.iter().enumerate().skip(known) {
            end = Some(self.append(end, *block, Milestones::stride(at + 1)));
        }
        if let Some(end) = end {
            self.mark_used(end, now_ms);
        }
        self.shrink();
    }

    /// How many leading blocks are remembered and were used at or after `since_ms`, and when the
    /// deepest of them was last used.
    #[must_use]
    pub fn depth(&self, chain: &Milestones, since_ms: u64) -> (usize, u64) {
        let chain = chain.hashes();
        let used_ms = |block: &BlockHash| Some(self.nodes[self.place(*block)?].used_ms);
        let held = |block: &BlockHash| used_ms(block).is_some_and(|ms| ms >= since_ms);
        if !chain.first().is_some_and(held) {
            return (0, 0);
        }
        // Often all of it is, or nothing: a conversation goes on where it was.
        let depth = match chain.last().is_some_and(held) {
            true => chain.len(),
            false => chain.partition_point(held),
        };
        let last = chain[..depth].last().and_then(used_ms);
        (Milestones::position(depth), last.unwrap_or(0))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self { uses: self.uses, ..Self::new(self.capacity) };
    }

    /// Forgets every block last used at or before `ms`: the pod has shown that one of that age is
    /// gone, and it evicts the oldest first.
    pub fn forget_until(&mut self, ms: u64) {
        while self.oldest().is_some_and(|oldest| oldest.used_ms <= ms) {
            self.pop();
        }
    }

    /// When the next block to be evicted was last used; none while there is room.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        let oldest = self.oldest()?;
        let room = self.capacity.blocks.saturating_sub(self.blocks);
        let is_full = room < oldest.stride as usize || self.nodes.len() >= self.capacity.entries;
        is_full.then_some(oldest.used_ms)
    }

    /// Blocks remembered.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Milestones remembered.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes taken, room for more included; of the ends' order about as many as a tree that is two
    /// thirds full takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let nodes = self.nodes.capacity() * size_of::<Option<Node>>();
        nodes + self.places.allocation_size() + self.ends.len() * size_of::<(u64, usize)>() * 3 / 2
    }

    /// Moves what is left together, and gives back the rest.
    fn compact(&mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        let mut places = vec![0; nodes.iter().next_back().map_or(0, |(at, _)| at + 1)];
        for (to, (at, _)) in nodes.iter().enumerate() {
            places[at] = to;
        }
        let moved = |at: u32| u32::try_from(places[at as usize]).ok();
        self.nodes.reserve_exact(nodes.len());
        self.places = HashTable::with_capacity(nodes.len());
        for (_, node) in nodes {
            let block = node.block;
            let at = self.nodes.insert(Node { before: node.before.and_then(moved), ..node });
            let nodes = &self.nodes;
            self.places.insert_unique(block.get(), at, |at| nodes[*at].block.get());
        }
        self.ends = self.ends.iter().map(|(used, end)| (*used, places[*end])).collect();
    }

    fn place(&self, block: BlockHash) -> Option<usize> {
        self.places.find(block.get(), |at| self.nodes[*at].block == block).copied()
    }

    /// Adds a milestone behind another, and returns its place.
    fn append(&mut self, before: Option<usize>, block: BlockHash, stride: usize) -> usize {
        if let Some(before) = before {
            self.nodes[before].continued_by += 1;
        }
        let node = Node {
            block,
            before: before.and_then(|at| u32::try_from(at).ok()),
            continued_by: 0,
            stride: u32::try_from(stride).unwrap_or(u32::MAX),
            used: 0,
            used_ms: 0,
        };
        self.blocks += stride;
        if self.nodes.len() == self.nodes.capacity() {
            // Doubled, but to no more than it may have: only a chain that others make way for is beyond.
            let room = self.capacity.entries.saturating_sub(self.nodes.len());
            self.nodes.reserve_exact(self.nodes.len().clamp(1, room.max(SPARE)));
        }
        let at = self.nodes.insert(node);
        let nodes = &self.nodes;
        self.places.insert_unique(block.get(), at, |at| nodes[*at].block.get());
        at
    }

    /// Marks a chain as used, from its end to its head.
    fn mark_used(&mut self, end: usize, now_ms: u64) {
        self.uses += 1;
        let mut here = Some(end);
        while let Some(node) = here.and_then(|at| self.nodes.get_mut(at)) {
            (node.used, node.used_ms) = (self.uses, now_ms);
            here = node.before.map(|before| before as usize);
        }
        if self.nodes[end].continued_by == 0 {
            self.ends.insert((self.uses, end));
        }
    }

    fn oldest(&self) -> Option<&Node> {
        self.ends.first().map(|(_, end)| &self.nodes[*end])
    }

    fn shrink(&mut self) {
        while self.blocks > self.capacity.blocks || self.nodes.len() > self.capacity.entries {
            if !self.pop() {
                break;
            }
        }
    }

    /// Forgets the oldest end.
    fn pop(&mut self) -> bool {
        let Some((_, end)) = self.ends.pop_first() else { return false };
        let node = self.nodes.remove(end);
        if let Ok(place) = self.places.find_entry(node.block.get(), |at| *at == end) {
            place.remove();
        }
        self.blocks -= node.stride as usize;
        if let Some(before) = node.before.map(|before| before as usize) {
            let node = &mut self.nodes[before];
            node.continued_by -= 1;
            if node.continued_by == 0 {
                self.ends.insert((node.used, before));
            }
        }
        true
    }
}
