//! The end: said at once, polite to those who still come, patient with what runs.

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::net::TcpStream;

use crate::support::client::{Client, Reply as Answer, post as request, whole};
use crate::support::frames::{Frames, GOAWAY};
use crate::support::process::Process;
use crate::support::raw_pod::{RawPod, Reply, Seen, TOKEN, Then, stream};
use crate::support::wire::{Wire, post};
use crate::support::{House, within};

const STREAM: &str = r#"{"model":"tiny","prompt":"a","stream":true}"#;
const PLAIN: &str = r#"{"model":"tiny","prompt":"a"}"#;

/// A pod whose stream stays open until it is released, and then answers at once.
async fn one_stream() -> RawPod {
    RawPod::start([Reply::new(stream(&[TOKEN]), Then::Hold), Reply::whole("200 OK", "{}")]).await
}

#[tokio::test]
async fn stopping_closes_the_listener_and_cuts_what_runs() {
    for client in [Client::default(), Client::http2()] {
        let mut pod = one_stream().await;
        let house = House::over(&[pod.addr]).await;
        let mut running = client.open(request(house.addr, "/v1/completions", whole(STREAM))).await;
        assert!(matches!(pod.sees().await, Seen::Request(_)));
        assert!(running.frame().await.is_some_and(|frame| frame.is_ok()), "a token came");
        let mut idle = Wire::connect(house.addr).await;
        let (addr, router) = (house.addr, std::sync::Arc::clone(&house.app.router));
        within("it stops", house.app.stop()).await.expect("no task panicked");
        assert_eq!(pod.sees().await, Seen::Closed, "the pod may stop working");
        assert!(running.frame().await.is_none_or(|frame| frame.is_err()), "cut, not ended");
        assert!(idle.is_ended().await);
        assert!(TcpStream::connect(addr).await.is_err(), "nobody listens");
        assert_eq!(router.bookings().totals().requests, 0);
    }
}

#[tokio::test]
async fn while_it_lingers_it_serves_and_closes_and_a_second_signal_ends_it() {
    let mut pod = one_stream().await;
    let mut hearth = Process::serve(&[pod.addr], &["--drain-linger", "1h"]).await;
    let mut idle = Wire::connect(hearth.addr).await;
    idle.send(&post("/v1/nowhere", "")).await;
    assert_eq!(idle.answer().await.expect("an answer").status, 404);
    let running = request(hearth.addr, "/v1/completions", whole(STREAM));
    let mut running = hearth.client.open(running).await;
    assert!(matches!(pod.sees().await, Seen::Request(_)));

    hearth.signal("TERM");
    within("it is not ready any more", async { while hearth.readyz().await == 200 {} }).await;
    for mut wire in [idle, Wire::connect(hearth.addr).await] {
        wire.send(&post("/v1/completions", PLAIN)).await;
        let answer = wire.answer().await.expect("it still serves");
        assert_eq!(answer.status, 200);
        assert!(answer.has("connection: close"), "{}", answer.head);
        assert!(wire.is_ended().await);
    }

    hearth.signal("TERM");
    assert_eq!(hearth.ended().await.code(), Some(1), "a request was cut");
    while let Some(Ok(_)) = running.frame().await {}
    let closed = async { while pod.sees().await != Seen::Closed {} };
    within("the pod's socket closes", closed).await;
}

