//! What a client sees of a generation that breaks, and of a pod that dies under it.

use http::Method;
use http_body_util::BodyExt;
use loadtest::simulator::{Break, Fault, Simulator};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{client, fast, get, post, request, start, until_load};

/// How the bytes of a stream ended.
#[derive(Debug, PartialEq)]
enum End {
    /// With `[DONE]`, and maybe an error event before it.
    Done { error: bool },
    /// As a response should, but without `[DONE]`.
    Closed,
    /// The connection did.
    Cut,
}

fn body(stream: bool) -> Value {
    json!({
        "prompt": "Once upon a time there was a river that ran low in the summer and high in spring",
        "max_tokens": 8, "temperature": 0, "ignore_eos": true,
        "return_token_ids": true, "stream": stream,
        "stream_options": {"include_usage": true},
    })
}

/// Chunks with tokens, whether usage came, and the end.
async fn stream(pod: &Simulator) -> (usize, bool, End) {
    let request =
        request(Method::POST, format!("{}/v1/completions", pod.url()), body(true).to_string());
    let mut response = client().request(request).await.expect("a head");
    assert_eq!(response.status(), 200);
    let mut seen = Vec::new();
    let mut end = End::Closed;
    while let Some(frame) = response.frame().await {
        match frame {
            Ok(frame) => seen.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => end = End::Cut,
        }
    }
    let text = String::from_utf8(seen).expect("events are UTF-8");
    if text.ends_with("data: [DONE]\n\n") {
        end = End::Done { error: text.contains("data: {\"error\"") };
    }
    (text.matches("\"token_ids\":[").count(), text.contains("\"usage\""), end)
}

fn breaks(after_tokens: Option<usize>, how: Break) -> Fault {
    Fault::Break { after_tokens, how, times: Some(1) }
}

#[tokio::test]
async fn a_stream_breaks_where_it_is_told() {
    for (how, end) in [
        (Break::ErrorEvent, End::Done { error: true }),
        (Break::Close, End::Closed),
        (Break::Cut, End::Cut),
        (Break::Down, End::Cut),
        (Break::EngineDeath, End::Done { error: true }),
    ] {
        let pod = start(fast()).await;
        for after in [0, 1, 5] {
            pod.set_fault(Some(breaks(Some(after), how)));
            let (tokens, usage, ended) = stream(&pod).await;
            assert_eq!((tokens, usage, &ended), (after, false, &end), "{how:?} after {after}");
            pod.set_fault(None);
            // The listener of a pod that died opens again when its task next runs.
            while TcpStream::connect(pod.addr()).await.is_err() {}
            let sound = (8, true, End::Done { error: false });
            assert_eq!(stream(&pod).await, sound, "{how:?}: sound again");
        }
    }
}

#[tokio::test]
async fn a_stream_breaks_between_its_last_token_and_its_usage() {
    for (how, end) in [
        (Break::ErrorEvent, End::Done { error: true }),
        (Break::Close, End::Closed),
        (Break::Cut, End::Cut),
        (Break::Down, End::Cut),
    ] {
        let pod = start(fast()).await;
        pod.set_fault(Some(breaks(None, how)));
        assert_eq!(stream(&pod).await, (8, false, end), "{how:?}");
    }
}

#[tokio::test]
async fn an_answer_without_streaming_breaks_as_a_whole() {
    for (how, status) in [(Break::ErrorEvent, 500), (Break::EngineDeath, 500)] {
        let pod = start(fast()).await;
        pod.set_fault(Some(breaks(Some(3), how)));
        assert_eq!(post(&pod, "/v1/completions", &body(false)).await.status, status, "{how:?}");
    }
    for how in [Break::Cut, Break::Close, Break::Down] {
        let pod = start(fast()).await;
        pod.set_fault(Some(breaks(Some(3), how)));
        let url = format!("{}/v1/completions", pod.url());
        let request = request(Method::POST, url, body(false).to_string());
        let cut = match client().request(request).await {
            Ok(response) => response.into_body().collect().await.is_err(),
            Err(_) => true,
        };
        assert!(cut, "{how:?}");
    }
}

