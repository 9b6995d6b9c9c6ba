use super::super::fake::{Fake, Placement};
use super::*;

fn is_session_a(headers: &http::HeaderMap) -> bool {
    let session = headers.get("x-session-id").expect("every request has a session");
    session.to_str().expect("ASCII").contains("-A-")
}

async fn outcome(placement: Placement) -> (Outcome, String) {
    let fake = Fake::start(placement).await;
    let options = Options {
        target: TargetOptions { gateway_url: Some(fake.url()), ..TargetOptions::default() },
        requests: 4,
        sleep_seconds: 0.0,
        ..Options::default()
    };
    let mut out = Vec::new();
    let outcome = run(&options, &mut out).await.expect("the fake answers");
    (outcome, String::from_utf8(out).expect("UTF-8"))
}

#[tokio::test]
async fn a_session_that_returns_to_its_pod_passes() {
    let (outcome, text) = outcome(|_number, headers| usize::from(is_session_a(headers))).await;
    assert_eq!(outcome.shortfalls, Vec::<String>::new());
    assert_eq!(outcome.phases[1].upstreams.top(), Some(("10.0.0.1:8000", 4)));
    assert!(text.contains("✅ Session A returned to 10.0.0.2:8000"), "{text}");
}

#[tokio::test]
async fn one_pod_for_both_sessions_is_said_and_is_no_check_mark() {
    let (outcome, text) = outcome(|_number, _headers| 0).await;
    assert_eq!(outcome.shortfalls, Vec::<String>::new(), "nothing is wrong either");
    assert!(text.contains("⚠️ Session A returned to 10.0.0.1:8000, where session B was"), "{text}");
    assert!(!text.contains('✅'), "{text}");
}

#[tokio::test]
async fn a_session_that_comes_back_elsewhere_fails_though_each_phase_is_sticky() {
    let (outcome, _text) = outcome(|number, _headers| number / 4).await;
    assert_eq!(
        outcome.shortfalls,
        ["session A was on 10.0.0.1:8000 and came back to 10.0.0.3:8000"]
    );
}

#[tokio::test]
async fn a_session_spread_over_pods_fails() {
    let (outcome, _text) = outcome(|number, _headers| number % 2).await;
    assert_eq!(outcome.shortfalls.len(), 3, "{:?}", outcome.shortfalls);
    assert!(outcome.shortfalls[0].ends_with("is 50.0, below the required 90"));
}
