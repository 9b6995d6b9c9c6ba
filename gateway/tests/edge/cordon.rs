//! Pods that are taken out by hand.

use http::{Method, StatusCode};

use crate::support::House;
use crate::support::client::{Reply as Answer, post, whole};
use crate::support::raw_pod::{RawPod, Reply, TOKEN, Then, stream};

const STREAM: &str = r#"{"model":"tiny","prompt":"a","stream":true}"#;
const PLAIN: &str = r#"{"model":"tiny","prompt":"a"}"#;

async fn set(house: &House, pod: &str, action: &str) -> StatusCode {
    let path = format!("/pool/{pod}/{action}");
    house.client.send(house.app.admin_addr, Method::POST, &path, "").await.status
}

#[tokio::test]
async fn new_requests_go_elsewhere_and_streams_end() {
    let held = || [Reply::new(stream(&[TOKEN]), Then::Hold)];
    let pods = [RawPod::start(held()).await, RawPod::start(held()).await];
    let house = House::over(&[pods[0].addr, pods[1].addr]).await;
    let running = house.client.open(post(house.addr, "/v1/completions", whole(STREAM))).await;
    let at = running.headers()["x-upstream-host"].to_str().expect("an address").to_owned();
    let is_there = |pod: &&RawPod| pod.addr.to_string() == at;
    let there = pods.iter().find(is_there).expect("one of the two");
    let other = pods.iter().find(|pod| !is_there(pod)).expect("one of the two").addr.to_string();
    for pod in &pods {
        pod.tell([Reply::whole("200 OK", "{}")]);
    }

    assert_eq!(set(&house, &at, "cordon").await, StatusCode::OK);
    for _ in 0..4 {
        let reply = house.post("/v1/completions", PLAIN).await;
        assert_eq!(reply.header("x-upstream-host"), other);
    }
    assert_eq!(house.metric("hearth_pod_cordoned").await, 1);
    there.release();
    let ended = Answer::of(running).await;
    assert!(ended.text().ends_with("data: [DONE]\n\n"), "{}", ended.text());

    assert_eq!(set(&house, &other, "cordon").await, StatusCode::OK);
    let nobody = house.post("/v1/completions", PLAIN).await;
    assert_eq!(nobody.refusal(), (503, "no_ready_pod".to_owned()));
    assert_eq!(set(&house, &at, "uncordon").await, StatusCode::OK);
    let reply = house.post("/v1/completions", PLAIN).await;
    assert_eq!(reply.header("x-upstream-host"), at);
    assert_eq!(set(&house, "nobody", "cordon").await, StatusCode::NOT_FOUND);
    house.end().await;
}
