//! A store: a run of consecutive blocks that a pod has filled.

use super::applied::Applied;
use super::ledger::Place;
use super::pod::{Named, Pod};
use super::run::{MEDIA, MOST_BLOCKS};
use super::runs::{Memory, NONE, Runs};
use super::sync::{AtomicU64, Ordering};
use super::writer::Writer;
use crate::{ChainHasher, EngineHash, Medium, Stored};

/// Full holders besides the pod that a run may have and still be appended to: each becomes a
/// holder of a part. With more of them the pod goes on in a run of its own.
const MOST_LEFT_BEHIND: usize = 4;

/// One store under way.
struct Walk<'a> {
    memory: &'a Memory,
    holder: (usize, usize),
    is_announcement: bool,
    /// The last block placed.
    last: Option<Place>,
    tick: u64,
    applied: Applied,
    /// Names that meant another block to this pod until now: that block's name and key.
    displaced: Vec<Named>,
}

/// How a medium is numbered in the runs.
pub(super) fn plane(medium: Medium) -> usize {
    match medium {
        Medium::Gpu => 0,
        Medium::Cpu => 1,
        Medium::Storage => 2,
    }
}

impl Writer {
    /// The pod has filled these blocks. What waited for one of them follows.
    pub(super) fn store(
        &mut self,
        memory: &Memory,
        hasher: &ChainHasher,
        (seat, tick): (usize, u64),
        stored: &Stored,
    ) -> Applied {
        let mut applied = self.store_one(memory, hasher, (seat, tick), stored);
        let mut named = stored.blocks.clone();
        while let Some(waiting) = self.pod(seat).awaited(&named) {
            let late = self.store_one(memory, hasher, (seat, tick), &waiting);
            applied += late;
            if late.unknown_parent > 0 {
                // Its parent was named, and still is not held: it waits again.
                break;
            }
            applied.resolved_late += waiting.blocks.len();
            named.extend_from_slice(&waiting.blocks);
        }
        applied
    }

    fn store_one(
        &mut self,
        memory: &Memory,
        hasher: &ChainHasher,
        (seat, tick): (usize, u64),
        stored: &Stored,
    ) -> Applied {
        let holder = (seat, plane(stored.medium));
        if stored.tokens.is_empty() {
            return self.store_known(memory, holder, stored);
        }
        if stored.tokens.len() != stored.blocks.len() * stored.block_tokens as usize {
            return Applied { malformed: stored.blocks.len(), ..Applied::default() };
        }
        let last = match stored.parent {
            None => None,
            Some(EngineHash(parent)) => {
                let at =
                    self.place(memory, seat, parent).filter(|at| self.holds(memory, seat, *at));
                if at.is_none() {
                    let lost = self.pod(seat).wait(stored);
                    let unknown_parent = stored.blocks.len();
                    return Applied { unknown_parent, lost, ..Applied::default() };
                }
                at
            }
        };
        let (mut keys, mut names) =
            (std::mem::take(&mut self.keys), std::mem::take(&mut self.names));
        keys.clear();
        hasher.chain_stored(last.map(|at| Runs::key(memory, at)), stored, &mut keys);
        names.clear();
        names.extend(stored.blocks.iter().map(|EngineHash(name)| name));
        let is_announcement = stored.is_announcement;
        let (applied, displaced) = (Applied::default(), Vec::new());
        let mut walk = Walk { memory, holder, is_announcement, last, tick, applied, displaced };
        self.walk(&mut walk, &keys, &names);
        self.touch_above(&walk);
        self.unchecked += names.len();
        (self.keys, self.names) = (keys, names);
        walk.applied
    }

    /// Places blocks one stretch after the other: where they already are, at the end of the run
    /// that they continue, or in a run of their own.
    fn walk(&mut self, walk: &mut Walk<'_>, keys: &[u64], names: &[u64]) {
        let mut done = 0;
        while done < keys.len() {
            let placed = match self.next_place(walk, keys[done]) {
                Some(at) => self.hold(walk, at, &keys[done..], &names[done..]),
                None => self.add(walk, &keys[done..], &names[done..]),
            };
            if placed == 0 {
                walk.applied.lost += keys.len() - done;
                break;
            }
            done += placed;
        }
        for other in std::mem::take(&mut walk.displaced) {
            let was_held = self.lose(walk, other);
            walk.applied.renamed += usize::from(was_held);
        }
    }

