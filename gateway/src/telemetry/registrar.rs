//! How a family is made and registered.

use prometheus::core::Collector;
use prometheus::{
    Error, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

/// The labels by which our families name a pod: its name, and where it listens.
pub(super) const POD: [&str; 2] = ["pod", "addr"];

/// Makes families and registers them.
pub(super) struct Registrar<'a>(pub(super) &'a Registry);

/// A count as a gauge's value.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn as_f64(count: impl TryInto<u64>) -> f64 {
    count.try_into().map_or(f64::INFINITY, |count: u64| count as f64)
}

// === impl Registrar ===

impl Registrar<'_> {
    pub(super) fn register<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, Error> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.register(IntCounter::new(name, help)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.register(IntGauge::new(name, help)?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, Error> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Counters by one label whose values are known: each is there from the start, at 0. Prometheus takes
    /// the first value that it sees of a series for where it begins, so the first event would not count.
    pub(super) fn counters_from_zero(
        &self,
        name: &str,
        help: &str,
        (label, values): (&str, &[&str]),
    ) -> Result<IntCounterVec, Error> {
        let counters = self.counters(name, help, &[label])?;
        for value in values {
            counters.with_label_values(&[value]).reset();
        }
        Ok(counters)
    }

    pub(super) fn histograms(
        &self,
        opts: HistogramOpts,
        labels: &[&str],
    ) -> Result<HistogramVec, Error> {
        self.register(HistogramVec::new(opts, labels)?)
    }
}
