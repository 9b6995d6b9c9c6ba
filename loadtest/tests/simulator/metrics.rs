//! `/metrics`: names and labels of the real page, numbers of what happened.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::{fast, fixture_text, get, post, start};

/// What a gateway and the dashboards read.
const NEEDED: &[&str] = &[
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:num_preemptions_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:request_queue_time_seconds_bucket",
    "http_requests_total",
    "http_request_size_bytes_sum",
    "http_response_size_bytes_sum",
    "http_request_duration_highr_seconds_bucket",
    "http_request_duration_seconds_bucket",
];

/// Sample name to its label names.
fn samples(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let is_theirs = |line: &&str| line.starts_with("vllm:") || line.starts_with("http_");
    let lines = page.lines().filter(is_theirs);
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let Some((name, rest)) = line.split_once('{') else {
            let name = line.split(' ').next().expect("a sample has a name");
            all.entry(name.to_owned()).or_default();
            continue;
        };
        let (labels, _) = rest.rsplit_once('}').expect("labels end");
        let names =
            labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        all.entry(name.to_owned()).or_default().extend(names);
    }
    all
}

fn bounds(page: &str, name: &str) -> Vec<String> {
    page.lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| Some(line.split_once("le=\"")?.1.split_once('"')?.0.to_owned()))
        .collect()
}

fn value(page: &str, start: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(start)).expect("the sample is there");
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).expect("a number")
}

#[tokio::test]
async fn names_and_labels_are_the_real_ones() {
    let pod = start(fast()).await;
    get(&pod, "/v1/models").await;
    let page = get(&pod, "/metrics").await;
    assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let (ours, real) = (samples(&page.body), fixture_text("metrics.txt"));
    let theirs = samples(&real);
    for (name, labels) in &ours {
        let of_real = theirs.get(name).unwrap_or_else(|| panic!("vLLM has no {name}"));
        assert!(labels.is_subset(of_real), "{name}: {labels:?} against {of_real:?}");
        if name != "vllm:cache_config_info" {
            assert_eq!(labels, of_real, "{name}");
        }
    }
    for name in NEEDED {
        assert!(ours.contains_key(*name), "{name} is missing");
    }
    for name in ["time_to_first_token", "inter_token_latency", "e2e_request_latency"] {
        let name = format!("vllm:{name}_seconds_bucket");
        assert_eq!(bounds(&page.body, &name), bounds(&real, &name), "{name}");
    }
    let name = "http_request_duration_highr_seconds_bucket";
    assert_eq!(bounds(&page.body, name), bounds(&real, name));
    let name = "http_request_duration_seconds_bucket{handler=\"/v1/models\"";
    assert_eq!(bounds(&page.body, name), bounds(&real, name));
}

#[tokio::test]
async fn numbers_are_what_happened() {
    let pod = start(fast()).await;
    let body = json!({
        "prompt": (0..100).collect::<Vec<u32>>(), "max_tokens": 5, "ignore_eos": true,
    });
    post(&pod, "/v1/completions", &body).await;
    post(&pod, "/v1/completions", &body).await;
    let page = get(&pod, "/metrics").await.body;
    let of = |name: &str| value(&page, &format!("vllm:{name}{{engine=\"0\",model_name=\"tiny\"}}"));
    let expected = [
        ("prefix_cache_queries_total", 200.0),
        ("prefix_cache_hits_total", 96.0),
        ("prompt_tokens_total", 200.0),
        ("generation_tokens_total", 10.0),
        ("num_requests_running", 0.0),
        ("kv_cache_usage_perc", 0.0),
        ("time_to_first_token_seconds_count", 2.0),
        ("inter_token_latency_seconds_count", 8.0),
        ("e2e_request_latency_seconds_count", 2.0),
    ];
    for (name, expected) in expected {
        assert!((of(name) - expected).abs() < 1e-9, "{name}: {}", of(name));
    }
    assert!(page.contains("block_size=\"16\"") && page.contains("num_gpu_blocks=\"8192\""));
    let requests = r#"http_requests_total{handler="/v1/completions",method="POST",status="2xx"}"#;
    assert!(
        (value(&page, requests) - 2.0).abs() < 1e-9,
        "what is asked for metrics is not counted"
    );
    let read = r#"http_request_size_bytes_sum{handler="/v1/completions"}"#;
    assert!((value(&page, read) - 2.0 * body.to_string().len() as f64).abs() < 1e-9);
    let length = "vllm:request_success_total{engine=\"0\",finished_reason=\"length\"";
    assert!((value(&page, length) - 2.0).abs() < 1e-9);
}
