//! What a pod's streams take between two tokens, learned.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What a pod's streams take between two tokens, learned; shared, so always current.
#[derive(Debug, Default)]
pub struct Pace {
    /// In microseconds; 0: nothing is known.
    mean_us: AtomicU32,
}

/// One stream's weight in the mean, as a divisor: some 8 streams make the pod's pace.
const FADE: u64 = 8;

// === impl Pace ===

impl Pace {
    /// A stream took so many milliseconds a token. Two that end at once may lose one: it is a mean.
    pub fn learn(&self, ms_per_token: f64) {
        let us = Duration::try_from_secs_f64(ms_per_token / 1e3).unwrap_or_default().as_micros();
        let us = u64::try_from(us).unwrap_or(u64::MAX).clamp(1, u64::from(u32::MAX));
        let mean = match u64::from(self.mean_us.load(Ordering::Relaxed)) {
            0 => us,
            mean => (mean * (FADE - 1) + us).div_ceil(FADE),
        };
        self.mean_us.store(u32::try_from(mean).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// The mean; none before the first stream.
    #[must_use]
    pub fn get(&self) -> Option<Duration> {
        let us = self.mean_us.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(u64::from(us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_follows_its_streams_and_one_of_them_alone_changes_little() {
        let pace = Pace::default();
        assert_eq!(pace.get(), None);
        pace.learn(20.0);
        assert_eq!(pace.get(), Some(Duration::from_millis(20)));
        pace.learn(100.0);
        assert_eq!(pace.get(), Some(Duration::from_millis(30)));
        (0..100).for_each(|_| pace.learn(100.0));
        assert_eq!(pace.get(), Some(Duration::from_millis(100)));
        for strange in [f64::NAN, -1.0, f64::INFINITY, 0.0] {
            pace.learn(strange);
        }
        assert!(pace.get() > Some(Duration::from_millis(50)));
    }
}
