//! `/metrics`: names and labels of the real page, numbers of what happened.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::{fast, fixture_text, get, post, start};

/// Whether a line of the real page has no counterpart here.
fn is_left_out(line: &str) -> bool {
    // Of the interpreter and its process: a pod here is one of several in one that is no Python.
    let is_of_the_process = line.starts_with("process_") || line.starts_with("python_");
    // When each family began. No rate needs it, and it doubles the page.
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    is_of_the_process || name.ends_with("_created")
}

/// Sample name to its label names.
fn samples(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let lines = page.lines().filter(|line| !line.starts_with('#') && !is_left_out(line));
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

/// `NAME TYPE` of every family.
fn families(page: &str) -> BTreeSet<&str> {
    let of = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    of.filter(|family| !is_left_out(family)).collect()
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
    let real = fixture_text("metrics.txt");
    let (ours, theirs) = (samples(&page.body), samples(&real));
    let names = |all: &BTreeMap<String, _>| all.keys().cloned().collect::<BTreeSet<String>>();
    assert_eq!(names(&ours), names(&theirs));
    for (name, labels) in &ours {
        let of_real = &theirs[name];
        // Its labels are vLLM's whole cache configuration; here is what describes this cache.
        match name.as_str() {
            "vllm:cache_config_info" => assert!(labels.is_subset(of_real), "{labels:?}"),
            _ => assert_eq!(labels, of_real, "{name}"),
        }
        if name.starts_with("vllm:") && name.ends_with("_bucket") {
            assert_eq!(bounds(&page.body, name), bounds(&real, name), "{name}");
        }
    }
    assert_eq!(families(&page.body), families(&real));
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
    let answer = post(&pod, "/v1/completions", &body).await;
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
        ("request_params_n_count", 2.0),
        ("request_params_n_sum", 2.0),
        ("request_max_num_generation_tokens_sum", 10.0),
        ("request_params_max_tokens_sum", 10.0),
        ("request_prefill_kv_computed_tokens_sum", 104.0),
        ("request_num_preemptions_count", 2.0),
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
    let sent = r#"http_response_size_bytes_sum{handler="/v1/completions"}"#;
    assert!(value(&page, sent) > answer.body.len() as f64, "of both answers");
    let length = "vllm:request_success_total{engine=\"0\",finished_reason=\"length\"";
    assert!((value(&page, length) - 2.0).abs() < 1e-9);
}

#[tokio::test]
async fn several_answers_of_one_request_are_one_request() {
    let pod = start(fast()).await;
    let body = json!({"prompt": "Hello", "n": 3, "max_tokens": 5, "ignore_eos": true});
    post(&pod, "/v1/completions", &body).await;
    let page = get(&pod, "/metrics").await.body;
    let of = |name: &str| value(&page, &format!("vllm:{name}{{engine=\"0\",model_name=\"tiny\"}}"));
    let expected = [
        ("request_params_n_count", 1.0),
        ("request_params_n_sum", 3.0),
        ("request_max_num_generation_tokens_count", 1.0),
        ("request_max_num_generation_tokens_sum", 5.0),
        ("request_generation_tokens_count", 3.0),
    ];
    for (name, expected) in expected {
        assert!((of(name) - expected).abs() < 1e-9, "{name}: {}", of(name));
    }
}
