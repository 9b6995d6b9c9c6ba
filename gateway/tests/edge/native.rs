//! Paths that go to a pod as they are: uploads, WebSockets, small questions.

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use crate::support::House;
use crate::support::client::{Client, pieces, post, whole};
use crate::support::echo::Echo;
use crate::support::raw_pod::{RawPod, Reply, Seen, Then};
use crate::support::wire::Wire;

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
        assert!(reply.header("x-hearth-decision").starts_with("least-request;"));
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

#[tokio::test]
async fn a_websocket_passes_and_a_hangup_closes_it_at_the_pod() {
    let upgraded = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n\x81\x05hello";
    let mut pod = RawPod::start([Reply::new(&upgraded[..], Then::Hold)]).await;
    let house = House::over(&[pod.addr]).await;
    let mut wire = Wire::connect(house.addr).await;
    wire.send(
        b"GET /v1/realtime HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
          sec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n",
    )
    .await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!(answer.status, 101);
    assert!(answer.has("upgrade: websocket"), "{}", answer.head);
    assert_eq!(wire.take(7).await.as_deref(), Some(&b"\x81\x05hello"[..]));
    wire.socket.write_all(b"\x81\x00").await.expect("it is open");
    assert!(matches!(pod.sees().await, Seen::Request(_)));
    drop(wire);
    assert_eq!(pod.sees().await, Seen::Closed);
    house.end().await;
}
