//! No log tells what a client said in confidence, however much it is asked to tell.

use http::HeaderValue;

use crate::support::at_rest;
use crate::support::client::{Client, post, whole};
use crate::support::echo::Echo;
use crate::support::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, block, request};
use crate::support::process::Process;
use crate::support::wire::Wire;

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
