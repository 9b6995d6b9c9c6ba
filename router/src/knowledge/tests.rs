use kv_index::{EngineHash, Removed, Slots, Stored};

use super::*;

const BLOCK: u32 = 4;

struct World {
    knowledge: Knowledge,
    slot: Slot,
    chain: Arc<Vec<BlockHash>>,
}

impl World {
    /// A pod that holds a prompt of four blocks, named 0 to 3.
    fn new() -> Self {
        let knowledge = Knowledge::default();
        let slot = Slots::default().acquire();
        let root = knowledge.hasher.prompt_root(None, None, BLOCK);
        let tokens: Vec<u32> = (0..16).collect();
        let mut chain = Vec::new();
        knowledge.hasher.chain_tokens(root, &tokens, BLOCK as usize, &mut chain);
        let world = Self { knowledge, slot, chain: Arc::new(chain) };
        world.store(0..4);
        world
    }

    fn watch(&self) -> Watch {
        self.knowledge.watch(self.slot, &self.chain)
    }

    fn least(&self, watch: &Watch) -> u32 {
        watch.least(&self.knowledge.exact)
    }

    fn store(&self, blocks: std::ops::Range<u64>) {
        let token = |block: u64| u32::try_from(block).expect("few") * BLOCK;
        let stored = Stored {
            parent: blocks.start.checked_sub(1).map(EngineHash),
            tokens: (token(blocks.start)..token(blocks.end)).collect(),
            blocks: blocks.map(EngineHash).collect(),
            block_tokens: BLOCK,
            ..Stored::default()
        };
        self.knowledge.apply(self.slot, &Event::Stored(stored));
    }

    fn remove(&self, block: u64) {
        let removed = Removed { blocks: vec![EngineHash(block)], ..Removed::default() };
        self.knowledge.apply(self.slot, &Event::Removed(removed));
    }
}

#[test]
fn what_loses_nothing_is_not_looked_for() {
    let world = World::new();
    let watch = world.watch();
    world.store(0..4);
    assert_eq!(world.least(&watch), u32::MAX);
}

#[test]
fn a_loss_is_seen_though_the_same_blocks_are_stored_again() {
    let world = World::new();
    let watch = world.watch();
    world.remove(3);
    world.remove(2);
    world.store(2..4);
    assert_eq!(world.least(&watch), 2);
    let later = world.watch();
    assert_eq!(world.least(&later), u32::MAX, "it was not sent yet");
}

#[test]
fn a_cache_that_is_emptied_or_forgotten_held_nothing() {
    let world = World::new();
    let (cleared, dropped) = (world.watch(), World::new());
    world.knowledge.apply(world.slot, &Event::Cleared);
    world.store(0..4);
    assert_eq!(world.least(&cleared), 0);
    let watch = dropped.watch();
    KvSink::clear(&dropped.knowledge, dropped.slot);
    assert_eq!(dropped.least(&watch), 0);
}