#[tokio::test]
async fn a_terminated_pod_refuses_new_connections_and_leaves_its_streams_silent() {
    let pod = start(fast()).await;
    pod.set_fault(Some(breaks(Some(2), Break::Freeze)));
    let request =
        request(Method::POST, format!("{}/v1/completions", pod.url()), body(true).to_string());
    let mut response = client().request(request).await.expect("a head");
    let first = response.frame().await.expect("a chunk").expect("a whole one");
    assert!(first.is_data());
    while TcpStream::connect(pod.addr()).await.is_ok() {}
    let mut rest = Box::pin(response.into_body().collect());
    let pinned = rest.as_mut();
    assert!(futures_util::FutureExt::now_or_never(pinned).is_none(), "neither data nor an end");
    // The process that comes after it knows nothing of its connections.
    pod.set_fault(None);
    assert!(rest.await.is_err());
    while TcpStream::connect(pod.addr()).await.is_err() {}
    assert_eq!((pod.in_flight(), pod.cached_keys().len()), (0, 0));
}

#[tokio::test]
async fn a_dead_engine_says_503_to_those_who_are_connected() {
    let pod = start(fast()).await;
    let http = client();
    let ask = |path: &str| request(Method::GET, format!("{}{path}", pod.url()), "");
    let health = http.request(ask("/health")).await.expect("an answer");
    assert_eq!(health.status(), 200);
    // Read to its end, so that the connection is used again.
    health.into_body().collect().await.expect("a whole body");
    pod.set_fault(Some(Fault::EngineDeath { for_ms: None }));
    // The library may not have noticed that the connection is free, and then is refused.
    if let Ok(health) = http.request(ask("/health")).await {
        assert_eq!(health.status(), 503);
    }
    pod.set_fault(None);
    while TcpStream::connect(pod.addr()).await.is_err() {}
    assert_eq!(get(&pod, "/health").await.status, 200);
}

#[tokio::test]
async fn a_paused_pod_is_healthy_takes_requests_and_goes_on_later() {
    let pod = start(fast()).await;
    pod.set_fault(Some(Fault::Pause));
    let both = async { tokio::join!(stream(&pod), stream(&pod)) };
    let resumed = async {
        until_load(&pod, 2).await;
        assert_eq!(get(&pod, "/health").await.status, 200);
        assert_eq!(pod.stats().generation_tokens, 0);
        pod.set_fault(None);
    };
    let (streams, ()) = tokio::join!(both, resumed);
    let sound = || (8, true, End::Done { error: false });
    assert_eq!(streams, (sound(), sound()));
}

#[tokio::test]
async fn a_stream_of_a_pod_that_is_paused_stands_still_and_goes_on() {
    let pod = start(fast()).await;
    pod.set_fault(Some(breaks(Some(2), Break::Pause)));
    let resumed = async {
        while !pod.is_still() {
            assert_eq!(get(&pod, "/health").await.status, 200);
        }
        pod.set_fault(None);
    };
    let (seen, ()) = tokio::join!(stream(&pod), resumed);
    assert_eq!(seen, (8, true, End::Done { error: false }));
}

#[tokio::test]
async fn a_pod_that_was_killed_comes_back_by_itself_as_another_engine() {
    let pod = start(fast()).await;
    post(&pod, "/v1/completions", &body(false)).await;
    assert!(!pod.cached_keys().is_empty());
    let set = json!({"fault": "down", "for_ms": 20});
    // Its answer goes down with it.
    let url = format!("{}/sim/fault", pod.url());
    drop(client().request(request(Method::POST, url, set.to_string())).await);
    while TcpStream::connect(pod.addr()).await.is_err() {}
    assert!(pod.cached_keys().is_empty());
    assert_eq!(post(&pod, "/v1/completions", &body(false)).await.status, 200);
}
