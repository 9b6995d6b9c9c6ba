use http::StatusCode;

use super::super::TargetOptions;
use super::super::fake::{Fake, Placement};
use super::*;
use crate::client::Counters;

const ONE_POD: Placement = |_number, _headers| 0;
const ROUND_ROBIN: Placement = |number, _headers| number % 3;

fn options(fake: &Fake) -> Options {
    Options {
        target: TargetOptions { gateway_url: Some(fake.url()), ..TargetOptions::default() },
        sleep_seconds: 0.0,
        pods: Some(3),
        ..Options::default()
    }
}

async fn run_and_print(options: &Options) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = run_at(options, 1_754_000_000, &mut out).await.expect("the fake answers");
    (outcome, String::from_utf8(out).expect("we print UTF-8"))
}

/// Times, ports and dates are the only things that differ from run to run.
fn masked(text: &str, fake: &Fake) -> String {
    let text = text.replace(&fake.address.to_string(), "GATEWAY");
    let lines = text.lines().filter(|line| !line.starts_with("date:"));
    lines
        .map(|line| if line.contains(" ms") { mask_ms(line) } else { line.to_owned() } + "\n")
        .collect()
}

/// Replaces every decimal number before ` ms`.
fn mask_ms(line: &str) -> String {
    let mut masked = String::new();
    let mut parts = line.split(" ms").peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_some() {
            masked.push_str(part.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'));
            masked.push_str("# ms");
        } else {
            masked.push_str(part);
        }
    }
    masked
}

#[tokio::test]
async fn the_printed_lines_are_the_pipelines() {
    let fake = Fake::start(ONE_POD).await;
    let options = Options { requests: 2, pod_urls: vec![fake.url()], ..options(&fake) };
    let file = tempfile::NamedTempFile::new().expect("there is a temporary folder");
    let options = Options { session_id_file: Some(file.path().to_owned()), ..options };
    let (outcome, text) = run_and_print(&options).await;
    assert_eq!(outcome.shortfalls, Vec::<String>::new());
    let session = std::fs::read_to_string(file.path()).expect("it was written");
    assert!(text.contains(&format!("Session ID: {session}\n")), "{session}");
    insta::assert_snapshot!(masked(&text, &fake));
}

#[tokio::test]
async fn a_brief_page_is_the_same_without_most_answers() {
    let fake = Fake::start(ONE_POD).await;
    let options = Options { requests: 3, ..options(&fake) };
    let (_outcome, whole) = run_and_print(&options).await;
    let (outcome, brief) = run_and_print(&Options { brief: true, ..options }).await;
    assert_eq!(outcome.runs[0].upstreams.total(), 3, "all are sent");
    assert_eq!(whole.matches("Upstream: ").count(), 3);
    assert_eq!(brief.matches("Upstream: ").count(), 1);
    assert!(brief.contains("  ... and 2 more\n"), "{brief}");
    let titles = |page: &str| -> Vec<String> {
        page.lines().filter(|line| line.starts_with("===")).map(str::to_owned).collect()
    };
    assert_eq!(titles(&brief).len(), titles(&whole).len());
}

#[tokio::test]
async fn thirty_requests_on_one_warm_pod_score_the_ceiling_both_ways() {
    let fake = Fake::start(ONE_POD).await;
    let options = Options { pod_urls: vec![fake.url()], ..options(&fake) };
    let (outcome, text) = run_and_print(&options).await;
    let run = &outcome.runs[0];
    let ceiling = Counters { queries: 5_827, hits: 5_776 };
    assert_eq!((run.by_metrics, run.by_usage), (Some(ceiling), Some(ceiling)));
    assert_eq!(run.expectation.expect("usage is told").1.ceiling, ceiling);
    assert!(text.contains("ΔQueries: 5827, ΔHits: 5776"), "{text}");
    assert!(text.contains("Delta Hit Rate (measured traffic): 99.1%"), "{text}");
    assert!(text.contains("Stickiness % 100.0"), "{text}");
}

#[tokio::test]
async fn round_robin_scores_its_floor_and_fails_the_gates() {
    let fake = Fake::start(ROUND_ROBIN).await;
    let options =
        Options { min_hit_rate: Some(98.0), min_stickiness: Some(100.0), ..options(&fake) };
    let (outcome, text) = run_and_print(&options).await;
    let run = &outcome.runs[0];
    assert_eq!(run.by_usage, Some(Counters { queries: 5_827, hits: 5_392 }));
    assert_eq!(run.by_usage, run.expectation.map(|(_engines, expected)| expected.round_robin));
    assert_eq!(
        outcome.shortfalls,
        [
            "hit rate (%) of session enhanced-cache-test-1754000000 is 92.5, below the required 98",
            "stickiness (%) of session enhanced-cache-test-1754000000 is 33.3, \
             below the required 100",
        ]
    );
    assert!(text.contains("❌ hit rate (%)"), "a shortfall is printed too: {text}");
}

