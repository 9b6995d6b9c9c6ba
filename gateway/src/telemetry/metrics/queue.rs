//! The metrics of requests that wait for a place at a pod.

use prometheus::{Error, Histogram, HistogramOpts, IntCounterVec, IntGauge};

use super::Held;
use super::families::TTFT_BUCKETS;
use crate::telemetry::registrar::Registrar;

/// Who waits, for how long, and who was turned away.
#[derive(Clone, Debug)]
pub struct Queue {
    waiting: IntGauge,
    waited: Histogram,
    refused: IntCounterVec,
}

// === impl Queue ===

impl Queue {
    pub(super) fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        let opts = HistogramOpts::new(
            "hearth_queue_wait_seconds",
            "From joining the waiting room to a place at a pod, of requests that got one.",
        );
        Ok(Self {
            waiting: of.gauge(
                "hearth_queue_waiting",
                "Requests that wait since every pod that could take them is full.",
            )?,
            waited: of.register(Histogram::with_opts(opts.buckets(TTFT_BUCKETS.to_vec()))?)?,
            refused: of.counters_from_zero(
                "hearth_queue_refused_total",
                "Requests refused by the waiting room: it was full, or they waited too long.",
                ("reason", &["full", "deadline"]),
            )?,
        })
    }

    /// Counts a request that waits until the guard is dropped.
    #[must_use]
    pub fn waits(&self) -> Held {
        Held::new(&self.waiting)
    }

    /// A request got its place after so many seconds.
    pub fn placed(&self, seconds: f64) {
        self.waited.observe(seconds);
    }

    /// A request was refused.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}
