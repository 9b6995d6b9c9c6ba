//! A client that goes away, or does not read, holds no pod.

use gateway::config::ByteSize;
use http::Method;
use http_body_util::BodyExt;
use loadtest::simulator::Simulator;
use serde_json::json;

use crate::support::client::{Client, post as request, whole};
use crate::support::raw_pod::{RawPod, Reply, Seen, TOKEN, Then, stream};
use crate::support::wire::{Wire, post};
use crate::support::{House, config, frozen_pod, ms, simulate, within};

const STREAM: &str = r#"{"model":"tiny","prompt":"a","stream":true}"#;
const PLAIN: &str = r#"{"model":"tiny","prompt":"a"}"#;

/// Waits until the pod works on so many requests. Its own page is asked, so each round is a round
/// trip.
async fn until_load(house: &House, pod: &Simulator, load: usize) {
    let reached = async {
        while pod.in_flight() != load {
            house.client.send(pod.addr(), Method::GET, "/load", "").await;
        }
    };
    within("the pod's load", reached).await;
}

#[tokio::test]
async fn a_hangup_before_the_first_byte_aborts_the_pods_work() {
    let pod = simulate(frozen_pod()).await;
    let house = House::over(&[pod.addr()]).await;
    for body in [STREAM, PLAIN] {
        let mut wire = Wire::connect(house.addr).await;
        wire.send(&post("/v1/completions", body)).await;
        until_load(&house, &pod, 1).await;
        assert_eq!(house.app.router.bookings().totals().requests, 1);
        drop(wire);
        until_load(&house, &pod, 0).await;
        house.at_rest().await;
    }
    assert_eq!(pod.stats().aborted, 2);
    assert_eq!(house.metric("hearth_client_gone_total").await, 2);
    house.end().await;
}

#[tokio::test]
async fn a_reset_stream_of_http2_before_the_first_byte_aborts_the_pods_work() {
    let pod = simulate(frozen_pod()).await;
    let house = House::over(&[pod.addr()]).await;
    let http2 = Client::http2();
    for body in [STREAM, PLAIN] {
        let asked = http2.open(request(house.addr, "/v1/completions", whole(body)));
        tokio::select! {
            _ = asked => panic!("there is no answer to come"),
            () = until_load(&house, &pod, 1) => {}
        }
        until_load(&house, &pod, 0).await;
        house.at_rest().await;
    }
    assert_eq!(pod.stats().aborted, 2);
    house.end().await;
}

#[tokio::test]
async fn a_hangup_in_the_middle_closes_the_pods_socket() {
    let mut pod = RawPod::start([Reply::new(stream(&[TOKEN]), Then::Hold)]).await;
    let house = House::over(&[pod.addr]).await;
    let http2 = Client::http2();
    for client in [&Client::default(), &http2] {
        let mut answer = client.open(request(house.addr, "/v1/completions", whole(STREAM))).await;
        assert!(matches!(pod.sees().await, Seen::Request(_)));
        let first = within("a first event", answer.frame()).await;
        assert!(first.is_some_and(|frame| frame.is_ok()), "the token came through");
        drop(answer);
        assert_eq!(pod.sees().await, Seen::Closed);
        house.at_rest().await;
        let why = house.client.send(house.app.admin_addr, Method::GET, "/why", "").await.json();
        assert_eq!(why[0]["came"]["outcome"], "client_gone", "though its status was 200");
    }
    house.end().await;
}

#[tokio::test]
async fn a_hangup_in_the_middle_of_a_plain_answer_closes_the_pods_socket() {
    // More than is held.
    let part = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\
        \r\n7d0\r\n{}\r\n",
        "{".repeat(2000)
    );
    let mut pod = RawPod::start([Reply::new(part, Then::Hold)]).await;
    let mut config = config(&[pod.addr]);
    config.survive.hold = ByteSize::from_kib(1);
    let house = House::start(config).await;
    let mut wire = Wire::connect(house.addr).await;
    wire.send(&post("/v1/completions", PLAIN)).await;
    assert!(matches!(pod.sees().await, Seen::Request(_)));
    assert!(wire.more().await, "the beginning came through");
    drop(wire);
    assert_eq!(pod.sees().await, Seen::Closed);
    house.end().await;
}

#[tokio::test]
async fn a_hangup_while_the_head_is_awaited_closes_the_pods_socket() {
    let mut pod = RawPod::start([Reply::new("", Then::Hold)]).await;
    let house = House::over(&[pod.addr]).await;
    let mut wire = Wire::connect(house.addr).await;
    wire.send(&post("/v1/completions", PLAIN)).await;
    assert!(matches!(pod.sees().await, Seen::Request(_)));
    drop(wire);
    assert_eq!(pod.sees().await, Seen::Closed);
    house.end().await;
}

#[tokio::test]
async fn a_reader_that_stops_is_cut_and_holds_no_pod() {
    // More than all buffers between pod and client hold.
    let long = crate::support::raw_pod::whole("200 OK", &"x".repeat(64 << 20));
    for reply in [Reply::new(stream(&[TOKEN]), Then::Flood), Reply::new(long, Then::Hold)] {
        let mut pod = RawPod::start([reply]).await;
        let mut config = config(&[pod.addr]);
        config.deadlines.client_write = ms(300);
        let house = House::start(config).await;

        let mut wire = Wire::connect(house.addr).await;
        wire.send(&post("/v1/completions", STREAM)).await;
        assert!(matches!(pod.sees().await, Seen::Request(_)));
        assert_eq!(pod.sees().await, Seen::Closed, "HTTP/1.1");
        house.at_rest().await;
        drop(wire);

        let http2 = Client::http2();
        let unread = http2.open(request(house.addr, "/v1/completions", whole(STREAM))).await;
        assert!(matches!(pod.sees().await, Seen::Request(_)));
        assert_eq!(pod.sees().await, Seen::Closed, "HTTP/2");
        house.at_rest().await;
        drop(unread);
        let slow = r#"hearth_errors_total{reason="client_slow"}"#;
        assert_eq!(house.metric(slow).await, 2);
        assert_eq!(house.metric("hearth_client_gone_total").await, 0, "nobody hung up");
        let why = house.client.send(house.app.admin_addr, Method::GET, "/why", "").await.json();
        assert_eq!(why[0]["came"]["outcome"], "client_slow");
        house.end().await;
    }
}

#[tokio::test]
async fn a_second_request_on_the_connection_is_not_a_hangup() {
    let pod = simulate({
        let mut config = crate::support::fast_pod();
        config.engine.decode_ms = 5.0;
        config
    })
    .await;
    let house = House::over(&[pod.addr()]).await;
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 20, "ignore_eos": true});
    let mut wire = Wire::connect(house.addr).await;
    wire.send(&post("/v1/completions", &body.to_string())).await;
    until_load(&house, &pod, 1).await;
    wire.send(&post("/v1/completions", &body.to_string())).await;
    let answer = wire.answer().await.expect("the first is answered");
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok(), "and whole");
    assert_eq!(pod.stats().aborted, 0);
    house.end().await;
}
