//! Whether what we predict of a pod is what its engine then finds.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::status::SelfCheck;
use super::trust::Trust;

/// Predictions held against the engine's own counts.
#[derive(Debug, Default)]
pub(super) struct Calibration {
    equal: AtomicU64,
    over: AtomicU64,
    overtaken: AtomicU64,
    under: AtomicU64,
    /// Tokens predicted and not found, and not told to be gone.
    over_tokens: AtomicU64,
    over_in_a_row: AtomicU32,
    equal_in_a_row: AtomicU32,
    /// Answers in a row of which something was cached and nothing was known.
    unknown_in_a_row: AtomicU32,
}

/// A prediction, and what came of it, in prompt tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// How far the pod's story could be believed when it was predicted.
    pub trust: Trust,
    /// What it was known to hold then.
    pub predicted: u32,
    /// The least that it was known to hold since.
    pub least: u32,
    /// What its engine found.
    pub cached: u32,
}

/// What an answer shows of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The engine reused exactly what was predicted.
    Equal,
    /// It reused more.
    Under,
    /// It reused less, and its events tell why: between our decision and its own, other requests took
    /// the place of these blocks, or it was reset. The prediction was right, and late.
    Overtaken,
    /// It reused less, and nothing that it told explains it.
    Over,
}

/// What was counted since the pod appeared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Predictions {
    /// Answers by [`Outcome::Equal`].
    pub equal: u64,
    /// Answers by [`Outcome::Over`].
    pub over: u64,
    /// Answers by [`Outcome::Overtaken`].
    pub overtaken: u64,
    /// Answers by [`Outcome::Under`].
    pub under: u64,
    /// Tokens that [`Outcome::Over`] promised too many.
    pub over_tokens: u64,
    /// Answers in a row of which something was cached and nothing was known, from a pod that was
    /// believed: see [`Predictions::are_of_other_tokens`].
    pub unknown_in_a_row: u32,
}

/// So many wrong predictions in a row are an index that is wrong.
const FAILING: u32 = 3;

/// So many answers in a row of which nothing was known, although the pod had their prompts and tells all
/// that it has: we make other tokens of a text than it does. One or two are prompts that came together.
const OTHER_TOKENS: u32 = 16;

/// So many right predictions in a row, and a pod that was in doubt is believed again.
const RECONCILED: u32 = 20;

// === impl Calibration ===

impl Calibration {
    /// Counts one answer, and says what follows; of a pod whose story was not believed then, or is not
    /// now, nothing does.
    pub(super) fn count(&self, now: Trust, answer: &Compared) -> Option<SelfCheck> {
        let outcome = answer.outcome();
        let count = match outcome {
            Outcome::Equal => &self.equal,
            Outcome::Under => &self.under,
            Outcome::Overtaken => &self.overtaken,
            Outcome::Over => &self.over,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if outcome == Outcome::Over {
            let too_many = u64::from(answer.predicted - answer.cached);
            self.over_tokens.fetch_add(too_many, Ordering::Relaxed);
        }
        if answer.trust == Trust::Exact && answer.predicted > 0 {
            self.unknown_in_a_row.store(0, Ordering::Relaxed);
        } else if answer.trust == Trust::Exact && answer.cached > 0 {
            self.unknown_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
        let is_test = answer.trust.is_testable() && now.is_testable();
        if is_test { self.judge(now, outcome) } else { None }
    }

    fn judge(&self, now: Trust, outcome: Outcome) -> Option<SelfCheck> {
        let (over, equal) = (&self.over_in_a_row, &self.equal_in_a_row);
        match outcome {
            Outcome::Overtaken => None,
            Outcome::Under => {
                equal.store(0, Ordering::Relaxed);
                None
            }
            Outcome::Equal => {
                over.store(0, Ordering::Relaxed);
                let right = equal.fetch_add(1, Ordering::Relaxed) + 1;
                let is_in_doubt = matches!(now, Trust::Uncertain(_));
                (is_in_doubt && right >= RECONCILED).then_some(SelfCheck::Reconciled)
            }
            Outcome::Over => {
                equal.store(0, Ordering::Relaxed);
                if over.fetch_add(1, Ordering::Relaxed) + 1 < FAILING {
                    return None;
                }
                over.store(0, Ordering::Relaxed);
                Some(SelfCheck::Failing)
            }
        }
    }

    pub(super) fn report(&self) -> Predictions {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Predictions {
            equal: read(&self.equal),
            over: read(&self.over),
            overtaken: read(&self.overtaken),
            under: read(&self.under),
            over_tokens: read(&self.over_tokens),
            unknown_in_a_row: self.unknown_in_a_row.load(Ordering::Relaxed),
        }
    }
}

// === impl Compared ===

impl Compared {
    pub(super) fn outcome(&self) -> Outcome {
        if self.cached == self.predicted {
            Outcome::Equal
        } else if self.cached > self.predicted {
            Outcome::Under
        } else if self.least <= self.cached {
            Outcome::Overtaken
        } else {
            Outcome::Over
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Under => "under",
            Self::Overtaken => "overtaken",
            Self::Over => "over",
        }
    }
}

// === impl Predictions ===

impl Predictions {
    /// Whether what the pod tells is never about the tokens that we make: a tokenizer, or a chat
    /// template, of another model. Its hits are there and nobody is routed to them.
    #[must_use]
    pub fn are_of_other_tokens(&self) -> bool {
        self.unknown_in_a_row >= OTHER_TOKENS
    }

    /// Each outcome's word and count.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let Self { equal, over, overtaken, under, .. } = *self;
        [
            (Outcome::Equal, equal),
            (Outcome::Over, over),
            (Outcome::Overtaken, overtaken),
            (Outcome::Under, under),
        ]
        .map(|(outcome, count)| (outcome.word(), count))
    }
}

#[cfg(test)]
mod tests {
    use super::super::trust::Doubt;
    use super::*;

