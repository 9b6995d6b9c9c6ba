//! From the first block of a run to the run: the only table that a lookup probes.
//!
//! Open addressing over atomic slots that never move: a removed entry leaves a stone, and when
//! stones and entries fill three quarters a new table takes the old one's place at one stroke.
//! A slot is half of the block's hash beside the run's number. Whether that run really starts
//! with that block is asked of the run itself, under its version, so a stale slot is harmless.

use arc_swap::{ArcSwap, Guard};

use std::sync::Arc;

use super::sync::{AtomicU64, Ordering};

/// The table in force.
#[derive(Debug)]
pub(super) struct Heads {
    table: ArcSwap<Table>,
}

/// One size of it.
#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[AtomicU64]>,
}

/// The writer's count of what is in the table.
#[derive(Debug, Default)]
pub(super) struct Filling {
    entries: usize,
    stones: usize,
}

const EMPTY: u64 = 0;
/// No run has this number: there are fewer than 2^24.
const STONE: u64 = 0xffff_ffff;
const LEAST: usize = 64;

// === impl Heads ===

impl Default for Heads {
    fn default() -> Self {
        Self { table: ArcSwap::from_pointee(Table::of(LEAST)) }
    }
}

impl Heads {
    /// The table as it is now.
    pub(super) fn load(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Enters a run under its first block. `live` lists every run to carry over if the table must
    /// grow, this one excluded.
    pub(super) fn insert(
        &self,
        filling: &mut Filling,
        head: u64,
        run: u32,
        live: impl Iterator<Item = (u64, u32)>,
    ) {
        let slots = self.load().slots.len();
        if (filling.entries + filling.stones + 1) * 4 > slots * 3 {
            let table = Table::of(((filling.entries + 1) * 3).next_power_of_two().max(LEAST));
            live.for_each(|(head, run)| table.put(head, run));
            table.put(head, run);
            filling.stones = 0;
            self.table.store(Arc::new(table));
        } else {
            self.load().put(head, run);
        }
        filling.entries += 1;
    }

    /// Takes a run out.
    pub(super) fn remove(&self, filling: &mut Filling, head: u64, run: u32) {
        let table = self.load();
        let wanted = entry(head, run);
        if let Some(slot) = table.probe(head).find(|slot| slot.load(Ordering::Relaxed) == wanted) {
            slot.store(STONE, Ordering::Release);
            filling.entries -= 1;
            filling.stones += 1;
        }
    }

    /// Bytes that this takes.
    pub(super) fn bytes(&self) -> usize {
        self.load().slots.len() * 8
    }
}

// === impl Table ===

impl Table {
    fn of(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| AtomicU64::new(EMPTY)).collect() }
    }

    /// Runs that may start with this block: almost always the one, or none.
    #[inline]
    pub(super) fn candidates(&self, head: u64) -> impl Iterator<Item = u32> {
        self.probe(head).map(|slot| slot.load(Ordering::Acquire)).filter_map(move |slot| {
            let is_same = slot >> 32 == head >> 32 && slot & STONE != STONE;
            #[expect(clippy::cast_possible_truncation, reason = "the lower half is the number")]
            let run = (slot as u32).wrapping_sub(1);
            is_same.then_some(run)
        })
    }

    /// The slots from the block's own one to the first that was never used.
    #[inline]
    fn probe(&self, head: u64) -> impl Iterator<Item = &AtomicU64> {
        let mask = self.slots.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "only the lower bits are wanted")]
        let home = head as usize & mask;
        (0..=mask)
            .map(move |step| &self.slots[(home + step) & mask])
            .take_while(|slot| slot.load(Ordering::Relaxed) != EMPTY)
    }

    fn put(&self, head: u64, run: u32) {
        let mask = self.slots.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "only the lower bits are wanted")]
        let home = head as usize & mask;
        let open = (0..=mask).map(|step| &self.slots[(home + step) & mask]).find(|slot| {
            let slot = slot.load(Ordering::Relaxed);
            slot == EMPTY || slot == STONE
        });
        if let Some(slot) = open {
            slot.store(entry(head, run), Ordering::Release);
        }
    }
}

fn entry(head: u64, run: u32) -> u64 {
    head & !STONE | u64::from(run + 1)
}
