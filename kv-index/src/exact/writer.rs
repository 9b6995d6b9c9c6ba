//! What changes the index: one writer at a time, in steps that each leave it true.

use super::holders::Holders;
use super::ledger::{Ledger, Place};
use super::pod::Pod;
use super::run::MEDIA;
use super::runs::{Memory, Runs};
use super::sync::Ordering;
use crate::{MOST_SLOTS, Slot};

/// Everything that is not for readers.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) runs: Runs,
    pub(super) ledger: Ledger,
    /// By slot index.
    pub(super) seats: Vec<Seat>,
    /// Blocks held, once per pod and medium.
    pub(super) held: usize,
    /// Lent to whoever changes a run, so that it need not be allocated.
    pub(super) holders: Holders,
    /// Lent to a store: its blocks' keys and names.
    pub(super) keys: Vec<u64>,
    pub(super) names: Vec<u64>,
    /// Blocks stored since the budget was last looked at.
    pub(super) unchecked: usize,
    /// Where the search for cold runs goes on.
    pub(super) hand: u32,
}

/// One slot index: who has it, and from which generation on an event may claim it.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) pod: Option<Pod>,
    pub(super) next_generation: u64,
}

/// What came of a pod's holding more of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raised {
    /// False: there was no memory, and nothing has changed.
    pub(super) is_done: bool,
    /// The run was cut before this offset; what lies behind it is now this other run.
    pub(super) cut: Option<Place>,
}

/// More holders of a part than this, and a run is cut at their median: a lookup reads each of
/// them, but the holders of the whole in words of 64.
const MOST_PARTIALS: usize = 16;

// === impl Writer ===

impl Writer {
    pub(super) fn new(secret: u64) -> Self {
        Self {
            runs: Runs::default(),
            ledger: Ledger::new(secret),
            seats: Vec::new(),
            held: 0,
            holders: Holders::default(),
            keys: Vec::new(),
            names: Vec::new(),
            unchecked: 0,
            hand: 0,
        }
    }

    /// One slot index, made if need be.
    pub(super) fn seat(&mut self, index: usize) -> &mut Seat {
        if self.seats.len() <= index {
            self.seats.resize_with(index + 1, Seat::default);
        }
        &mut self.seats[index]
    }

    /// Nothing that comes late for this pod, or one before it, is taken.
    pub(super) fn bar(&mut self, slot: Slot) {
        if slot.index() < MOST_SLOTS {
            let seat = self.seat(slot.index());
            seat.next_generation = seat.next_generation.max(u64::from(slot.generation()) + 1);
        }
    }

    pub(super) fn pod(&mut self, seat: usize) -> &mut Pod {
        self.seats[seat].pod.as_mut().expect("the pod was there when the step began")
    }

    pub(super) fn peek(&self, seat: usize) -> &Pod {
        self.seats[seat].pod.as_ref().expect("the pod was there when the step began")
    }

    /// The block that the pod means by a name.
    pub(super) fn place(&self, memory: &Memory, seat: usize, name: u64) -> Option<Place> {
        let find = |name| self.ledger.find(name, |place| self.runs.name(memory, place));
        let pod = self.peek(seat);
        match pod.names.get(&name) {
            Some(named) => find(named.name).filter(|at| Runs::key(memory, *at) == named.key),
            None if pod.aliased.contains(&name) => None,
            None => find(name),
        }
    }

    /// Leading blocks of the run that the pod holds in a medium.
    pub(super) fn held_in(
        &mut self,
        memory: &Memory,
        seat: usize,
        medium: usize,
        run: u32,
    ) -> usize {
        let header = memory.header(run);
        self.holders.load(header, &memory.words);
        self.holders.get(seat, medium, header.keys().len)
    }

    /// Whether the pod holds the block, in any medium.
    pub(super) fn holds(&mut self, memory: &Memory, seat: usize, at: Place) -> bool {
        let Place { run, offset } = at;
        (0..MEDIA).any(|medium| self.held_in(memory, seat, medium, run) > offset as usize)
    }

    /// The pod holds at least the first `to` blocks of the run from now on.
    pub(super) fn raise(
        &mut self,
        memory: &Memory,
        (seat, medium): (usize, usize),
        run: u32,
        to: usize,
    ) -> Raised {
        let header = memory.header(run);
        let len = header.keys().len;
        let mut holders = std::mem::take(&mut self.holders);
        holders.load(header, &memory.words);
        let from = holders.get(seat, medium, len);
        let is_new = (0..MEDIA).all(|medium| holders.get(seat, medium, len) == 0);
        let mut is_done = true;
        if to > from {
            holders.set(seat, medium, to, len);
            is_done = self.runs.hold(memory, run, &holders);
            if is_done {
                self.count(seat, from, to);
                if is_new {
                    self.note(memory, seat, run);
                }
            }
        }
        let median = (holders.partials.len() > MOST_PARTIALS).then(|| {
            holders.partials.sort_unstable_by_key(|partial| partial.len);
            holders.partials[holders.partials.len() / 2].len
        });
        self.holders = holders;
        let cut = median.filter(|_| is_done).and_then(|at| {
            let run = self.split(memory, run, at)?;
            Some(Place { run, offset: u32::try_from(at).ok()? })
        });
        Raised { is_done, cut }
    }

