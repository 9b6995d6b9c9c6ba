//! The fuzz target for `apply`: any bytes are a history of events; its corpus is replayed here.
//!
//! A fuzzer calls [`history`] and [`garbage`] with its bytes; what it finds becomes a file in
//! `tests/corpus`.

use std::path::Path;

use kv_index::{
    ChainHasher, EngineHash, Event, ExactIndex, ExactSettings, ExtraKey, Medium, Overlap, Removed,
    Slots, Stored,
};

use crate::world::{Op, World};

const MEDIA: [Medium; 4] = [Medium::Gpu, Medium::Gpu, Medium::Cpu, Medium::Storage];

/// Four bytes are an event that an engine might send; the oracle is asked after each.
fn history(bytes: &[u8]) {
    let mut world = World::new(6, 1, ExactSettings::default());
    for word in bytes.chunks_exact(4) {
        let (pod, from) = (usize::from(word[1] & 7) % 7, usize::from(word[1] >> 5));
        let steps = usize::from(word[3] >> 4) % 9;
        let path: Vec<u8> = std::iter::once(word[3] & 3)
            .chain((0..steps).map(|step| word[2] >> step & 1))
            .collect();
        let medium = MEDIA[usize::from(word[0] >> 6)];
        let (is_reversed, is_announcement) = (word[0] & 32 > 0, word[0] & 48 == 48);
        world.run(&match word[0] & 15 {
            0..=6 => Op::Store { pod, path, from, medium, is_announcement },
            7 | 8 => Op::Store { pod, path, from: 0, medium: Medium::Gpu, is_announcement: false },
            9 => Op::Offload { pod, path, from, medium },
            10..=12 => Op::Remove { pod, path, from, medium, is_reversed },
            13 => Op::Truncate { pod, path, from },
            14 => Op::Clear { pod },
            _ => Op::Stale { pod, path },
        });
        world.check_last();
    }
    world.check();
    world.end();
}

/// Eight bytes are an event that no engine would send; nothing panics, and nothing is left over.
fn garbage(bytes: &[u8]) {
    let hasher = ChainHasher::with_seed(1);
    let settings = ExactSettings { bytes: 1 << 20, pod_bytes: 1 << 20 };
    let index = ExactIndex::new(settings, hasher.clone());
    let mut slots = Slots::default();
    let slots = [slots.acquire(), slots.acquire(), slots.acquire()];
    let mut overlap = Overlap::default();
    for word in bytes.chunks_exact(8) {
        let slot = slots[usize::from(word[0]) % 3];
        let name = |byte: u8| EngineHash(u64::from(byte & 15));
        let blocks: Vec<_> =
            word[1..1 + usize::from(word[7] & 3)].iter().copied().map(name).collect();
        let group = u32::from(word[0] > 250);
        let medium = MEDIA[usize::from(word[6] & 3)];
        let event = match word[0] % 8 {
            0..=4 => Event::Stored(Stored {
                parent: (word[4] & 16 > 0).then(|| name(word[4])),
                tokens: vec![u32::from(word[5] & 1); blocks.len() * usize::from(word[5] >> 1 & 3)],
                block_tokens: u32::from(word[6] >> 2 & 3),
                adapter: (word[6] & 16 > 0).then(|| "a".to_owned()),
                extra_keys: vec![vec![ExtraKey::Opaque(vec![word[6]])]; usize::from(word[6] >> 7)],
                window: (word[0] > 253).then_some(u32::from(word[5])),
                is_announcement: word[6] & 64 > 0,
                medium,
                group,
                blocks,
            }),
            5 | 6 => Event::Removed(Removed { blocks, medium, group }),
            _ => Event::Cleared,
        };
        index.apply(slot, &event);
        let mut chain = Vec::new();
        hasher.chain_tokens(index.root(None, None, 1), &[0, 0, 1], 1, &mut chain);
        index.overlap(&chain, &mut overlap);
        index.truncate(slots[0], &chain, usize::from(word[7] >> 6));
    }
    slots.iter().for_each(|slot| index.remove(*slot));
    assert_eq!((index.blocks(), index.holder_blocks()), (0, 0));
}

#[test]
fn the_corpus_finds_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is beside the tests") {
        let path = entry.expect("its files can be listed").path();
        let bytes = std::fs::read(&path).expect("and read");
        history(&bytes);
        garbage(&bytes);
        files += 1;
    }
    assert!(files >= 8, "only {files} files of the corpus were found");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        history(&bytes);
        garbage(&bytes);
    }
}
