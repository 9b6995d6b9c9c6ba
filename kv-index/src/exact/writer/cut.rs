//! Runs that are cut, shortened or dropped, and what follows for the ledger and for the pods.

use super::Writer;
use crate::exact::holders::Holders;
use crate::exact::ledger::Place;
use crate::exact::run::MEDIA;
use crate::exact::runs::{Memory, Runs};

impl Writer {
    /// Cuts a run before its block `at`; the number of the run behind the cut.
    pub(in crate::exact) fn split(&mut self, memory: &Memory, run: u32, at: usize) -> Option<u32> {
        let header = memory.header(run);
        let len = header.keys().len;
        let mut front = Holders::default();
        front.load(header, &memory.words);
        let mut back = Holders::default();
        back.clear();
        for part in front.all(len).filter(|part| part.len > at) {
            back.set(part.slot, part.medium, part.len - at, len - at);
        }
        let offset = u32::try_from(at).ok()?;
        let place =
            |offset: usize| Place { run, offset: u32::try_from(offset).unwrap_or(u32::MAX) };
        let keys: Vec<u64> = (at..len).map(|offset| Runs::key(memory, place(offset))).collect();
        let names: Vec<u64> = (at..len).map(|at| self.runs.name(memory, place(at))).collect();
        let new = self.runs.make(memory, len - at, Some(place(at - 1)))?;
        if !self.runs.append(memory, new, (&keys, &names), &back) {
            self.runs.release(memory, new);
            return None;
        }
        memory.header(new).touch(header.touched());
        for (name, from) in names.iter().zip(offset..) {
            let to = Place { run: new, offset: from - offset };
            self.ledger.relocate(*name, Place { run, offset: from }, to);
        }
        let later: Vec<u32> = self.runs.children(run).filter(|child| *child != new).collect();
        for child in later {
            let attach = self.runs.info(child).attach;
            if attach >= offset {
                self.runs.attach(child, Place { run: new, offset: attach - offset });
            }
        }
        self.runs.publish(memory, new);
        let mut slots: Vec<usize> = back.all(len - at).map(|part| part.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        for seat in slots {
            self.note(memory, seat, new);
        }
        front.resize(len, at);
        if !self.runs.shorten(memory, run, at, &front) {
            self.drop_run(memory, run);
        }
        Some(new)
    }

    /// Everyone loses a whole run. Returns how many holdings that were.
    pub(in crate::exact) fn drop_run(&mut self, memory: &Memory, run: u32) -> usize {
        let header = memory.header(run);
        let mut holders = Holders::default();
        holders.load(header, &memory.words);
        let mut lost = 0;
        for part in holders.all(header.keys().len) {
            self.forget(memory, (part.slot, part.medium), run, (0, part.len));
            self.count(part.slot, part.len, 0);
            lost += part.len;
        }
        self.strike(memory, run, 0);
        self.runs.release(memory, run);
        lost
    }

    /// Writes the holders back after one of them lost something, and frees what nobody holds.
    pub(super) fn shrink(&mut self, memory: &Memory, run: u32, holders: &mut Holders) {
        let len = memory.header(run).keys().len;
        let longest = holders.longest(len);
        if longest == 0 {
            self.strike(memory, run, 0);
            self.runs.release(memory, run);
            return;
        }
        let is_done = if longest < len {
            holders.resize(len, longest);
            self.strike(memory, run, longest);
            self.runs.shorten(memory, run, longest, holders)
        } else {
            self.runs.hold(memory, run, holders)
        };
        if !is_done {
            // No memory to say who still holds it: nobody, then.
            for part in holders.all(longest) {
                self.forget(memory, (part.slot, part.medium), run, (0, part.len));
                self.count(part.slot, part.len, 0);
            }
            self.strike(memory, run, 0);
            self.runs.release(memory, run);
        }
    }

    /// Takes the blocks from `from` on out of the ledger.
    pub(super) fn strike(&mut self, memory: &Memory, run: u32, from: usize) {
        let len = memory.header(run).keys().len;
        for offset in (from..len).rev() {
            let at = Place { run, offset: u32::try_from(offset).unwrap_or(u32::MAX) };
            self.ledger.remove(self.runs.name(memory, at), at);
        }
    }

    /// The pod's second copies and own names of blocks that it loses.
    pub(super) fn forget(
        &mut self,
        memory: &Memory,
        (seat, medium): (usize, usize),
        run: u32,
        (from, to): (usize, usize),
    ) {
        let pod = self.peek(seat);
        if pod.spare.is_empty() && pod.aliased.is_empty() {
            return;
        }
        for offset in from..to {
            let at = Place { run, offset: u32::try_from(offset).unwrap_or(u32::MAX) };
            let name = self.runs.name(memory, at);
            let header = memory.header(run);
            let mut holders = std::mem::take(&mut self.holders);
            holders.load(header, &memory.words);
            let elsewhere = (0..MEDIA).any(|other| {
                other != medium && holders.get(seat, other, header.keys().len) > offset
            });
            self.holders = holders;
            let pod = self.pod(seat);
            pod.spare.remove(&(name, medium));
            if !elsewhere {
                pod.aliased.remove(&name);
            }
        }
    }
}
