//! Every fault shows, and clears.

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use loadtest::simulator::{Fault, Fleet};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{client, fast, get, post, read, request, start};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: pod\r\n\r\n";

#[tokio::test]
async fn a_refusing_pod_has_no_listener_and_gets_its_port_back() {
    let pod = start(fast()).await;
    pod.set_fault(Some(Fault::Refuse { for_ms: None }));
    // The listener closes when its task next runs; connections before that were accepted.
    while TcpStream::connect(pod.addr()).await.is_ok() {}
    pod.set_fault(None);
    while TcpStream::connect(pod.addr()).await.is_err() {}
    assert_eq!(get(&pod, "/health").await.status, 200);
}

#[tokio::test]
async fn a_refusal_ends_by_itself_when_told_to() {
    let pod = start(fast()).await;
    pod.set_fault(Some(Fault::Refuse { for_ms: Some(20) }));
    while TcpStream::connect(pod.addr()).await.is_ok() {}
    while TcpStream::connect(pod.addr()).await.is_err() {}
}

#[tokio::test]
async fn a_reset_comes_after_exactly_the_bytes_asked() {
    let pod = start(fast()).await;
    pod.set_fault(Some(Fault::Reset { after_bytes: 10 }));
    let mut socket = TcpStream::connect(pod.addr()).await.expect("connects");
    socket.write_all(HEALTH).await.expect("writes");
    let mut seen = Vec::new();
    let error = socket.read_to_end(&mut seen).await.expect_err("a reset, not an end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(b"HTTP/1.1 200 OK".starts_with(&seen), "{seen:?}");
    assert!(seen.len() <= 10);
}

#[tokio::test]
async fn a_stalled_stream_goes_on_when_the_fault_is_cleared() {
    let pod = start(fast()).await;
    pod.set_fault(Some(Fault::Stall { after_bytes: 12 }));
    let mut socket = TcpStream::connect(pod.addr()).await.expect("connects");
    socket.write_all(HEALTH).await.expect("writes");
    let mut first = [0; 12];
    socket.read_exact(&mut first).await.expect("the first 12 bytes come");
    assert_eq!(&first, b"HTTP/1.1 200");
    pod.set_fault(None);
    let mut rest = [0; 3];
    socket.read_exact(&mut rest).await.expect("the rest comes");
    assert_eq!(&rest, b" OK");
}

#[tokio::test]
async fn a_draining_pod_refuses_new_requests_with_vllms_500_but_looks_healthy() {
    let pod = start(fast()).await;
    pod.set_fault(Some(Fault::Status { status: 500, times: Some(1) }));
    let body = json!({"prompt": "a", "max_tokens": 1});
    let answer = post(&pod, "/v1/completions", &body).await;
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.body,
        r#"{"error":{"message":"cannot schedule new futures after shutdown","type":"InternalServerError","param":null,"code":500}}"#
    );
    assert_eq!(get(&pod, "/health").await.status, 200);
    assert_eq!(post(&pod, "/v1/completions", &body).await.status, 200, "only once");
}

#[tokio::test]
async fn a_full_queue_is_503_before_any_stream() {
    let mut config = fast();
    config.engine.max_num_queued_reqs = Some(0);
    let pod = start(config).await;
    let body = json!({"prompt": "a", "stream": true});
    let answer = post(&pod, "/v1/completions", &body).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["type"], "Service Unavailable");
}

#[tokio::test]
async fn faults_are_set_and_cleared_over_http() {
    let pod = start(fast()).await;
    let set = json!({"fault": "wrong_model"});
    assert_eq!(post(&pod, "/sim/fault", &set).await.status, StatusCode::NO_CONTENT);
    assert_eq!(get(&pod, "/v1/models").await.json()["data"][0]["id"], "another/model");
    let body = json!({"model": "tiny", "prompt": "a"});
    assert_eq!(post(&pod, "/v1/completions", &body).await.status, 404);
    let clear = request(Method::DELETE, format!("{}/sim/fault", pod.url()), "");
    read(client().request(clear).await.expect("an answer")).await;
    assert_eq!(get(&pod, "/v1/models").await.json()["data"][0]["id"], "tiny");
    let nonsense = json!({"fault": "gremlins"});
    assert_eq!(post(&pod, "/sim/fault", &nonsense).await.status, 400);
}

#[tokio::test]
async fn a_pod_that_exits_cuts_its_streams_and_is_gone_while_the_others_live() {
    let mut config = fast();
    config.engine.prefill_tokens_per_s = 0.001;
    let fleet = Fleet::start(2, config).await.expect("two free ports");
    let (dying, living) = (&fleet.pods()[0], &fleet.pods()[1]);
    let body = json!({"prompt": "a", "stream": true}).to_string();
    let request = request(Method::POST, format!("{}/v1/completions", dying.url()), body);
    let mut response = client().request(request).await.expect("a head");
    dying.set_fault(Some(Fault::Exit));
    dying.exited().await;
    let end = response.frame().await;
    assert!(end.is_none_or(|frame| frame.is_err()), "cut");
    while TcpStream::connect(dying.addr()).await.is_ok() {}
    assert_eq!(get(living, "/health").await.status, 200);
    fleet.shutdown().await;
}
