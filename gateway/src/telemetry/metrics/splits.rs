//! The metrics of split requests: prefill on one pod, decode on another.

use prometheus::{Counter, Error, Histogram, HistogramOpts, IntCounterVec};

use super::families::TTFT_BUCKETS;
use crate::telemetry::registrar::Registrar;

/// How requests were split, or why not, and what came of it.
#[derive(Clone, Debug)]
pub struct Splits {
    verdicts: IntCounterVec,
    failures: IntCounterVec,
    prefill: Histogram,
    transfer: Histogram,
    leaked: Counter,
    released: IntCounterVec,
}

// === impl Splits ===

impl Splits {
    pub(super) fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        let times = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(TTFT_BUCKETS.to_vec());
            of.register(Histogram::with_opts(opts)?)
        };
        Ok(Self {
            verdicts: of.counters(
                "hearth_splits_total",
                "Requests in fleets where some pods only prefill: split, or why not.",
                &["verdict"],
            )?,
            failures: of.counters(
                "hearth_split_failures_total",
                "Legs of split requests that failed before the first token, by leg and reason.",
                &["leg", "reason"],
            )?,
            prefill: times(
                "hearth_split_prefill_seconds",
                "From sending a prefill leg to its answer.",
            )?,
            transfer: times(
                "hearth_split_transfer_seconds",
                "From sending a decode leg to its first token.",
            )?,
            leaked: of.register(Counter::new(
                "hearth_split_leaked_lease_seconds_total",
                "Time for which prefill pods kept blocks that no decode pod came for.",
            )?)?,
            released: of.counters_from_zero(
                "hearth_split_releases_total",
                "Blocks that nobody wanted any more, by whether the prefill pod was told.",
                ("told", &["yes", "no"]),
            )?,
        })
    }

    /// A request has ended; its transfer in milliseconds, if there was one.
    pub fn ended(&self, verdict: &'static str, transfer: Option<f64>) {
        self.verdicts.with_label_values(&[verdict]).inc();
        if let Some(ms) = transfer {
            self.transfer.observe(ms / 1e3);
        }
    }

    /// A prefill leg was answered after so many milliseconds, whatever becomes of its decode leg.
    pub fn prefilled(&self, ms: f64) {
        self.prefill.observe(ms / 1e3);
    }

    /// A leg failed: `prefill` or `decode`.
    pub fn failed(&self, leg: &'static str, reason: &'static str) {
        self.failures.with_label_values(&[leg, reason]).inc();
    }

    /// Nobody came for blocks that are kept for so many seconds more.
    pub fn leaked(&self, seconds: f64) {
        self.leaked.inc_by(seconds.max(0.0));
    }

    /// Blocks were given back, or their pod could not be told.
    pub fn released(&self, is_told: bool) {
        self.released.with_label_values(&[if is_told { "yes" } else { "no" }]).inc();
    }
}
