//! What a first token takes whatever the prompt: the engine's steps, its queue, the network.
//!
//! One number for the fleet: equal pods stay equal, and it moves no choice between pods. It makes the
//! predicted time true where a prompt is cached, which a rate per uncached token alone cannot: on a
//! real GPU warm turns took 60 ms, and it said 8.

/// The overhead of the last answers to short prompts.
#[derive(Debug)]
pub(super) struct Overhead {
    last_ms: [f64; KEPT],
    next: usize,
    count: usize,
    /// Their median.
    ms: f64,
}

/// Answers that are kept: the median of so few follows the load within seconds, and half of them can
/// be outliers.
const KEPT: usize = 31;

/// What has more to compute says more about the rate. The later turns of conversations, whose prompt
/// is cached but for a question and an answer, have 100 to 200 tokens.
const MOST_TOKENS: f64 = 256.0;

/// More is not overhead but a pod that is ill.
const MOST_MS: f64 = 1_000.0;

// === impl Overhead ===

impl Default for Overhead {
    fn default() -> Self {
        Self { last_ms: [0.0; KEPT], next: 0, count: 0, ms: 0.0 }
    }
}

impl Overhead {
    /// In milliseconds; 0 while nobody has shown any.
    pub(super) fn ms(&self) -> f64 {
        self.ms
    }

    /// An answer took so long, with so many tokens to compute at this rate.
    pub(super) fn learn(&mut self, ms: f64, tokens: f64, ms_per_token: f64) {
        if tokens > MOST_TOKENS {
            return;
        }
        self.last_ms[self.next] = (ms - tokens * ms_per_token).clamp(0.0, MOST_MS);
        self.next = (self.next + 1) % KEPT;
        self.count = (self.count + 1).min(KEPT);
        let mut sorted = self.last_ms;
        let seen = &mut sorted[..self.count];
        seen.sort_unstable_by(f64::total_cmp);
        self.ms = seen[self.count / 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_median_of_what_short_prompts_took_beyond_their_tokens() {
        let mut overhead = Overhead::default();
        overhead.learn(70.0, 100.0, 0.1);
        assert!((overhead.ms() - 60.0).abs() < 1e-9);
        for _ in 0..10 {
            overhead.learn(65.0, 50.0, 0.1);
            overhead.learn(9_000.0, 50.0, 0.1);
            overhead.learn(60.0, 1.0, 0.1);
        }
        assert!((59.0..=61.0).contains(&overhead.ms()), "{}", overhead.ms());
        overhead.learn(100_000.0, 4_096.0, 0.1);
        assert!((59.0..=61.0).contains(&overhead.ms()), "a long prompt is the rate's");
    }

    #[test]
    fn it_forgets_and_has_bounds() {
        let mut overhead = Overhead::default();
        (0..100).for_each(|_| overhead.learn(1e9, 1.0, 0.1));
        assert!((overhead.ms() - MOST_MS).abs() < 1e-9);
        (0..KEPT).for_each(|_| overhead.learn(1.0, 100.0, 0.1));
        assert!(overhead.ms().abs() < 1e-9, "less than its tokens should take: {}", overhead.ms());
    }
}
