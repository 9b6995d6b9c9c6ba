//! What we believe the pods hold: what they answered well, and what is on its way to them.
//!
//! A prompt counts as held only when the pod has begun a good answer to it. Until then it is an
//! assumption, by which equal prompts that come together go together; it ends with the attempt.

use std::collections::HashMap;
use std::sync::Arc;

use kv_index::{BlockHash, LastUse, Milestones, Overlap, Slot};
use parking_lot::Mutex;

use crate::conversations::{Conversations, End, Home};
use crate::knowledge::Knowledge;

/// Everything that is remembered of prompts.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) knowledge: Arc<Knowledge>,
    pub(crate) conversations: Conversations,
    /// By their first milestone: with others a prompt has nothing in common.
    on_their_way: Mutex<HashMap<BlockHash, Vec<OnItsWay>>>,
}

/// A prompt, and the pod that was sent it.
type OnItsWay = (Slot, Arc<Milestones>);

/// A prompt on its way to a pod. Dropped before it was confirmed, nothing is remembered of it.
#[derive(Debug)]
pub(crate) struct Assumption {
    memory: Arc<Memory>,
    slot: Slot,
    milestones: Arc<Milestones>,
    capacity: Option<usize>,
    /// Its end, and where a prompt with that end was at home before: a repetition of what is
    /// remembered stays remembered if this attempt fails, or a second one beside the first.
    end: Option<End>,
    home: Option<Slot>,
    continued: Option<Home>,
    is_open: bool,
}

/// What is assumed of a pod.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The pod.
    pub(crate) slot: Slot,
    /// The prompt.
    pub(crate) milestones: Arc<Milestones>,
    /// Blocks that the pod can hold, if known.
    pub(crate) capacity: Option<usize>,
    /// Where the prompt ends.
    pub(crate) end: Option<End>,
    /// The prompt that it continues or repeats.
    pub(crate) continued: Option<Home>,
}

// === impl Memory ===

impl Memory {
    pub(crate) fn new(knowledge: Arc<Knowledge>) -> Self {
        let (conversations, on_their_way) = (Conversations::default(), Mutex::default());
        Self { knowledge, conversations, on_their_way }
    }

    /// Writes into `overlap` how many leading blocks each of `slots` holds or is about to hold.
    pub(crate) fn overlap(
        &self,
        chain: &Milestones,
        slots: impl Iterator<Item = Slot>,
        now_ms: u64,
        overlap: &mut Overlap,
    ) {
        self.knowledge.approximate.overlap(chain, slots, now_ms, overlap);
        let Some(first) = chain.hashes().first() else { return };
        let on_their_way = self.on_their_way.lock();
        for (slot, sent) in on_their_way.get(first).into_iter().flatten() {
            let blocks = Milestones::position(common(chain, sent));
            if blocks > overlap.blocks(*slot) as usize {
                let eviction_age_ms = overlap.eviction_age_ms(*slot);
                overlap.set(*slot, blocks, LastUse::OnItsWay, eviction_age_ms);
            }
        }
    }

    /// A prompt goes on its way.
    pub(crate) fn assume(self: &Arc<Self>, sent: Sent) -> Assumption {
        let Sent { slot, milestones, capacity, end, continued } = sent;
        if let Some(first) = milestones.hashes().first() {
            let mut on_their_way = self.on_their_way.lock();
            on_their_way.entry(*first).or_default().push((slot, Arc::clone(&milestones)));
        }
        let memory = Arc::clone(self);
        let continued = continued.filter(|home| Some(home.end) != end);
        let home = end.and_then(|end| memory.conversations.record(end, slot));
        Assumption { memory, slot, milestones, capacity, end, home, continued, is_open: true }
    }
}

/// How many leading milestones two chains have in common: a hash vouches for all before it.
fn common(a: &Milestones, b: &Milestones) -> usize {
    let (a, b) = (a.hashes(), b.hashes());
    let len = a.len().min(b.len());
    if len == 0 || a[0] != b[0] {
        return 0;
    }
    let (mut low, mut high) = (1, len);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if a[middle - 1] == b[middle - 1] { low = middle } else { high = middle - 1 }
    }
    low
}

// === impl Assumption ===

impl Assumption {
    /// The pod has begun a good answer: what it was sent, it holds.
    pub(crate) fn confirm(&mut self, now_ms: u64) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        self.memory.knowledge.approximate.record(
            self.slot,
            &self.milestones,
            self.capacity,
            now_ms,
        );
        if let Some(home) = self.continued {
            self.memory.conversations.forget(home.end, home.slot);
        }
        self.arrive();
    }

    fn arrive(&self) {
        let Some(first) = self.milestones.hashes().first() else { return };
        let mut on_their_way = self.memory.on_their_way.lock();
        let Some(here) = on_their_way.get_mut(first) else { return };
        let is_this = |(slot, sent): &(Slot, Arc<Milestones>)| {
            *slot == self.slot && Arc::ptr_eq(sent, &self.milestones)
        };
        if let Some(at) = here.iter().position(is_this) {
            here.swap_remove(at);
        }
        if here.is_empty() {
            on_their_way.remove(first);
        }
    }
}

impl Drop for Assumption {
    fn drop(&mut self) {
        if self.is_open {
            self.arrive();
            if let Some(end) = self.end {
                self.memory.conversations.take_back(end, self.slot, self.home);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kv_index::{ChainHasher, Slots};

    use super::*;

    fn prompt(text: &str) -> Arc<Milestones> {
        let hasher = ChainHasher::with_seed(1);
        Arc::new(hasher.milestones(hasher.root(&["m"]), text.as_bytes(), 4))
    }

    fn sent(slot: Slot, text: &str) -> Sent {
        Sent { slot, milestones: prompt(text), capacity: None, end: None, continued: None }
    }

    #[test]
    fn what_is_on_its_way_is_found_by_its_beginning_and_forgotten_with_its_attempt() {
        let (memory, mut slots) = (Arc::new(Memory::new(Arc::default())), Slots::default());
        let (a, b) = (slots.acquire(), slots.acquire());
        let assumed = [sent(a, "aaaabbbb"), sent(b, "aaaabbbb"), sent(b, "ccccdddd"), sent(b, "a")]
            .map(|sent| memory.assume(sent));
        let blocks = |text: &str| {
            let mut overlap = Overlap::default();
            memory.overlap(&prompt(text), [a, b].into_iter(), 0, &mut overlap);
            [a, b].map(|slot| overlap.blocks(slot))
        };
        assert_eq!(blocks("aaaabbbbeeee"), [2, 2]);
        assert_eq!(blocks("aaaaffff"), [1, 1]);
        assert_eq!(blocks("ccccdddd"), [0, 2]);
        assert_eq!(blocks("bbbb"), [0, 0]);
        assert_eq!(memory.on_their_way.lock().len(), 2, "what is shorter than a block is nowhere");
        drop(assumed);
        assert_eq!(blocks("aaaabbbb"), [0, 0]);
        assert!(memory.on_their_way.lock().is_empty());
    }
}
