//! What we believe the pods hold: what they answered well, and what is on its way to them.
//!
//! A prompt counts as held only when the pod has begun a good answer to it. Until then it is an
//! assumption, by which equal prompts that come together go together; it ends with the attempt.

use std::sync::Arc;

use kv_index::{LastUse, Milestones, Overlap, Slot};
use parking_lot::Mutex;

use crate::conversations::{Conversations, End, Home};
use crate::knowledge::Knowledge;

/// Everything that is remembered of prompts.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) knowledge: Arc<Knowledge>,
    pub(crate) conversations: Conversations,
    on_their_way: Mutex<Vec<(Slot, Arc<Milestones>)>>,
}

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
        for (slot, sent) in self.on_their_way.lock().iter() {
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
        self.on_their_way.lock().push((slot, Arc::clone(&milestones)));
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
        let mut on_their_way = self.memory.on_their_way.lock();
        let is_this = |(slot, sent): &(Slot, Arc<Milestones>)| {
            *slot == self.slot && Arc::ptr_eq(sent, &self.milestones)
        };
        if let Some(at) = on_their_way.iter().position(is_this) {
            on_their_way.swap_remove(at);
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
