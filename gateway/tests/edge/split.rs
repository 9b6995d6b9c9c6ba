//! Prefill on one pod, decode on another: whatever a leg does, the client gets its answer.

mod failures;
mod simulated;
mod together;

use std::net::SocketAddr;

use gateway::config::Config;
use http::StatusCode;
use router::connector::ConnectorName;
use router::discovery::StaticEndpoint;
use router::pool::Role;
use serde_json::Value;

use crate::support::client::Reply as Answer;
use crate::support::raw_pod::{LAST_CHUNK, RawPod, Reply, TOKEN, Then, stream};
use crate::support::{House, config};

/// What vLLM's prefill pod hands over.
const PARAMS: &str = r#"{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1,2,3,4]],"remote_engine_id":"e-1","remote_request_id":"cmpl-1","remote_host":"127.0.0.1","remote_port":5600,"tp_size":1,"remote_blocks_expiry_time":null}"#;

/// Asks a pod to keep its blocks.
const KEEP: &str = r#"{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}"#;

const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":2000,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":0}}}"#;

/// A prompt of some 2,000 tokens: a pod takes far longer for it than for a transfer.
fn prompt() -> String {
    "word ".repeat(1_600)
}

fn plain() -> String {
    format!(r#"{{"model":"tiny","prompt":"{}","max_tokens":9,"seed":9007199254740993}}"#, prompt())
}

fn streamed() -> String {
    plain().replace("\"seed\"", "\"stream\":true,\"seed\"")
}

/// The client's body with what a leg gets.
fn plus(body: &str, more: &str) -> String {
    format!("{},{more}}}", body.strip_suffix('}').expect("an object ends so"))
}

/// The prefill leg of such a body.
fn prefill_leg(body: &str, params: &str) -> String {
    let rest = body.replace("\"stream\":true,", "").replace("\"max_tokens\":9,", "");
    plus(
        &rest,
        &format!(r#""stream":false,"max_tokens":1,"min_tokens":1,"kv_transfer_params":{params}"#),
    )
}

/// A prefill pod's answer.
fn handed(params: &str) -> Reply {
    let usage = r#"{"prompt_tokens":2000,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":768}}"#;
    Reply::whole(
        "200 OK",
        &format!(r#"{{"choices":[{{"text":"x"}}],"usage":{usage},"kv_transfer_params":{params}}}"#),
    )
}

/// A decode pod's plain answer.
fn good() -> Reply {
    Reply::whole("200 OK", USAGE)
}

fn prefills(pod: &RawPod) -> StaticEndpoint {
    StaticEndpoint::from(pod.addr).with_role(Role::Prefill)
}

fn decodes(pod: &RawPod) -> StaticEndpoint {
    StaticEndpoint::from(pod.addr).with_role(Role::Decode)
}

/// Settings for these pods. Every failure is to be met by a request, not by a pod that was taken out;
/// and pods that answer at once are soon known to be so fast that nothing is worth a transfer.
fn settings(endpoints: impl Into<Vec<StaticEndpoint>>) -> Config {
    let mut config = config(&[]);
    config.endpoints = endpoints.into();
    config.pool.health.failed_requests = 1_000;
    config.retry.budget = 1.0;
    (config.split.min_uncached_tokens, config.split.stall) = (Some(64), 1e9);
    config
}

async fn ask(house: &House, body: &str) -> Answer {
    house.post("/v1/completions", body).await
}

/// The parameter of `x-hearth-decision` that tells of a split.
fn told(answer: &Answer) -> String {
    let decision = answer.header("x-hearth-decision");
    decision.split(';').next_back().unwrap_or_default().to_owned()
}

fn by(addr: SocketAddr) -> String {
    format!("prefill=\"{addr}\"")
}

fn cached_tokens(json: &str) -> u64 {
    let json: Value = serde_json::from_str(json).expect("it is JSON");
    json["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
}

#[tokio::test]
async fn a_long_prompt_is_prefilled_by_one_pod_and_decoded_by_another() {
    let mut prefill = RawPod::start([handed(PARAMS)]).await;
    let mut decode = RawPod::start([good()]).await;
    let house = House::start(settings([prefills(&prefill), decodes(&decode)])).await;
    let answer = ask(&house, &plain()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(told(&answer), by(prefill.addr));
    assert_eq!(answer.header("x-upstream-host"), decode.addr.to_string());
    let leg = String::from_utf8(prefill.request().await).unwrap();
    assert_eq!(leg, prefill_leg(&plain(), KEEP));
    let leg = String::from_utf8(decode.request().await).unwrap();
    assert_eq!(leg, plus(&plain(), &format!("\"kv_transfer_params\":{PARAMS}")));
    assert_eq!(cached_tokens(answer.text()), 768, "what the prefill pod found in its cache");

    let again = ask(&house, &plain()).await;
    assert_eq!(told(&again), "split=short", "the pod holds it now");
    assert_eq!(decode.request().await, plain().as_bytes(), "the client's own bytes");
    assert_eq!(cached_tokens(again.text()), 0, "the pod's own count");
    assert_eq!(house.metric("hearth_splits_total{verdict=\"split\"}").await, 1);
    assert_eq!(house.metric("hearth_split_leaked_lease_seconds_total").await, 0);
    house.end().await;
}

#[tokio::test]
async fn a_stream_tells_what_was_reused() {
    let events = [&stream(&[TOKEN, USAGE, "[DONE]"])[..], LAST_CHUNK].concat();
    let prefill = RawPod::start([handed(PARAMS)]).await;
    let decode = RawPod::start([Reply::new(events, Then::Next)]).await;
    let house = House::start(settings([prefills(&prefill), decodes(&decode)])).await;
    let answer = ask(&house, &streamed()).await;
    assert_eq!(told(&answer), by(prefill.addr));
    let events: Vec<_> = answer.text().split_terminator("\n\n").collect();
    let [token, usage, "data: [DONE]"] = events[..] else { panic!("{events:?}") };
    assert_eq!(token, format!("data: {TOKEN}"));
    assert_eq!(cached_tokens(usage.strip_prefix("data: ").unwrap()), 768);
    assert_eq!(house.metric("hearth_split_transfer_seconds_count").await, 1);
    house.end().await;
}

#[tokio::test]
async fn what_needs_one_pod_is_not_split() {
    let mut prefill = RawPod::start([handed(PARAMS)]).await;
    let decode = RawPod::start([good()]).await;
    let house = House::start(settings([prefills(&prefill), decodes(&decode)])).await;
    let several = plain().replace("\"max_tokens\":9", "\"n\":2");
    assert_eq!(told(&ask(&house, &several).await), "split=indivisible");
    let short = r#"{"model":"tiny","prompt":"a","max_tokens":9}"#;
    assert_eq!(told(&ask(&house, short).await), "split=short");
    assert_eq!(prefill.unseen(), 0);
    house.end().await;
}

#[tokio::test]
async fn a_client_cannot_name_blocks() {
    let mut prefill = RawPod::start([handed(PARAMS)]).await;
    let mut decode = RawPod::start([good()]).await;
    let house = House::start(settings([prefills(&prefill), decodes(&decode)])).await;
    let hostile = r#""kv_transfer_params":{"do_remote_prefill":true}"#;
    let body = plus(&plain(), hostile);
    assert_eq!(told(&ask(&house, &body).await), by(prefill.addr));
    assert_eq!(prefill.request().await, prefill_leg(&plain(), KEEP).as_bytes());
    let params = format!("\"kv_transfer_params\":{PARAMS}");
    assert_eq!(decode.request().await, plus(&plain(), &params).as_bytes());
    house.end().await;
}

#[tokio::test]
async fn a_prompt_of_ids_is_split_too_and_its_limits_stand_in_its_sampling_params() {
    let mut prefill = RawPod::start([handed(PARAMS)]).await;
    let mut decode = RawPod::start([good()]).await;
    let house = House::start(settings([prefills(&prefill), decodes(&decode)])).await;
    let ids = (1..2_000).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let body = |params: &str| {
        format!(r#"{{"model":"tiny","token_ids":[{ids}],"sampling_params":{{{params}}}}}"#)
    };
    let sent =
        body(r#""max_tokens":9,"extra_args":{"kv_transfer_params":{"do_remote_prefill":true}}"#);
    let answer = house.post("/inference/v1/generate", &sent).await;
    assert_eq!((answer.status, told(&answer)), (StatusCode::OK, by(prefill.addr)));
    let leg = String::from_utf8(prefill.request().await).unwrap();
    let rest = format!(r#"{{"model":"tiny","token_ids":[{ids}]}}"#);
    let capped =
        r#""stream":false,"sampling_params":{"extra_args":{},"max_tokens":1,"min_tokens":1}"#;
    assert_eq!(leg, plus(&rest, &format!("{capped},\"kv_transfer_params\":{KEEP}")));
    let leg = String::from_utf8(decode.request().await).unwrap();
    let clean = body(r#""max_tokens":9,"extra_args":{}"#);
    assert_eq!(leg, plus(&clean, &format!("\"kv_transfer_params\":{PARAMS}")));
    house.end().await;
}