#[tokio::test]
async fn the_raw_prompt_without_warm_up_scores_4176_of_4770() {
    let fake = Fake::start(ONE_POD).await;
    let options = Options { raw: true, ..options(&fake) };
    let (outcome, _text) = run_and_print(&options).await;
    assert_eq!(outcome.runs[0].by_usage, Some(Counters { queries: 4_770, hits: 4_176 }));
    let (_headers, body) = &fake.requests()[0];
    assert!(body.get("prompt").is_some_and(serde_json::Value::is_string), "{body}");
}

#[tokio::test]
async fn five_parallel_runs_count_only_their_own_tokens() {
    let fake = Fake::start(ONE_POD).await;
    let options = Options { runs: 5, requests: 25, pod_urls: vec![fake.url()], ..options(&fake) };
    let (outcome, text) = run_and_print(&options).await;
    assert_eq!(outcome.runs.len(), 5);
    let sessions: std::collections::BTreeSet<_> =
        outcome.runs.iter().map(|run| run.session.clone()).collect();
    assert_eq!(sessions.len(), 5, "each run has its own session");
    for run in &outcome.runs {
        assert_eq!(run.measured().queries, 25 * 193 + 37);
        assert_eq!(run.upstreams.top(), Some(("10.0.0.1:8000", 25)));
        // One of them asked first; the others found its health check there.
        let (_engines, expected) = run.expectation.expect("usage is told");
        assert_eq!(run.measured(), expected.ceiling);
    }
    let fresh = outcome.runs.iter().filter(|run| run.expectation.is_some_and(|it| it.1.is_fresh));
    assert_eq!(fresh.count(), 1);
    assert_eq!(text.matches("3 pods that held some of it before").count(), 4, "{text}");
    assert!(text.contains("##### Run 5 of 5 #####"), "{text}");
}

#[tokio::test]
async fn the_requests_carry_the_pipelines_body_and_headers() {
    let fake = Fake::start(ONE_POD).await;
    let host = Some("llm-d.demo.local".to_owned());
    let mut options = Options { requests: 1, ..options(&fake) };
    options.target.host_header = host;
    run_and_print(&options).await;
    let requests = fake.requests();
    let said = |index: usize, name: &str| {
        requests[index].0.get(name).map(|value| value.to_str().expect("ASCII").to_owned())
    };
    let session = "enhanced-cache-test-1754000000";
    for (name, value) in [
        ("host", "llm-d.demo.local"),
        ("user-agent", "EnhancedCacheTest/1.0"),
        ("x-test-id", "multi-1754000000"),
        ("session-id", session),
        ("x-session-id", session),
        ("cookie", "session_id=enhanced-cache-test-1754000000"),
        ("authorization", "Bearer enhanced-test-token-enhanced-cache-test-1754000000"),
    ] {
        assert_eq!(said(2, name).as_deref(), Some(value), "{name} of the measured request");
    }
    assert_eq!(said(0, "user-agent").as_deref(), Some("CacheWarmup/1.0"));
    assert_eq!(said(0, "x-session-id").as_deref(), Some("warmup-1754000000"));
    assert_eq!(said(1, "x-session-id"), None, "the health check has no session");
    let mut body = requests[2].1.clone();
    body["messages"] = serde_json::Value::Null;
    insta::assert_json_snapshot!(body);
}

#[tokio::test]
async fn without_session_headers_none_is_sent() {
    let fake = Fake::start(ONE_POD).await;
    let options = Options { requests: 2, no_session_headers: true, ..options(&fake) };
    run_and_print(&options).await;
    for (headers, _body) in fake.requests() {
        for name in ["session-id", "x-session-id", "cookie"] {
            assert!(!headers.contains_key(name), "{name}: {headers:?}");
        }
    }
}

#[tokio::test]
async fn a_gateway_without_pods_fails_fast_and_says_so() {
    let fake = Fake::answering(ONE_POD, StatusCode::SERVICE_UNAVAILABLE).await;
    let mut out = Vec::new();
    let failed = run_at(&options(&fake), 1, &mut out).await.expect_err("503 is not healthy");
    assert!(failed.to_string().contains("did not return 200 (got 503)"), "{failed}");
    let text = String::from_utf8(out).expect("UTF-8");
    let line = "❌ /v1/chat/completions did not return 200 (got 503) — failing fast";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn zero_requests_are_refused() {
    let fake = Fake::start(ONE_POD).await;
    let refused = run(&Options { requests: 0, ..options(&fake) }, &mut Vec::new()).await;
    assert!(matches!(refused, Err(JobError::Option(_))), "{refused:?}");
}
