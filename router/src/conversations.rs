//! Where each conversation is at home: the pod that was sent the very prompt that this one repeats
//! or continues.
//!
//! How deep a pod holds a prompt does not tell a conversation's next turn from a new conversation
//! under the same system prompt; where an earlier prompt ended does. The one belongs where its
//! history is, the other may begin anywhere. A prompt that was continued is no end any more: who
//! comes next from there has branched off, and is new.

#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;

use kv_index::{BlockHash, Milestones, Slot};
use lru::LruCache;
use parking_lot::RwLock;
use xxhash_rust::xxh3::Xxh3Default;

/// The ends of prompts that were sent, by the last milestone before each.
#[derive(Debug)]
pub(crate) struct Conversations {
    ends: RwLock<LruCache<BlockHash, Vec<(End, Slot)>>>,
}

/// Where a prompt ends, known by the last milestone before it and what follows. Not by its last full
/// block: short questions under one system prompt would all end there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    milestone: BlockHash,
    /// Bytes or tokens from the milestone to the end.
    rest_len: usize,
    rest: u64,
}

/// Where a conversation is at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The pod.
    pub slot: Slot,
    /// Blocks that it must still hold to be one.
    pub blocks: usize,
    /// The end that is repeated or continued.
    pub end: End,
}

/// Milestones with ends that are remembered, the latest: so many conversations at least.
const MILESTONES: usize = 16_384;

/// Ends behind one milestone: short first turns under one long prompt share it. With 40 bytes per
/// end, all together take 84 MB at most.
const ENDS_PER_MILESTONE: usize = 128;

/// How many milestones back an end is looked for: 3,000 tokens of answer and question after a
/// short prompt, three times its length after a long one.
const LOOK_BACK: usize = 192;

// === impl End ===

impl End {
    /// The end of a prompt of these bytes or tokens, but for its `open` last ones, which may become
    /// others where it goes on; none if it is shorter than a block.
    #[must_use]
    pub fn of<T: Hash>(
        milestones: &Milestones,
        items: &[T],
        block: usize,
        open: usize,
    ) -> Option<Self> {
        let milestone = *milestones.hashes().last()?;
        let behind = items.get(Milestones::position(milestones.hashes().len()) * block..)?;
        let rest_len = behind.len().saturating_sub(open);
        Some(Self { milestone, rest_len, rest: digest(&behind[..rest_len]) })
    }
}

// === impl Conversations ===

impl Default for Conversations {
    fn default() -> Self {
        let most = NonZeroUsize::new(MILESTONES).expect("it is not zero");
        Self { ends: RwLock::new(LruCache::new(most)) }
    }
}

impl Conversations {
    /// The latest end that this prompt repeats or continues.
    pub(crate) fn home<T: Hash>(
        &self,
        milestones: &Milestones,
        items: &[T],
        block: usize,
    ) -> Option<Home> {
        let mut numbered = milestones.hashes().iter().enumerate().rev().take(LOOK_BACK);
        loop {
            // A client's text is hashed when nobody waits for it any more.
            let (index, mut here) = {
                let ends = self.ends.read();
                numbered.find_map(|(index, at)| Some((index, ends.peek(at)?.clone())))?
            };
            let blocks = Milestones::position(index + 1);
            let behind = items.get(blocks * block..)?;
            if let Some((end, slot)) = longest(&mut here, behind) {
                return Some(Home { slot, blocks, end });
            }
        }
    }

    /// A prompt with this end was sent to a pod. Returns where it was at home until now.
    pub(crate) fn record(&self, end: End, slot: Slot) -> Option<Slot> {
        let mut ends = self.ends.write();
        let here = ends.get_or_insert_mut(end.milestone, Vec::new);
        let known = here.iter().position(|(known, _)| *known == end);
        let before = known.map(|at| here.remove(at));
        if here.len() >= ENDS_PER_MILESTONE {
            here.remove(0);
        }
        here.push((end, slot));
        before.map(|(_, slot)| slot)
    }

    /// It was not answered there: it is at home again where it was, if that was somewhere.
    pub(crate) fn take_back(&self, end: End, slot: Slot, home: Option<Slot>) {
        let Some(home) = home else { return self.forget(end, slot) };
        let mut ends = self.ends.write();
        let known = ends
            .peek_mut(&end.milestone)
            .and_then(|here| here.iter_mut().find(|known| **known == (end, slot)));
        if let Some(known) = known {
            known.1 = home;
        }
    }

    /// Nothing ends there on that pod, or not any more.
    pub(crate) fn forget(&self, end: End, slot: Slot) {
        let mut ends = self.ends.write();
        let Some(here) = ends.peek_mut(&end.milestone) else { return };
        here.retain(|known| *known != (end, slot));
        if here.is_empty() {
            ends.pop(&end.milestone);
        }
    }
}

/// The longest end that is met behind its milestone. From the shortest to the longest they are hashed
/// in one go: what lies behind is read once, however many ends there are.
fn longest<T: Hash>(ends: &mut [(End, Slot)], behind: &[T]) -> Option<(End, Slot)> {
    ends.sort_by_key(|(end, _)| end.rest_len);
    let (mut hasher, mut hashed, mut longest) = (Xxh3Default::new(), 0, None);
    for (end, slot) in ends {
        let Some(more) = behind.get(hashed..end.rest_len) else { break };
        T::hash_slice(more, &mut hasher);
        hashed = end.rest_len;
        if hasher.finish() == end.rest {
            longest = Some((*end, *slot));
        }
    }
    longest
}

fn digest<T: Hash>(items: &[T]) -> u64 {
    let mut hasher = Xxh3Default::new();
    T::hash_slice(items, &mut hasher);
    hasher.finish()
}
