//! What came of an event.

use std::ops::AddAssign;

/// Blocks of one or more events, by what was done with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Newly held.
    pub stored: usize,
    /// Stored while held: a second copy, or an announcement.
    pub duplicate: usize,
    /// No longer held, or one copy less.
    pub removed: usize,
    /// Stored after a parent that the pod has not named; kept for a while in case it still does.
    pub unknown_parent: usize,
    /// Of those, placed after all.
    pub resolved_late: usize,
    /// Removed, or stored without tokens, and not held.
    pub unknown_block: usize,
    /// Named by a hash that meant another block to the same pod; that other block is forgotten.
    pub renamed: usize,
    /// Given up: no room to wait for a parent, or removed while waiting, or no memory.
    pub lost: usize,
    /// With a number of tokens that does not fit.
    pub malformed: usize,
    /// From a pod that is gone, or with a slot beyond [`MOST_SLOTS`](crate::MOST_SLOTS).
    pub ignored: usize,
    /// Holdings dropped for the budget, whoever's they were.
    pub evicted: usize,
}

// === impl Applied ===

impl Applied {
    /// Each count with its word.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 11] {
        let Self { stored, duplicate, removed, unknown_parent, resolved_late, .. } = *self;
        let Self { unknown_block, renamed, lost, malformed, ignored, evicted, .. } = *self;
        [
            ("stored", stored),
            ("duplicate", duplicate),
            ("removed", removed),
            ("unknown_parent", unknown_parent),
            ("resolved_late", resolved_late),
            ("unknown_block", unknown_block),
            ("renamed", renamed),
            ("lost", lost),
            ("malformed", malformed),
            ("ignored", ignored),
            ("evicted", evicted),
        ]
    }
}

impl AddAssign for Applied {
    fn add_assign(&mut self, other: Self) {
        self.stored += other.stored;
        self.duplicate += other.duplicate;
        self.removed += other.removed;
        self.unknown_parent += other.unknown_parent;
        self.resolved_late += other.resolved_late;
        self.unknown_block += other.unknown_block;
        self.renamed += other.renamed;
        self.lost += other.lost;
        self.malformed += other.malformed;
        self.ignored += other.ignored;
        self.evicted += other.evicted;
    }
}
