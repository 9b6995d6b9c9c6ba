//! Chunked bodies that break their own framing.

use crate::support::siege::Fate::{Answer, Closed, Refused};
use crate::support::siege::{Fate, Siege};
use crate::support::wire::{Wire, post};

const GOOD: &str = r#"{"model":"tiny","prompt":"a","max_tokens":1}"#;
const BROKEN: Fate = Refused(400, "body_broken");

fn chunked(body: &str) -> Vec<u8> {
    let head = "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n\
        transfer-encoding: chunked\r\n\r\n";
    format!("{head}{body}").into_bytes()
}

fn rows() -> Vec<(&'static str, String, Fate)> {
    let good = format!("{:x}\r\n{GOOD}\r\n", GOOD.len());
    let size = format!("{:x}", GOOD.len());
    vec![
        ("a good body", format!("{good}0\r\n\r\n"), Answer(200)),
        ("leading zeros", format!("000{good}0\r\n\r\n"), Answer(200)),
        ("a chunk extension", format!("{size};a=b\r\n{GOOD}\r\n0\r\n\r\n"), Answer(200)),
        ("a trailer", format!("{good}0\r\nA: b\r\n\r\n"), Answer(200)),
        ("a size of 17 digits", format!("1000000000000000{size}\r\n{GOOD}\r\n0\r\n\r\n"), BROKEN),
        ("a size of 16 digits", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n".to_owned(), BROKEN),
        // It is waited for: the limit looks at what has come.
        ("a size of 2^63", "8000000000000000\r\nabc".to_owned(), Refused(408, "body_too_slow")),
        ("a negative size", format!("-{good}0\r\n\r\n"), BROKEN),
        ("a signed size", format!("+{good}0\r\n\r\n"), BROKEN),
        ("a size with 0x", format!("0x{good}0\r\n\r\n"), BROKEN),
        ("a space before the size", format!(" {good}0\r\n\r\n"), BROKEN),
        // Pingora's parser ends the body there.
        ("no size", format!("\r\n{GOOD}\r\n0\r\n\r\n"), Refused(400, "invalid_json")),
        ("a size that is none", format!("xyz\r\n{GOOD}\r\n0\r\n\r\n"), BROKEN),
        ("LF after the size", format!("{size}\n{GOOD}\r\n0\r\n\r\n"), BROKEN),
        ("LF after the data", format!("{size}\r\n{GOOD}\n0\r\n\r\n"), BROKEN),
        ("junk after the data", format!("{size}\r\n{GOOD}XX\r\n0\r\n\r\n"), BROKEN),
        ("junk instead of the line break", format!("{size}\r\n{GOOD}XX0\r\n\r\n"), BROKEN),
        ("no line break after the data", format!("{size}\r\n{GOOD}0\r\n\r\n"), BROKEN),
        (
            "an extension of 1 MiB",
            format!("{size};{}\r\n{GOOD}\r\n0\r\n\r\n", "x".repeat(1 << 20)),
            BROKEN,
        ),
        (
            "an extension with a line break",
            format!("{size};a=\"\n\"\r\n{GOOD}\r\n0\r\n\r\n"),
            Answer(200),
        ),
        ("trailers of 1 MiB", format!("{good}0\r\nA: {}\r\n\r\n", "b".repeat(1 << 20)), BROKEN),
        ("100,000 trailers", format!("{good}0\r\n{}\r\n", "A: b\r\n".repeat(100_000)), BROKEN),
        ("a trailer without a colon", format!("{good}0\r\nabc\r\n\r\n"), Answer(200)),
        ("a length in the trailers", format!("{good}0\r\nContent-Length: 9\r\n\r\n"), Answer(200)),
        (
            "guarded fields in chunks of a byte",
            r#"{"model":"tiny","prompt":"a","max_tokens":1,"kv_transfer_params":{}}"#
                .chars()
                .map(|c| format!("1\r\n{c}\r\n"))
                .collect::<String>()
                + "0\r\n\r\n",
            Answer(200),
        ),
    ]
}

#[tokio::test]
async fn a_body_that_breaks_its_framing_is_refused_and_nothing_of_it_is_a_request() {
    let siege = Siege::begin().await;
    for (name, body, fate) in rows() {
        siege.meets(name, &chunked(&body), fate).await;
        let smuggled = "GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n";
        let mut wire = Wire::connect(siege.addr()).await;
        wire.send(&chunked(&body)).await;
        wire.send(smuggled.as_bytes()).await;
        let first = wire.answer().await.map(|it| it.status);
        let second = wire.answer().await.map(|it| it.status);
        // A reset is an end too, and may come before the first answer is read.
        if second.is_some() || first.is_none() && matches!(fate, Answer(_)) {
            siege.complain(format!("{name}: {first:?}, then {second:?} for what is no request"));
        }
    }
    for request in siege.pod.requests() {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(
            request.method == "GET" || body == GOOD || body.ends_with("\"max_tokens\":1}"),
            "{body}"
        );
    }
    siege.end().await;
}

#[tokio::test]
async fn what_follows_a_request_is_another_one_or_nothing() {
    let siege = Siege::begin().await;
    let request = post("/v1/completions", GOOD);
    let mut wire = Wire::connect(siege.addr()).await;
    wire.send(&[&request[..], &request].concat()).await;
    assert_eq!(wire.answer().await.map(|it| it.status), Some(200), "the first is answered");
    let second = wire.answer().await.map(|it| it.status);
    assert!(matches!(second, Some(200) | None), "the second too, or the connection ends");

    let mut wire = Wire::connect(siege.addr()).await;
    wire.send(&[&request[..], b"\0\0\0\0"].concat()).await;
    assert_eq!(wire.answer().await.map(|it| it.status), Some(200));
    assert!(matches!(wire.answer().await.map(|it| it.status), Some(400) | None));
    siege.still_serves("junk after a request").await;

    for upgrade in ["h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "websocket", "TLS/1.0"] {
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: h\r\nconnection: Upgrade, HTTP2-Settings\r\n\
             upgrade: {upgrade}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{GOOD}",
            GOOD.len()
        );
        siege.meets(upgrade, head.as_bytes(), Answer(200)).await;
    }
    let early =
        "GET /v1/models HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n\0\0";
    siege.meets("bytes after an upgrade that is refused", early.as_bytes(), Answer(200)).await;
    siege.meets("only a byte that begins nothing", b"\x80", Refused(400, "bad_head")).await;
    siege
        .meets(
            "HTTP/2 frames without a preface",
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],
            Refused(400, "bad_head"),
        )
        .await;
    siege
        .meets(
            "a preface and junk",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            Closed,
        )
        .await;
    siege.end().await;
}
