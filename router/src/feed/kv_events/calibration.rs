//! Whether what we predict of a pod is what its engine then finds.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::status::Verdict;
use super::trust::Trust;

/// Predictions held against the engine's own counts.
#[derive(Debug, Default)]
pub(super) struct Calibration {
    equal: AtomicU64,
    over: AtomicU64,
    under: AtomicU64,
    /// Tokens predicted and not found.
    over_tokens: AtomicU64,
    over_in_a_row: AtomicU32,
    equal_in_a_row: AtomicU32,
}

/// What was counted since the pod appeared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Predictions {
    /// Answers of which the engine reused exactly what was predicted.
    pub equal: u64,
    /// Answers of which it reused less.
    pub over: u64,
    /// Answers of which it reused more.
    pub under: u64,
    /// Tokens that it was predicted to reuse and did not.
    pub over_tokens: u64,
}

/// One wrong prediction may be a block that was evicted while the request was on its way; so many
/// in a row are an index that is wrong.
const FAILING: u32 = 3;

/// So many right predictions in a row, and a pod that was in doubt is believed again.
const RECONCILED: u32 = 20;

// === impl Calibration ===

impl Calibration {
    /// Notes one answer, and says what it shows, if anything.
    pub(super) fn compare(&self, trust: Trust, predicted: u32, cached: u32) -> Option<Verdict> {
        let add = |count: &AtomicU64, by: u64| count.fetch_add(by, Ordering::Relaxed);
        if cached > predicted {
            add(&self.under, 1);
            self.equal_in_a_row.store(0, Ordering::Relaxed);
            return None;
        }
        if cached == predicted {
            add(&self.equal, 1);
            self.over_in_a_row.store(0, Ordering::Relaxed);
            let right = self.equal_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
            let is_in_doubt = matches!(trust, Trust::Uncertain(_));
            return (is_in_doubt && right >= RECONCILED).then_some(Verdict::Reconciled);
        }
        add(&self.over, 1);
        add(&self.over_tokens, u64::from(predicted - cached));
        self.equal_in_a_row.store(0, Ordering::Relaxed);
        let wrong = self.over_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if wrong < FAILING {
            return None;
        }
        self.over_in_a_row.store(0, Ordering::Relaxed);
        Some(Verdict::Failing)
    }

    pub(super) fn report(&self) -> Predictions {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Predictions {
            equal: read(&self.equal),
            over: read(&self.over),
            under: read(&self.under),
            over_tokens: read(&self.over_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trust::Doubt;
    use super::*;

    #[test]
    fn three_over_predictions_in_a_row_are_a_failing_index_and_one_right_answer_clears_them() {
        let it = Calibration::default();
        let over = || it.compare(Trust::Exact, 64, 16);
        assert_eq!([over(), over()], [None, None]);
        assert_eq!(it.compare(Trust::Exact, 64, 64), None);
        assert_eq!([over(), over(), over()], [None, None, Some(Verdict::Failing)]);
        assert_eq!(over(), None, "the count begins anew");
        assert_eq!(it.report(), Predictions { equal: 1, over: 6, under: 0, over_tokens: 6 * 48 });
    }

    #[test]
    fn twenty_right_answers_in_a_row_end_a_doubt_and_more_than_predicted_is_not_right() {
        let it = Calibration::default();
        let doubt = Trust::Uncertain(Doubt::LateStart);
        let right = |times: u32| (0..times).filter_map(|_| it.compare(doubt, 0, 0)).count();
        assert_eq!(right(19), 0);
        assert_eq!(it.compare(doubt, 0, 32), None);
        assert_eq!(right(19), 0);
        assert_eq!(right(1), 1);
        assert_eq!(it.compare(Trust::Exact, 0, 0), None, "nothing is to be reconciled");
    }
}
