use super::super::TargetOptions;
use super::super::fake::Fake;
use super::*;

fn options(fake: &Fake) -> Options {
    Options {
        target: TargetOptions { gateway_url: Some(fake.url()), ..TargetOptions::default() },
        max_requests: Some(6),
        output_tokens: 3,
        ..Options::default()
    }
}

async fn outcome(options: &Options) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = run(options, &mut out).await.expect("the fake answers");
    (outcome, String::from_utf8(out).expect("UTF-8"))
}

#[tokio::test]
async fn a_closed_loop_reports_every_request_and_its_tokens() {
    let fake = Fake::start(|_number, _headers| 0).await;
    let options =
        Options { rate_type: RateType::Concurrent, rate: vec![1.0, 3.0], ..options(&fake) };
    let (outcome, text) = outcome(&options).await;
    assert_eq!(outcome.shortfalls, Vec::<String>::new());
    let stages = &outcome.report.stages;
    assert_eq!(stages.iter().map(|stage| stage.completed).collect::<Vec<_>>(), [6, 6]);
    assert_eq!((stages[0].output_tokens, stages[0].ttft.count), (18, 6));
    assert!(stages[0].ttft.max_ms <= stages[0].total.max_ms);
    assert!(text.contains("| concurrent 3 |"), "{text}");
}

#[tokio::test]
async fn a_sweep_runs_from_one_at_a_time_through_saturation_to_rates_between() {
    let fake = Fake::start(|_number, _headers| 0).await;
    let options = Options { rate_type: RateType::Sweep, sweep_steps: 2, ..options(&fake) };
    let (outcome, _text) = outcome(&options).await;
    let stages = &outcome.report.stages;
    assert_eq!((stages[0].name.as_str(), stages[1].name.as_str()), ("synchronous", "throughput"));
    assert!(stages[2..].iter().all(|stage| stage.wanted_requests_per_s.is_some()));
}

#[tokio::test]
async fn the_json_report_is_written_where_asked() {
    let fake = Fake::start(|_number, _headers| 0).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("report.json");
    let options = Options { output: Some(path.clone()), ..options(&fake) };
    let (outcome, _text) = outcome(&options).await;
    let written = std::fs::read_to_string(path).expect("the report was written");
    assert_eq!(written, outcome.report.to_json());
}

#[tokio::test]
async fn a_gateway_that_is_away_is_errors_by_kind_and_a_shortfall() {
    let fake = Fake::start(|_number, _headers| 0).await;
    let options = options(&fake);
    drop(fake);
    // The aborted task drops its listener at its next poll.
    tokio::task::yield_now().await;
    let (outcome, _text) = outcome(&options).await;
    assert_eq!(outcome.report.stages[0].errors.values().sum::<u64>(), 6);
    assert_eq!(outcome.shortfalls.len(), 1, "{:?}", outcome.shortfalls);
}

#[tokio::test]
async fn a_rate_that_does_not_fit_its_type_is_refused_in_a_sentence() {
    for (rate_type, rate, reason) in [
        (RateType::Constant, vec![], "--rate-type constant needs --rate"),
        (RateType::Sweep, vec![2.0], "--rate-type sweep takes no --rate"),
        (RateType::Poisson, vec![0.0], "--rate 0 is not between 0.001 and 1000000"),
        (RateType::Concurrent, vec![1.5], "--rate 1.5 is not a whole number of requests in flight"),
    ] {
        let refused = Options { rate_type, rate, ..Options::default() }.check();
        assert_eq!(refused.expect_err(reason).to_string(), reason);
    }
}
