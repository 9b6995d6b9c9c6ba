//! Pods whose model has several KV-cache groups: a hit is what all of them can serve.

use std::collections::BTreeSet;

use kv_index::{
    BlockHash, ChainHasher, EngineHash, Event, ExactIndex, ExactSettings, Overlap, Removed, Slots,
    Stored,
};
use proptest::collection::vec;
use proptest::prelude::*;

const BLOCK_TOKENS: u32 = 4;
const LENGTH: usize = 12;

/// Group 0 attends to everything; group 1 to the last `window` tokens.
fn stored(group: u32, window: Option<u32>, blocks: std::ops::Range<usize>) -> Event {
    let name = |block: usize| EngineHash(block as u64 + 100);
    let tokens = blocks.clone().flat_map(|block| vec![block as u32; BLOCK_TOKENS as usize]);
    Event::Stored(Stored {
        parent: blocks.start.checked_sub(1).map(name),
        tokens: tokens.collect(),
        blocks: blocks.map(name).collect(),
        block_tokens: BLOCK_TOKENS,
        group,
        window,
        ..Stored::default()
    })
}

fn removed(group: u32, block: usize) -> Event {
    let blocks = vec![EngineHash(block as u64 + 100)];
    Event::Removed(Removed { blocks, group, ..Removed::default() })
}

fn chain(index: &ExactIndex, hasher: &ChainHasher) -> Vec<BlockHash> {
    let tokens: Vec<u32> =
        (0..LENGTH as u32).flat_map(|block| vec![block; BLOCK_TOKENS as usize]).collect();
    let mut chain = Vec::new();
    hasher.chain_tokens(index.root(None, None, BLOCK_TOKENS), &tokens, 4, &mut chain);
    chain
}

fn index() -> (ExactIndex, ChainHasher) {
    let hasher = ChainHasher::with_seed(3);
    (ExactIndex::new(ExactSettings::default(), hasher.clone()), hasher)
}

#[test]
fn a_window_group_needs_only_its_window_and_a_full_one_everything() {
    let (index, hasher) = index();
    let slot = Slots::default().acquire();
    let chain = chain(&index, &hasher);
    let mut overlap = Overlap::default();
    let mut depth = |event: Event| {
        index.apply(slot, &event);
        index.overlap(&chain, &mut overlap);
        overlap.blocks(slot)
    };
    // One group: it is all there is.
    assert_eq!(depth(stored(0, None, 0..10)), 10);
    // The second group shows up with a window of 9 tokens: two blocks of 4 hold the last 8.
    assert_eq!(depth(stored(1, Some(9), 0..10)), 10);
    // It lets go of what is behind its window: still a hit at 10.
    assert_eq!(depth(removed(1, 0)), 10);
    assert_eq!(depth(removed(1, 7)), 10);
    // Of block 8 it must not: what it can serve now ends at block 7, which needs 5 and 6.
    assert_eq!(depth(removed(1, 8)), 7);
    // The group of full attention loses a block: nothing behind it is a hit.
    assert_eq!(depth(removed(0, 4)), 4);
    assert_eq!(depth(Event::Cleared), 0);
    assert_eq!(index.holder_blocks(), 0);
}

#[test]
fn what_was_held_before_the_second_group_showed_up_is_not_lost() {
    let (index, hasher) = index();
    let slot = Slots::default().acquire();
    let chain = chain(&index, &hasher);
    let mut overlap = Overlap::default();
    index.apply(slot, &stored(0, None, 0..6));
    index.apply(slot, &stored(0, None, 5..6));
    index.apply(slot, &stored(1, Some(1000), 0..6));
    index.apply(slot, &removed(0, 5));
    index.overlap(&chain, &mut overlap);
    assert_eq!(overlap.blocks(slot), 6, "the second copy of the last block is still there");
    index.apply(slot, &removed(0, 5));
    index.overlap(&chain, &mut overlap);
    assert_eq!(overlap.blocks(slot), 5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hit_is_what_all_groups_can_serve(
        window in 1..20_u32,
        removals in vec((0..3_u32, 0..LENGTH), 0..20),
    ) {
        let (index, hasher) = index();
        let slot = Slots::default().acquire();
        let chain = chain(&index, &hasher);
        let groups = [(0, None), (1, Some(window)), (2, None)];
        let mut held = BTreeSet::new();
        for (group, window) in groups {
            index.apply(slot, &stored(group, window, 0..LENGTH));
            held.extend((0..LENGTH).map(|block| (group, block)));
        }
        for (group, block) in removals {
            index.apply(slot, &removed(group, block));
            held.remove(&(group, block));
        }
        let serves = |depth: usize| groups.iter().all(|(group, window)| {
            let needed = window.map_or(depth, |window| (window as usize - 1).div_ceil(4).max(1));
            (depth.saturating_sub(needed)..depth).all(|block| held.contains(&(*group, block)))
        });
        let truth = (0..=LENGTH).rev().find(|depth| serves(*depth)).unwrap_or(0);
        let mut overlap = Overlap::default();
        index.overlap(&chain, &mut overlap);
        prop_assert_eq!(overlap.blocks(slot) as usize, truth);
    }
}
