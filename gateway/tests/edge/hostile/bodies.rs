//! Bodies that a pod might read and we do not, and bodies that nobody reads.

use crate::support::siege::Fate::{Answer, Kept, Refused};
use crate::support::siege::{Fate, Siege};
use crate::support::wire::Wire;
use tokio::io::AsyncReadExt;

const NOT_JSON: Fate = Kept(400, "invalid_json");
const WRONG_TYPE: Fate = Kept(400, "invalid_type");

/// `inner` in so many lists.
fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

fn prompt(prompt: &str) -> Vec<u8> {
    format!(r#"{{"model":"tiny","max_tokens":1,"prompt":{prompt}}}"#).into_bytes()
}

fn unknown(value: &str) -> Vec<u8> {
    format!(r#"{{"model":"tiny","max_tokens":1,"prompt":"a","unknown":{value}}}"#).into_bytes()
}

fn utf16(text: &str, mark: bool) -> Vec<u8> {
    let mark = mark.then_some(0xfeff);
    mark.into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

fn rows() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let good = r#"{"model":"tiny","prompt":"a","max_tokens":1}"#;
    let utf32 = good.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    vec![
        ("nothing", Vec::new(), NOT_JSON),
        ("truncated", good[..good.len() - 1].into(), NOT_JSON),
        ("truncated in a string", br#"{"model":"ti"#.into(), NOT_JSON),
        ("two values", format!("{good}{good}").into(), NOT_JSON),
        ("a comma too many", br#"{"model":"tiny",}"#.into(), NOT_JSON),
        ("single quotes", b"{'model':'tiny'}".into(), NOT_JSON),
        ("a comment", br#"{"model":"tiny"/**/}"#.into(), NOT_JSON),
        ("a control byte in a string", b"{\"model\":\"ti\x01ny\"}".into(), NOT_JSON),
        ("invalid UTF-8", b"{\"model\":\"tiny\",\"prompt\":\"\xff\xfe\"}".into(), NOT_JSON),
        ("overlong UTF-8", b"{\"model\":\"tiny\",\"prompt\":\"\xc0\xaf\"}".into(), NOT_JSON),
        ("UTF-8 with a mark", format!("\u{feff}{good}").into(), NOT_JSON),
        ("UTF-16 with a mark", utf16(good, true), NOT_JSON),
        ("UTF-16 without", utf16(good, false), NOT_JSON),
        ("UTF-32", utf32, NOT_JSON),
        ("NaN", unknown("NaN"), NOT_JSON),
        ("Infinity", unknown("-Infinity"), NOT_JSON),
        ("a lone surrogate in the prompt", prompt(r#""\ud800""#), NOT_JSON),
        ("a prompt nested 10,000 deep", prompt(&nested(10_000)), NOT_JSON),
        ("an object open 10,000 times", br#"{"a":"#.repeat(10_000), NOT_JSON),
        ("brackets open 100,000 times", b"[".repeat(100_000), NOT_JSON),
        ("a list", b"[]".into(), WRONG_TYPE),
        ("a string", br#""tiny""#.into(), WRONG_TYPE),
        ("null", b"null".into(), WRONG_TYPE),
        ("a model that is a number", br#"{"model":1,"prompt":"a"}"#.into(), WRONG_TYPE),
        ("a model that is a list", br#"{"model":["tiny"],"prompt":"a"}"#.into(), WRONG_TYPE),
        ("a salt that is a number", br#"{"model":"tiny","cache_salt":1}"#.into(), WRONG_TYPE),
        (
            "a model of 1 MB",
            format!(r#"{{"model":"{}"}}"#, "m".repeat(1 << 20)).into(),
            Kept(404, "model_not_found"),
        ),
        (
            "the last model counts",
            br#"{"model":"tiny","model":"no","prompt":"a"}"#.into(),
            Kept(404, "model_not_found"),
        ),
        (
            "a key of 1 MB",
            format!(
                r#"{{"model":"tiny","max_tokens":1,"prompt":"a","{}":1}}"#,
                "k".repeat(1 << 20)
            )
            .into(),
            Answer(200),
        ),
        // The simulated pod's parser has no such number; a real one's has.
        ("an integer of 4,000 digits", unknown(&"9".repeat(4_000)), Answer(400)),
        ("no prompt", br#"{"model":"tiny"}"#.into(), Answer(400)),
        ("a prompt of the wrong type", prompt("true"), Answer(400)),
    ]
}

fn post(path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n{fields}\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn what_we_cannot_read_is_refused_and_never_passed_on() {
    let siege = Siege::begin().await;
    for (name, body, fate) in rows() {
        siege.meets(name, &post("/v1/completions", "", &body), fate).await;
        // Every row is followed by a good request, with nothing in between if it was refused.
        let last = siege.pod.requests().into_iter().rev().take(2);
        if matches!(fate, Kept(..)) && last.into_iter().any(|it| it.body == body) {
            siege.complain(format!("{name}: it came to the pod"));
        }
    }
    siege.end().await;
}

#[tokio::test]
async fn no_messages_is_the_pods_to_judge() {
    let siege = Siege::begin().await;
    let body = br#"{"model":"tiny","messages":[]}"#;
    siege.meets("no messages", &post("/v1/chat/completions", "", body), Answer(200)).await;
    siege.end().await;
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_is_sent_and_the_rest_is_no_request() {
    let siege = Siege::begin().await;
    let too_large = Refused(413, "body_too_large");
    let head = |length: &str, more: &str| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n{more}\r\n"
        )
    };
    siege.meets("200 MB", head("200000000", "").as_bytes(), too_large).await;
    siege.meets("10^17", head("100000000000000000", "").as_bytes(), too_large).await;
    let waits = head("200000000", "expect: 100-continue\r\n");
    siege.meets("200 MB, asking first", waits.as_bytes(), too_large).await;
    let smuggled = "GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n";
    let rest = format!("{}{smuggled}", head("5000000", ""));
    siege.meets("a request in what is not read", rest.as_bytes(), too_large).await;
    let all = [head("8000000", "").as_bytes(), &vec![b'x'; 8_000_000]].concat();
    siege.meets("sent whole before an answer is looked for", &all, too_large).await;
    let mut wire = Wire::connect(siege.addr()).await;
    assert!(wire.send(&all).await, "no reset while the body is sent");
    assert_eq!(wire.answer().await.map(|it| it.status), Some(413));
    let end = wire.socket.read(&mut [0]).await;
    assert!(matches!(end, Ok(0)), "an end and no reset: {end:?}");
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let chunked = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(8)
    );
    siege.meets("chunks beyond the limit", chunked.as_bytes(), too_large).await;
    let nowhere = post("/v1/nowhere", "", smuggled.as_bytes());
    siege.meets("a request in a refused body", &nowhere, Refused(404, "unknown_url")).await;
    let wrong = post("/v1/models", "", smuggled.as_bytes());
    siege.meets("a request in a wrong body", &wrong, Refused(405, "method_not_allowed")).await;
    siege.end().await;
}