    fn exact(predicted: u32, least: u32, cached: u32) -> Compared {
        Compared { trust: Trust::Exact, predicted, least, cached }
    }

    #[test]
    fn hits_that_were_never_known_of_are_of_other_tokens() {
        let calibration = Calibration::default();
        let count = |predicted, cached| {
            calibration.count(Trust::Exact, &exact(predicted, predicted, cached));
            calibration.report().are_of_other_tokens()
        };
        assert!(!(0..15).any(|_| count(0, 64)), "a few prompts come together");
        assert!(!(0..99).any(|_| count(0, 0)), "new prompts show nothing");
        assert!(count(0, 64));
        assert!(!count(64, 64), "what was known was of these tokens");
    }

    #[test]
    fn an_answer_is_held_against_what_was_known_then_and_since() {
        for (predicted, least, cached, outcome) in [
            (64, 64, 64, Outcome::Equal),
            (64, 0, 64, Outcome::Equal),
            (64, 64, 80, Outcome::Under),
            (64, 16, 16, Outcome::Overtaken),
            (64, 0, 16, Outcome::Overtaken),
            (64, 32, 16, Outcome::Over),
            (64, 64, 0, Outcome::Over),
        ] {
            assert_eq!(exact(predicted, least, cached).outcome(), outcome, "{least} {cached}");
        }
    }

    #[test]
    fn three_over_predictions_in_a_row_are_a_failing_index_and_one_right_answer_clears_them() {
        let it = Calibration::default();
        let over = || it.count(Trust::Exact, &exact(64, 64, 16));
        assert_eq!([over(), over()], [None, None]);
        assert_eq!(it.count(Trust::Exact, &exact(64, 64, 64)), None);
        assert_eq!([over(), over(), over()], [None, None, Some(SelfCheck::Failing)]);
        assert_eq!(over(), None, "the count begins anew");
        let over_tokens = 6 * 48;
        assert_eq!(it.report(), Predictions { equal: 1, over: 6, over_tokens, ..it.report() });
    }

    #[test]
    fn what_was_overtaken_accuses_nobody() {
        let it = Calibration::default();
        for _ in 0..10 {
            assert_eq!(it.count(Trust::Exact, &exact(64, 16, 16)), None);
        }
        assert_eq!((it.report().overtaken, it.report().over_tokens), (10, 0));
    }

    #[test]
    fn what_was_predicted_or_comes_in_while_a_history_is_told_shows_nothing() {
        let it = Calibration::default();
        let shown = |then, now| it.count(now, &Compared { trust: then, ..exact(64, 64, 0) });
        for _ in 0..10 {
            assert_eq!(shown(Trust::CatchingUp, Trust::Exact), None);
            assert_eq!(shown(Trust::Exact, Trust::Retelling), None);
        }
        assert_eq!(it.report().over, 20, "they are counted all the same");
    }

    #[test]
    fn twenty_right_answers_in_a_row_end_a_doubt_and_more_than_predicted_is_not_right() {
        let it = Calibration::default();
        let doubt = Trust::Uncertain(Doubt::LateStart);
        let answer = |cached| Compared { trust: doubt, ..exact(0, 0, cached) };
        let right = |times: u32| (0..times).filter_map(|_| it.count(doubt, &answer(0))).count();
        assert_eq!(right(19), 0);
        assert_eq!(it.count(doubt, &answer(32)), None);
        assert_eq!(right(19), 0);
        assert_eq!(right(1), 1);
        assert_eq!(it.count(Trust::Exact, &exact(0, 0, 0)), None, "nothing is in doubt");
    }
}
