//! The metrics of the pods' KV events, read when they are scraped.

use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use router::feed::kv_events::{KvReport, Predictions};

use super::reading::Readings;

/// Collects what each pod's KV events came to.
pub struct KvCollector {
    readings: Readings,
    families: Families,
}

/// One scrape's worth of families.
struct Families {
    trust: IntGaugeVec,
    last_sequence: IntGaugeVec,
    age: GaugeVec,
    counters: Vec<(IntCounterVec, Reads)>,
    predictions: IntCounterVec,
    over_tokens: IntCounterVec,
    told_blocks: IntGauge,
    told_bytes: IntGauge,
}

/// The trust's words, all of which are always there.
const WORDS: [&str; 4] = ["approximate", "catching-up", "exact", "uncertain"];

/// Takes a counter's value out of a report.
type Reads = fn(&KvReport) -> u64;
/// A counter's name, its help and its value.
type Counted = (&'static str, &'static str, Reads);

const COUNTERS: [Counted; 9] = [
    ("batches", "Batches applied.", |it| it.batches),
    ("events", "Events applied.", |it| it.events),
    ("skipped", "Events and fields passed over because they are not known here.", |it| it.skipped),
    ("gaps", "Batches that came before their predecessors.", |it| it.gaps),
    ("replays", "Times a history was asked for.", |it| it.replays),
    ("failed_replays", "Times a history could not be had.", |it| it.failed_replays),
    ("resets", "Times all that was known of a pod was forgotten.", |it| it.resets),
    ("dropped", "Batches that found no room to wait; asked for again.", |it| it.dropped),
    ("undecodable", "Batches that could not be read.", |it| it.undecodable),
];

// === impl KvCollector ===

impl KvCollector {
    /// Collects from these readings.
    ///
    /// # Errors
    /// None in practice: the names are fixed and well formed.
    pub fn new(readings: Readings) -> Result<Self, prometheus::Error> {
        Ok(Self { readings, families: Families::new()? })
    }
}

impl fmt::Debug for KvCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvCollector").finish_non_exhaustive()
    }
}

impl Collector for KvCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.families.all().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Fresh families: a pod that has gone is gone from them.
        let families = Families::new().expect("the same names were well formed before");
        let reading = self.readings.take();
        for word in WORDS {
            families.trust.with_label_values(&[word]).set(0);
        }
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        families.told_blocks.set(gauge(reading.told_blocks));
        families.told_bytes.set(gauge(reading.told_bytes));
        for endpoint in &reading.snapshot.endpoints {
            families.fill(&endpoint.pod.name, &endpoint.kv_events.report());
        }
        families.all().flat_map(Collector::collect).collect()
    }
}

// === impl Families ===

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        let counter = |(name, help, of): Counted| {
            let opts = Opts::new(format!("hearth_kv_events_{name}_total"), help);
            Ok((IntCounterVec::new(opts, &["model_server_pod"])?, of))
        };
        Ok(Self {
            trust: IntGaugeVec::new(
                Opts::new(
                    "hearth_kv_events_pods",
                    "Pods by how far what is known of their caches can be believed.",
                ),
                &["trust"],
            )?,
            last_sequence: IntGaugeVec::new(
                Opts::new("hearth_kv_events_last_sequence", "Number of the last batch."),
                &["model_server_pod"],
            )?,
            age: GaugeVec::new(
                Opts::new("hearth_kv_events_age_seconds", "How long ago the last batch was heard."),
                &["model_server_pod"],
            )?,
            counters: COUNTERS
                .into_iter()
                .map(counter)
                .collect::<Result<_, prometheus::Error>>()?,
            predictions: IntCounterVec::new(
                Opts::new(
                    "hearth_kv_predictions_total",
                    "Answers by whether the engine reused what its pod's events had promised.",
                ),
                &["model_server_pod", "outcome"],
            )?,
            over_tokens: IntCounterVec::new(
                Opts::new(
                    "hearth_kv_over_predicted_tokens_total",
                    "Prompt tokens that a pod's events had promised and its engine did not reuse.",
                ),
                &["model_server_pod"],
            )?,
            told_blocks: IntGauge::new(
                "hearth_kv_index_told_blocks",
                "Blocks that pods told of, counted once for each that holds it.",
            )?,
            told_bytes: IntGauge::new(
                "hearth_kv_index_told_bytes",
                "Bytes of the index of what pods told.",
            )?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &dyn Collector> {
        let singles: [&dyn Collector; 7] = [
            &self.trust,
            &self.last_sequence,
            &self.age,
            &self.predictions,
            &self.over_tokens,
            &self.told_blocks,
            &self.told_bytes,
        ];
        singles.into_iter().chain(self.counters.iter().map(|(family, _)| family as &dyn Collector))
    }

    fn fill(&self, pod: &str, report: &KvReport) {
        self.trust.with_label_values(&[report.trust.word()]).inc();
        if report.ranks.is_empty() {
            return;
        }
        for (family, of) in &self.counters {
            family.with_label_values(&[pod]).inc_by(of(report));
        }
        let Predictions { equal, over, under, over_tokens } = report.predictions;
        for (outcome, count) in [("equal", equal), ("over", over), ("under", under)] {
            self.predictions.with_label_values(&[pod, outcome]).inc_by(count);
        }
        self.over_tokens.with_label_values(&[pod]).inc_by(over_tokens);
        if let Some(seq) = report.last_seq.and_then(|seq| i64::try_from(seq).ok()) {
            self.last_sequence.with_label_values(&[pod]).set(seq);
        }
        if let Some(age) = report.age {
            self.age.with_label_values(&[pod]).set(age.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::reading::tests::reading;

    #[test]
    fn pods_that_tell_nothing_are_counted_and_have_no_series() {
        let collector = KvCollector::new(Readings::from_fn(reading)).expect("well formed");
        let families = collector.collect();
        let pods = &families[0];
        assert_eq!(pods.name(), "hearth_kv_events_pods");
        let value = |word: &str| {
            let mut series = pods.get_metric().iter();
            let one = series.find(|it| it.get_label()[0].value() == word).expect("always there");
            one.get_gauge().get_value()
        };
        assert!((value("approximate") - 3.0).abs() < 1e-9);
        assert!(value("uncertain").abs() < 1e-9);
        let (whole, by_pod): (Vec<_>, Vec<_>) =
            families[1..].iter().partition(|family| family.name().starts_with("hearth_kv_index_"));
        assert_eq!(whole.len(), 2);
        assert!(by_pod.iter().all(|family| family.get_metric().is_empty()));
    }

    #[test]
    fn a_pod_that_tells_has_every_series() {
        let families = Families::new().expect("well formed");
        let predictions = Predictions { equal: 5, over: 1, under: 2, over_tokens: 48 };
        let ranks = vec![Default::default()];
        let report = KvReport { ranks, gaps: 7, predictions, ..KvReport::default() };
        families.fill("a", &report);
        let gaps = families.counters.iter().find(|(_, of)| of(&report) == 7).expect("gaps");
        assert_eq!(gaps.0.with_label_values(&["a"]).get(), 7);
        assert_eq!(families.predictions.with_label_values(&["a", "under"]).get(), 2);
        assert_eq!(families.over_tokens.with_label_values(&["a"]).get(), 48);
    }
}
