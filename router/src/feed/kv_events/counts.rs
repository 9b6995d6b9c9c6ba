//! What is counted of one pod's events, one number for each thing that can happen to them.

use std::ops::Index;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvCount {
    /// Batches applied.
    Batches,
    /// Events applied.
    Events,
    /// Events and fields passed over because they are not known here.
    Skipped,
    /// Batches that came twice.
    Duplicates,
    /// Batches that came before their predecessors.
    Gaps,
    /// Times the history was asked for.
    Replays,
    /// Of those, times it could not be had.
    FailedReplays,
    /// Times everything known of the pod was forgotten.
    Resets,
    /// Batches that found no room to wait; each is a gap, and replayed.
    Dropped,
    /// Batches and messages that could not be read.
    Undecodable,
    /// Times the stream was opened.
    Connects,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvCounts([u64; KvCount::ALL.len()]);

/// The counts as they grow.
#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; KvCount::ALL.len()]);

// === impl KvCount ===

impl KvCount {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Batches,
        Self::Events,
        Self::Skipped,
        Self::Duplicates,
        Self::Gaps,
        Self::Replays,
        Self::FailedReplays,
        Self::Resets,
        Self::Dropped,
        Self::Undecodable,
        Self::Connects,
    ];

    /// Its word, for metrics and pages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Batches => "batches",
            Self::Events => "events",
            Self::Skipped => "skipped",
            Self::Duplicates => "duplicates",
            Self::Gaps => "gaps",
            Self::Replays => "replays",
            Self::FailedReplays => "failed_replays",
            Self::Resets => "resets",
            Self::Dropped => "dropped",
            Self::Undecodable => "undecodable",
            Self::Connects => "connects",
        }
    }

    /// What it counts, as a sentence.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Batches => "Batches applied.",
            Self::Events => "Events applied.",
            Self::Skipped => "Events and fields passed over because they are not known here.",
            Self::Duplicates => "Batches that came twice.",
            Self::Gaps => "Batches that came before their predecessors.",
            Self::Replays => "Times a history was asked for.",
            Self::FailedReplays => "Times a history could not be had.",
            Self::Resets => "Times all that was known of a pod was forgotten.",
            Self::Dropped => "Batches that found no room to wait; asked for again.",
            Self::Undecodable => "Batches that could not be read.",
            Self::Connects => "Times a stream was opened.",
        }
    }
}

// === impl KvCounts ===

impl KvCounts {
    /// Each count with its value.
    pub fn iter(&self) -> impl Iterator<Item = (KvCount, u64)> + '_ {
        KvCount::ALL.into_iter().zip(self.0)
    }
}

impl Index<KvCount> for KvCounts {
    type Output = u64;

    fn index(&self, count: KvCount) -> &u64 {
        &self.0[count as usize]
    }
}

impl FromIterator<(KvCount, u64)> for KvCounts {
    /// Those that are not named are 0.
    fn from_iter<I: IntoIterator<Item = (KvCount, u64)>>(counts: I) -> Self {
        let mut all = Self::default();
        counts.into_iter().for_each(|(count, value)| all.0[count as usize] = value);
        all
    }
}

// === impl Counters ===

impl Counters {
    pub(super) fn add(&self, count: KvCount, by: u64) {
        self.0[count as usize].fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn get(&self, count: KvCount) -> u64 {
        self.0[count as usize].load(Ordering::Relaxed)
    }

    pub(super) fn read(&self) -> KvCounts {
        KvCount::ALL.into_iter().map(|count| (count, self.get(count))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_a_place_and_a_word_of_its_own() {
        for (at, count) in KvCount::ALL.into_iter().enumerate() {
            assert_eq!(count as usize, at, "{count:?}");
            let same = KvCount::ALL.into_iter().filter(|it| it.word() == count.word());
            assert_eq!(same.count(), 1, "{count:?}");
        }
    }
}
