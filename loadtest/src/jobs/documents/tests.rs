use super::super::TargetOptions;
use super::super::fake::{Fake, Placement};
use super::*;

fn options(fake: &Fake) -> Options {
    Options {
        target: TargetOptions { gateway_url: Some(fake.url()), ..TargetOptions::default() },
        documents: 3,
        sessions: 4,
        document_tokens: 200,
        ..Options::default()
    }
}

async fn outcome(options: &Options) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = run(options, &mut out).await.expect("the fake answers");
    (outcome, String::from_utf8(out).expect("UTF-8"))
}

#[tokio::test]
async fn every_request_is_recorded_and_begins_with_the_shared_system_prompt() {
    let fake = Fake::start(ONE_POD).await;
    let folder = tempfile::tempdir().expect("a folder");
    let records = folder.path().join("records.jsonl");
    let options = Options { shared_tokens: 50, records: Some(records.clone()), ..options(&fake) };
    outcome(&options).await;
    let text = std::fs::read_to_string(records).expect("written");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 24);
    assert!(lines.iter().all(|line| line["prompt_tokens"].is_u64() && line["failure"].is_null()));
    assert_eq!(lines.iter().filter(|line| line["turn"] == 2).count(), 12);
    let system: std::collections::BTreeSet<_> = fake
        .requests()
        .into_iter()
        .filter_map(|(_headers, body)| {
            let first = body.pointer("/messages/0")?;
            Some((first["role"].to_string(), first["content"].to_string()))
        })
        .collect();
    assert_eq!(system.len(), 1, "one system prompt: {system:?}");
    assert!(system.iter().all(|(role, _text)| role == "\"system\""));
}

const ONE_POD: Placement = |_number, _headers| 0;

#[tokio::test]
async fn every_session_sends_two_turns_and_the_second_quotes_the_first_answer() {
    let fake = Fake::start(ONE_POD).await;
    let (outcome, _text) = outcome(&options(&fake)).await;
    assert_eq!(outcome.shortfalls, Vec::<String>::new());
    assert_eq!(outcome.targets[0].requests.total(), 24);
    let messages = |turns: usize| {
        let bodies = fake.requests().into_iter().map(|(_headers, body)| body);
        bodies.filter(|body| body["messages"].as_array().map(Vec::len) == Some(turns)).count()
    };
    assert_eq!((messages(1), messages(3)), (12, 12));
    let quoted = fake.requests().into_iter().filter(|(_headers, body)| {
        body.pointer("/messages/1/content").is_some_and(|said| said == "A cache of prompts")
    });
    assert_eq!(quoted.count(), 12);
}

#[tokio::test]
async fn a_load_on_one_pod_of_three_fails_the_ratio_gate() {
    let fake = Fake::start(ONE_POD).await;
    let options = Options { pods: Some(3), max_load_ratio: Some(1.25), ..options(&fake) };
    let (outcome, _text) = outcome(&options).await;
    assert_eq!(outcome.shortfalls, ["max/mean load of gateway is 3.00, above the allowed 1.25"]);
}

#[tokio::test]
async fn gateways_are_printed_side_by_side_and_only_the_first_is_judged() {
    let warm = Fake::start(ONE_POD).await;
    let spread = Fake::start(|number, _headers| number % 3).await;
    let targets = [("warm", &warm), ("round-robin", &spread)];
    let targets = targets.map(|(name, fake)| format!("{name}={}", fake.url()));
    let targets = targets.map(|target| target.parse().expect("NAME=URL"));
    let options = Options { targets: targets.into(), min_hit_rate: Some(50.0), ..options(&warm) };
    let (outcome, text) = outcome(&options).await;
    assert_eq!(outcome.shortfalls, Vec::<String>::new());
    let [warm, spread] = &outcome.targets[..] else { panic!("two targets: {outcome:?}") };
    assert!(warm.tokens.hit_rate_percent() > spread.tokens.hit_rate_percent(), "{text}");
    assert_eq!(spread.requests.len(), 3);
    assert!(text.contains("| round-robin |"), "{text}");
}

#[test]
fn a_target_without_name_or_scheme_is_refused() {
    for text in ["http://x", "=http://x", "warm=x"] {
        assert!(text.parse::<NamedTarget>().is_err(), "{text}");
    }
}
