//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// Waits that double from the first to the longest. Up to half of each is left off, by chance: what
/// failed for many at once is not asked by all of them at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

/// The wait after so many failures beyond the first: doubled with each, up to `longest`.
pub(crate) fn doubled(first: Duration, longest: Duration, failures: u32) -> Duration {
    let times = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    first.saturating_mul(times).min(longest)
}

// === impl Backoff ===

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = doubled(self.first, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(rand::random_range(0.5..1.0))
    }

    /// It has not failed: the next wait is the first again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn waits_double_up_to_the_longest_however_often_it_fails() {
        let waits = [0, 1, 2, 5, 6, 31, 32, u32::MAX];
        let waits = waits.map(|failures| doubled(FIRST, LONGEST, failures).as_millis());
        assert_eq!(waits, [100, 200, 400, 3200, 5000, 5000, 5000, 5000]);
    }

    #[test]
    fn chance_leaves_off_half_at_most_and_success_begins_anew() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for failures in 0..100 {
            let (wait, whole) = (backoff.next(), doubled(FIRST, LONGEST, failures));
            assert!(whole / 2 <= wait && wait < whole, "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.next() < FIRST);
    }
}
