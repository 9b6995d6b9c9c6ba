use std::sync::Arc;

use http::StatusCode;
use prometheus::{Registry, TextEncoder};
use router::feed::kv_events::{KvStatus, Trust};
use tokio::time::Instant;

use super::*;
use crate::telemetry::epp_names::{Decided, Ended};
use crate::telemetry::reading::tests::reading;
use crate::telemetry::scrape::scrape;

/// Every family with its labels and help, each touched once.
fn exposition() -> String {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).expect("no name twice");
    let metrics = metrics.with_epp_names(&registry).expect("no name twice");
    metrics.request_ends("chat", StatusCode::OK, Some("tiny"), 0.5);
    metrics.request_ends("chat", StatusCode::NOT_FOUND, None, 0.01);
    metrics.error("no_such_model");
    metrics.retry("connect");
    metrics.alias("auto", "tiny");
    metrics.migration("continued");
    metrics.rescue("won");
    metrics.queue.refused("full");
    metrics.first_token(Some("tiny"), 0.1);
    metrics.output_token_time(Some("tiny"), 0.01);
    metrics.decision(0.000_02);
    metrics.tokens(Some("tiny"), TokenCounts { prompt: 100, matched: 64, cached: 48, output: 7 });
    let tokens = TokenCounts { prompt: 100, matched: 64, cached: 48, output: 7 };
    let decided = Decided { policy: "warm", is_split: false, seconds: 0.000_02, tokens };
    let ended = Ended {
        model: Some("tiny"),
        code: StatusCode::BAD_GATEWAY,
        seconds: 0.7,
        bytes: (300, 200),
        decision: Some(decided),
    };
    metrics.epp.as_ref().expect("it is wanted").ended(&ended);
    metrics.splits.ended("split", Some(30.0));
    metrics.splits.prefilled(200.0);
    metrics.splits.failed("prefill", "connect_refused");
    metrics.splits.leaked(1.5);
    metrics.splits.released(true);
    metrics.config_in_force("0123456789abcdef");
    metrics.certificate_expires(4_102_444_800);
    let mut reading = reading();
    let snapshot = Arc::get_mut(&mut reading.snapshot).expect("it is ours alone");
    let teller = Arc::get_mut(&mut snapshot.endpoints[0]).expect("it is ours alone");
    teller.kv_events = Arc::new(KvStatus::of(Trust::Exact));
    let families = scrape(&registry, (&reading, true), Instant::now()).expect("well formed");
    let is_once = families.windows(2).all(|pair| pair[0].name() < pair[1].name());
    assert!(is_once, "two families have one name");
    TextEncoder::new().encode_to_string(&families).expect("it is text")
}

#[test]
fn every_family_is_there_with_its_help_and_labels() {
    let text = exposition();
    let is_told = |line: &&str| !line.contains("_bucket{") && !line.starts_with("# TYPE");
    let lines: Vec<_> = text.lines().filter(is_told).collect();
    // The age of discovery is that of the moment.
    let lines = lines.iter().filter(|line| !line.starts_with("hearth_discovery_age_seconds "));
    insta::assert_snapshot!(lines.copied().collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_guard_counts_until_it_is_dropped() {
    let metrics = Metrics::new(&Registry::new()).expect("no name twice");
    let held = [metrics.request_begins(), metrics.request_begins()];
    assert_eq!(metrics.in_flight.get(), 2);
    drop(held);
    assert_eq!(metrics.in_flight.get(), 0);
}

#[test]
fn only_the_settings_in_force_are_shown() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).expect("no name twice");
    metrics.config_in_force("before");
    metrics.config_in_force("after");
    let text = TextEncoder::new().encode_to_string(&registry.gather()).expect("it is text");
    assert!(
        text.contains("hearth_config_info{hash=\"after\"} 1") && !text.contains("hash=\"before\""),
        "{text}"
    );
    assert!(!text.contains("hearth_tls_certificate_expiry_seconds"), "no certificate, no expiry");
}