    /// The pod has given this block's name to another one. Whether it still held it.
    fn lose(&mut self, walk: &Walk<'_>, Named { name, key }: Named) -> bool {
        let mut was_held = false;
        for medium in 0..MEDIA {
            let at = self.ledger.find(name, |at| self.runs.name(walk.memory, at));
            if let Some(at) = at.filter(|at| Runs::key(walk.memory, *at) == key) {
                was_held |= self.release(walk.memory, walk.holder.0, medium, at);
            }
        }
        was_held
    }

    /// Where the block after the last one is, if the index has it.
    fn next_place(&self, walk: &Walk<'_>, key: u64) -> Option<Place> {
        if let Some(last) = walk.last {
            let next = Place { offset: last.offset + 1, ..last };
            let len = walk.memory.header(last.run).keys().len;
            if (next.offset as usize) < len && Runs::key(walk.memory, next) == key {
                return Some(next);
            }
        }
        let run = self.runs.starting_with(walk.memory, key)?;
        Some(Place { run, offset: 0 })
    }

    /// The pod holds blocks that the index has from `at` on. Returns how many of `keys` these are.
    fn hold(&mut self, walk: &mut Walk<'_>, at: Place, keys: &[u64], names: &[u64]) -> usize {
        let Walk { memory, holder, .. } = *walk;
        if let Some(last) = walk.last
            && at.offset == 0
            && self.runs.info(at.run).parent == NONE
        {
            self.runs.attach(at.run, last);
        }
        let start = at.offset as usize;
        let run_keys = memory.header(at.run).keys();
        let stored = memory.words.of(run_keys.at + at.offset, run_keys.len - start);
        let is_same = |(word, key): &(&AtomicU64, &u64)| word.load(Ordering::Relaxed) == **key;
        let count = stored.iter().zip(keys).take_while(is_same).count();
        let held = self.held_in(memory, holder.0, holder.1, at.run);
        let (at, held) = if start > held {
            // A hole: the run is cut, so that the pod holds a prefix of what is behind it.
            let Some(run) = self.split(memory, at.run, start) else { return 0 };
            (Place { run, offset: 0 }, 0)
        } else {
            (at, held)
        };
        let start = at.offset as usize;
        self.note_names(walk, at, &names[..count]);
        let again = held.saturating_sub(start).min(count);
        walk.applied.stored += count - again;
        walk.applied.duplicate += again;
        if !walk.is_announcement {
            for offset in start..start + again {
                let at = Place { offset: u32::try_from(offset).unwrap_or(u32::MAX), ..at };
                let name = self.runs.name(memory, at);
                *self.pod(holder.0).spare.entry((name, holder.1)).or_default() += 1;
            }
        }
        let raised = self.raise(memory, holder, at.run, start + count);
        if !raised.is_done {
            walk.applied.stored -= count - again;
            return 0;
        }
        memory.header(at.run).touch(walk.tick);
        let end = u32::try_from(start + count - 1).unwrap_or(u32::MAX);
        walk.last = Some(match raised.cut {
            Some(cut) if end >= cut.offset => Place { run: cut.run, offset: end - cut.offset },
            _ => Place { run: at.run, offset: end },
        });
        count
    }

    /// Adds blocks that the index does not have. Returns how many of `keys` these are.
    fn add(&mut self, walk: &mut Walk<'_>, keys: &[u64], names: &[u64]) -> usize {
        let Walk { memory, holder, .. } = *walk;
        // Behind a new block there can only be known ones if some lost what was before them.
        let mut count = keys.len();
        if self.runs.has_orphans() {
            let known = |key: &u64| self.runs.starting_with(memory, *key).is_some();
            count = 1 + keys[1..].iter().take_while(|key| !known(key)).count();
        }
        let end = walk.last.filter(|last| self.can_append(memory, holder, *last));
        let (run, start) = match end {
            Some(last) => (last.run, last.offset as usize + 1),
            None => {
                let room = count.min(MOST_BLOCKS);
                let Some(run) = self.runs.make(memory, room, walk.last) else { return 0 };
                (run, 0)
            }
        };
        count = count.min(MOST_BLOCKS - start);
        let (keys, names) = (&keys[..count], &names[..count]);
        if !self.append(memory, holder, run, (keys, names)) {
            if start == 0 {
                self.runs.release(memory, run);
            }
            return 0;
        }
        memory.header(run).touch(walk.tick);
        if start == 0 {
            self.runs.publish(memory, run);
        }
        let first = u32::try_from(start).unwrap_or(u32::MAX);
        self.ledger.fetch(names);
        for ((key, name), offset) in keys.iter().zip(names).zip(first..) {
            self.enter(walk, Place { run, offset }, *key, *name);
        }
        walk.applied.stored += count;
        let offset = first + u32::try_from(count).unwrap_or(u32::MAX) - 1;
        walk.last = Some(Place { run, offset });
        count
    }

