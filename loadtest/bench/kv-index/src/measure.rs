//! Builds the indexes from the same stores, asks them the same questions, and times both.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::MEMORY;
use crate::arms::Arm;
use crate::fleet::{Dice, Fleet};

/// What was measured of one index.
pub struct Figures {
    pub holder_blocks: usize,
    pub bytes_per_holder_block: f64,
    pub blocks_per_s: f64,
    /// p50, p99.
    pub cold_ns: [f64; 2],
    pub warm_ns: [f64; 2],
    pub wrong: usize,
    pub answers: usize,
}

const QUESTIONS: usize = 2000;
const WARM: usize = 64;
const WARM_ROUNDS: usize = 200;
/// Read between two cold lookups; as large as the last-level cache.
const SWEEP_WORDS: usize = 4 << 20;

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:6.1} B per holder-block, {:6.2} M blocks/s, cold {:.0}/{:.0} ns, warm {:.0}/{:.0} ns (p50/p99), {} of {} answers wrong",
            self.bytes_per_holder_block,
            self.blocks_per_s / 1e6,
            self.cold_ns[0],
            self.cold_ns[1],
            self.warm_ns[0],
            self.warm_ns[1],
            self.wrong,
            self.answers
        )
    }
}

/// All figures of all indexes.
pub fn measure(fleet: &Fleet, arms: &mut [Box<dyn Arm>]) -> Vec<Figures> {
    let mut bytes = vec![0_isize; arms.len()];
    let mut took = vec![Duration::ZERO; arms.len()];
    let mut stores = fleet.stores();
    let mut holder_blocks = 0;
    loop {
        let batch: Vec<_> = stores.by_ref().take(4096).collect();
        if batch.is_empty() {
            break;
        }
        holder_blocks += batch.iter().map(|store| store.names.len()).sum::<usize>();
        for (at, arm) in arms.iter_mut().enumerate() {
            let before = allocated();
            took[at] += arm.store(&batch);
            bytes[at] += allocated() - before;
        }
    }
    drop(stores);
    let questions = questions(fleet);
    for question in &questions {
        arms.iter_mut().for_each(|arm| arm.ask(question));
    }
    let truth = truth(fleet, &questions);
    arms.iter_mut()
        .zip(bytes.iter().zip(&took))
        .map(|(arm, (bytes, took))| {
            let wrong = wrong(arm.as_mut(), &truth, fleet.pods);
            Figures {
                holder_blocks,
                bytes_per_holder_block: *bytes as f64 / holder_blocks as f64,
                blocks_per_s: holder_blocks as f64 / took.as_secs_f64(),
                cold_ns: cold(arm.as_mut()),
                warm_ns: warm(arm.as_mut()),
                wrong,
                answers: questions.len() * fleet.pods,
            }
        })
        .collect()
}

/// Known prompts with a new turn (most), known beginnings, and prompts that leave a known one in
/// the middle.
fn questions(fleet: &Fleet) -> Vec<Vec<u64>> {
    let mut dice = Dice(3);
    let mut question = || {
        let chain = &fleet.chains[dice.below(fleet.chains.len())].blocks;
        let kept = match dice.below(10) {
            0 => 1 + dice.below(chain.len().min(64)),
            1 | 2 => 1 + dice.below(chain.len()),
            _ => chain.len(),
        };
        let mut blocks = chain[..kept].to_vec();
        blocks.extend((0..20).map(|_| dice.next()));
        blocks
    };
    (0..QUESTIONS).map(|_| question()).collect()
}

/// Each pod's depth for each question, from sets of prefixes.
fn truth(fleet: &Fleet, questions: &[Vec<u64>]) -> Vec<Vec<u32>> {
    // A prefix is the number of its last block and of the prefix before it: nothing is hashed
    // together that differs.
    let mut ids: HashMap<(u32, u64), u32> = HashMap::new();
    let mut holders: Vec<Vec<u64>> = vec![Vec::new()];
    let width = fleet.pods.div_ceil(64);
    for chain in &fleet.chains {
        let mut prefix = 0;
        for block in &chain.blocks {
            let next = holders.len() as u32;
            prefix = *ids.entry((prefix, *block)).or_insert(next);
            if prefix == next {
                holders.push(vec![0; width]);
            }
            for pod in &chain.holders {
                holders[prefix as usize][pod / 64] |= 1 << (pod % 64);
            }
        }
    }
    let depths = |question: &Vec<u64>| {
        let mut depths = vec![0; fleet.pods];
        let mut prefix = 0;
        for (at, block) in question.iter().enumerate() {
            let Some(next) = ids.get(&(prefix, *block)) else { break };
            prefix = *next;
            let held = &holders[prefix as usize];
            for (pod, depth) in depths.iter_mut().enumerate() {
                if held[pod / 64] >> (pod % 64) & 1 == 1 && *depth == at as u32 {
                    *depth = at as u32 + 1;
                }
            }
        }
        depths
    };
    questions.iter().map(depths).collect()
}

fn wrong(arm: &mut dyn Arm, truth: &[Vec<u32>], pods: usize) -> usize {
    let mut wrong = 0;
    for (question, truth) in truth.iter().enumerate() {
        arm.look_up(question);
        wrong += (0..pods).filter(|pod| arm.depth(*pod) != truth[*pod]).count();
    }
    wrong
}

/// Each question once, with the caches swept before it.
fn cold(arm: &mut dyn Arm) -> [f64; 2] {
    let sweep: Vec<u64> = (0..SWEEP_WORDS as u64).collect();
    let times = (0..QUESTIONS).map(|question| {
        std::hint::black_box(sweep.iter().step_by(8).sum::<u64>());
        std::hint::black_box(arm.recall(question));
        timed(arm, question)
    });
    percentiles(times.collect())
}

/// A few questions over and over.
fn warm(arm: &mut dyn Arm) -> [f64; 2] {
    let rounds = (0..WARM_ROUNDS).flat_map(|_| 0..WARM);
    percentiles(rounds.map(|question| timed(arm, question)).collect())
}

fn timed(arm: &mut dyn Arm, question: usize) -> f64 {
    let start = Instant::now();
    arm.look_up(question);
    start.elapsed().as_nanos() as f64
}

fn percentiles(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    [0.5, 0.99].map(|share| times[(times.len() as f64 * share) as usize])
}

fn allocated() -> isize {
    let stats = MEMORY.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// Bytes of this process in memory.
pub fn rss() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
