//! How long a pod takes for an uncached prompt token, learned from its answers.

use kv_index::Slot;

/// What was seen of each pod's rate, by slot index.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pods: Vec<Rate>,
    /// The mean of the learned rates.
    mean: Option<f64>,
}

/// A pod's rate, as sums over its answers in which the latest count most. Sums and not rates, so
/// that a short prompt, whose time is mostly overhead, says as little as it knows.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    ms: f64,
    tokens: f64,
}

/// What is left of older observations of a rate when a new one comes.
const RATE_FADE: f64 = 0.9;

/// What a rate may be, in milliseconds per token: from a big GPU (1 M tokens/s) to a slow CPU.
const RATE_RANGE_MS: (f64, f64) = (0.001, 10.0);

// === impl Rates ===

impl Rates {
    /// The pod's own rate, or the mean of those that have shown theirs.
    pub(super) fn ms_per_token(&self, slot: Slot) -> Option<f64> {
        self.pods.get(slot.index()).and_then(|rate| rate.ms_per_token()).or(self.mean)
    }

    /// The mean of the learned rates.
    pub(super) fn mean(&self) -> Option<f64> {
        self.mean
    }

    pub(super) fn learn(&mut self, slot: Slot, ms: f64, tokens: f64) {
        let rate = self.of(slot);
        rate.ms = rate.ms * RATE_FADE + ms;
        rate.tokens = rate.tokens * RATE_FADE + tokens;
        self.average();
    }

    pub(super) fn unlearn(&mut self, slot: Slot) {
        *self.of(slot) = Rate::default();
        self.average();
    }

    fn of(&mut self, slot: Slot) -> &mut Rate {
        if self.pods.len() <= slot.index() {
            self.pods.resize(slot.index() + 1, Rate::default());
        }
        &mut self.pods[slot.index()]
    }

    fn average(&mut self) {
        let learned = self.pods.iter().filter_map(|rate| rate.ms_per_token());
        let (count, sum) = learned.fold((0.0, 0.0), |(count, sum), rate| (count + 1.0, sum + rate));
        self.mean = (count > 0.0).then(|| sum / count);
    }
}

// === impl Rate ===

impl Rate {
    fn ms_per_token(self) -> Option<f64> {
        let is_learned = self.tokens > 0.0;
        is_learned.then(|| (self.ms / self.tokens).clamp(RATE_RANGE_MS.0, RATE_RANGE_MS.1))
    }
}
