//! What a lookup costs in allocations (nothing), and what churn costs in memory (nothing).

use kv_index::{
    ChainHasher, EngineHash, Event, ExactIndex, ExactSettings, Overlap, Removed, Slots, Stored,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static MEMORY: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

fn store(chain: u32, length: u32) -> Event {
    let tokens = (0..length).map(|at| if at < 20 { at } else { chain << 12 | at });
    Event::Stored(Stored {
        blocks: (0..length).map(|at| name(chain, at)).collect(),
        tokens: tokens.collect(),
        block_tokens: 1,
        ..Stored::default()
    })
}

fn name(chain: u32, at: u32) -> EngineHash {
    let chain = if at < 20 { 0 } else { chain };
    EngineHash(u64::from(chain) << 32 | u64::from(at))
}

#[test]
fn churn_leaves_the_memory_as_it_was() {
    let index = ExactIndex::new(ExactSettings::default(), ChainHasher::with_seed(2));
    let mut slots = Slots::default();
    let slots = [slots.acquire(), slots.acquire(), slots.acquire()];
    let mut sizes = Vec::new();
    for chain in 0..6000_u32 {
        let slot = slots[chain as usize % 3];
        let length = |chain: u32| 100 + chain * 7919 % 400;
        index.apply(slot, &store(chain, length(chain)));
        if let Some(old) = chain.checked_sub(300) {
            let blocks = (20..length(old)).rev().map(|at| name(old, at)).collect();
            index.apply(slot, &Event::Removed(Removed { blocks, ..Removed::default() }));
        }
        if chain % 500 == 499 {
            sizes.push(index.bytes());
        }
    }
    let (early, late) = (sizes[2], sizes[sizes.len() - 1]);
    assert!(late <= early + early / 20, "{sizes:?}");
}

/// Other tests of this process allocate at the same time, so one quiet lookup in many is asked
/// for: a lookup that allocates would never be quiet.
#[test]
fn a_lookup_allocates_nothing_once_warm() {
    let hasher = ChainHasher::with_seed(2);
    let index = ExactIndex::new(ExactSettings::default(), hasher.clone());
    let mut slots = Slots::default();
    let slots: Vec<_> = (0..100).map(|_| slots.acquire()).collect();
    for (slot, chain) in slots.iter().zip(0..) {
        index.apply(*slot, &store(chain % 7, 200));
    }
    // One with several KV-cache groups.
    let Event::Stored(stored) = store(3, 200) else { unreachable!("it is a store") };
    index.apply(slots[10], &Event::Stored(Stored { group: 1, window: Some(64), ..stored }));
    let tokens: Vec<u32> = (0..200).map(|at| if at < 20 { at } else { 3 << 12 | at }).collect();
    let mut chain = Vec::new();
    hasher.chain_tokens(index.root(None, None, 1), &tokens, 1, &mut chain);
    let mut overlap = Overlap::default();
    index.overlap(&chain, &mut overlap);
    let blocks = [3, 4, 10].map(|at| overlap.blocks(slots[at]));
    assert_eq!(blocks, [200, 20, 200]);
    let quiet = (0..100_000).any(|_| {
        let region = Region::new(MEMORY);
        index.overlap(&chain, &mut overlap);
        let change = region.change();
        change.allocations + change.reallocations == 0
    });
    assert!(quiet, "every lookup allocated");
}
