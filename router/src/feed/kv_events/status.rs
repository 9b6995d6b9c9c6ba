//! What is known of one pod's events, readable by everyone without a lock.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use kv_index::Applied;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::calibration::{Calibration, Compared, Outcome, Predictions};
use super::counts::{Counters, KvCount, KvCounts};
use super::suspects::{Suspect, Suspects};
use super::trust::{Doubt, Trust};

/// What one pod told of its cache. Part of its [`Endpoint`](crate::pool::Endpoint).
#[derive(Debug)]
pub struct KvStatus {
    /// Encoded.
    trust: AtomicU8,
    /// Data-parallel ranks that tell at its address, this one among them; 0: it tells nothing.
    ranks: AtomicU16,
    pub(super) counts: Counters,
    blocks: Mutex<Applied>,
    /// One more than the number of the last batch; 0 before the first.
    next_seq: AtomicU64,
    /// Milliseconds from `created` to the last batch, plus one; 0 before the first.
    heard_ms: AtomicU64,
    calibration: Calibration,
    suspects: Suspects,
    /// The gravest that the feed has not taken yet.
    self_check: Mutex<Option<SelfCheck>>,
    judged: Notify,
    created: Instant,
}

/// A reading of a [`KvStatus`], for metrics and pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvReport {
    /// How far it can be believed.
    pub trust: Trust,
    /// Data-parallel ranks that tell at its address, this one among them; 0: it tells nothing.
    pub ranks: u16,
    /// What was counted since the pod appeared.
    pub counts: KvCounts,
    /// What became of the blocks that its events named.
    pub blocks: Applied,
    /// The number of the last batch.
    pub last_seq: Option<u64>,
    /// How long ago it was heard.
    pub age: Option<Duration>,
    /// What was predicted of it, held against its engine's own counts.
    pub predictions: Predictions,
}

/// What comparing predictions with answers has shown; the graver, the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SelfCheck {
    /// What we believe agrees with what the pod does.
    Reconciled,
    /// The pod held less than we believed: ask whether something was missed.
    Overpredicted,
    /// It did so again and again: forget what it told, and ask for all of it.
    Failing,
}

// === impl KvStatus ===

impl Default for KvStatus {
    fn default() -> Self {
        Self {
            trust: AtomicU8::new(encode(Trust::Approximate)),
            ranks: AtomicU16::new(0),
            counts: Counters::default(),
            blocks: Mutex::default(),
            next_seq: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            calibration: Calibration::default(),
            suspects: Suspects::default(),
            self_check: Mutex::default(),
            judged: Notify::new(),
            created: Instant::now(),
        }
    }
}

impl KvStatus {
    /// A pod that is believed so far, for tests and simulations.
    #[must_use]
    pub fn of(trust: Trust) -> Self {
        let status = Self::default();
        status.set_ranks(1);
        status.set_trust(trust);
        status
    }

    /// How far the index can be believed of the pod. One atomic load.
    #[must_use]
    pub fn trust(&self) -> Trust {
        decode(self.trust.load(Ordering::Acquire))
    }

