//! The metrics of the pods' KV events, read when they are scraped.

use prometheus::{Error, GaugeVec, IntCounterVec, IntGaugeVec};
use router::feed::kv_events::{KvCount, KvReport};

use super::reading::Reading;
use super::registrar::{POD, Registrar, as_f64};

/// The families that have a series for each pod that tells.
struct Families {
    counts: Vec<(KvCount, IntCounterVec)>,
    blocks: IntCounterVec,
    last_sequence: GaugeVec,
    age: GaugeVec,
    predictions: IntCounterVec,
    over_tokens: IntCounterVec,
}

/// The trust's words, all of which are always there.
const WORDS: [&str; 4] = ["approximate", "catching-up", "exact", "uncertain"];

/// Registers these families with what they say now.
pub(super) fn register(of: &Registrar<'_>, reading: &Reading) -> Result<(), Error> {
    let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    of.gauge(
        "hearth_kv_index_exact_blocks",
        "Blocks in the exact index, counted once for each pod that holds it.",
    )?
    .set(gauge(reading.exact_blocks));
    of.gauge("hearth_kv_index_exact_bytes", "Bytes of the exact index.")?
        .set(gauge(reading.exact_bytes));
    let trust = trust(of)?;
    let families = Families::register(of)?;
    for endpoint in &reading.snapshot.endpoints {
        let report = endpoint.kv_events.report();
        trust.with_label_values(&[report.trust.word()]).inc();
        // A pod that tells nothing has no series.
        if report.ranks > 0 {
            families.fill([&endpoint.pod.name, &endpoint.pod.addr.to_string()], &report);
        }
    }
    Ok(())
}

fn trust(of: &Registrar<'_>) -> Result<IntGaugeVec, Error> {
    let trust = of.gauges(
        "hearth_kv_events_pods",
        "Pods by how far what is known of their caches can be believed.",
        &["trust"],
    )?;
    for word in WORDS {
        trust.with_label_values(&[word]).set(0);
    }
    Ok(trust)
}

// === impl Families ===

impl Families {
    fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        let [pod, addr] = POD;
        let counter = |count: KvCount| {
            let name = format!("hearth_kv_events_{}_total", count.word());
            Ok((count, of.counters(&name, count.help(), &POD)?))
        };
        Ok(Self {
            counts: KvCount::ALL.into_iter().map(counter).collect::<Result<_, Error>>()?,
            blocks: of.counters(
                "hearth_kv_events_blocks_total",
                "Blocks of a pod's events by what was done with them; `evicted`: those of any pod \
                 that made room for them.",
                &[pod, addr, "outcome"],
            )?,
            last_sequence: of.float_gauges(
                "hearth_kv_events_last_sequence",
                "Number of the last batch.",
                &POD,
            )?,
            age: of.float_gauges(
                "hearth_kv_events_age_seconds",
                "How long ago the last batch was heard.",
                &POD,
            )?,
            predictions: of.counters(
                "hearth_kv_predictions_total",
                "Answers by whether the engine reused what its pod's events had promised; \
                 `overtaken`: it did not, and its events told why before it answered.",
                &[pod, addr, "outcome"],
            )?,
            over_tokens: of.counters(
                "hearth_kv_over_predicted_tokens_total",
                "Prompt tokens that a pod's events had promised and its engine did not reuse.",
                &POD,
            )?,
        })
    }

    fn fill(&self, pod: [&str; 2], report: &KvReport) {
        for (count, family) in &self.counts {
            family.with_label_values(&pod).inc_by(report.counts[*count]);
        }
        let [name, addr] = pod;
        for (outcome, count) in report.blocks.counts() {
            self.blocks.with_label_values(&[name, addr, outcome]).inc_by(count as u64);
        }
        for (outcome, count) in report.predictions.counts() {
            self.predictions.with_label_values(&[name, addr, outcome]).inc_by(count);
        }
        self.over_tokens.with_label_values(&pod).inc_by(report.predictions.over_tokens);
        if let Some(seq) = report.last_seq {
            self.last_sequence.with_label_values(&pod).set(as_f64(seq));
        }
        if let Some(age) = report.age {
            self.age.with_label_values(&pod).set(age.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use router::feed::kv_events::Predictions;

    use super::*;
    use crate::telemetry::reading::tests::reading;

    #[test]
    fn pods_that_tell_nothing_are_counted_and_have_no_series() {
        let registry = Registry::new();
        register(&Registrar(&registry), &reading()).expect("well formed");
        let families = registry.gather();
        let names: Vec<_> = families.iter().map(|family| family.name()).collect();
        let whole = [
            "hearth_kv_events_pods",
            "hearth_kv_index_exact_blocks",
            "hearth_kv_index_exact_bytes",
        ];
        assert_eq!(names, whole, "families without a series are not told");
        let value = |word: &str| {
            let mut series = families[0].get_metric().iter();
            let one = series.find(|it| it.get_label()[0].value() == word).expect("always there");
            one.get_gauge().get_value()
        };
        assert!((value("approximate") - 3.0).abs() < 1e-9);
        assert!(value("uncertain").abs() < 1e-9);
    }

    #[test]
    fn a_pod_that_tells_has_every_series() {
        let registry = Registry::new();
        let families = Families::register(&Registrar(&registry)).expect("well formed");
        let predictions = Predictions {
            equal: 5,
            over: 1,
            overtaken: 3,
            under: 2,
            over_tokens: 48,
            unknown_in_a_row: 0,
        };
        let ranks = 1;
        let blocks = kv_index::Applied { evicted: 9, ..Default::default() };
        let counts = [(KvCount::Gaps, 7)].into_iter().collect();
        let report = KvReport { ranks, counts, blocks, predictions, ..KvReport::default() };
        let pod = ["a", "10.0.0.1:8000"];
        families.fill(pod, &report);
        let gaps = families.counts.iter().find(|(count, _)| *count == KvCount::Gaps);
        assert_eq!(gaps.expect("all are there").1.with_label_values(&pod).get(), 7);
        let with = |word| [pod[0], pod[1], word];
        assert_eq!(families.blocks.with_label_values(&with("evicted")).get(), 9);
        assert_eq!(families.predictions.with_label_values(&with("under")).get(), 2);
        assert_eq!(families.predictions.with_label_values(&with("overtaken")).get(), 3);
        assert_eq!(families.over_tokens.with_label_values(&pod).get(), 48);
    }
}
