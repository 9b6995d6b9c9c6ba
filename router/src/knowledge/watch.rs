//! The least that pods were known to hold of the prompts that they were sent.
//!
//! A prompt is placed by what a pod holds, and its engine looks for it when its turn comes: a second
//! later, where it is busy. What other requests pushed out meanwhile was no wrong prediction. Engines
//! tell what they push out, and then store what took the place: so the blocks are looked for again after
//! each loss, and before the next store hides it. What an engine computes on is not pushed out: the
//! least is what it found, however long its answer takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kv_index::{BlockHash, ExactIndex, Overlap, Slot};
use parking_lot::Mutex;

/// All prompts that are watched.
#[derive(Debug, Default)]
pub(super) struct Watches {
    state: Mutex<State>,
}

/// A prompt that was sent to a pod; dropped, it is watched no more.
#[derive(Debug)]
pub(crate) struct Watch {
    watches: Arc<Watches>,
    slot: Slot,
    watched: Arc<Watched>,
}

#[derive(Debug, Default)]
struct State {
    /// By slot index.
    pods: Vec<Pod>,
    overlap: Overlap,
}

#[derive(Debug, Default)]
struct Pod {
    watched: Vec<Arc<Watched>>,
    /// It has lost something since they were looked for.
    has_lost: bool,
}

#[derive(Debug)]
struct Watched {
    slot: Slot,
    chain: Arc<Vec<BlockHash>>,
    /// In blocks.
    least: AtomicU32,
}

// === impl Watches ===

impl Watches {
    pub(super) fn watch(self: &Arc<Self>, slot: Slot, chain: &Arc<Vec<BlockHash>>) -> Watch {
        let (chain, least) = (Arc::clone(chain), AtomicU32::new(u32::MAX));
        let watched = Arc::new(Watched { slot, chain, least });
        let pods = &mut self.state.lock().pods;
        if pods.len() <= slot.index() {
            pods.resize_with(slot.index() + 1, Pod::default);
        }
        pods[slot.index()].watched.push(Arc::clone(&watched));
        Watch { watches: Arc::clone(self), slot, watched }
    }

    /// The pod has lost blocks.
    pub(super) fn lost(&self, slot: Slot) {
        if let Some(pod) = self.state.lock().pods.get_mut(slot.index()) {
            pod.has_lost = !pod.watched.is_empty();
        }
    }

    /// Looks for what the pod was sent, if it has lost blocks since.
    pub(super) fn look(&self, slot: Slot, exact: &ExactIndex) {
        let State { pods, overlap } = &mut *self.state.lock();
        let Some(pod) = pods.get_mut(slot.index()) else { return };
        if !std::mem::take(&mut pod.has_lost) {
            return;
        }
        for watched in &pod.watched {
            exact.overlap(&watched.chain, overlap);
            watched.least.fetch_min(overlap.blocks(watched.slot), Ordering::Relaxed);
        }
    }
}

// === impl Watch ===

impl Watch {
    /// The least of the prompt's blocks that the pod was known to hold after a loss; as many as there
    /// can be if there was none.
    pub(crate) fn least(&self, exact: &ExactIndex) -> u32 {
        self.watches.look(self.slot, exact);
        self.watched.least.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(pod) = self.watches.state.lock().pods.get_mut(self.slot.index()) {
            pod.watched.retain(|it| !Arc::ptr_eq(it, &self.watched));
        }
    }
}