    /// How many batches were applied. One atomic load.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.counts.get(KvCount::Batches)
    }

    /// Holds a prediction against what the engine found in its cache. One that was too high, and is not
    /// explained yet, is judged when the pod has told all that it had to tell.
    pub fn compare(&self, answer: Suspect) {
        let outcome = answer.answer.outcome();
        let is_test = answer.answer.trust.is_testable() && self.trust().is_testable();
        let judged = if outcome == Outcome::Over && is_test {
            let judged = self.suspects.push(answer);
            self.judge(SelfCheck::Overpredicted);
            judged
        } else {
            vec![answer]
        };
        judged.into_iter().for_each(|answer| self.count(answer));
    }

    /// The pod has told all that it had to tell: what was too high and is not explained is wrong.
    pub fn story_is_told(&self) {
        self.suspects.take().into_iter().for_each(|answer| self.count(answer));
    }

    fn count(&self, suspect: Suspect) {
        let answer = Compared { least: (suspect.least)(), ..suspect.answer };
        (suspect.shown)(answer.outcome());
        if let Some(self_check) = self.calibration.count(self.trust(), &answer) {
            self.judge(self_check);
        }
    }

    /// Tells the feed what comparing predictions with answers has shown. Until it has taken that, what
    /// is less grave changes nothing.
    pub fn judge(&self, self_check: SelfCheck) {
        let mut gravest = self.self_check.lock();
        *gravest = (*gravest).max(Some(self_check));
        self.judged.notify_one();
    }

    /// All that is known.
    #[must_use]
    pub fn report(&self) -> KvReport {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let heard = read(&self.heard_ms).checked_sub(1).map(Duration::from_millis);
        KvReport {
            trust: self.trust(),
            ranks: self.ranks(),
            counts: self.counts.read(),
            blocks: *self.blocks.lock(),
            last_seq: read(&self.next_seq).checked_sub(1),
            predictions: self.calibration.report(),
            age: heard.map(|heard| self.created.elapsed().saturating_sub(heard)),
        }
    }

    /// What was judged of a stream says nothing of the next one.
    pub(super) fn forget_judgement(&self) {
        *self.self_check.lock() = None;
    }

    /// The gravest that was judged and not taken yet, once there is one. Safe to cancel.
    pub(super) async fn judged(&self) -> SelfCheck {
        loop {
            if let Some(self_check) = self.self_check.lock().take() {
                return self_check;
            }
            self.judged.notified().await;
        }
    }

    /// Data-parallel ranks that tell at its address, this one among them; 0: it tells nothing.
    pub(in crate::feed) fn ranks(&self) -> u16 {
        self.ranks.load(Ordering::Relaxed)
    }

    pub(super) fn set_ranks(&self, count: u16) {
        self.ranks.store(count, Ordering::Relaxed);
    }

    /// Returns what it was before.
    pub(super) fn set_trust(&self, trust: Trust) -> Trust {
        decode(self.trust.swap(encode(trust), Ordering::AcqRel))
    }

    /// Notes what became of the blocks of a batch.
    pub(super) fn applied(&self, blocks: Applied) {
        *self.blocks.lock() += blocks;
    }

    pub(super) fn heard(&self, seq: u64) {
        let ms = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.next_seq.store(seq.saturating_add(1), Ordering::Relaxed);
        self.heard_ms.store(ms.saturating_add(1), Ordering::Relaxed);
    }
}

/// In the order of their codes.
const CODES: [Trust; 8] = [
    Trust::Approximate,
    Trust::CatchingUp,
    Trust::Exact,
    Trust::Uncertain(Doubt::Gap),
    Trust::Uncertain(Doubt::LateStart),
    Trust::Uncertain(Doubt::Silent),
    Trust::Uncertain(Doubt::SelfCheck),
    Trust::Retelling,
];

fn encode(trust: Trust) -> u8 {
    match trust {
        Trust::Approximate => 0,
        Trust::CatchingUp => 1,
        Trust::Exact => 2,
        Trust::Uncertain(Doubt::Gap) => 3,
        Trust::Uncertain(Doubt::LateStart) => 4,
        Trust::Uncertain(Doubt::Silent) => 5,
        Trust::Uncertain(Doubt::SelfCheck) => 6,
        Trust::Retelling => 7,
    }
}

fn decode(code: u8) -> Trust {
    CODES.get(usize::from(code)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn every_state_survives_its_code() {
        for trust in CODES {
            assert_eq!(decode(encode(trust)), trust);
        }
    }

    #[tokio::test]
    async fn the_gravest_is_kept_until_it_is_taken() {
        let status = KvStatus::default();
        status.judge(SelfCheck::Reconciled);
        status.judge(SelfCheck::Failing);
        status.judge(SelfCheck::Overpredicted);
        assert_eq!(status.judged().await, SelfCheck::Failing);
        assert!(status.judged().now_or_never().is_none(), "it is taken");
        status.judge(SelfCheck::Overpredicted);
        assert_eq!(status.judged().await, SelfCheck::Overpredicted);
    }
}
