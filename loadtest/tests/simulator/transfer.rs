//! KV from pod to pod: NIXL as observed on a real pair, the other connectors as their JSON allows.

use std::time::Duration;

use loadtest::simulator::{Config, Connector, Fault, OnFailure, Simulator, TransferConfig};
use serde_json::{Value, json};

use crate::support::{Answer, client, fast, get, post, read, request, start};

/// A prefill pod and a decode pod.
struct Pair {
    prefill: Simulator,
    decode: Simulator,
}

fn pod(connector: Connector) -> Config {
    let transfer = TransferConfig {
        connector: Some(connector),
        handshake: Duration::ZERO,
        ..TransferConfig::default()
    };
    Config { transfer, ..fast() }
}

/// 100 tokens: six full blocks and four tokens of a seventh.
fn body() -> Value {
    let prompt: Vec<u32> = (300..400).collect();
    json!({"model": "tiny", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": true})
}

fn with(params: Value) -> Value {
    let mut body = body();
    body["kv_transfer_params"] = params;
    body
}

fn text(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["choices"][0]["text"].as_str().expect("text").to_owned()
}

impl Pair {
    async fn start(config: Config) -> Self {
        Self { prefill: start(config.clone()).await, decode: start(config).await }
    }

    async fn nixl() -> Self {
        Self::start(pod(Connector::Nixl)).await
    }

    /// The prefill leg's answer.
    async fn prefilled(&self) -> Value {
        let mut body = with(json!({"do_remote_decode": true, "do_remote_prefill": false}));
        body["max_tokens"] = 1.into();
        post(&self.prefill, "/v1/completions", &body).await.json()
    }

    async fn decoded(&self, params: Value) -> Answer {
        post(&self.decode, "/v1/completions", &with(params)).await
    }

    /// What a pod that has nothing to do with others says.
    async fn truth() -> String {
        text(&post(&start(fast()).await, "/v1/completions", &body()).await)
    }
}

#[tokio::test]
async fn a_prefill_leg_answers_with_the_parameters_that_a_real_one_has() {
    let pair = Pair::nixl().await;
    let params = pair.prefilled().await["kv_transfer_params"].clone();
    let keys: Vec<_> = params.as_object().expect("an object").keys().cloned().collect();
    // `pd-nixl-run`: the answer of a real NixlConnector 0.32.
    let real = [
        "do_remote_prefill",
        "do_remote_decode",
        "remote_block_ids",
        "remote_engine_id",
        "remote_request_id",
        "remote_host",
        "remote_port",
        "tp_size",
        "dcp_size",
        "pp_size",
        "remote_num_tokens",
        "remote_blocks_expiry_time",
        "transfer_mode",
        "remote_prefill_cached_tokens",
    ];
    assert_eq!(keys, real);
    assert_eq!(params["remote_block_ids"][0].as_array().map(Vec::len), Some(7));
    assert_eq!(params["remote_num_tokens"], 100);
    assert_eq!(params["do_remote_prefill"], true);
    assert_eq!(pair.prefill.leases(), 1);
}

#[tokio::test]
async fn a_decode_leg_says_what_a_single_pod_says_and_computes_one_token() {
    let pair = Pair::nixl().await;
    let params = pair.prefilled().await["kv_transfer_params"].clone();
    let answer = pair.decoded(params).await;
    assert_eq!(text(&answer), Pair::truth().await);
    let usage = &answer.json()["usage"];
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0, "as vLLM 0.32 counts");
    assert_eq!(answer.json()["kv_transfer_params"], Value::Null);
    assert_eq!(pair.prefill.leases(), 0, "they were read");
    let stats = pair.decode.stats();
    assert_eq!((stats.external_queries, stats.external_hits, stats.tainted), (100, 99, 0));
    let page = get(&pair.decode, "/metrics").await.body;
    assert!(page.contains("model_name=\"tiny\",source=\"external_kv_transfer\"} 99.0"), "{page}");
    assert_eq!(pair.decode.cached_keys(), pair.prefill.cached_keys(), "of the prompt: both");
}

#[tokio::test]
async fn pulled_blocks_are_hits_for_the_next_request() {
    let pair = Pair::nixl().await;
    let params = pair.prefilled().await["kv_transfer_params"].clone();
    text(&pair.decoded(params).await);
    let again = post(&pair.decode, "/v1/completions", &body()).await;
    assert_eq!(again.json()["usage"]["prompt_tokens_details"]["cached_tokens"], 96);
    assert_eq!(text(&again), Pair::truth().await);
}

#[tokio::test]
async fn blocks_that_others_have_overwritten_are_served_and_remembered_without_a_word() {
    let pair = Pair::nixl().await;
    let params = pair.prefilled().await["kv_transfer_params"].clone();
    pair.prefill.lose_leases();
    assert_eq!((pair.prefill.leases(), pair.prefill.stats().expired_leases), (0, 1));
    let stale = text(&pair.decoded(params).await);
    let truth = Pair::truth().await;
    assert_ne!(stale, truth);
    assert_eq!(pair.decode.stats().tainted, 1);
    // The decode pod believes that these are the prompt's blocks.
    let again = post(&pair.decode, "/v1/completions", &body()).await;
    assert_eq!(again.json()["usage"]["prompt_tokens_details"]["cached_tokens"], 96);
    assert_ne!(text(&again), truth);
}

#[tokio::test]
async fn after_the_lease_blocks_are_free_and_still_right_until_they_are_used() {
    let mut config = pod(Connector::Nixl);
    config.transfer.lease = Duration::ZERO;
    config.engine.num_blocks = 8;
    let pair = Pair::start(config).await;
    let params = pair.prefilled().await["kv_transfer_params"].clone();
    assert_eq!(pair.prefill.leases(), 0);
    assert_eq!(text(&pair.decoded(params.clone()).await), Pair::truth().await);
    let other = json!({"prompt": (1000..1110).collect::<Vec<u32>>(), "max_tokens": 1});
    text(&post(&pair.prefill, "/v1/completions", &other).await);
    pair.decode.clear_cache();
    assert_ne!(text(&pair.decoded(params).await), Pair::truth().await);
}

#[tokio::test]
async fn kept_blocks_are_pinned() {
    let mut config = pod(Connector::Nixl);
    config.engine.num_blocks = 8;
    let pair = Pair::start(config).await;
    pair.prefilled().await;
    let page = get(&pair.prefill, "/metrics").await.body;
    assert!(page.contains("vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0.875"));
    assert!(page.contains("vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 0.0"));
}

#[tokio::test]
async fn an_engine_that_is_another_or_gone_is_500_or_computed_here() {
    for (policy, status) in [(OnFailure::Fail, 500), (OnFailure::Recompute, 200)] {
        for fault in [Fault::WrongEngine, Fault::DownOnRead] {
            let mut config = pod(Connector::Nixl);
            config.transfer.on_failure = policy;
            let pair = Pair::start(config).await;
            pair.prefill.set_fault(Some(fault));
            let params = pair.prefilled().await["kv_transfer_params"].clone();
            let answer = pair.decoded(params.clone()).await;
            assert_eq!(answer.status, status, "{fault:?}");
            if status == 200 {
                assert_eq!(text(&answer), Pair::truth().await);
            } else {
                assert_eq!(answer.json()["error"]["message"], "Internal server error");
                let mut body = with(params);
                body["stream"] = true.into();
                let stream = post(&pair.decode, "/v1/completions", &body).await;
                assert_eq!(stream.status, 200);
                assert_eq!(stream.events()[0]["error"]["code"], 500);
                assert!(stream.body.ends_with("data: [DONE]\n\n"));
            }
            assert!(pair.decode.stats().failed_transfers > 0);
        }
    }
}

#[tokio::test]
async fn a_prefill_leg_can_come_without_parameters() {
    let pair = Pair::nixl().await;
    pair.prefill.set_fault(Some(Fault::NoParams));
    assert_eq!(pair.prefilled().await["kv_transfer_params"], Value::Null);
}

#[tokio::test]
async fn hostile_parameters_kill_a_decode_pod() {
    let params = json!({"do_remote_prefill": true});
    let pair = Pair::nixl().await;
    let answer = pair.decoded(params.clone()).await;
    assert_eq!(answer.status, 500);
    while tokio::net::TcpStream::connect(pair.decode.addr()).await.is_ok() {}
    // Also in a request that is refused before it reaches the engine.
    let pair = Pair::nixl().await;
    let mut body = with(params);
    body["max_tokens"] = 1_000_000.into();
    assert_eq!(post(&pair.decode, "/v1/completions", &body).await.status, 500);
    while tokio::net::TcpStream::connect(pair.decode.addr()).await.is_ok() {}
}

#[tokio::test]
async fn without_a_request_id_the_request_hangs_and_the_engine_dies_with_the_client() {
    let pair = Pair::nixl().await;
    let mut params = pair.prefilled().await["kv_transfer_params"].clone();
    params.as_object_mut().expect("an object").remove("remote_request_id");
    let mut body = with(params);
    body["stream"] = true.into();
    let url = format!("{}/v1/completions", pair.decode.url());
    let request = request(http::Method::POST, url, body.to_string());
    let response = client().request(request).await.expect("a head");
    while pair.decode.in_flight() == 0 {
        get(&pair.decode, "/health").await;
    }
    drop(response);
    while tokio::net::TcpStream::connect(pair.decode.addr()).await.is_ok() {}
}

#[tokio::test]
async fn a_pod_without_a_connector_ignores_the_parameters() {
    let pod = start(fast()).await;
    let answer = post(&pod, "/v1/completions", &with(json!({"do_remote_prefill": true}))).await;
    assert_eq!(text(&answer), Pair::truth().await);
    assert_eq!(answer.json()["kv_transfer_params"], Value::Null);
}

#[tokio::test]
async fn legs_that_are_sent_at_once_meet() {
    let truth = Pair::truth().await;
    for connector in [Connector::Mooncake, Connector::Sglang, Connector::Offload] {
        let pair = Pair::start(pod(connector)).await;
        let address = pair.prefill.side_channel().expect("it has a connector");
        let (prefill, decode) = match connector {
            Connector::Mooncake => {
                let url = format!("http://{address}");
                let query = request(http::Method::GET, format!("{url}/query"), "");
                let query = read(client().request(query).await.expect("an answer")).await.json();
                let id = &query["0"]["engine_id"];
                (
                    with(json!({"do_remote_decode": true, "transfer_id": "xfer-1"})),
                    with(json!({
                        "do_remote_prefill": true, "transfer_id": "xfer-1",
                        "remote_bootstrap_addr": url, "remote_engine_id": id,
                    })),
                )
            }
            Connector::Sglang => {
                let mut body = body();
                body["bootstrap_host"] = address.ip().to_string().into();
                body["bootstrap_port"] = address.port().into();
                body["bootstrap_room"] = 1_766_300_000_123_456_789_u64.into();
                (body.clone(), body)
            }
            _ => {
                let (host, port) = (address.ip().to_string(), address.port());
                (
                    with(json!({"remote_decoder": {"kv_request_id": "U"}})),
                    with(json!({"remote_prefiller": {
                        "kv_request_id": "U", "remote_host": host, "remote_port": port,
                    }})),
                )
            }
        };
        let mut prefill = prefill;
        prefill["max_tokens"] = 1.into();
        let (prefill, decode) = tokio::join!(
            post(&pair.prefill, "/v1/completions", &prefill),
            post(&pair.decode, "/v1/completions", &decode)
        );
        text(&prefill);
        assert_eq!(text(&decode), truth, "{connector:?}");
        assert_eq!(pair.decode.stats().external_hits, 99, "{connector:?}");
        assert_eq!(pair.prefill.leases(), 0);
    }
}
