//! No log tells what a client said in confidence, however much it is asked to tell.

use http::HeaderValue;
use serde_json::Value;

use crate::support::client::{Client, post, whole};
use crate::support::echo::Echo;
use crate::support::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, block, request};
use crate::support::process::Process;
use crate::support::raw_pod::{RawPod, Reply, Then};
use crate::support::wire::Wire;
use crate::support::{at_rest, metric};

/// What must be in no line.
const SECRET: &str = "SEKRET2";

/// A head whose every confidential field says it.
fn head(first_line: &str) -> String {
    format!(
        "{first_line}\r\nhost: h\r\nauthorization: Bearer {SECRET}\r\nx-api-key: {SECRET}\r\n\
         cookie: session={SECRET}\r\nproxy-authorization: {SECRET}\r\n"
    )
}

/// One request of every kind.
async fn ask_everything(hearth: &Process) {
    let body = format!(r#"{{"model":"tiny","prompt":"{SECRET}"}}"#);
    let length = body.len();
    let mut wires = Vec::new();
    for (first_line, more) in [
        ("GET /v1/models HTTP/1.1", "\r\n".to_owned()),
        ("GET /v1/responses/x HTTP/1.1", "\r\n".to_owned()),
        ("GET /version HTTP/1.0", "\r\n".to_owned()),
        ("GET /nowhere HTTP/1.1", "\r\n".to_owned()),
        ("GET /v1/models HTTP/1.1", "bad field\r\n\r\n".to_owned()),
        ("POST /v1/completions HTTP/1.1", format!("content-length: {length}\r\n\r\n{body}")),
        (
            "POST /v1/audio/transcriptions HTTP/1.1",
            format!("content-length: {length}\r\n\r\n{body}"),
        ),
        ("POST /v1/completions HTTP/1.1", "content-length: 99999999999\r\n\r\n".to_owned()),
        (
            "GET /v1/realtime HTTP/1.1",
            "connection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(),
        ),
    ] {
        let mut wire = Wire::connect(hearth.addr).await;
        wire.send(format!("{}{more}", head(first_line)).as_bytes()).await;
        assert!(wire.answer().await.is_some(), "{first_line}");
        wires.push(wire);
    }
    let http2 = Client::http2();
    for path in ["/v1/completions", "/v1/audio/transcriptions", "/nowhere"] {
        let mut request = post(hearth.addr, path, whole(body.clone()));
        for name in ["authorization", "x-api-key", "cookie"] {
            request.headers_mut().insert(name, HeaderValue::from_static(SECRET));
        }
        http2.request(request).await;
    }
    let mut frames = Frames::connect(hearth.addr).await;
    let twice = request("GET", "/v1/models", &[("host", "other"), ("authorization", SECRET)]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&twice)).await;
    frames.outcome(1).await;
}

#[tokio::test]
async fn credentials_and_prompts_are_in_no_line_at_any_level() {
    for level in ["debug", "trace", "pingora_core=trace,h2=trace,debug"] {
        let echo = Echo::start().await;
        let mut hearth = Process::serve(&[echo.addr], &["--log-level", level]).await;
        ask_everything(&hearth).await;
        at_rest(&hearth.client, hearth.admin).await;
        hearth.signal("INT");
        hearth.ended().await;
        let said = hearth.said();
        assert!(!hearth.requests("/v1/completions").is_empty(), "the access log is there");
        let told: Vec<_> = said.lines().filter(|line| line.contains(SECRET)).collect();
        assert!(told.is_empty(), "{level}: {told:?}");
    }
}

#[tokio::test]
async fn a_refused_head_has_its_line_and_its_count_and_the_shape_of_its_path() {
    let echo = Echo::start().await;
    let mut hearth = Process::serve(&[echo.addr], &[]).await;
    let mut wire = Wire::connect(hearth.addr).await;
    wire.send(b"POST /v1/messages?a=b HTTP/1.1\r\nhost: h\r\ncontent-length: +2\r\n\r\n{}").await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!(answer.status, 400);
    let error: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        (&error["type"], &error["error"]["type"]),
        (&"error".into(), &"invalid_request_error".into())
    );
    let counted = metric(&hearth.client, hearth.admin, "hearth_requests_total{code=\"400\"").await;
    assert_eq!(counted, 1);
    hearth.signal("INT");
    hearth.ended().await;
    let lines = hearth.requests("/v1/messages");
    assert_eq!(lines.len(), 1, "{}", hearth.said());
    let line = &lines[0];
    assert_eq!(
        (&line["method"], &line["response_code"], &line["error"]),
        (&"POST".into(), &400.into(), &"bad_head".into())
    );
    assert!(answer.has(&format!("x-request-id: {}", line["request_id"].as_str().expect("an id"))));
    assert!(
        line["downstream_remote_address"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:"))
    );
}

