//! Paths that go to a pod as they are: uploads, WebSockets, small questions.

use bytes::Bytes;
use http::{Method, StatusCode};
use loadtest::simulator;
use tokio::io::AsyncWriteExt;

use crate::support::client::{Client, pieces, post, whole};
use crate::support::echo::Echo;
use crate::support::raw_pod::{RawPod, Reply, Seen, Then};
use crate::support::wire::{Answer, Wire};
use crate::support::{House, config, fast_pod, ms, simulate};

const AUDIO: &str = "/v1/audio/transcriptions?x=%20y";

#[tokio::test]
async fn an_upload_arrives_to_the_byte_and_its_headers_are_cleaned() {
    let echo = Echo::start().await;
    let house = House::over(&[echo.addr]).await;
    let audio: Bytes = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let http2 = Client::http2();
    for (client, body) in [
        (&house.client, whole(audio.clone())),
        (&house.client, pieces(&audio, 100_000)),
        (&http2, whole(audio.clone())),
        (&http2, pieces(&audio, 100_000)),
    ] {
        let mut request = post(house.addr, AUDIO, body);
        for (name, value) in [("x-envoy-a", "b"), ("x-data-parallel-rank", "1"), ("te", "trailers")]
        {
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
        let reply = client.request(request).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(reply.body == audio, "{} bytes came back", reply.body.len());
        assert_eq!(reply.header("x-upstream-host"), echo.addr.to_string());
        assert_eq!(reply.header("x-hearth-decision"), "none");
        let head = echo.last_head();
        assert_eq!(head.uri.to_string(), AUDIO);
        let steered = head.headers.keys().any(|it| it.as_str().starts_with("x-envoy-"));
        assert!(!steered && !head.headers.contains_key("x-data-parallel-rank"));
        assert_eq!(head.headers["x-request-id"], reply.header("x-request-id"));
    }
    house.end().await;
}

#[tokio::test]
async fn a_pod_that_is_gone_is_passed_over() {
    let (echo, gone) = (Echo::start().await, Echo::start().await);
    let house = House::over(&[echo.addr, gone.addr]).await;
    drop(gone);
    for _ in 0..4 {
        let reply = house.client.send(house.addr, Method::POST, AUDIO, "audio").await;
        assert_eq!((reply.status, reply.text()), (StatusCode::OK, "audio"));
    }
    house.end().await;
}

/// A pod's side of a WebSocket, and its first message.
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n\x81\x05hello";

/// Asks for a WebSocket.
async fn websocket(house: &House) -> (Wire, Answer) {
    let mut wire = Wire::connect(house.addr).await;
    wire.send(
        b"GET /v1/realtime HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
          sec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n",
    )
    .await;
    let answer = wire.answer().await.expect("an answer");
    (wire, answer)
}

#[tokio::test]
async fn a_websocket_whose_pod_fails_or_falls_silent_ends_without_a_word_of_ours() {
    for then in [Then::Close, Then::Reset, Then::Hold] {
        let pod = RawPod::start([Reply::new(UPGRADED, then)]).await;
        let mut settings = config(&[pod.addr]);
        settings.deadlines.websocket_idle = ms(200);
        let house = House::start(settings).await;
        let (mut wire, answer) = websocket(&house).await;
        assert_eq!(answer.status, 101);
        assert_eq!(wire.take(7).await.as_deref(), Some(&b"\x81\x05hello"[..]));
        assert!(wire.is_ended().await, "{then:?}: nothing comes after it");
        house.at_rest().await;
        let cut = house.metric("hearth_errors_total{reason=\"upstream_cut\"").await;
        assert_eq!(cut, i64::from(then != Then::Close), "{then:?}");
        house.end().await;
    }
}

#[tokio::test]
async fn a_websocket_passes_and_a_hangup_closes_it_at_the_pod() {
    let mut pod = RawPod::start([Reply::new(UPGRADED, Then::Hold)]).await;
    let house = House::over(&[pod.addr]).await;
    let (mut wire, answer) = websocket(&house).await;
    assert_eq!(answer.status, 101);
    assert!(answer.has("upgrade: websocket"), "{}", answer.head);
    assert_eq!(wire.take(7).await.as_deref(), Some(&b"\x81\x05hello"[..]));
    wire.socket.write_all(b"\x81\x00").await.expect("it is open");
    assert!(matches!(pod.sees().await, Seen::Request(_)));
    drop(wire);
    assert_eq!(pod.sees().await, Seen::Closed);
    house.end().await;
}

#[tokio::test]
async fn a_body_with_a_websockets_head_is_read_under_the_cap_of_all_others() {
    let mut pod = RawPod::start([Reply::new(UPGRADED, Then::Hold)]).await;
    let mut settings = config(&[pod.addr]);
    settings.limits.body = "1KiB".parse().expect("a size");
    let house = House::start(settings).await;
    for framing in ["content-length: 4096", "transfer-encoding: chunked"] {
        let mut wire = Wire::connect(house.addr).await;
        let head = format!(
            "POST {AUDIO} HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n{framing}\r\n\r\n"
        );
        let body = if framing.ends_with("chunked") { "1000\r\n" } else { "" };
        wire.send(&[head.as_bytes(), body.as_bytes(), &[b'x'; 4096], b"\r\n0\r\n\r\n"].concat())
            .await;
        let answer = wire.answer().await.expect("it is refused");
        assert!([400, 413].contains(&answer.status), "{framing}: {}", answer.head);
    }
    assert_eq!(pod.unseen(), 0, "no pod got any of it");
    house.end().await;
}

/// A form with a file and then its model.
pub(crate) fn form(
    addr: std::net::SocketAddr,
    model: &str,
) -> http::Request<crate::support::client::Body> {
    let body = format!(
        "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF\r\n\
         --b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b--\r\n"
    );
    let mut request = post(addr, AUDIO, whole(body));
    let form = "multipart/form-data; boundary=b".parse().expect("a value");
    request.headers_mut().insert("content-type", form);
    request
}

#[tokio::test]
async fn only_pods_that_serve_the_model_get_its_requests() {
    let tiny = simulate(fast_pod()).await;
    let other = simulator::Config { model: "other".to_owned(), ..fast_pod() };
    let other = simulate(other).await;
    let house = House::over(&[tiny.addr(), other.addr()]).await;
    for _ in 0..3 {
        for (model, pod) in [("tiny", tiny.addr()), ("other", other.addr())] {
            let reply = house.client.request(form(house.addr, model)).await;
            assert_eq!(reply.header("x-upstream-host"), pod.to_string(), "a form's {model}");
            let mut wire = Wire::connect(house.addr).await;
            let head = format!(
                "GET /v1/realtime?model={model} HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\n\
                 upgrade: websocket\r\n\r\n"
            );
            wire.send(head.as_bytes()).await;
            let answer = wire.answer().await.expect("an answer");
            assert!(answer.has(&format!("x-upstream-host: {pod}")), "{}", answer.head);
        }
    }
    let unknown = house.client.request(form(house.addr, "nobodys")).await;
    assert_eq!(unknown.refusal(), (404, "model_not_found".to_owned()));
    house.end().await;
}

#[tokio::test]
async fn failures_before_the_first_byte_move_on_and_later_ones_do_not() {
    let failing = RawPod::start([Reply::new("", Then::Reset)]).await;
    let good = RawPod::start([Reply::whole("200 OK", "{}")]).await;
    let mut settings = config(&[failing.addr, good.addr]);
    settings.pool.health.failed_requests = 1000;
    let house = House::start(settings).await;
    for _ in 0..4 {
        assert_eq!(house.get("/v1/responses/x").await.status, StatusCode::OK);
        let reply = house.client.send(house.addr, Method::POST, AUDIO, "audio").await;
        assert_eq!((reply.status, reply.text()), (StatusCode::OK, "{}"));
    }
    assert!(house.metric("hearth_retries_total{reason=\"reset\"}").await > 0);
    house.end().await;
}

#[tokio::test]
async fn caps_and_deadlines_are_those_of_all_requests() {
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
    let pod = RawPod::start([Reply::new(part, Then::Hold)]).await;
    let mut settings = config(&[pod.addr]);
    settings.deadlines.between_bytes = ms(100);
    settings.deadlines.request_body = ms(300);
    let house = House::start(settings).await;
    let mut wire = Wire::connect(house.addr).await;
    wire.send(b"GET /v1/responses/x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(wire.answer().await.is_none(), "a silent pod's answer is cut");
    for (length, status, code) in [(9, 408, "body_too_slow"), (99_999_999, 413, "body_too_large")] {
        let mut wire = Wire::connect(house.addr).await;
        let head = format!("POST {AUDIO} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
        wire.send(head.as_bytes()).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
    house.end().await;
}
