//! Connectors whose legs go out at once.

use super::*;
use crate::support::raw_pod::Seen;

fn with(connector: ConnectorName, pods: &[&RawPod; 2]) -> Config {
    let mut config = settings([prefills(pods[0]), decodes(pods[1])]);
    config.split.connector = connector;
    config
}

#[tokio::test]
async fn sglang_gets_the_same_body_on_both_legs() {
    let mut prefill = RawPod::start([good()]).await;
    let mut decode = RawPod::start([good()]).await;
    let house = House::start(with(ConnectorName::Sglang, &[&prefill, &decode])).await;
    let answer = ask(&house, &plain()).await;
    assert_eq!((answer.status, told(&answer)), (StatusCode::OK, by(prefill.addr)));
    let legs = [prefill.request().await, decode.request().await];
    assert_eq!(legs[0], legs[1]);
    let leg: Value = serde_json::from_slice(&legs[0]).unwrap();
    assert_eq!(
        (&leg["bootstrap_host"], &leg["bootstrap_port"]),
        (&"127.0.0.1".into(), &8998.into())
    );
    assert!(leg["bootstrap_room"].as_u64().unwrap() < 1 << 53);
    assert_eq!(leg["max_tokens"], 9, "the engine computes the prompt alone, whatever is asked for");
    house.end().await;
}

#[tokio::test]
async fn mooncake_asks_for_the_engine_once() {
    let engines = r#"{"0":{"engine_id":"E0"}}"#;
    let mut bootstrap = RawPod::start([Reply::whole("200 OK", engines)]).await;
    let prefill = RawPod::start([good()]).await;
    let mut decode = RawPod::start([good()]).await;
    let mut config = with(ConnectorName::Mooncake, &[&prefill, &decode]);
    config.split.port = Some(bootstrap.addr.port());
    let house = House::start(config).await;
    for n in 0..3 {
        let answer = ask(&house, &plain().replace("word", &format!("w{n}rd"))).await;
        assert_eq!((answer.status, told(&answer)), (StatusCode::OK, by(prefill.addr)));
        let leg: Value = serde_json::from_slice(&decode.request().await).unwrap();
        let params = &leg["kv_transfer_params"];
        assert_eq!(params["remote_engine_id"], "E0");
        assert_eq!(params["remote_bootstrap_addr"], format!("http://{}", bootstrap.addr));
    }
    assert_eq!(bootstrap.unseen(), 1);
    house.end().await;
}

#[tokio::test]
async fn a_prefill_that_fails_ends_the_decode_leg_that_waits_for_it() {
    let failing = Reply::whole("500 Internal Server Error", "{}");
    let prefill = RawPod::start([failing]).await;
    let mut decode = RawPod::start([Reply::new("", Then::Hold), good()]).await;
    let house = House::start(with(ConnectorName::Offloading, &[&prefill, &decode])).await;
    let answer = ask(&house, &plain()).await;
    assert_eq!((answer.status, told(&answer)), (StatusCode::OK, "split=leg-failed".to_owned()));
    let mut seen = Vec::new();
    while seen.last() != Some(&Seen::Request(plain().into_bytes())) {
        seen.push(decode.sees().await);
    }
    house.end().await;
}
