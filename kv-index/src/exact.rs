//! What pods say they hold: the index for pods that tell us.
//!
//! A chain is stored once, in *runs* (`run.rs`): unbranched stretches with one 64-bit key per
//! block, 8 bytes for the engines' name of it, and for each pod how long a prefix of the run it
//! holds. A key contains the whole prefix, so a lookup (`lookup.rs`) compares one key per run,
//! goes on where the next block starts a run, and intersects the holders on the way: what it says
//! of a pod is membership, block by block, never a count. What a pod means by its own block names
//! is kept once for all pods that agree (`ledger.rs`) and per pod for those that do not (`pod.rs`);
//! each store is checked against our own keys, so that no pod can speak for another.
//!
//! Readers take no lock: runs lie in memory that never moves and change under a version
//! (`seqlock.rs`); a reader that meets a change reads again, and after 1024 times says that nothing
//! more is held. Each run is read as it was at one moment, the walk over several runs is not.
//! Writers take turns under one lock, for one event (removing a pod: for 32 runs) at a time.
//!
//! Errs downwards only: what does not fit, is not understood or comes late is not held. The odds
//! that a key lies are those of [`BlockHash`].

mod applied;
mod arena;
mod evict;
mod heads;
mod holders;
mod hybrid;
mod ledger;
mod lookup;
mod pod;
mod remove;
mod roster;
mod run;
mod runs;
mod seqlock;
mod store;
mod writer;

mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};

pub use applied::Applied;
pub(crate) use roster::Roster;

use crate::{BlockHash, ChainHasher, Event, Overlap, Slot};
use hybrid::Hybrid;
use pod::Pod;
use runs::Memory;
use writer::Writer;

/// Slot indices that the index can tell apart; events of others are ignored and counted.
pub const MOST_SLOTS: usize = 4096;

/// Bounds of the [`ExactIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExactSettings {
    /// Bytes for all pods together.
    pub bytes: usize,
    /// Bytes that one pod may need, if nobody else holds what it holds.
    pub pod_bytes: usize,
}

/// Knows which blocks each pod holds, from the pods' own events.
#[derive(Debug)]
pub struct ExactIndex {
    settings: ExactSettings,
    hasher: ChainHasher,
    memory: Memory,
    roster: ArcSwap<Roster>,
    /// Counts stores, in units of `STORES_PER_TICK`: how recency is told.
    tick: AtomicU64,
    stores: AtomicU64,
    writer: Mutex<Writer>,
}

/// Coarse, so that readers seldom write to what they share.
const STORES_PER_TICK: u64 = 64;

// === impl ExactSettings ===

impl Default for ExactSettings {
    fn default() -> Self {
        // 512 MiB: 13 million distinct blocks, more the more pods share. One pod in eight of it:
        // 1.7 million blocks of 16 tokens, 27 million tokens.
        Self { bytes: 512 << 20, pod_bytes: 64 << 20 }
    }
}

// === impl ExactIndex ===

impl ExactIndex {
    /// An empty index whose chains `hasher` makes.
    #[must_use]
    pub fn new(settings: ExactSettings, hasher: ChainHasher) -> Self {
        let secret = hasher.root(&["ledger"]).get();
        Self {
            settings,
            hasher,
            // Twice the budget in addresses: what is freed is kept for pieces of its size.
            memory: Memory::new(settings.bytes.saturating_mul(2)),
            roster: ArcSwap::default(),
            tick: AtomicU64::new(1),
            stores: AtomicU64::new(0),
            writer: Mutex::new(Writer::new(secret)),
        }
    }

    /// Where the chain of a prompt starts; whoever asks hashes from here.
    #[must_use]
    pub fn root(&self, adapter: Option<&str>, salt: Option<&str>, block_tokens: u32) -> BlockHash {
        self.hasher.prompt_root(adapter, salt, block_tokens)
    }

    /// Takes in what a pod says. Events of one pod must come in its order; of a pod that was
    /// removed they are ignored.
    pub fn apply(&self, slot: Slot, event: &Event) -> Applied {
        if matches!(event, Event::Cleared) {
            self.clear(slot);
            return Applied::default();
        }
        let mut writer = self.writer.lock();
        if !self.seat(&mut writer, slot) {
            drop(writer);
            if !self.succeed(slot) {
                let ignored = match event {
                    Event::Stored(stored) => stored.blocks.len(),
                    Event::Removed(removed) => removed.blocks.len(),
                    Event::Cleared => 0,
                };
                return Applied { ignored, ..Applied::default() };
            }
            writer = self.writer.lock();
        }
        self.write(&mut writer, slot, event)
    }

    /// The pod holds nothing: it said so, or has restarted.
    pub fn clear(&self, slot: Slot) {
        self.empty(slot, true);
    }

    /// The pod is gone.
    pub fn remove(&self, slot: Slot) {
        self.empty(slot, false);
    }

    /// Writes into `out` how many leading blocks of the chain each pod holds. Takes no lock (but
    /// for pods with several KV-cache groups, their own), and allocates nothing once `out` has
    /// grown to the fleet's size.
    pub fn overlap(&self, chain: &[BlockHash], out: &mut Overlap) {
        let (roster, depths) = out.lend(self.roster.load_full());
        let tick = self.tick.load(Ordering::Relaxed);
        lookup::overlap(&self.memory, roster, tick, chain, depths);
    }

