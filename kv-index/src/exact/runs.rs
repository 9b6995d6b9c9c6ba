//! The writer's side of the runs: making, growing, shortening and freeing them.
//!
//! Whatever readers can see changes under the run's version; what only the writer needs (the tree
//! of runs, the engines' names) lies beside it.

use super::arena::{Allocator, CHUNK_BYTES, Words};
use super::heads::{Filling, Heads};
use super::holders::Holders;
use super::ledger::{MOST_RUNS, Place};
use super::run::{self, HEADER, Header, Keys, Layout, MOST_BLOCKS};
use super::sync::{AtomicU64, Ordering};

/// No run.
pub(super) const NONE: u32 = u32::MAX;

/// What readers see.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) headers: Words,
    pub(super) words: Words,
    pub(super) heads: Heads,
}

/// What else the writer knows of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    /// Words of its keys and names together; 0: the run is free.
    size: u32,
    /// Words of its holders outside the header.
    holders: u32,
    /// The run that it continues, and after which of that one's blocks.
    pub(super) parent: u32,
    pub(super) attach: u32,
    /// Blocks before its first.
    pub(super) depth: u32,
    pub(super) first_child: u32,
    next: u32,
    previous: u32,
}

/// Holders outside the header: address (0: there are none) and words there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outside {
    at: u32,
    size: usize,
}

/// All runs.
#[derive(Debug, Default)]
pub(super) struct Runs {
    alloc: Allocator,
    info: Vec<Info>,
    free: Vec<u32>,
    filling: Filling,
    /// Runs whose parent went before them.
    orphans: usize,
}

// === impl Memory ===

impl Memory {
    /// Room for what `bytes` may ever need.
    pub(super) fn new(bytes: usize) -> Self {
        // A run costs a header of 128 bytes and rarely less than that in keys.
        let chunks = bytes / CHUNK_BYTES + 4;
        let headers = chunks.min(MOST_RUNS * HEADER * 8 / CHUNK_BYTES);
        Self { headers: Words::new(headers), words: Words::new(chunks), heads: Heads::default() }
    }

    pub(super) fn header(&self, run: u32) -> Header<'_> {
        run::header(&self.headers, run).expect("the writer only asks for runs that it made")
    }
}

// === impl Info ===

impl Info {
    const FREE: Self = Self {
        size: 0,
        holders: 0,
        parent: NONE,
        attach: 0,
        depth: 0,
        first_child: NONE,
        next: NONE,
        previous: NONE,
    };

    fn is_orphan(&self) -> bool {
        self.parent == NONE && self.depth > 0
    }
}

// === impl Runs ===

impl Runs {
    /// Runs ever made; their numbers are below it.
    pub(super) fn count(&self) -> usize {
        self.info.len()
    }

    pub(super) fn is_live(&self, run: u32) -> bool {
        self.info(run).size > 0
    }

    pub(super) fn info(&self, run: u32) -> &Info {
        &self.info[run as usize]
    }

    /// Whether some block's predecessor may be missing, so that a new block's successor may be
    /// there already.
    pub(super) fn has_orphans(&self) -> bool {
        self.orphans > 0
    }

    /// The live run that starts with this block.
    pub(super) fn starting_with(&self, memory: &Memory, key: u64) -> Option<u32> {
        let table = memory.heads.load();
        table.candidates(key).find(|run| self.is_live(*run) && memory.header(*run).head() == key)
    }

    /// The key of a block.
    pub(super) fn key(memory: &Memory, at: Place) -> u64 {
        let keys = memory.header(at.run).keys();
        memory.words.of(keys.at + at.offset, 1)[0].load(Ordering::Relaxed)
    }

    /// The engines' name for a block, as its first holder gave it.
    pub(super) fn name(&self, memory: &Memory, at: Place) -> u64 {
        self.name_word(memory, at).load(Ordering::Relaxed)
    }

