//! How long a pod takes for an uncached prompt token, learned from its answers.

use kv_index::Slot;

/// What was seen of the pods' rates, by slot index.
///
/// Pods of one fleet are mostly alike, and a rate that is wrong in one place and not in another sends
/// work to the wrong one: a pod whose first answer was slow (compilation, a cold file cache) would get
/// no second chance, because who gets no work shows no other rate. So a pod is taken to be like the
/// others as far as it has not shown otherwise of late: its own answers count against
/// [`PRIOR_TOKENS`] at the fleet's rate, and fade while others answer.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pods: Vec<Seen>,
    fleet: Seen,
}

/// Answers as sums in which the latest count most. Sums and not rates, so that a short prompt, whose
/// time is mostly overhead, says as little as it knows.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    ms: f64,
    tokens: f64,
}

/// What is left of a pod's older answers when it gives a new one.
const OWN_FADE: f64 = 0.9;

/// How much of a pod's answers is gone when each pod has given one: half after 35 rounds without
/// one of its own.
const ROUND_FADE: f64 = 0.02;

/// Tokens at the fleet's rate that a pod's own answers are weighed against: one long prompt.
const PRIOR_TOKENS: f64 = 4096.0;

/// How many times the fleet's rate one answer may say at most, or at least its inverse: what takes
/// longer was not computing.
const OUTLIER: f64 = 8.0;

/// What a rate may be, in milliseconds per token: from a big GPU (1 M tokens/s) to a slow CPU.
const RATE_RANGE_MS: (f64, f64) = (0.001, 10.0);

// === impl Rates ===

impl Rates {
    /// The pod's rate; none while no pod has shown one.
    pub(super) fn ms_per_token(&self, slot: Slot) -> Option<f64> {
        let fleet = self.mean()?;
        let own = self.pods.get(slot.index()).copied().unwrap_or_default();
        let ms_per_token = (own.ms + fleet * PRIOR_TOKENS) / (own.tokens + PRIOR_TOKENS);
        Some(ms_per_token.clamp(RATE_RANGE_MS.0, RATE_RANGE_MS.1))
    }

    /// The fleet's rate.
    pub(super) fn mean(&self) -> Option<f64> {
        let Seen { ms, tokens } = self.fleet;
        (tokens > 0.0).then(|| (ms / tokens).clamp(RATE_RANGE_MS.0, RATE_RANGE_MS.1))
    }

    pub(super) fn learn(&mut self, slot: Slot, ms: f64, tokens: f64) {
        let believable =
            self.mean().map_or(ms, |it| ms.clamp(it * tokens / OUTLIER, it * tokens * OUTLIER));
        if self.pods.len() <= slot.index() {
            self.pods.resize(slot.index() + 1, Seen::default());
        }
        let seen = self.pods.iter().map(|pod| f64::from(u8::from(pod.tokens > 0.0))).sum::<f64>();
        let a_round = 1.0 / seen.max(1.0);
        self.pods.iter_mut().for_each(|pod| pod.fade(1.0 - ROUND_FADE * a_round));
        self.pods[slot.index()].add(believable, tokens, OWN_FADE);
        self.fleet.add(believable, tokens, 1.0 - (1.0 - OWN_FADE) * a_round);
    }

    pub(super) fn unlearn(&mut self, slot: Slot) {
        if let Some(pod) = self.pods.get_mut(slot.index()) {
            *pod = Seen::default();
        }
    }
}

// === impl Seen ===

impl Seen {
    fn fade(&mut self, kept: f64) {
        self.ms *= kept;
        self.tokens *= kept;
    }

    fn add(&mut self, ms: f64, tokens: f64, kept: f64) {
        self.fade(kept);
        self.ms += ms;
        self.tokens += tokens;
    }
}

#[cfg(test)]
mod tests {
    use kv_index::Slots;

    use super::*;

    fn is_near(rate: Option<f64>, wanted: f64) -> bool {
        rate.is_some_and(|rate| (rate / wanted - 1.0).abs() < 0.1)
    }

    #[test]
    fn a_pod_that_answered_slowly_once_is_believed_to_be_like_the_others_again() {
        let mut slots = Slots::default();
        let (slow, other) = (slots.acquire(), slots.acquire());
        let mut rates = Rates::default();
        assert_eq!(rates.ms_per_token(slow), None);
        rates.learn(other, 100.0, 1_000.0);
        rates.learn(slow, 50_000.0, 1_000.0);
        let first = rates.ms_per_token(slow).expect("one was shown");
        assert!(first < 0.1 * OUTLIER, "no answer says all: {first}");
        for _ in 0..500 {
            rates.learn(other, 100.0, 1_000.0);
        }
        assert!(is_near(rates.ms_per_token(slow), 0.1), "{:?}", rates.ms_per_token(slow));
    }

    #[test]
    fn a_pod_that_is_slower_is_found_out() {
        let mut slots = Slots::default();
        let (slow, other) = (slots.acquire(), slots.acquire());
        let mut rates = Rates::default();
        for _ in 0..100 {
            rates.learn(other, 100.0, 1_000.0);
            rates.learn(slow, 300.0, 1_000.0);
        }
        let (slow, other) = (rates.ms_per_token(slow), rates.ms_per_token(other));
        let ratio = slow.expect("it was shown") / other.expect("it was shown");
        assert!((2.0..=3.0).contains(&ratio), "{ratio}: {slow:?} {other:?}");
    }

    #[test]
    fn a_pod_that_has_shown_nothing_is_like_the_fleet() {
        let mut slots = Slots::default();
        let (known, new) = (slots.acquire(), slots.acquire());
        let mut rates = Rates::default();
        rates.learn(known, 200.0, 1_000.0);
        assert!(is_near(rates.ms_per_token(new), 0.2));
        rates.unlearn(known);
        assert!(is_near(rates.ms_per_token(known), 0.2), "what the fleet is like stays known");
    }
}