    /// The engine has proven that it does not hold the chain's block `from_depth`, so none behind
    /// it either. Returns how many blocks the pod lost by that.
    pub fn truncate(&self, slot: Slot, chain: &[BlockHash], from_depth: usize) -> usize {
        let mut writer = self.writer.lock();
        let Some(pod) = writer.seats.get(slot.index()).and_then(|seat| seat.pod.as_ref()) else {
            return 0;
        };
        if pod.slot != slot {
            return 0;
        }
        match pod.hybrid.clone() {
            Some(hybrid) => hybrid.truncate(chain, from_depth),
            None => writer.truncate(&self.memory, slot.index(), chain, from_depth),
        }
    }

    /// Bytes that the index takes of the machine, free pieces included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let writer = self.writer.lock();
        writer.runs.bytes(&self.memory) + writer.ledger.bytes() + writer.pods_bytes()
    }

    /// Blocks held, counted once per pod and medium (and group).
    #[must_use]
    pub fn holder_blocks(&self) -> usize {
        let writer = self.writer.lock();
        writer.held + writer.hybrid_blocks()
    }

    /// Distinct blocks that some pod with one KV-cache group holds.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.writer.lock().ledger.len()
    }

    fn write(&self, writer: &mut MutexGuard<'_, Writer>, slot: Slot, event: &Event) -> Applied {
        let seat = slot.index();
        let is_hybrid = match event {
            Event::Stored(stored) => stored.group > 0 || stored.window.is_some(),
            Event::Removed(removed) => removed.group > 0,
            Event::Cleared => false,
        };
        if is_hybrid && writer.peek(seat).hybrid.is_none() {
            self.make_hybrid(writer, slot);
        }
        if let Some(hybrid) = &writer.peek(seat).hybrid {
            return match event {
                Event::Stored(stored) => hybrid.store(&self.hasher, stored),
                Event::Removed(removed) => hybrid.remove(removed),
                Event::Cleared => Applied::default(),
            };
        }
        match event {
            Event::Stored(stored) => {
                let stores = self.stores.fetch_add(1, Ordering::Relaxed);
                let tick = stores / STORES_PER_TICK + 1;
                self.tick.store(tick, Ordering::Relaxed);
                let mut applied = writer.store(&self.memory, &self.hasher, (seat, tick), stored);
                let ExactSettings { bytes, pod_bytes } = self.settings;
                applied.evicted += writer.keep_within(&self.memory, seat, (bytes, pod_bytes));
                applied
            }
            Event::Removed(removed) => writer.remove(&self.memory, seat, removed),
            Event::Cleared => Applied::default(),
        }
    }

    /// Gives the pod its seat if it is free. False: another generation has it, or this one is gone.
    fn seat(&self, writer: &mut Writer, slot: Slot) -> bool {
        if slot.index() >= MOST_SLOTS {
            return false;
        }
        let seat = writer.seat(slot.index());
        match &seat.pod {
            Some(pod) => pod.slot == slot,
            None if u64::from(slot.generation()) < seat.next_generation => false,
            None => {
                seat.pod = Some(Pod::new(slot));
                self.publish(|roster| roster.seat(slot, true));
                true
            }
        }
    }

    /// Makes way for a pod whose predecessor was not removed; false if the slot is the older one.
    fn succeed(&self, slot: Slot) -> bool {
        let predecessor = {
            let writer = self.writer.lock();
            let seat = writer.seats.get(slot.index());
            seat.and_then(|seat| seat.pod.as_ref()).map(|pod| pod.slot)
        };
        let Some(old) = predecessor.filter(|old| old.generation() < slot.generation()) else {
            return false;
        };
        self.remove(old);
        self.seat(&mut self.writer.lock(), slot)
    }

    /// Lets go of everything that a pod holds, a few runs at a time; readers are told first.
    fn empty(&self, slot: Slot, stays: bool) {
        let index = slot.index();
        let is_its = |writer: &Writer| {
            let pod = writer.seats.get(index).and_then(|seat| seat.pod.as_ref());
            pod.is_some_and(|pod| pod.slot == slot)
        };
        let mut is_told = false;
        loop {
            let mut writer = self.writer.lock();
            if !is_its(&writer) {
                if !stays {
                    writer.bar(slot);
                }
                return;
            }
            if !is_told {
                self.publish(|roster| roster.seat(slot, false));
                is_told = true;
            }
            if writer.release_some(&self.memory, index) {
                continue;
            }
            writer.pod(index).forget();
            if !stays {
                writer.seats[index].pod = None;
                writer.bar(slot);
                return;
            }
            self.publish(|roster| roster.seat(slot, true));
            return;
        }
    }

    /// The pod's model has several KV-cache groups: what it holds moves to a set of its own.
    fn make_hybrid(&self, writer: &mut Writer, slot: Slot) {
        let hybrid = Arc::new(Hybrid::default());
        let seat = slot.index();
        for (key, name, medium) in writer.holdings(&self.memory, seat) {
            let pod = writer.peek(seat);
            let own = pod.names.iter().find(|(_, named)| named.name == name);
            let own = own.map_or(name, |(own, _)| *own);
            let spare = pod.spare.get(&(name, medium)).copied().unwrap_or(0);
            let copies = u16::try_from(spare + 1).unwrap_or(u16::MAX);
            hybrid.adopt((crate::EngineHash(own), key), medium, copies);
        }
        while writer.release_some(&self.memory, seat) {}
        let pod = writer.pod(seat);
        let waiting = std::mem::take(&mut pod.waiting);
        pod.forget();
        pod.waiting = waiting;
        pod.hybrid = Some(Arc::clone(&hybrid));
        self.publish(|roster| roster.hybrids.push((slot, Arc::clone(&hybrid))));
    }

    /// Replaces the roster; the writer's lock is held.
    fn publish(&self, change: impl FnOnce(&mut Roster)) {
        let mut roster = Roster::clone(&self.roster.load());
        change(&mut roster);
        self.roster.store(Arc::new(roster));
    }
}
