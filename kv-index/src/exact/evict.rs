//! The budget: what is coldest goes first, whole chains of it, their tails before their heads.

use std::cmp::Reverse;

use super::hybrid::Hybrid;
use super::pod::Pod;
use super::runs::{Memory, NONE};
use super::writer::Writer;

/// What a block of its own costs: 16 bytes in its run with an eighth of slack, 9 in the ledger.
const BLOCK_BYTES: usize = 27;
/// Stored blocks between two looks at the budget.
const BETWEEN: usize = 1024;
/// Runs among which the coldest is found.
const SAMPLE: usize = 24;

impl Writer {
    /// Keeps to the budget of all and of one pod. Returns how many holdings had to go.
    pub(super) fn keep_within(
        &mut self,
        memory: &Memory,
        seat: usize,
        (bytes, pod_bytes): (usize, usize),
    ) -> usize {
        if self.unchecked < BETWEEN {
            return 0;
        }
        self.unchecked = 0;
        let mut lost = 0;
        if self.peek(seat).blocks * BLOCK_BYTES > pod_bytes {
            lost += self.trim(memory, seat, pod_bytes / BLOCK_BYTES / 16 * 15);
        }
        if self.used_bytes() > bytes {
            while self.used_bytes() > bytes / 32 * 31 {
                let dropped = self.drop_coldest(memory);
                if dropped == 0 {
                    break;
                }
                lost += dropped;
            }
        }
        lost
    }

    /// Bytes that what we know needs, free pieces aside.
    pub(super) fn used_bytes(&self) -> usize {
        self.runs.used_bytes() + self.ledger.bytes() + self.pods_bytes()
    }

    /// Bytes that the pods' own entries take.
    pub(super) fn pods_bytes(&self) -> usize {
        self.seats.iter().filter_map(|seat| seat.pod.as_ref()).map(Pod::bytes).sum()
    }

    /// Blocks that hybrid pods hold.
    pub(super) fn hybrid_blocks(&self) -> usize {
        let pods = self.seats.iter().filter_map(|seat| seat.pod.as_ref());
        pods.filter_map(|pod| pod.hybrid.as_deref()).map(Hybrid::blocks).sum()
    }

    /// Drops the coldest of some chains' ends, and with it what it continues as far as that is as
    /// cold and nothing else continues it.
    fn drop_coldest(&mut self, memory: &Memory) -> usize {
        let Some(mut run) = self.coldest(memory) else { return 0 };
        let touched = memory.header(run).touched();
        let mut lost = 0;
        loop {
            let parent = self.runs.info(run).parent;
            lost += self.drop_run(memory, run).max(1);
            let is_end = parent != NONE && self.runs.children(parent).next().is_none();
            if !is_end || memory.header(parent).touched() > touched {
                return lost;
            }
            run = parent;
        }
    }

    /// The coldest of the next runs that nothing continues.
    fn coldest(&mut self, memory: &Memory) -> Option<u32> {
        let count = u32::try_from(self.runs.count()).ok()?;
        let mut best = None;
        let mut seen = 0;
        for _ in 0..count {
            self.hand = (self.hand + 1) % count.max(1);
            let run = self.hand;
            if !self.runs.is_live(run) || self.runs.children(run).next().is_some() {
                continue;
            }
            let key = (memory.header(run).touched(), run);
            best = Some(best.map_or(key, |best: (u64, u32)| best.min(key)));
            seen += 1;
            if seen == SAMPLE {
                break;
            }
        }
        best.map(|(_, run)| run)
    }

    /// Lets a pod that holds more than its share go of what is coldest.
    fn trim(&mut self, memory: &Memory, seat: usize, most: usize) -> usize {
        let before = self.peek(seat).blocks;
        let mut runs = std::mem::take(&mut self.pod(seat).runs);
        runs.sort_unstable();
        runs.dedup();
        runs.retain(|run| self.runs.is_live(*run));
        runs.sort_by_cached_key(|run| {
            Reverse((memory.header(*run).touched(), Reverse(self.runs.info(*run).depth)))
        });
        while self.peek(seat).blocks > most {
            let Some(run) = runs.pop() else { break };
            self.let_go(memory, seat, run);
        }
        self.pod(seat).runs.append(&mut runs);
        before - self.peek(seat).blocks
    }
}