    /// Whether new blocks may go to the end of the run that `last` is in.
    fn can_append(&mut self, memory: &Memory, holder: (usize, usize), last: Place) -> bool {
        let len = memory.header(last.run).keys().len;
        if last.offset as usize + 1 != len || len >= MOST_BLOCKS {
            return false;
        }
        let held = self.held_in(memory, holder.0, holder.1, last.run);
        held == len && self.holders.full_count() <= MOST_LEFT_BEHIND + 1
    }

    /// Enters a new block into the ledger. If its name is taken there, the block goes by its key,
    /// and the pod has the name for itself.
    fn enter(&mut self, walk: &mut Walk<'_>, at: Place, key: u64, name: u64) {
        let memory = walk.memory;
        let seat = walk.holder.0;
        if !self.peek(seat).names.is_empty() || !self.peek(seat).aliased.is_empty() {
            self.displace(walk, name, key);
        }
        let runs = &self.runs;
        let Some(taken) = self.ledger.insert(name, at, |at| runs.name(memory, at)) else {
            let pod = self.pod(seat);
            pod.names.remove(&name);
            pod.aliased.remove(&name);
            return;
        };
        let other = Named { name, key: Runs::key(memory, taken) };
        if !self.peek(seat).aliased.contains(&name) && !self.peek(seat).names.contains_key(&name) {
            walk.displaced.push(other);
        }
        self.rename(memory, at, key);
        let runs = &self.runs;
        self.ledger.insert(key, at, |at| runs.name(memory, at));
        let pod = self.pod(seat);
        pod.names.insert(name, Named { name: key, key });
        pod.aliased.insert(key);
    }

    /// Compares the names that the pod gives to known blocks with the ledger's.
    fn note_names(&mut self, walk: &mut Walk<'_>, at: Place, names: &[u64]) {
        let (memory, seat) = (walk.memory, walk.holder.0);
        let has_own = |pod: &Pod| !pod.names.is_empty() || !pod.aliased.is_empty();
        for (name, offset) in names.iter().zip(at.offset..) {
            let at = Place { offset, ..at };
            let ours = self.runs.name(memory, at);
            if ours == *name && !has_own(self.peek(seat)) {
                continue;
            }
            let key = Runs::key(memory, at);
            self.displace(walk, *name, key);
            let is_held = self.holds(memory, seat, at);
            let pod = self.pod(seat);
            if ours == *name {
                pod.names.remove(name);
                pod.aliased.remove(name);
            } else {
                pod.names.insert(*name, Named { name: ours, key });
                if !is_held {
                    pod.aliased.insert(ours);
                }
            }
        }
    }

    /// If the name means another block to this pod until now, notes that block: it is lost.
    fn displace(&mut self, walk: &mut Walk<'_>, name: u64, key: u64) {
        let Some(at) = self.place(walk.memory, walk.holder.0, name) else { return };
        let other = Runs::key(walk.memory, at);
        if other != key && self.holds(walk.memory, walk.holder.0, at) {
            walk.displaced.push(Named { name: self.runs.name(walk.memory, at), key: other });
        }
    }

    /// Blocks without tokens (an offload): the pod's own names say what they are.
    fn store_known(&mut self, memory: &Memory, holder: (usize, usize), stored: &Stored) -> Applied {
        let mut applied = Applied::default();
        for EngineHash(name) in &stored.blocks {
            let at = self.place(memory, holder.0, *name);
            let Some(at) = at.filter(|at| self.holds(memory, holder.0, *at)) else {
                applied.unknown_block += 1;
                continue;
            };
            let mut walk = Walk {
                memory,
                holder,
                is_announcement: stored.is_announcement,
                last: None,
                tick: memory.header(at.run).touched(),
                applied: Applied::default(),
                displaced: Vec::new(),
            };
            let key = Runs::key(memory, at);
            applied.lost += usize::from(self.hold(&mut walk, at, &[key], &[*name]) == 0);
            applied += walk.applied;
        }
        applied
    }

    /// Whatever the last block continues was wanted, too.
    fn touch_above(&self, walk: &Walk<'_>) {
        let mut run = walk.last.map_or(NONE, |last| last.run);
        while run != NONE {
            walk.memory.header(run).touch(walk.tick);
            run = self.runs.info(run).parent;
        }
    }
}