    /// The pod holds no more than the first `to` blocks of the run in a medium.
    pub(super) fn lower(
        &mut self,
        memory: &Memory,
        (seat, medium): (usize, usize),
        run: u32,
        to: usize,
    ) {
        let header = memory.header(run);
        let len = header.keys().len;
        let mut holders = std::mem::take(&mut self.holders);
        holders.load(header, &memory.words);
        let from = holders.get(seat, medium, len);
        if to < from {
            self.forget(memory, (seat, medium), run, (to, from));
            holders.set(seat, medium, to, len);
            self.count(seat, from, to);
            self.shrink(memory, run, &mut holders);
        }
        self.holders = holders;
    }

    /// The pod no longer holds one block in a medium; whether it did.
    pub(super) fn release(
        &mut self,
        memory: &Memory,
        seat: usize,
        medium: usize,
        at: Place,
    ) -> bool {
        let offset = at.offset as usize;
        let held = self.held_in(memory, seat, medium, at.run);
        if held <= offset {
            return false;
        }
        if held > offset + 1 && self.split(memory, at.run, offset + 1).is_none() {
            // No memory to keep what lies behind the hole: forget it, too.
            self.lower(memory, (seat, medium), at.run, offset);
            return true;
        }
        self.lower(memory, (seat, medium), at.run, offset);
        true
    }

    /// Cuts a run before its block `at`; the number of the run behind the cut.
    pub(super) fn split(&mut self, memory: &Memory, run: u32, at: usize) -> Option<u32> {
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
    pub(super) fn drop_run(&mut self, memory: &Memory, run: u32) -> usize {
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
    fn shrink(&mut self, memory: &Memory, run: u32, holders: &mut Holders) {
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
    fn strike(&mut self, memory: &Memory, run: u32, from: usize) {
        let len = memory.header(run).keys().len;
        for offset in (from..len).rev() {
            let at = Place { run, offset: u32::try_from(offset).unwrap_or(u32::MAX) };
            self.ledger.remove(self.runs.name(memory, at), at);
        }
    }

    /// The pod's second copies and own names of blocks that it loses.
    fn forget(
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

    /// The pod holds something of this run. Now and then those are struck out that it has lost.
    fn note(&mut self, memory: &Memory, seat: usize, run: u32) {
        let pod = self.pod(seat);
        pod.runs.push(run);
        if pod.runs.len() < pod.sort_at {
            return;
        }
        let mut runs = std::mem::take(&mut pod.runs);
        runs.sort_unstable();
        runs.dedup();
        runs.retain(|run| {
            self.runs.is_live(*run) && self.holds(memory, seat, Place { run: *run, offset: 0 })
        });
        let pod = self.pod(seat);
        pod.sort_at = runs.len() * 2 + 64;
        pod.runs = runs;
    }

    fn count(&mut self, seat: usize, from: usize, to: usize) {
        self.held = self.held + to - from;
        let pod = self.pod(seat);
        pod.blocks = pod.blocks + to - from;
    }

    /// Appends new blocks to a run for one pod, who holds everything before them.
    pub(super) fn append(
        &mut self,
        memory: &Memory,
        (seat, medium): (usize, usize),
        run: u32,
        blocks: (&[u64], &[u64]),
    ) -> bool {
        let header = memory.header(run);
        let (old, new) = (header.keys().len, header.keys().len + blocks.0.len());
        let mut holders = std::mem::take(&mut self.holders);
        holders.load(header, &memory.words);
        let is_new = (0..MEDIA).all(|medium| holders.get(seat, medium, old) == 0);
        if old > 0 {
            holders.resize(old, new);
        }
        holders.set(seat, medium, new, new);
        let is_done = self.runs.append(memory, run, blocks, &holders);
        self.holders = holders;
        if is_done {
            self.count(seat, old, new);
            if is_new {
                self.note(memory, seat, run);
            }
        }
        is_done
    }

    /// Writes another name beside a block than the one it was stored with.
    pub(super) fn rename(&self, memory: &Memory, at: Place, name: u64) {
        self.runs.name_word(memory, at).store(name, Ordering::Relaxed);
    }
}
