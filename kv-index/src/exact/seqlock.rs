//! How a run is changed under the eyes of readers that take no lock: a version beside the words.
//!
//! The version is odd while the one writer changes something. A reader that sees the same even
//! version before and after has read one state; otherwise it reads again. The words themselves are
//! atomics, so a torn read is a wrong number that the version gives away, never undefined.
//!
//! `tests/models.rs` runs this file under loom.

use super::sync::{AtomicU64, Ordering, fence};

/// While it lives, readers of this version know that what they read may be torn.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    version: &'a AtomicU64,
    odd: u64,
}

/// Starts a change. Only the holder of the writer's lock may call this.
pub(super) fn write(version: &AtomicU64) -> Writing<'_> {
    let odd = version.load(Ordering::Relaxed) + 1;
    version.store(odd, Ordering::Relaxed);
    // No store that follows may become visible before the odd version.
    fence(Ordering::Release);
    Writing { version, odd }
}

/// The version to read under; none while a change is going on.
#[inline]
pub(super) fn read(version: &AtomicU64) -> Option<u64> {
    let seen = version.load(Ordering::Acquire);
    (seen & 1 == 0).then_some(seen)
}

/// Whether everything read since [`read`] belongs to one state.
#[inline]
pub(super) fn is_whole(version: &AtomicU64, seen: u64) -> bool {
    // No load that precedes may be answered after the version is read again.
    fence(Ordering::Acquire);
    version.load(Ordering::Relaxed) == seen
}

// === impl Writing ===

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.version.store(self.odd + 1, Ordering::Release);
    }
}
