use super::*;

fn within(measured: f64, exact: f64) {
    assert!((measured - exact).abs() <= exact * 1e-3, "{measured} is not {exact} to three digits");
}

#[test]
fn percentiles_of_one_to_a_thousand_are_their_ranks() {
    let mut latency = Latency::default();
    // Backwards, so that an accidental dependence on order shows.
    for ms in (1..=1000).rev() {
        latency.record(Duration::from_millis(ms));
    }
    let summary = latency.summary();
    assert_eq!(summary.count, 1000);
    within(summary.mean_ms, 500.5);
    within(summary.p50_ms, 500.0);
    within(summary.p90_ms, 900.0);
    within(summary.p95_ms, 950.0);
    within(summary.p99_ms, 990.0);
    within(summary.max_ms, 1000.0);
}

#[test]
fn nothing_recorded_is_all_zero_and_not_nan() {
    assert_eq!(Latency::default().summary(), LatencySummary::default());
}

#[test]
fn a_day_counts_as_an_hour_and_a_negative_time_as_none() {
    let mut latency = Latency::default();
    latency.record(Duration::from_secs(86_400));
    latency.record_ms(-3.0);
    let summary = latency.summary();
    assert_eq!(summary.count, 2);
    within(summary.max_ms, 3_600_000.0);
    within(summary.p50_ms, 0.001);
}
