//! HTTP/2 that no library would send.

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, request,
};
use crate::support::siege::Siege;

const GOOD: &str = r#"{"model":"tiny","prompt":"a","max_tokens":1}"#;

/// What may come of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// An answer with this status.
    Answer(u16),
    /// The stream is reset, or the connection ended: malformed by RFC 9113.
    Broken,
}

use Fate::{Answer, Broken};

fn fate(outcome: Option<&Frame>) -> Fate {
    match outcome {
        Some(frame) if frame.kind == HEADERS => Answer(frame.status().unwrap_or(0)),
        _ => Broken,
    }
}

/// Sends one request; its body, if any, in one frame.
async fn ask(siege: &Siege, fields: &[(&str, &str)], body: Option<&str>) -> Fate {
    let mut frames = Frames::connect(siege.addr()).await;
    let end = if body.is_none() { END_STREAM } else { 0 };
    frames.send(HEADERS, END_HEADERS | end, 1, &block(fields)).await;
    if let Some(body) = body {
        frames.send(DATA, END_STREAM, 1, body.as_bytes()).await;
    }
    fate(frames.outcome(1).await.as_ref())
}

type Row = (&'static str, Vec<(&'static str, &'static str)>, Option<&'static str>, Fate);

fn post(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    request("POST", "/v1/completions", &[&[JSON], more].concat())
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    post(&[]).into_iter().filter(|field| field.0 != name).collect()
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn lengths_and_fields() -> Vec<Row> {
    vec![
        ("a good one", post(&[]), Some(GOOD), Answer(200)),
        ("a good length", post(&[("content-length", "44")]), Some(GOOD), Answer(200)),
        ("a length too short", post(&[("content-length", "43")]), Some(GOOD), Broken),
        ("a length too long", post(&[("content-length", "45")]), Some(GOOD), Broken),
        (
            "two lengths",
            post(&[("content-length", "44"), ("content-length", "4")]),
            Some(GOOD),
            Broken,
        ),
        (
            "a length twice",
            post(&[("content-length", "44"), ("content-length", "44")]),
            Some(GOOD),
            Answer(400),
        ),
        ("a signed length", post(&[("content-length", "+44")]), Some(GOOD), Broken),
        ("200 MB", post(&[("content-length", "200000000")]), None, Broken),
        ("transfer-encoding", post(&[("transfer-encoding", "chunked")]), Some(GOOD), Broken),
        ("connection", post(&[("connection", "close")]), Some(GOOD), Broken),
        ("te: gzip", post(&[("te", "gzip")]), Some(GOOD), Broken),
        ("an upper-case name", post(&[("X-A", "b")]), Some(GOOD), Broken),
        ("a space in a name", post(&[("x a", "b")]), Some(GOOD), Broken),
        ("CR LF in a value", post(&[("x-a", "b\r\nc: d")]), Some(GOOD), Broken),
        ("NUL in a value", post(&[("x-a", "b\0c")]), Some(GOOD), Broken),
    ]
}

fn pseudo_fields() -> Vec<Row> {
    vec![
        ("an unknown pseudo field", post(&[(":a", "b")]), Some(GOOD), Broken),
        ("a second path", post(&[(":path", "/sleep")]), Some(GOOD), Broken),
        (
            "a pseudo field after another",
            [("x-a", "b")].into_iter().chain(post(&[])).collect(),
            Some(GOOD),
            Broken,
        ),
        ("no method", without(":method"), Some(GOOD), Broken),
        ("no scheme", without(":scheme"), Some(GOOD), Broken),
        ("no path", without(":path"), Some(GOOD), Broken),
        ("no authority", without(":authority"), Some(GOOD), Answer(400)),
        ("two hosts", post(&[("host", "other")]), Some(GOOD), Answer(400)),
        ("the host twice", post(&[("host", "h"), ("host", "h")]), Some(GOOD), Answer(400)),
        (
            "a host and no authority",
            [without(":authority"), vec![("host", "h")]].concat(),
            Some(GOOD),
            Answer(200),
        ),
        ("an empty path", request("POST", "", &[]), Some(GOOD), Broken),
        ("a path that is none", request("POST", "v1/completions", &[]), Some(GOOD), Broken),
        ("an admin path", request("POST", "/v1/%6coad_lora_adapter", &[]), Some(GOOD), Answer(404)),
        ("CONNECT", request("CONNECT", "/", &[]), None, Broken),
        ("an empty body", post(&[]), Some(""), Answer(400)),
        ("no body", post(&[]), None, Answer(400)),
    ]
}

#[tokio::test]
async fn malformed_requests_are_refused_and_the_rest_is_served() {
    let siege = Siege::begin().await;
    for (name, fields, body, wanted) in lengths_and_fields().into_iter().chain(pseudo_fields()) {
        let seen = ask(&siege, &fields, body).await;
        if seen != wanted {
            siege.complain(format!("{name}: not {wanted:?} but {seen:?}"));
        }
        siege.still_serves(name).await;
    }
    siege.end().await;
}

/// The rest of an answer.
async fn body_of(frames: &mut Frames, stream: u32) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(frame) = frames.next().await {
        if frame.stream == stream && frame.kind == DATA {
            body.extend(frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
    }
    body
}

/// A refusal's status, and its code.
async fn refusal(frames: &mut Frames, stream: u32) -> (u16, String) {
    let head = frames.outcome(stream).await;
    let Answer(status) = fate(head.as_ref()) else { return (0, format!("{head:?}")) };
    let error: serde_json::Value =
        serde_json::from_slice(&body_of(frames, stream).await).expect("an error object");
    (status, error["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_early_refusal_ends_its_stream_and_not_the_others() {
    let siege = Siege::begin().await;
    let mut frames = Frames::connect(siege.addr()).await;
    let open =
        |more: &[(&'static str, &'static str)]| block(&request("POST", "/v1/completions", more));
    frames.send(HEADERS, END_HEADERS, 1, &open(&[("content-length", "200000000")])).await;
    assert_eq!(refusal(&mut frames, 1).await, (413, "body_too_large".to_owned()));
    // The rest of the refused body is dropped, whatever it looks like. It is not reset while it
    // still comes: curl would take that for a failure, whatever the answer said.
    frames.send(DATA, 0, 1, &[b'x'; 1000]).await;
    frames.send(PING, 0, 0, b"are you?").await;
    loop {
        let frame = frames.next().await.expect("the connection lives");
        assert!(frame.kind != RST_STREAM, "{frame:?}");
        if frame.kind == PING {
            break;
        }
    }
    frames.send(HEADERS, END_HEADERS, 3, &open(&[("content-type", "application/json")])).await;
    frames.send(DATA, END_STREAM, 3, GOOD.as_bytes()).await;
    let next = frames.outcome(3).await;
    assert_eq!(fate(next.as_ref()), Answer(200), "{next:?}");
    // A body that never ends holds nothing for longer than its deadline.
    frames.send(HEADERS, END_HEADERS, 5, &open(&[])).await;
    frames.send(DATA, 0, 5, b"{").await;
    assert_eq!(fate(frames.outcome(5).await.as_ref()), Answer(408));
    siege.end().await;
}

/// Sends until the gateway closes or `times` are sent; says whether it closed.
async fn flood(frames: &mut Frames, times: usize, mut next: impl FnMut(usize) -> Vec<u8>) -> bool {
    for turn in 0..times {
        if !frames.0.send(&next(turn)).await {
            return true;
        }
    }
    loop {
        match frames.next().await {
            None => return true,
            Some(frame) if frame.kind == GOAWAY => return true,
            // A ping comes back only when everything before it was read.
            Some(frame) if frame.kind == PING && frame.payload == *b"the end!" => return false,
            Some(_) => {}
        }
    }
}

/// The number of a client's n-th stream.
fn stream(turn: usize) -> u32 {
    u32::try_from(turn * 2 + 1).expect("few streams")
}

#[tokio::test]
async fn floods_are_survived_and_leave_nothing() {
    let siege = Siege::begin().await;
    let head = block(&request("POST", "/v1/completions", &[("content-type", "application/json")]));
    let cancel = 8_u32.to_be_bytes();

    let mut frames = Frames::connect(siege.addr()).await;
    let closed = flood(&mut frames, 20_000, |turn| {
        let stream = stream(turn);
        [frame(HEADERS, END_HEADERS, stream, &head), frame(RST_STREAM, 0, stream, &cancel)].concat()
    });
    assert!(closed.await, "rapid resets end the connection");
    siege.still_serves("rapid resets").await;

    let mut frames = Frames::connect(siege.addr()).await;
    frames.send(HEADERS, 0, 1, &head).await;
    let more = block(&[("x-a", &"b".repeat(16_000))]);
    let closed = flood(&mut frames, 10_000, |_| frame(CONTINUATION, 0, 1, &more)).await;
    assert!(closed, "endless continuations end the connection");
    siege.still_serves("endless continuations").await;

    let mut frames = Frames::connect(siege.addr()).await;
    frames.send(HEADERS, 0, 1, &head).await;
    let closed = flood(&mut frames, 100_000, |_| frame(CONTINUATION, 0, 1, &[])).await;
    assert!(closed, "empty continuations end the connection");
    siege.still_serves("empty continuations").await;

    for (name, kind, payload) in [
        ("settings", SETTINGS, &b""[..]),
        ("pings", PING, b"12345678"),
        ("window updates", WINDOW_UPDATE, &[0, 0, 0, 1]),
    ] {
        let mut frames = Frames::connect(siege.addr()).await;
        flood(&mut frames, 20_000, |turn| {
            let last = frame(PING, 0, 0, b"the end!");
            if turn == 19_999 { last } else { frame(kind, 0, 0, payload) }
        })
        .await;
        drop(frames);
        siege.still_serves(name).await;
    }

    let mut frames = Frames::connect(siege.addr()).await;
    frames.send(HEADERS, END_HEADERS, 1, &head).await;
    flood(&mut frames, 50_000, |turn| {
        let last = frame(PING, 0, 0, b"the end!");
        if turn == 49_999 { last } else { frame(DATA, 0, 1, &[]) }
    })
    .await;
    drop(frames);
    siege.still_serves("empty data").await;
    siege.end().await;
}

#[tokio::test]
async fn large_heads_many_streams_and_closed_windows_are_bounded() {
    let siege = Siege::begin().await;
    let mut frames = Frames::connect(siege.addr()).await;
    // Each 16,000 bytes: five frames are more than the 64 KiB that a head may have.
    let first = request("GET", "/v1/models", &[]);
    frames.send(HEADERS, END_STREAM, 1, &block(&first)).await;
    let more = block(&[("x-a", &"b".repeat(16_000))]);
    for turn in 0..5 {
        let end = if turn == 4 { END_HEADERS } else { 0 };
        frames.send(CONTINUATION, end, 1, &more).await;
    }
    assert_eq!(refusal(&mut frames, 1).await, (431, "head_too_large".to_owned()));
    let many = block(&vec![("x-a", "b"); 300]);
    let mut frames = Frames::connect(siege.addr()).await;
    frames.send(HEADERS, END_STREAM, 1, &block(&first)).await;
    frames.send(CONTINUATION, END_HEADERS, 1, &many).await;
    assert_eq!(refusal(&mut frames, 1).await, (431, "head_too_large".to_owned()));
    siege.still_serves("a large head").await;

    // A window of nothing: the answer cannot be sent, and is given up.
    let mut frames = Frames::connect(siege.addr()).await;
    let no_window = [0, 4, 0, 0, 0, 0];
    frames.send(SETTINGS, 0, 0, &no_window).await;
    let head = block(&request("POST", "/v1/completions", &[("content-type", "application/json")]));
    for turn in 0..50 {
        frames.send(HEADERS, END_HEADERS, stream(turn), &head).await;
        frames.send(DATA, END_STREAM, stream(turn), GOOD.as_bytes()).await;
    }
    crate::support::at_rest(&siege.hearth.client, siege.hearth.admin).await;
    siege.still_serves("closed windows").await;
    drop(frames);

    // More streams than are allowed: those beyond are refused, and no request hangs.
    let mut frames = Frames::connect(siege.addr()).await;
    for turn in 0..1000 {
        if !frames.send(HEADERS, END_HEADERS, stream(turn), &head).await {
            break;
        }
    }
    siege.still_serves("a thousand streams").await;
    drop(frames);
    siege.end().await;
}
