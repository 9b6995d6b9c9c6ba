//! How deep each pod holds a chain: without locks, without allocating, run by run.

use super::heads::Table;
use super::roster::Roster;
use super::run::{self, Keys, Layout, Partial};
use super::runs::Memory;
use super::sync::Ordering;
use crate::BlockHash;
use crate::overlap::Depths;

/// How often a run in change is looked at again before the lookup says that nothing more is held.
const TRIES: usize = 1024;
/// Keys compared one after the other; above it, the stretch is probed in eight places at once.
const FEW: usize = 8;

/// What a run says to a chain.
struct Step {
    /// Blocks that they have in common.
    matched: usize,
    layout: Layout,
}

/// Writes each pod's depth into `depths`.
pub(super) fn overlap(
    memory: &Memory,
    roster: &Roster,
    tick: u64,
    chain: &[BlockHash],
    depths: &mut Depths,
) {
    depths.start(roster.generations.len(), &roster.live);
    let table = memory.heads.load();
    let mut depth = 0;
    while depth < chain.len() {
        let Some(step) = visit(memory, &table, tick, &chain[depth..], &mut depths.words) else {
            break;
        };
        if !advance(&step, depth, depths) {
            break;
        }
        depth += step.matched;
    }
    let reached = saturated(depth);
    mark(&depths.alive, &mut depths.blocks, reached);
    if depths.is_split {
        mark(&depths.alive_on_gpu, &mut depths.on_gpu, reached);
    }
    for (slot, hybrid) in &roster.hybrids {
        let (blocks, on_gpu) = hybrid.depths(chain);
        depths.set(slot.index(), blocks, on_gpu);
    }
}

/// Reads the run that starts with the chain's first block; its holders go into `holders`.
fn visit(
    memory: &Memory,
    table: &Table,
    tick: u64,
    chain: &[BlockHash],
    holders: &mut Vec<u64>,
) -> Option<Step> {
    let first = chain[0].get();
    table.candidates(first).find_map(|run| {
        let header = run::header(&memory.headers, run)?;
        for _ in 0..TRIES {
            let Some(seen) = header.read() else {
                std::hint::spin_loop();
                continue;
            };
            let (keys, layout) = (header.keys(), header.layout());
            let is_it = header.head() == first;
            let mut matched = None;
            holders.clear();
            if let Some(words) = header.holders(layout, &memory.words).filter(|_| is_it) {
                holders.extend(words.iter().map(|word| word.load(Ordering::Relaxed)));
                matched = common(memory, keys, header.tail(), chain);
            }
            if !header.is_whole(seen) {
                continue;
            }
            header.touch(if is_it { tick } else { header.touched() });
            return matched.map(|matched| Step { matched, layout });
        }
        None
    })
}

/// How many leading blocks the run and the chain have in common; none if the read was torn.
///
/// A key stands for everything before it, so one equal key proves all before it equal, and the
/// first unequal one can be searched for.
#[inline]
fn common(memory: &Memory, keys: Keys, tail: u64, chain: &[BlockHash]) -> Option<usize> {
    let count = keys.len.min(chain.len());
    if count == 0 {
        return None;
    }
    if count == keys.len && chain[count - 1].get() == tail {
        return Some(count);
    }
    let words = memory.words.get(keys.at, count)?;
    let is_same = |at: usize| words[at].load(Ordering::Relaxed) == chain[at].get();
    if is_same(count - 1) {
        return Some(count);
    }
    if count == 1 {
        return None;
    }
    // The first unequal key is in low..=high; probes do not wait for each other's cache miss.
    let (mut low, mut high) = (1, count - 1);
    while high - low > FEW {
        let stride = (high - low) / FEW;
        let probe = |nth: usize| low + nth * stride;
        let equal: usize = (0..FEW).map(|nth| usize::from(is_same(probe(nth)))).sum();
        let (before, after) = (probe(equal.saturating_sub(1)), probe(equal));
        if equal == 0 {
            high = low;
        } else {
            low = before + 1;
            if equal < FEW {
                high = after;
            }
        }
    }
    Some((low..high).find(|at| !is_same(*at)).unwrap_or(high))
}

/// Who holds the matched part goes on from there; who holds less stays where it is. Whether
/// anyone goes on.
fn advance(step: &Step, depth: usize, depths: &mut Depths) -> bool {
    let Step { matched, layout } = *step;
    let Depths { words, alive, blocks, on_gpu, alive_on_gpu, kept, is_split, .. } = depths;
    let (full, partials) = words.split_at(layout.width * layout.media);
    let gpu = full.get(..layout.width).unwrap_or_default();
    if layout.media > 1 && !*is_split {
        *is_split = true;
        alive_on_gpu.clone_from(alive);
        on_gpu.clone_from(blocks);
    }
    let parts = || partials.iter().map(|word| Partial::unpack(*word));
    if *is_split {
        kept.fill(0);
        add(kept, gpu);
        let on_gpu_only = parts().filter(|partial| partial.medium == 0);
        pass((alive_on_gpu, kept), on_gpu, on_gpu_only, (depth, matched));
    }
    kept.fill(0);
    full.chunks_exact(layout.width.max(1)).for_each(|plane| add(kept, plane));
    pass((alive, kept), blocks, parts(), (depth, matched))
}

fn add(kept: &mut [u64], full: &[u64]) {
    kept.iter_mut().zip(full).for_each(|(kept, full)| *kept |= *full);
}

/// One medium's (or all media's) step: `kept` are those who hold the whole run. Depths are written
/// once, when a pod drops out.
fn pass(
    (alive, kept): (&mut [u64], &mut [u64]),
    blocks: &mut [u32],
    partials: impl Iterator<Item = Partial> + Clone,
    (depth, matched): (usize, usize),
) -> bool {
    for Partial { slot, .. } in partials.clone().filter(|partial| partial.len >= matched) {
        if let Some(word) = kept.get_mut(slot / 64) {
            *word |= 1 << (slot % 64);
        }
    }
    let mut any = 0;
    for (alive, kept) in alive.iter_mut().zip(kept.iter_mut()) {
        // From here on these are the ones who drop out.
        let dropped = *alive & !*kept;
        *alive &= *kept;
        *kept = dropped;
        any |= *alive;
    }
    mark(kept, blocks, saturated(depth));
    for Partial { slot, len, .. } in partials {
        let is_dropped = kept.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1);
        if let Some(blocks) = blocks.get_mut(slot).filter(|_| is_dropped) {
            *blocks = (*blocks).max(saturated(depth + len));
        }
    }
    any != 0
}

/// Sets the depth of these pods.
fn mark(pods: &[u64], blocks: &mut [u32], depth: u32) {
    for (word, blocks) in pods.iter().zip(blocks.chunks_mut(64)) {
        if word.count_ones() < 32 {
            ones(*word).for_each(|bit| blocks[bit] = depth);
        } else {
            // Most of them: all, and the rest as they were.
            let mut before = [0; 64];
            before[..blocks.len()].copy_from_slice(blocks);
            blocks.fill(depth);
            for bit in ones(!*word) {
                let Some(blocks) = blocks.get_mut(bit) else { break };
                *blocks = before[bit];
            }
        }
    }
}

fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

fn saturated(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
