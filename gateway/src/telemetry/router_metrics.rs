//! The metrics of pods, bookings and index, read when they are scraped. They name a pod by [`POD`].

use prometheus::Error;
use router::pool::{Health, Snapshot};
use tokio::time::Instant;

use super::reading::Reading;
use super::registrar::{POD, Registrar, as_f64};

/// Registers these families with what they say now.
pub(super) fn register(of: &Registrar<'_>, reading: &Reading, now: Instant) -> Result<(), Error> {
    let gauge = |name: &str, help: &str, value: f64| {
        of.float_gauges(name, help, &[])
            .map(|family| family.with_label_values::<&str>(&[]).set(value))
    };
    gauge(
        "hearth_bookings",
        "Requests booked on pods; 0 when none is in flight.",
        as_f64(reading.booked.requests),
    )?;
    gauge(
        "hearth_kv_index_approximate_blocks",
        "Blocks in the approximate index: what was sent where.",
        as_f64(reading.approximate_blocks),
    )?;
    gauge(
        "hearth_kv_index_approximate_bytes",
        "Bytes of the approximate index.",
        as_f64(reading.approximate_bytes),
    )?;
    gauge("hearth_token_memo_bytes", "Bytes of remembered tokens.", as_f64(reading.memo.bytes))?;
    let age = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
    gauge(
        "hearth_discovery_age_seconds",
        "How long ago discovery last said that the set of pods is current; -1 before the first time.",
        reading.snapshot.synced_at.map_or(-1.0, age),
    )?;
    let memo = of.counters(
        "hearth_prompt_tokenized_total",
        "Prompt tokens by where they came from: found in the memo, or made.",
        &["from"],
    )?;
    memo.with_label_values(&["memo"]).inc_by(reading.memo.found_tokens);
    memo.with_label_values(&["tokenizer"]).inc_by(reading.memo.made_tokens);
    tokenizers(of, reading)?;
    failures(of, reading)?;
    pods(of, &reading.snapshot)
}

/// A model whose tokenizer does not come is routed by its prompts' bytes, and no pod is down for it.
fn tokenizers(of: &Registrar<'_>, reading: &Reading) -> Result<(), Error> {
    let help = "Configured tokenizers: ready, waiting (on their way) or failed (tried again).";
    let family = of.float_gauges("hearth_tokenizers", help, &["state"])?;
    for state in ["ready", "waiting", "failed"] {
        let count = reading.tokenizers.iter().filter(|it| it.state == state).count();
        family.with_label_values(&[state]).set(as_f64(count));
    }
    Ok(())
}

/// What went wrong in hearing from pods.
fn failures(of: &Registrar<'_>, reading: &Reading) -> Result<(), Error> {
    let failures = reading.failures;
    for (name, help, count) in [
        (
            "hearth_pool_reports_dropped_total",
            "What requests saw of their pods and found the pool's queue full.",
            failures.dropped_reports,
        ),
        ("hearth_probes_failed_total", "Probes of pods that failed.", failures.failed_probes),
        (
            "hearth_engine_metrics_failed_total",
            "Readings of pods' own metrics that failed.",
            failures.failed_metric_reads,
        ),
    ] {
        of.counter(name, help)?.inc_by(count);
    }
    Ok(())
}

/// A pod that has gone is not in the snapshot, and so not in the scrape.
fn pods(of: &Registrar<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let [pod, addr] = POD;
    let states =
        of.gauges("hearth_endpoints", "Pods by state: unproven, ready or ejected.", &["state"])?;
    let requests = of.counters(
        "hearth_pod_requests_total",
        "Attempts at each pod by what came of them: answered, busy or failed.",
        &[pod, addr, "outcome"],
    )?;
    let health = of.gauges(
        "hearth_pod_health",
        "1 for the state that each pod is in: unproven, ready or ejected.",
        &[pod, addr, "state"],
    )?;
    for state in [Health::Unproven, Health::Ready, Health::Ejected] {
        let total = states.with_label_values(&[state.name()]);
        for endpoint in &snapshot.endpoints {
            let (pod, addr) = (&*endpoint.pod.name, endpoint.pod.addr.to_string());
            let is_so = i64::from(endpoint.health == state);
            total.add(is_so);
            health.with_label_values(&[pod, &addr, state.name()]).set(is_so);
        }
    }
    let cordoned = of.gauges(
        "hearth_pod_cordoned",
        "1 for each pod that was taken out by hand.",
        &[pod, addr],
    )?;
    for endpoint in &snapshot.endpoints {
        let (pod, addr) = (&*endpoint.pod.name, endpoint.pod.addr.to_string());
        cordoned.with_label_values(&[pod, &addr]).set(i64::from(endpoint.is_cordoned));
        for (outcome, count) in endpoint.record.tally.counts() {
            requests.with_label_values(&[pod, &addr, outcome]).inc_by(count);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;
    use crate::telemetry::reading::tests::reading;
    use crate::telemetry::scrape::scrape;

    #[test]
    fn the_age_counts_from_the_last_word_of_discovery() {
        let (now, mut reading) = (Instant::now(), reading());
        let age = |reading: &Reading, now| {
            let families = scrape(&Registry::new(), (reading, false), now).expect("well formed");
            let family = families.iter().find(|it| it.name() == "hearth_discovery_age_seconds");
            family.expect("always there").get_metric()[0].get_gauge().get_value()
        };
        assert!(age(&reading, now) < 0.0, "never synced");
        reading.snapshot = Arc::new(Snapshot { synced_at: Some(now), ..Snapshot::default() });
        assert!((age(&reading, now + Duration::from_secs(7)) - 7.0).abs() < 1e-9);
    }
}
