//! The approximate index against a naive model: sets of prefixes with times.

use std::collections::HashMap;

use kv_index::{
    ApproximateIndex, BYTES_PER_ENTRY, BlockHash, Capacity, ChainHasher, Milestones, Overlap,
    Recency, Settings, Slot, Slots,
};
use proptest::prelude::*;

const BLOCK: usize = 2;

/// A chain over a tiny alphabet, so that prefixes meet.
fn chain(tokens: &[u32]) -> Milestones {
    let hasher = ChainHasher::with_seed(1);
    let mut chain = Vec::new();
    hasher.chain_tokens(hasher.root(&["m"]), tokens, BLOCK, &mut chain);
    Milestones::of(&chain)
}

fn depth(index: &ApproximateIndex, slot: Slot, chain: &Milestones, now_ms: u64) -> u32 {
    let mut overlap = Overlap::default();
    index.overlap(chain, std::iter::once(slot), now_ms, &mut overlap);
    overlap.blocks(slot)
}

/// The slow truth: every milestone with a recency stamp and its blocks, the smallest stamp evicted
/// first.
#[derive(Default)]
struct Naive {
    stamps: HashMap<BlockHash, (u64, u64, usize)>,
    clock: u64,
}

impl Naive {
    fn blocks(&self) -> usize {
        self.stamps.values().map(|stamp| stamp.2).sum()
    }

    fn touch(&mut self, chain: &Milestones, now_ms: u64, capacity: Capacity) {
        let fits =
            |n: &usize| Milestones::position(*n) <= capacity.blocks && *n <= capacity.entries;
        let kept = (1..=chain.hashes().len()).take_while(fits).count();
        for number in (1..=kept).rev() {
            self.clock += 1;
            let stamp = (self.clock, now_ms, Milestones::stride(number));
            self.stamps.insert(chain.hashes()[number - 1], stamp);
            self.keep_within(capacity);
        }
    }

    fn keep_within(&mut self, capacity: Capacity) {
        while self.blocks() > capacity.blocks || self.stamps.len() > capacity.entries {
            let oldest = *self.stamps.iter().min_by_key(|(_, stamp)| stamp.0).expect("full").0;
            self.stamps.remove(&oldest);
        }
    }

    fn depth(&self, chain: &Milestones, since_ms: u64) -> usize {
        let held = |b: &&BlockHash| self.stamps.get(b).is_some_and(|s| s.1 >= since_ms);
        Milestones::position(chain.hashes().iter().take_while(held).count())
    }
}

/// Runs of one token, so that chains are short to write, meet, and are longer than the first
/// stretch of milestones that stand at every block.
fn tokens(runs: &[(u32, usize)]) -> Vec<u32> {
    runs.iter().flat_map(|(token, length)| std::iter::repeat_n(*token, *length)).collect()
}

proptest! {
    #[test]
    fn recency_equals_the_naive_model(
        capacity in (1_usize..900, prop_oneof![1_usize..12, Just(usize::MAX)])
            .prop_map(|(blocks, entries)| Capacity { blocks, entries }),
        prompts in prop::collection::vec(
            (prop::collection::vec((0_u32..3, prop_oneof![1_usize..6, 200_usize..400]), 0..4),
             0_u64..5, prop::bool::weighted(0.1), prop::option::weighted(0.1, 1_usize..12)), 1..30),
    ) {
        let mut capacity = capacity;
        let (mut clever, mut naive) = (Recency::new(capacity), Naive::default());
        let mut now_ms = 10;
        for (runs, step_ms, forget, entries) in prompts {
            now_ms += step_ms;
            if let Some(entries) = entries {
                capacity.entries = entries;
                clever.resize(capacity);
                naive.keep_within(capacity);
            }
            let chain = chain(&tokens(&runs));
            if forget {
                clever.forget_until(now_ms - 3);
                naive.stamps.retain(|_, stamp| stamp.1 > now_ms - 3);
            }
            for since_ms in [0, now_ms - 2] {
                prop_assert_eq!(clever.depth(&chain, since_ms).0, naive.depth(&chain, since_ms));
            }
            clever.touch(&chain, now_ms);
            naive.touch(&chain, now_ms, capacity);
            prop_assert_eq!(clever.entries(), naive.stamps.len());
            prop_assert_eq!(clever.blocks(), naive.blocks());
        }
    }
}

