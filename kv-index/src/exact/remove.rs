//! What a pod no longer holds: single blocks, a proven tail, or everything.

use super::applied::Applied;
use super::ledger::Place;
use super::run::MEDIA;
use super::runs::{Memory, Runs};
use super::store::plane;
use super::sync::Ordering;
use super::writer::Writer;
use crate::{BlockHash, EngineHash, Removed};

/// Runs let go of under one lock.
const RUNS_AT_ONCE: usize = 32;

impl Writer {
    /// The pod has given these blocks to something else.
    pub(super) fn remove(&mut self, memory: &Memory, seat: usize, removed: &Removed) -> Applied {
        let mut applied = Applied::default();
        let medium = plane(removed.medium);
        let mut places: Vec<(Place, u64)> = Vec::new();
        let names: Vec<u64> = removed.blocks.iter().map(|EngineHash(name)| *name).collect();
        self.ledger.fetch(&names);
        for EngineHash(name) in &removed.blocks {
            applied.lost += self.pod(seat).unwait(EngineHash(*name));
            let at = self.place(memory, seat, *name);
            let Some(at) =
                at.filter(|at| self.held_in(memory, seat, medium, at.run) > at.offset as usize)
            else {
                applied.unknown_block += 1;
                continue;
            };
            places.push((at, *name));
        }
        // Tails first, so that no hole opens where none remains; a place before it stays valid.
        places.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, name) in places {
            if !self.runs.is_live(at.run)
                || self.held_in(memory, seat, medium, at.run) <= at.offset as usize
            {
                applied.unknown_block += 1;
                continue;
            }
            let ours = self.runs.name(memory, at);
            let pod = self.pod(seat);
            if let Some(spare) = pod.spare.get_mut(&(ours, medium)) {
                *spare -= 1;
                if *spare == 0 {
                    pod.spare.remove(&(ours, medium));
                }
                applied.removed += 1;
                continue;
            }
            let is_held = (0..MEDIA).any(|other| {
                other != medium && self.held_in(memory, seat, other, at.run) > at.offset as usize
            });
            if self.release(memory, seat, medium, at) {
                applied.removed += 1;
                if !is_held {
                    self.pod(seat).names.remove(&name);
                }
            } else {
                applied.unknown_block += 1;
            }
        }
        applied
    }

    /// The engine has proven that it does not hold the chain's block `from` (so none behind it).
    /// Returns how many blocks the pod lost.
    pub(super) fn truncate(
        &mut self,
        memory: &Memory,
        seat: usize,
        chain: &[BlockHash],
        from: usize,
    ) -> usize {
        let before = self.peek(seat).blocks;
        let mut depth = 0;
        while let Some(key) = chain.get(depth) {
            let Some(run) = self.runs.starting_with(memory, key.get()) else { break };
            let keys = memory.header(run).keys();
            let words = memory.words.of(keys.at, keys.len);
            let same = words
                .iter()
                .zip(&chain[depth..])
                .take_while(|(word, key)| word.load(Ordering::Relaxed) == key.get());
            let count = same.count();
            let kept = from.saturating_sub(depth);
            for medium in (0..MEDIA).filter(|_| kept < count) {
                if self.runs.starting_with(memory, key.get()) == Some(run) {
                    self.lower(memory, (seat, medium), run, kept);
                }
            }
            depth += count;
        }
        before - self.peek(seat).blocks
    }

    /// Lets go of some of what the pod holds; whether there is more.
    pub(super) fn release_some(&mut self, memory: &Memory, seat: usize) -> bool {
        let pod = self.pod(seat);
        let rest = pod.runs.len().saturating_sub(RUNS_AT_ONCE);
        let runs = pod.runs.split_off(rest);
        for run in runs {
            self.let_go(memory, seat, run);
        }
        !self.pod(seat).runs.is_empty()
    }

    /// The pod holds nothing of this run any more.
    pub(super) fn let_go(&mut self, memory: &Memory, seat: usize, run: u32) {
        for medium in 0..MEDIA {
            if self.runs.is_live(run) {
                self.lower(memory, (seat, medium), run, 0);
            }
        }
    }

    /// Everything that the pod holds: key, the ledger's name, medium.
    pub(super) fn holdings(&mut self, memory: &Memory, seat: usize) -> Vec<(u64, u64, usize)> {
        let mut runs = self.peek(seat).runs.clone();
        runs.sort_unstable();
        runs.dedup();
        let mut found = Vec::new();
        for run in runs {
            for medium in 0..MEDIA {
                if !self.runs.is_live(run) {
                    continue;
                }
                let held = self.held_in(memory, seat, medium, run);
                for offset in 0..u32::try_from(held).unwrap_or(u32::MAX) {
                    let at = Place { run, offset };
                    found.push((Runs::key(memory, at), self.runs.name(memory, at), medium));
                }
            }
        }
        found
    }
}
