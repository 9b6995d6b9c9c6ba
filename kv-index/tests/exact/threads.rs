//! Readers beside writers. What is not yet stored, or of a pod that never stored it, is never
//! said; what stays is said, but for the moments in which a run is being changed.

use std::sync::atomic::{AtomicBool, Ordering};

use kv_index::{
    ChainHasher, EngineHash, Event, ExactIndex, ExactSettings, Overlap, Removed, Slots, Stored,
};

const LENGTH: u32 = 300;
const ROUNDS: u32 = 150;

fn store(chain: u32, from: u32, to: u32) -> Event {
    let name = |at: u32| EngineHash(u64::from(chain) << 32 | u64::from(at));
    Event::Stored(Stored {
        blocks: (from..to).map(name).collect(),
        parent: from.checked_sub(1).map(name),
        tokens: (from..to).map(|at| if at < 100 { at } else { chain << 16 | at }).collect(),
        block_tokens: 1,
        ..Stored::default()
    })
}

fn remove(chain: u32, at: u32) -> Event {
    let blocks = vec![EngineHash(u64::from(chain) << 32 | u64::from(at))];
    Event::Removed(Removed { blocks, ..Removed::default() })
}

/// Two pods churn chains that share their first 100 blocks; a third one holds the first 200 of
/// chain 1 for good; a fourth never stores anything.
#[test]
fn readers_never_see_more_than_was_stored_nor_less_than_stays() {
    let hasher = ChainHasher::with_seed(9);
    let index = ExactIndex::new(ExactSettings::default(), hasher.clone());
    let mut slots = Slots::default();
    let [a, b, steady, silent] = [(); 4].map(|()| slots.acquire());
    index.apply(steady, &store(1, 0, 200));
    let is_done = AtomicBool::new(false);
    let churn = |slot, own: u32| {
        for round in 0..ROUNDS {
            let chain = 1 + (round + own) % 5;
            for from in (0..LENGTH).step_by(50) {
                index.apply(slot, &store(chain, from, from + 50));
            }
            let kept = round % 7 * 40;
            for at in (kept..LENGTH).rev() {
                index.apply(slot, &remove(chain, at));
            }
            if round % 3 == 0 {
                index.clear(slot);
            }
        }
    };
    let mut chain = Vec::new();
    let tokens: Vec<_> =
        (0..LENGTH + 1).map(|at| if at < 100 { at } else { 1 << 16 | at }).collect();
    hasher.chain_tokens(index.root(None, None, 1), &tokens, 1, &mut chain);
    let read = || {
        let mut overlap = Overlap::default();
        let (mut lookups, mut whole) = (0_u32, 0_u32);
        while !is_done.load(Ordering::Relaxed) || lookups == 0 {
            index.overlap(&chain, &mut overlap);
            assert!(overlap.blocks(steady) <= 200);
            whole += u32::from(overlap.blocks(steady) == 200);
            assert_eq!(overlap.blocks(silent), 0);
            assert!(overlap.blocks(a) <= LENGTH && overlap.blocks(b) <= LENGTH);
            lookups += 1;
        }
        // A writer that is stopped in the middle of a change makes a lookup say less for so long.
        assert!(whole > 0, "none of {lookups} lookups saw all that stays");
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        let writers = [scope.spawn(|| churn(a, 0)), scope.spawn(|| churn(b, 2))];
        let written = writers.map(|writer| writer.join().is_ok());
        is_done.store(true, Ordering::Relaxed);
        assert_eq!(written, [true; 2], "a writer panicked");
        assert!(readers.into_iter().all(|reader| reader.join().is_ok()), "a reader was misled");
    });
    let mut overlap = Overlap::default();
    index.overlap(&chain, &mut overlap);
    assert_eq!(overlap.blocks(steady), 200);
    [a, b, steady].iter().for_each(|slot| index.remove(*slot));
    assert_eq!((index.blocks(), index.holder_blocks()), (0, 0));
}
