//! Single rules, each with what it guards against.

use kv_index::{
    Applied, BlockHash, ChainHasher, EngineHash, Event, ExactIndex, ExactSettings, ExtraKey,
    Medium, Overlap, Removed, Slot, Slots, Stored,
};

struct Bench {
    index: ExactIndex,
    hasher: ChainHasher,
    slots: Slots,
}

impl Bench {
    fn new() -> Self {
        let hasher = ChainHasher::with_seed(5);
        let index = ExactIndex::new(ExactSettings::default(), hasher.clone());
        Self { index, hasher, slots: Slots::default() }
    }

    fn chain(&self, salt: Option<&str>, tokens: &[u32]) -> Vec<BlockHash> {
        let mut chain = Vec::new();
        self.hasher.chain_tokens(self.index.root(None, salt, 1), tokens, 1, &mut chain);
        chain
    }

    /// Blocks of one token each, named by their numbers.
    fn store(&self, slot: Slot, parent: Option<u64>, blocks: &[(u64, u32)]) -> Applied {
        self.index.apply(slot, &Event::Stored(stored(parent, blocks)))
    }

    fn remove(&self, slot: Slot, names: &[u64], medium: Medium) -> Applied {
        let blocks = names.iter().copied().map(EngineHash).collect();
        self.index.apply(slot, &Event::Removed(Removed { blocks, medium, group: 0 }))
    }

    fn depth(&self, slot: Slot, tokens: &[u32]) -> u32 {
        self.depths(slot, &self.chain(None, tokens)).0
    }

    fn depths(&self, slot: Slot, chain: &[BlockHash]) -> (u32, u32) {
        let mut overlap = Overlap::default();
        self.index.overlap(chain, &mut overlap);
        (overlap.blocks(slot), overlap.gpu_blocks(slot))
    }
}

fn stored(parent: Option<u64>, blocks: &[(u64, u32)]) -> Stored {
    Stored {
        blocks: blocks.iter().map(|(name, _)| EngineHash(*name)).collect(),
        parent: parent.map(EngineHash),
        tokens: blocks.iter().map(|(_, token)| *token).collect(),
        block_tokens: 1,
        ..Stored::default()
    }
}

#[test]
fn equal_blocks_behind_another_prefix_are_not_a_hit() {
    let mut bench = Bench::new();
    let (a, b) = (bench.slots.acquire(), bench.slots.acquire());
    bench.store(a, None, &[(11, 1), (12, 2), (13, 3), (14, 4)]);
    bench.store(b, None, &[(29, 9), (22, 92), (23, 93), (24, 4)]);
    assert_eq!(bench.depth(a, &[1, 92, 93, 4]), 1);
    assert_eq!(bench.depth(b, &[1, 92, 93, 4]), 0);
}

#[test]
fn a_block_stored_twice_is_held_until_it_is_removed_twice() {
    let mut bench = Bench::new();
    let slot = bench.slots.acquire();
    bench.store(slot, None, &[(1, 1), (2, 2)]);
    assert_eq!(bench.store(slot, Some(1), &[(2, 2)]).duplicate, 1);
    let announced = Stored { is_announcement: true, ..stored(None, &[(1, 1), (2, 2)]) };
    assert_eq!(bench.index.apply(slot, &Event::Stored(announced)).duplicate, 2);
    bench.remove(slot, &[2], Medium::Gpu);
    assert_eq!(bench.depth(slot, &[1, 2]), 2);
    bench.remove(slot, &[2], Medium::Gpu);
    assert_eq!(bench.depth(slot, &[1, 2]), 1, "an announcement is no second copy");
    assert_eq!(bench.remove(slot, &[2], Medium::Gpu).unknown_block, 1);
}

#[test]
fn an_unknown_parent_is_waited_for_and_never_guessed() {
    let mut bench = Bench::new();
    let (a, b) = (bench.slots.acquire(), bench.slots.acquire());
    bench.store(a, None, &[(1, 1), (2, 2)]);
    let late = bench.store(b, Some(2), &[(3, 3)]);
    assert_eq!((late.unknown_parent, late.stored), (1, 0), "another pod's block is no parent");
    assert_eq!(bench.depth(b, &[1, 2, 3]), 0);
    let named = bench.store(b, None, &[(1, 1), (2, 2)]);
    assert_eq!((named.resolved_late, named.stored), (1, 3));
    assert_eq!(bench.depth(b, &[1, 2, 3]), 3);
}

#[test]
fn two_pods_may_mean_different_blocks_by_one_name() {
    let mut bench = Bench::new();
    let (a, b) = (bench.slots.acquire(), bench.slots.acquire());
    bench.store(a, None, &[(1, 1), (2, 2)]);
    bench.store(b, None, &[(2, 1), (1, 7)]);
    assert_eq!((bench.depth(a, &[1, 2]), bench.depth(b, &[1, 7])), (2, 2));
    bench.remove(b, &[1], Medium::Gpu);
    assert_eq!((bench.depth(a, &[1, 2]), bench.depth(b, &[1, 7])), (2, 1));
    bench.store(b, Some(2), &[(9, 2)]);
    assert_eq!(bench.depth(b, &[1, 2]), 2, "the parent is what b means by it");
}