#[test]
fn a_pod_is_credited_with_what_it_was_sent_until_it_ages() {
    let index = ApproximateIndex::new(Settings { bytes: 1 << 20, max_age_ms: 100 });
    let mut slots = Slots::default();
    let (a, b) = (slots.acquire(), slots.acquire());
    index.record(a, &chain(&[1, 2, 3, 4, 5, 6]), None, 1_000);
    assert_eq!(depth(&index, a, &chain(&[1, 2, 3, 4, 9, 9]), 1_000), 2);
    assert_eq!(depth(&index, a, &chain(&[9, 2, 3, 4]), 1_000), 0);
    assert_eq!(depth(&index, b, &chain(&[1, 2]), 1_000), 0);
    assert_eq!(depth(&index, a, &chain(&[1, 2]), 1_101), 0, "100 ms without use is too old");
}

#[test]
fn a_pod_that_takes_over_a_slot_inherits_nothing_and_the_dead_one_cannot_speak_for_it() {
    let index = ApproximateIndex::new(Settings::default());
    let mut slots = Slots::default();
    let old = slots.acquire();
    index.record(old, &chain(&[1, 2]), None, 1);
    index.remove(old);
    slots.release(old);
    let new = slots.acquire();
    index.record(old, &chain(&[1, 2]), None, 1);
    assert_eq!(index.blocks(), 0, "a late word about a removed pod is ignored");
    assert_eq!(depth(&index, new, &chain(&[1, 2]), 1), 0);
    index.record(new, &chain(&[3, 4]), None, 2);
    index.record(old, &chain(&[1, 2]), None, 3);
    index.remove(old);
    assert_eq!(depth(&index, new, &chain(&[1, 2]), 3), 0);
    assert_eq!(depth(&index, new, &chain(&[3, 4]), 3), 1);
}

#[test]
fn the_byte_budget_holds_and_eviction_age_appears_when_a_pod_is_full() {
    let index =
        ApproximateIndex::new(Settings { bytes: 64 * BYTES_PER_ENTRY * 8, max_age_ms: u64::MAX });
    let slot = Slots::default().acquire();
    for i in 0..100_u32 {
        index.record(slot, &chain(&[i, i]), None, u64::from(i));
    }
    assert_eq!(index.blocks(), 8, "the budget of 64 pods, one share used");
    let mut overlap = Overlap::default();
    index.overlap(&chain(&[0, 0]), std::iter::once(slot), 99, &mut overlap);
    assert_eq!(overlap.eviction_age_ms(slot), Some(7));
    index.record(slot, &chain(&[7, 7]), Some(3), 100);
    assert_eq!(index.blocks(), 3, "a pod's own capacity binds when it is smaller");
}

#[test]
fn a_share_that_shrinks_gives_its_memory_back() {
    let most = |entries| Capacity { blocks: usize::MAX, entries };
    let mut recency = Recency::new(most(4_000));
    let last = |n: u32| chain(&[n, n, n + 1, n + 1]);
    (0..4_000).for_each(|n| recency.touch(&last(n), 1));
    let before = recency.bytes();
    assert!(before <= 4_000 * BYTES_PER_ENTRY * 3 / 2, "{before}");
    recency.resize(most(400));
    assert!(recency.bytes() <= before / 8, "{} of {before}", recency.bytes());
    assert_eq!((recency.entries(), recency.depth(&last(3_999), 0).0), (400, 2));
    (0..400).for_each(|n| recency.touch(&last(n), 2));
    assert_eq!((recency.entries(), recency.depth(&last(399), 0).0), (400, 2));
    recency.clear();
    assert_eq!(recency.bytes(), 0);
}

#[test]
fn reality_corrects_the_memory_from_the_oldest_end() {
    let index = ApproximateIndex::new(Settings::default());
    let slot = Slots::default().acquire();
    for i in 0..10_u32 {
        index.record(slot, &chain(&[i, i, i, i]), None, u64::from(i));
    }
    index.forget_until(slot, 6);
    assert_eq!(depth(&index, slot, &chain(&[6, 6, 6, 6]), 10), 0);
    assert_eq!(depth(&index, slot, &chain(&[7, 7, 7, 7]), 10), 2);
}