#[tokio::test]
async fn the_line_of_a_slow_head_tells_how_long_it_took() {
    let pod = RawPod::start([Reply::whole("200 OK", "{}")]).await;
    let flags = ["--deadlines-request-head", "200ms"];
    let mut hearth = Process::serve(&[pod.addr], &flags).await;
    let mut wire = Wire::connect(hearth.addr).await;
    wire.send(b"POST /v1/messages HTTP/1.1\r\n").await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!(answer.status, 408);
    hearth.signal("INT");
    hearth.ended().await;
    let line = hearth.requests("/v1/messages").pop().expect("a line");
    assert_eq!(line["error"], "head_too_slow");
    assert!(line["duration"].as_u64() >= Some(200), "{line}");
}

#[tokio::test]
async fn a_line_tells_every_failed_attempt_and_no_debug_forms() {
    let failing = RawPod::start([Reply::new("", Then::Close)]).await;
    let pod_error = RawPod::start([Reply::whole("500 Internal Server Error", "{}")]).await;
    let flags = ["--routing-policy", "round-robin", "--pool-health-failed-requests", "1000"];
    let mut hearth = Process::serve(&[failing.addr, pod_error.addr], &flags).await;
    for _ in 0..4 {
        let body = whole(r#"{"model":"tiny","prompt":"a"}"#);
        hearth.client.request(post(hearth.addr, "/v1/completions", body)).await;
    }
    hearth.signal("TERM");
    hearth.signal("INT");
    hearth.ended().await;
    let lines = hearth.requests("/v1/completions");
    assert_eq!(lines.len(), 4);
    let missed =
        |pod: &RawPod, why| serde_json::json!({"pod": pod.addr.to_string(), "reason": why});
    let (reset, error) = (missed(&failing, "reset"), missed(&pod_error, "status_500"));
    // What a pod said is the best answer there is, whoever was asked after it. Whom the turns begin
    // with is not this test's to say.
    let ends = [
        ("pod_error", serde_json::json!([reset, error])),
        ("pod_error", serde_json::json!([error, reset])),
    ];
    let is_end = |line: &Value, (end, failed): &(&str, Value)| {
        line["error"] == *end && line["attempts_failed"] == *failed
    };
    assert!(lines.iter().all(|line| ends.iter().any(|end| is_end(line, end))), "{lines:?}");
    for debug in ["Some(", "None", "Terminate"] {
        assert!(!hearth.said().contains(debug), "{}", hearth.said());
    }
}

#[tokio::test]
async fn no_more_tokens_are_matched_than_the_pod_has_counted() {
    // Without a tokenizer the prompt is estimated at four bytes per token; the pod counts eight.
    let prompt = "a".repeat(3200);
    let answer = r#"{"choices":[],"usage":{"prompt_tokens":400,"completion_tokens":1}}"#;
    let answers = [Reply::whole("200 OK", "{}"), Reply::whole("200 OK", answer)];
    let pod = RawPod::start(answers).await;
    let mut hearth = Process::serve(&[pod.addr], &[]).await;
    for _ in 0..2 {
        let body = whole(format!(r#"{{"model":"tiny","prompt":"{prompt}"}}"#));
        hearth.client.request(post(hearth.addr, "/v1/completions", body)).await;
    }
    hearth.signal("INT");
    hearth.ended().await;
    let line = hearth.requests("/v1/completions").pop().expect("a line");
    let tokens = |key: &str| line[key].as_u64().expect("a number");
    assert_eq!(tokens("prompt_tokens"), 400);
    assert!((300..=400).contains(&tokens("matched_tokens")), "{line}");
}