#[tokio::test]
async fn after_the_linger_new_requests_are_refused_and_the_running_stream_ends_whole() {
    let mut pod = one_stream().await;
    let mut hearth = Process::serve(&[pod.addr], &["--drain-linger", "1ms"]).await;
    let running = request(hearth.addr, "/v1/completions", whole(STREAM));
    let running = hearth.client.open(running).await;
    assert!(matches!(pod.sees().await, Seen::Request(_)));

    hearth.signal("TERM");
    let refused = async {
        loop {
            let mut wire = Wire::connect(hearth.addr).await;
            wire.send(&post("/v1/completions", PLAIN)).await;
            let answer = wire.answer().await.expect("an answer");
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let answer = within("a refusal", refused).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "draining"));
    assert!(answer.has("connection: close") && answer.has("retry-after: 1"), "{}", answer.head);

    pod.release();
    let whole = Answer::of(running).await;
    assert_eq!(whole.status, StatusCode::OK);
    assert_eq!(whole.events(), [TOKEN, "[DONE]"]);
    assert_eq!(hearth.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_interrupt_does_not_linger() {
    let pod = one_stream().await;
    let mut hearth = Process::serve(&[pod.addr], &["--drain-linger", "1h"]).await;
    let _idle = Wire::connect(hearth.addr).await;
    hearth.signal("INT");
    assert_eq!(hearth.ended().await.code(), Some(0));
}

#[tokio::test]
async fn streams_that_outlast_the_limit_are_told_so_and_logged() {
    for client in [Client::default(), Client::http2()] {
        let mut pod = one_stream().await;
        let flags = ["--drain-linger", "1ms", "--drain-limit", "1ms"];
        let mut hearth = Process::serve(&[pod.addr], &flags).await;
        let running = client.open(request(hearth.addr, "/v1/completions", whole(STREAM))).await;
        assert!(matches!(pod.sees().await, Seen::Request(_)));
        hearth.signal("TERM");
        let cut = Answer::of(running).await;
        let events = cut.events();
        assert_eq!((events.len(), events[0]), (2, TOKEN), "{events:?}");
        let last: serde_json::Value = serde_json::from_str(events[1]).expect("JSON");
        assert_eq!(last["error"]["code"], "drain_cut");
        assert_eq!(hearth.ended().await.code(), Some(1));
        assert_eq!(pod.sees().await, Seen::Closed);
        let lines = hearth.requests("/v1/completions");
        assert_eq!((lines.len(), &lines[0]["error"]), (1, &"drain_cut".into()));
        let warning = |line: &&str| line.contains("WARN") && line.contains("limit_reached");
        assert!(hearth.said().lines().any(|line| warning(&line)), "{}", hearth.said());
    }
}

#[tokio::test]
async fn idle_connections_are_sent_away() {
    let pod = one_stream().await;
    let mut hearth = Process::serve(&[pod.addr], &["--drain-linger", "1s"]).await;
    let mut running = Frames::connect(hearth.addr).await;
    let mut http1 = Wire::connect(hearth.addr).await;
    http1.send(&post("/v1/nowhere", "")).await;
    assert_eq!(http1.answer().await.expect("an answer").status, 404);
    // What keeps the process alive beyond the linger.
    let stream = request(hearth.addr, "/v1/completions", whole(STREAM));
    let stream = hearth.client.open(stream).await;

    hearth.signal("TERM");
    let said = async { while running.next().await.expect("it is told").kind != GOAWAY {} };
    within("an idle HTTP/2 connection is told to go", said).await;
    assert!(http1.is_ended().await, "HTTP/1.1 is closed at the end of the linger");
    pod.release();
    assert_eq!(Answer::of(stream).await.events(), [TOKEN, "[DONE]"]);
    assert_eq!(hearth.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_hangup_ends_nothing() {
    let pod = RawPod::start([Reply::whole("200 OK", "{}")]).await;
    let mut hearth = Process::serve(&[pod.addr], &[]).await;
    hearth.signal("HUP");
    within("it says so", async {
        while !hearth.said().contains("SIGHUP") {
            hearth.readyz().await;
        }
    })
    .await;
    let mut wire = Wire::connect(hearth.addr).await;
    wire.send(&post("/v1/completions", PLAIN)).await;
    assert_eq!(wire.answer().await.expect("it serves").status, 200);
    hearth.signal("TERM");
    drop(wire);
    hearth.signal("INT");
    assert_eq!(hearth.ended().await.code(), Some(0), "nothing was cut");
}
