//! Who hears of pods that no longer hold what they held.

use std::fmt;

use kv_index::Slot;

/// What the pool's task calls as pods lose their caches. Each must be short. Handed in before the
/// pool starts, so that no pod can go unheard.
pub struct Hooks {
    /// For every pod that goes, after the snapshot without it is published and before its slot is
    /// given to another pod: the indexes forget the pod here.
    pub removed: SlotHook,
    /// For every pod that has shown that its process is gone or began anew, so that its cache is
    /// empty. Its slot stays.
    pub cache_lost: SlotHook,
}

/// Hears of one pod.
pub type SlotHook = Box<dyn Fn(Slot) + Send + Sync>;

// === impl Hooks ===

impl Default for Hooks {
    /// Nobody hears.
    fn default() -> Self {
        Self { removed: Box::new(|_slot| {}), cache_lost: Box::new(|_slot| {}) }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}
