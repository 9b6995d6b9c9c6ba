//! A client that goes away leaves nothing behind.

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{client, fast, frozen, get, request, start, until_load};

#[tokio::test]
async fn the_head_of_a_stream_leaves_before_the_prefill_and_a_hangup_aborts_it() {
    let pod = start(frozen()).await;
    let body = json!({"prompt": "a", "stream": true}).to_string();
    let request = request(Method::POST, format!("{}/v1/completions", pod.url()), body);
    let response = client().request(request).await.expect("the head comes at once");
    assert_eq!(response.status(), 200);
    until_load(&pod, 1).await;
    drop(response);
    until_load(&pod, 0).await;
    assert_eq!(pod.stats().aborted, 1);
}

#[tokio::test]
async fn a_hangup_without_streaming_aborts_the_request() {
    let pod = start(frozen()).await;
    let mut socket = TcpStream::connect(pod.addr()).await.expect("connects");
    let body = r#"{"prompt":"a"}"#;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: pod\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.expect("writes");
    socket.write_all(body.as_bytes()).await.expect("writes");
    until_load(&pod, 1).await;
    drop(socket);
    until_load(&pod, 0).await;
    assert_eq!(pod.stats().aborted, 1);
}

#[tokio::test]
async fn a_half_close_aborts_too() {
    let pod = start(frozen()).await;
    let mut socket = TcpStream::connect(pod.addr()).await.expect("connects");
    let body = r#"{"prompt":"a","stream":true}"#;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: pod\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.expect("writes");
    socket.write_all(body.as_bytes()).await.expect("writes");
    until_load(&pod, 1).await;
    socket.shutdown().await.expect("half-closes");
    until_load(&pod, 0).await;
}

#[tokio::test]
async fn a_hangup_in_the_middle_of_an_answer_aborts_it() {
    let mut config = fast();
    config.engine.decode_ms = 1.0;
    let pod = start(config).await;
    let body = json!({"prompt": "a", "stream": true, "max_tokens": 8000, "ignore_eos": true});
    let request = request(Method::POST, format!("{}/v1/completions", pod.url()), body.to_string());
    let mut response = client().request(request).await.expect("a head");
    response.frame().await.expect("a first chunk").expect("a whole one");
    drop(response);
    until_load(&pod, 0).await;
    assert_eq!(pod.stats().aborted, 1);
    let generated = pod.stats().generation_tokens;
    assert!(generated < 8000, "it stopped early: {generated}");
}

#[tokio::test]
async fn shutting_down_ends_open_streams_and_returns() {
    let pod = start(frozen()).await;
    let body = json!({"prompt": "a", "stream": true}).to_string();
    let request = request(Method::POST, format!("{}/v1/completions", pod.url()), body);
    let mut response = client().request(request).await.expect("a head");
    assert_eq!(get(&pod, "/health").await.status, 200);
    pod.shutdown().await;
    let end = response.frame().await;
    assert!(end.is_none_or(|frame| frame.is_err()), "the stream is cut, not left hanging");
}
