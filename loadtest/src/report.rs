//! Numbers people read: shares, percentiles, tables. Pure; it refuses to know how they were got.

mod bench;
mod latency;
mod table;
mod tally;

pub use bench::{BenchReport, StageReport, StageStats, bench_table};
pub use latency::{Latency, LatencySummary};
pub use table::{milliseconds, table};
pub use tally::{Load, Tally};

/// `part` of `whole` in percent; 0 of 0 is 0.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}
