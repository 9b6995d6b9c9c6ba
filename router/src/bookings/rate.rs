//! How long a pod takes for an uncached prompt token, learned from its answers.

use kv_index::Slot;

use super::overhead::Overhead;

/// What was seen of the pods' rates, by slot index.
///
/// Pods of one fleet are mostly alike, and a rate that is wrong in one place and not in another sends
/// work to the wrong one: a pod whose first answer was slow (compilation, a cold file cache) would get
/// no second chance, because who gets no work shows no other rate. So a pod is taken to be like the
/// others as far as it has not shown otherwise of late: its own answers count against
/// [`PRIOR_ANSWERS`] at the fleet's rate, and fade while others answer.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pods: Vec<Seen>,
    fleet: Seen,
    overhead: Overhead,
}

/// Answers as sums in which the latest count most. Sums and not rates, so that a short prompt, whose
/// time is mostly overhead, says as little as it knows.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    ms: f64,
    tokens: f64,
    /// How many: each took the overhead besides.
    answers: f64,
}

/// Fewer tokens of its own say more about the overhead than about the rate.
const LEARN_FROM_TOKENS: u32 = 128;

/// What is left of a pod's older answers when it gives a new one: the last twenty count.
const OWN_FADE: f64 = 0.95;

/// How much of a pod's answers is gone when each pod has given one: half after 35 rounds without
/// one of its own.
const ROUND_FADE: f64 = 0.02;

/// Answers of the fleet's usual length and rate that a pod's own are weighed against. What one answer
/// shows is off by a factor of 2.5 as often as not (what else ran beside it). Of four equal servers on a
/// GPU one looked 2.3 times as fast as another with one long prompt here and the last ten answers above,
/// and drew every new conversation; a pod that is three times slower is still taken for twice as slow.
const PRIOR_ANSWERS: f64 = 6.0;

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
        let own_ms = own.computing_ms(self.overhead_ms());
        let prior = PRIOR_ANSWERS * self.fleet.tokens / self.fleet.answers.max(1.0);
        let ms_per_token = (own_ms + fleet * prior) / (own.tokens + prior);
        Some(ms_per_token.clamp(RATE_RANGE_MS.0, RATE_RANGE_MS.1))
    }

    /// The fleet's rate.
    pub(super) fn mean(&self) -> Option<f64> {
        let (ms, tokens) = (self.fleet.computing_ms(self.overhead_ms()), self.fleet.tokens);
        (tokens > 0.0).then(|| (ms / tokens).clamp(RATE_RANGE_MS.0, RATE_RANGE_MS.1))
    }

    /// What a first token takes whatever the prompt, of any pod.
    pub(super) fn overhead_ms(&self) -> f64 {
        self.overhead.ms()
    }

    /// A first token took so long: so many prompt tokens were ahead of it, and so many its own.
    pub(super) fn learn(&mut self, slot: Slot, ms: f64, (ahead, own): (f64, u32)) {
        let tokens = ahead + f64::from(own);
        if let Some(rate) = self.ms_per_token(slot) {
            self.overhead.learn(ms, tokens, rate);
        }
        if own >= LEARN_FROM_TOKENS {
            self.learn_rate(slot, ms, tokens);
        }
    }

    fn learn_rate(&mut self, slot: Slot, ms: f64, tokens: f64) {
        let overhead_ms = self.overhead_ms();
        let believable = self.mean().map_or(ms, |it| {
            let expected_ms = it * tokens;
            ms.clamp(expected_ms / OUTLIER, expected_ms * OUTLIER + overhead_ms)
        });
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
    /// What is left without the overhead. Some always is: what is taken for overhead may be a part of it.
    fn computing_ms(&self, overhead_ms: f64) -> f64 {
        (self.ms - self.answers * overhead_ms).max(self.ms / OUTLIER)
    }

    fn fade(&mut self, kept: f64) {
        self.ms *= kept;
        self.tokens *= kept;
        self.answers *= kept;
    }

    fn add(&mut self, ms: f64, tokens: f64, kept: f64) {
        self.fade(kept);
        self.ms += ms;
        self.tokens += tokens;
        self.answers += 1.0;
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
        rates.learn(other, 100.0, (0.0, 1_000));
        rates.learn(slow, 50_000.0, (0.0, 1_000));
        let first = rates.ms_per_token(slow).expect("one was shown");
        assert!(first < 0.1 * OUTLIER, "no answer says all: {first}");
        for _ in 0..500 {
            rates.learn(other, 100.0, (0.0, 1_000));
        }
        assert!(is_near(rates.ms_per_token(slow), 0.1), "{:?}", rates.ms_per_token(slow));
    }

    #[test]
    fn a_few_lucky_answers_make_no_fast_pod_however_long_their_prompts() {
        let mut slots = Slots::default();
        let (lucky, other) = (slots.acquire(), slots.acquire());
        let mut rates = Rates::default();
        for _ in 0..20 {
            rates.learn(other, 600.0, (0.0, 6_000));
        }
        for _ in 0..3 {
            rates.learn(lucky, 240.0, (0.0, 6_000));
        }
        let rate = rates.ms_per_token(lucky).expect("it was shown");
        assert!(rate > 0.07, "2.5 times as fast thrice: {rate}");
    }

    #[test]
    fn a_pod_that_is_slower_is_found_out() {
        let mut slots = Slots::default();
        let (slow, other) = (slots.acquire(), slots.acquire());
        let mut rates = Rates::default();
        for _ in 0..100 {
            rates.learn(other, 100.0, (0.0, 1_000));
            rates.learn(slow, 300.0, (0.0, 1_000));
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
        rates.learn(known, 200.0, (0.0, 1_000));
        assert!(is_near(rates.ms_per_token(new), 0.2));
        rates.unlearn(known);
        assert!(is_near(rates.ms_per_token(known), 0.2), "what the fleet is like stays known");
    }

    #[test]
    fn what_short_prompts_take_is_no_part_of_the_rate() {
        let slot = Slots::default().acquire();
        let mut rates = Rates::default();
        // 60 ms, and 0.08 ms per token.
        let took = |tokens: f64| 60.0 + 0.08 * tokens;
        for _ in 0..40 {
            rates.learn(slot, took(6_000.0), (0.0, 6_000));
            rates.learn(slot, took(130.0), (0.0, 130));
            rates.learn(slot, took(20.0), (0.0, 20));
        }
        let (rate, overhead) = (rates.ms_per_token(slot), rates.overhead_ms());
        assert!(is_near(rate, 0.08), "{rate:?}");
        assert!((55.0..65.0).contains(&overhead), "{overhead}");
    }

    #[test]
    fn a_fleet_that_is_slow_per_token_is_not_taken_for_one_with_an_overhead() {
        let slot = Slots::default().acquire();
        let mut rates = Rates::default();
        for _ in 0..40 {
            rates.learn(slot, 70.0, (0.0, 10));
            rates.learn(slot, 7_000.0, (0.0, 1_000));
        }
        assert!(is_near(rates.ms_per_token(slot), 7.0), "{:?}", rates.ms_per_token(slot));
        assert!(rates.overhead_ms() < 5.0, "{}", rates.overhead_ms());
    }
}