    /// Where that name lies.
    pub(super) fn name_word<'a>(&self, memory: &'a Memory, at: Place) -> &'a AtomicU64 {
        let names = memory.header(at.run).keys().at + self.info(at.run).size / 2;
        &memory.words.of(names + at.offset, 1)[0]
    }

    /// A run of no blocks yet, with room for `room`, not yet found by anyone.
    pub(super) fn make(
        &mut self,
        memory: &Memory,
        room: usize,
        after: Option<Place>,
    ) -> Option<u32> {
        if self.free.is_empty() {
            let next = u32::try_from(self.info.len()).ok()?;
            if self.info.len() >= MOST_RUNS || !memory.headers.reach(next as usize * HEADER) {
                return None;
            }
            self.info.push(Info::FREE);
            self.free.push(next);
        }
        let (at, size) = self.alloc.take(&memory.words, room.min(MOST_BLOCKS) * 2)?;
        let run = self.free.pop()?;
        let header = memory.header(run);
        let writing = header.write();
        header.set_keys(Keys { at, len: 0 }, 0);
        header.set_layout(Layout { media: 1, ..Layout::default() });
        drop(writing);
        let depth = after.map_or(0, |place| self.info(place.run).depth + place.offset + 1);
        self.info[run as usize] = Info { size: narrow(size), depth, ..Info::FREE };
        self.orphans += usize::from(depth > 0);
        if let Some(place) = after {
            self.attach(run, place);
        }
        Some(run)
    }

    /// Lets readers find a new run by its first block.
    pub(super) fn publish(&mut self, memory: &Memory, run: u32) {
        let Self { info, filling, .. } = self;
        let live = info.iter().zip(0..).filter(|(info, other)| info.size > 0 && *other != run);
        let live = live.map(|(_, other)| (memory.header(other).head(), other));
        memory.heads.insert(filling, memory.header(run).head(), run, live);
    }

    /// Appends blocks at the end of a run and sets its holders; false: there is no memory.
    pub(super) fn append(
        &mut self,
        memory: &Memory,
        run: u32,
        blocks: (&[u64], &[u64]),
        holders: &Holders,
    ) -> bool {
        let (keys, names) = blocks;
        let header = memory.header(run);
        let old = header.keys();
        let len = old.len + keys.len();
        let size = self.info(run).size as usize;
        let mut new = Keys { at: old.at, len };
        let mut new_size = size;
        if len > size / 2 {
            let room = (len + len / 8).min(MOST_BLOCKS.max(len));
            let Some((at, taken)) = self.alloc.take(&memory.words, room * 2) else { return false };
            (new.at, new_size) = (at, taken);
            copy(&memory.words, (old.at, size), (at, taken), old.len);
        }
        let before = self.outside(memory, run);
        let Some(now) = self.holders_at(memory, run, holders) else {
            if new.at != old.at {
                self.alloc.give(new.at, new_size);
            }
            return false;
        };
        let words = memory.words.of(new.at, new_size);
        let writing = header.write();
        for (word, key) in words[old.len..].iter().zip(keys) {
            word.store(*key, Ordering::Relaxed);
        }
        for (word, name) in words[new_size / 2 + old.len..].iter().zip(names) {
            word.store(*name, Ordering::Relaxed);
        }
        if old.len == 0 {
            header.set_head(keys.first().copied().unwrap_or(0));
        }
        header.set_keys(new, keys.last().copied().unwrap_or(header.tail()));
        holders.store(header, &memory.words, now.at);
        drop(writing);
        self.settle(run, before, now);
        self.resettle(run, (old.at, size), (new.at, new_size));
        true
    }

    /// Shortens a run to its first `len` blocks (at least one) and sets its holders; false: there
    /// is no memory for so many.
    pub(super) fn shorten(
        &mut self,
        memory: &Memory,
        run: u32,
        len: usize,
        holders: &Holders,
    ) -> bool {
        let before = self.outside(memory, run);
        let Some(now) = self.holders_at(memory, run, holders) else { return false };
        let header = memory.header(run);
        let old = header.keys();
        let size = self.info(run).size as usize;
        let room = len * 2 + len / 4;
        let smaller = (self.alloc.rounded(room) * 2 <= size)
            .then(|| self.alloc.take(&memory.words, room))
            .flatten()
            .filter(|(_, taken)| *taken < size);
        let (at, new_size) = smaller.unwrap_or((old.at, size));
        if at != old.at {
            copy(&memory.words, (old.at, size), (at, new_size), len);
        }
        let tail = memory.words.of(at, new_size)[len - 1].load(Ordering::Relaxed);
        let writing = header.write();
        header.set_keys(Keys { at, len }, tail);
        holders.store(header, &memory.words, now.at);
        drop(writing);
        self.settle(run, before, now);
        self.resettle(run, (old.at, size), (at, new_size));
        true
    }

    /// Sets a run's holders; false: there is no memory for so many.
    pub(super) fn hold(&mut self, memory: &Memory, run: u32, holders: &Holders) -> bool {
        let before = self.outside(memory, run);
        let Some(now) = self.holders_at(memory, run, holders) else { return false };
        let header = memory.header(run);
        let writing = header.write();
        holders.store(header, &memory.words, now.at);
        drop(writing);
        self.settle(run, before, now);
        true
    }

    /// Frees a run; what continued it is an orphan from now on.
    pub(super) fn release(&mut self, memory: &Memory, run: u32) {
        let header = memory.header(run);
        let keys = header.keys();
        memory.heads.remove(&mut self.filling, header.head(), run);
        let writing = header.write();
        let at = header.layout().at;
        header.set_head(0);
        header.set_keys(Keys { at: 0, len: 0 }, 0);
        header.set_layout(Layout { media: 1, ..Layout::default() });
        drop(writing);
        let info = *self.info(run);
        self.alloc.give(keys.at, info.size as usize);
        if at != 0 {
            self.alloc.give(at, info.holders as usize);
        }
        while self.info(run).first_child != NONE {
            let child = self.info(run).first_child;
            self.detach(child);
            self.orphans += usize::from(self.info(child).is_orphan());
        }
        self.orphans -= usize::from(info.is_orphan());
        self.detach(run);
        self.info[run as usize] = Info::FREE;
        self.free.push(run);
    }

    /// The runs that continue this one.
    pub(super) fn children(&self, run: u32) -> impl Iterator<Item = u32> {
        let first = self.info(run).first_child;
        std::iter::successors((first != NONE).then_some(first), |child| {
            let next = self.info(*child).next;
            (next != NONE).then_some(next)
        })
    }

    /// Hangs a run under the block that it continues.
    pub(super) fn attach(&mut self, run: u32, after: Place) {
        self.orphans -= usize::from(self.info(run).is_orphan());
        self.detach(run);
        let next = self.info(after.run).first_child;
        let info = &mut self.info[run as usize];
        (info.parent, info.attach, info.next) = (after.run, after.offset, next);
        self.info[after.run as usize].first_child = run;
        if next != NONE {
            self.info[next as usize].previous = run;
        }
    }

    /// Bytes in use.
    pub(super) fn used_bytes(&self) -> usize {
        let live = self.info.len() - self.free.len();
        self.alloc.used_bytes() + live * (HEADER * 8 + size_of::<Info>())
    }

    /// Bytes that the runs take of the machine.
    pub(super) fn bytes(&self, memory: &Memory) -> usize {
        let headers = (self.info.len() * HEADER * 8).next_multiple_of(CHUNK_BYTES);
        let lists = self.info.capacity() * size_of::<Info>() + self.free.capacity() * 4;
        self.alloc.bytes() + headers + lists + memory.heads.bytes()
    }

    fn detach(&mut self, run: u32) {
        let Info { parent, next, previous, .. } = *self.info(run);
        if parent == NONE {
            return;
        }
        if previous == NONE {
            self.info[parent as usize].first_child = next;
        } else {
            self.info[previous as usize].next = next;
        }
        if next != NONE {
            self.info[next as usize].previous = previous;
        }
        let info = &mut self.info[run as usize];
        (info.parent, info.next, info.previous) = (NONE, NONE, NONE);
    }

    /// Where the run's holders will lie; none: there is no memory.
    fn holders_at(&mut self, memory: &Memory, run: u32, holders: &Holders) -> Option<Outside> {
        let Some(count) = holders.outside() else { return Some(Outside::default()) };
        let now = self.outside(memory, run);
        if now.at != 0 && count <= now.size {
            return Some(now);
        }
        let (at, size) = self.alloc.take(&memory.words, count)?;
        Some(Outside { at, size })
    }

    /// The run's keys have moved from one piece to another.
    fn resettle(&mut self, run: u32, before: (u32, usize), now: (u32, usize)) {
        if before.0 != now.0 {
            self.alloc.give(before.0, before.1);
            self.info[run as usize].size = narrow(now.1);
        }
    }

    fn outside(&self, memory: &Memory, run: u32) -> Outside {
        let size = self.info(run).holders as usize;
        Outside { at: memory.header(run).layout().at, size }
    }

    /// The run's holders have moved from `before` to `now`.
    fn settle(&mut self, run: u32, before: Outside, now: Outside) {
        if before.at != 0 && before.at != now.at {
            self.alloc.give(before.at, before.size);
        }
        self.info[run as usize].holders = narrow(now.size);
    }
}

fn narrow(size: usize) -> u32 {
    u32::try_from(size).expect("a piece has at most 4096 words")
}

fn copy(words: &Words, from: (u32, usize), to: (u32, usize), len: usize) {
    let (from, to) = (words.of(from.0, from.1), words.of(to.0, to.1));
    for (start, into) in [(0, 0), (from.len() / 2, to.len() / 2)] {
        for (word, copy) in from[start..start + len].iter().zip(&to[into..]) {
            copy.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}
