//! Latency percentiles over an HDR histogram: bounded memory, three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart: one hour. Longer ones count as one hour.
const MAX_US: u64 = 3_600_000_000;
/// Three digits: 1,234 ms reads as 1,230 ms at worst.
const DIGITS: u8 = 3;

/// Durations of one kind.
#[derive(Clone, Debug)]
pub struct Latency {
    microseconds: Histogram<u64>,
}

/// A distribution's usual numbers, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    /// How many were recorded; all other fields are 0 when this is.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

// === impl Latency ===

impl Default for Latency {
    fn default() -> Self {
        let microseconds = Histogram::new_with_bounds(1, MAX_US, DIGITS)
            .expect("1 <= one hour and 3 digits are within the crate's bounds");
        Self { microseconds }
    }
}

impl Latency {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(MAX_US);
        self.microseconds.saturating_record(us.max(1));
    }

    /// Adds one duration given in milliseconds; negative ones count as 0.
    pub fn record_ms(&mut self, ms: f64) {
        self.record(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default());
    }

    /// The summary so far.
    pub fn summary(&self) -> LatencySummary {
        if self.microseconds.is_empty() {
            return LatencySummary::default();
        }
        let at = |percentile| self.microseconds.value_at_percentile(percentile) as f64 / 1e3;
        LatencySummary {
            count: self.microseconds.len(),
            mean_ms: self.microseconds.mean() / 1e3,
            p50_ms: at(50.0),
            p90_ms: at(90.0),
            p95_ms: at(95.0),
            p99_ms: at(99.0),
            max_ms: self.microseconds.max() as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests;
