use http::StatusCode;

use super::*;
use crate::client::{Failure, Usage};

fn answer(ttft_ms: u64, total_ms: u64) -> Answer {
    let mut answer = Answer::begin();
    answer.status = Some(StatusCode::OK);
    answer.timing.ttft = Some(Duration::from_millis(ttft_ms));
    answer.timing.total = Duration::from_millis(total_ms);
    answer.timing.gaps = vec![Duration::from_millis(10); 4];
    let usage = Usage { prompt_tokens: 100, completion_tokens: 5, cached_tokens: Some(48) };
    answer.usage = Some(usage);
    answer
}

fn stage() -> StageReport {
    let mut stats = StageStats::new("constant 2.00/s", Some(2.0));
    let on_time = answer(20, 60);
    stats.record(on_time.timing.sent_at, &on_time);
    let late = answer(20, 60);
    stats.record(late.timing.sent_at - Duration::from_millis(500), &late);
    let mut refused = answer(1, 1);
    refused.failure =
        Some(Failure::Status { status: StatusCode::TOO_MANY_REQUESTS, message: "busy".into() });
    stats.record(refused.timing.sent_at, &refused);
    stats.finish(Duration::from_secs(2), 3)
}

fn is_about(measured_ms: f64, exact_ms: f64) -> bool {
    (measured_ms - exact_ms).abs() <= exact_ms * 1e-3
}

#[test]
fn latencies_count_from_when_the_request_was_due() {
    let stage = stage();
    assert!(is_about(stage.ttft.max_ms, 520.0), "{:?}", stage.ttft);
    assert!(is_about(stage.total.max_ms, 560.0), "{:?}", stage.total);
    assert!(is_about(stage.send_delay.max_ms, 500.0), "{:?}", stage.send_delay);
    // Lateness is the sender's, not the engine's: the pace of tokens does not change.
    assert!(is_about(stage.tpot.max_ms, 10.0), "{:?}", stage.tpot);
}

#[test]
fn failed_requests_are_errors_by_kind_and_in_no_percentile() {
    let stage = stage();
    assert_eq!(stage.errors, BTreeMap::from([("http_429".to_owned(), 1)]));
    assert_eq!((stage.completed, stage.ttft.count, stage.total.count), (2, 2, 2));
    assert!(stage.ttft.p50_ms > 19.0, "the quick refusal is not among the latencies");
}

#[test]
fn rates_and_tokens_are_of_complete_answers() {
    let stage = stage();
    assert_eq!((stage.requests_per_s, stage.output_tokens_per_s), (1.0, 5.0));
    assert_eq!((stage.prompt_tokens, stage.cached_tokens, stage.output_tokens), (200, 96, 10));
}

#[test]
fn the_report_reads_as_a_table_and_as_json() {
    let report = BenchReport {
        target: "http://gateway".into(),
        model: "m".into(),
        rate_type: "constant".into(),
        stream: true,
        stages: vec![stage()],
    };
    insta::assert_snapshot!(bench_table(&report));
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
    assert_eq!(json["stages"][0]["errors"]["http_429"], 1);
    assert_eq!(
        report.problems(),
        [
            "stage constant 2.00/s had errors: 1 x http_429",
            "stage constant 2.00/s left 3 requests unsent: \
             raise --max-concurrency or lower --rate",
        ]
    );
}