#[test]
fn media_are_kept_apart_and_together() {
    let mut bench = Bench::new();
    let slot = bench.slots.acquire();
    bench.store(slot, None, &[(1, 1), (2, 2), (3, 3)]);
    let offload = Stored { medium: Medium::Cpu, tokens: vec![], ..stored(None, &[(1, 0), (2, 0)]) };
    bench.index.apply(slot, &Event::Stored(offload));
    bench.remove(slot, &[3, 2], Medium::Gpu);
    assert_eq!(bench.depths(slot, &bench.chain(None, &[1, 2, 3])), (2, 1));
    bench.remove(slot, &[1], Medium::Gpu);
    assert_eq!(bench.depths(slot, &bench.chain(None, &[1, 2, 3])), (2, 0));
}

#[test]
fn a_hole_ends_the_depth_and_closes_again() {
    let mut bench = Bench::new();
    let slot = bench.slots.acquire();
    bench.store(slot, None, &[(1, 1), (2, 2), (3, 3)]);
    bench.remove(slot, &[2], Medium::Gpu);
    assert_eq!(bench.depth(slot, &[1, 2, 3]), 1);
    bench.store(slot, Some(1), &[(2, 2)]);
    assert_eq!(bench.depth(slot, &[1, 2, 3]), 3);
    bench.remove(slot, &[1], Medium::Gpu);
    assert_eq!(bench.depth(slot, &[1, 2, 3]), 0);
    bench.store(slot, None, &[(1, 1)]);
    assert_eq!(bench.depth(slot, &[1, 2, 3]), 3);
}

#[test]
fn a_salt_is_part_of_the_root_and_an_image_matches_no_text() {
    let mut bench = Bench::new();
    let slot = bench.slots.acquire();
    let salted = Stored {
        extra_keys: vec![vec![ExtraKey::Text("t".to_owned())], vec![]],
        ..stored(None, &[(1, 1), (2, 2)])
    };
    bench.index.apply(slot, &Event::Stored(salted));
    assert_eq!(bench.depth(slot, &[1, 2]), 0);
    assert_eq!(bench.depths(slot, &bench.chain(Some("t"), &[1, 2])).0, 2);
    let pictured = Stored {
        extra_keys: vec![vec![], vec![ExtraKey::Opaque(vec![1])], vec![]],
        ..stored(None, &[(5, 5), (6, 6), (7, 7)])
    };
    bench.index.apply(slot, &Event::Stored(pictured));
    assert_eq!(bench.depth(slot, &[5, 6, 7]), 1);
}

#[test]
fn a_slots_next_pod_starts_empty_and_the_old_one_is_not_heard() {
    let mut bench = Bench::new();
    let old = bench.slots.acquire();
    bench.store(old, None, &[(1, 1)]);
    bench.slots.release(old);
    let new = bench.slots.acquire();
    assert_eq!(bench.depth(new, &[1]), 0, "without a word from the new pod");
    bench.store(new, None, &[(2, 2)]);
    assert_eq!((bench.depth(new, &[1]), bench.depth(new, &[2])), (0, 1));
    assert_eq!(bench.store(old, None, &[(1, 1)]).ignored, 1);
    bench.index.remove(old);
    assert_eq!((bench.depth(old, &[2]), bench.depth(new, &[2])), (0, 1));
}

#[test]
fn what_the_engine_disproved_is_forgotten() {
    let mut bench = Bench::new();
    let slot = bench.slots.acquire();
    bench.store(slot, None, &[(1, 1), (2, 2), (3, 3)]);
    assert_eq!(bench.index.truncate(slot, &bench.chain(None, &[1, 2, 3]), 1), 2);
    assert_eq!(bench.depth(slot, &[1, 2, 3]), 1);
}

#[test]
fn at_the_budget_cold_chains_go_first_and_tails_before_heads() {
    let hasher = ChainHasher::with_seed(5);
    let settings = ExactSettings { bytes: 400_000, pod_bytes: 400_000 };
    let index = ExactIndex::new(settings, hasher.clone());
    let mut bench = Bench { index, hasher, slots: Slots::default() };
    let slot = bench.slots.acquire();
    let tokens = |chain: u32| (0..400).map(move |at| chain * 1000 + at).collect::<Vec<_>>();
    let mut evicted = 0;
    for chain in 0..100 {
        let blocks: Vec<_> =
            tokens(chain).iter().map(|token| (u64::from(*token), *token)).collect();
        for _ in 0..64 {
            // Chain 0 is wanted all the time.
            bench.depth(slot, &tokens(0));
            evicted += bench.store(slot, None, &blocks[..1]).evicted;
        }
        evicted += bench.store(slot, None, &blocks).evicted;
    }
    assert!(evicted > 0);
    assert!(bench.index.bytes() < 3 << 20, "{} bytes", bench.index.bytes());
    assert_eq!(bench.depth(slot, &tokens(0)), 400, "what is wanted stays");
    assert_eq!(bench.depth(slot, &tokens(99)), 400, "what is new stays");
    assert_eq!(bench.depth(slot, &tokens(1)), 0, "what is cold goes");
}
