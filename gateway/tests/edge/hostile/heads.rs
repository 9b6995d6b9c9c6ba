//! Heads that two servers could read in two ways, or that no server should read at all.

use crate::support::siege::Fate::{Answer, Closed, Kept, Refused};
use crate::support::siege::{Fate, Siege};

const BAD: Fate = Refused(400, "bad_head");
const TOO_LARGE: Fate = Refused(431, "head_too_large");

/// A POST whose fields after `Host` are these, with a body of two bytes.
fn with(fields: &str) -> String {
    format!("POST /v1/completions HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{{}}")
}

/// A GET of the models, whose head after the method is this.
fn get(rest: &str) -> String {
    format!("GET {rest}\r\n\r\n")
}

fn lengths_and_encodings() -> Vec<(&'static str, String, Fate)> {
    vec![
        ("a length twice", with("Content-Length: 2\r\nContent-Length: 2"), BAD),
        ("two lengths", with("Content-Length: 2\r\nContent-Length: 3"), BAD),
        ("a list of lengths", with("Content-Length: 2, 2"), BAD),
        ("a signed length", with("Content-Length: +2"), BAD),
        ("a negative length", with("Content-Length: -2"), BAD),
        ("a hexadecimal length", with("Content-Length: 0x2"), BAD),
        ("a length with a space", with("Content-Length: 2 2"), BAD),
        ("a fractional length", with("Content-Length: 2.0"), BAD),
        ("an empty length", with("Content-Length:"), BAD),
        ("a length beyond 2^63", with("Content-Length: 9223372036854775808"), BAD),
        ("a length beyond 2^64", with("Content-Length: 18446744073709551618"), BAD),
        ("CL.TE", with("Content-Length: 2\r\nTransfer-Encoding: chunked"), BAD),
        ("TE.CL", with("Transfer-Encoding: chunked\r\nContent-Length: 2"), BAD),
        ("TE twice", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), BAD),
        ("gzip, chunked", with("Transfer-Encoding: gzip, chunked"), BAD),
        ("chunked, identity", with("Transfer-Encoding: chunked, identity"), BAD),
        ("xchunked", with("Transfer-Encoding: xchunked"), BAD),
        ("an empty encoding", with("Transfer-Encoding:"), BAD),
        ("a hidden encoding", with("Transfer-Encoding\x0b: chunked"), BAD),
        ("a space before the colon", with("Transfer-Encoding : chunked"), BAD),
        ("chunked in HTTP/1.0", with("Transfer-Encoding: chunked").replace("1.1", "1.0"), BAD),
    ]
}

fn hosts_and_lines() -> Vec<(&'static str, String, Fate)> {
    vec![
        ("no host", get("/v1/models HTTP/1.1\r\nA: b"), BAD),
        ("a host twice", get("/v1/models HTTP/1.1\r\nHost: h\r\nHost: h"), BAD),
        ("two hosts", get("/v1/models HTTP/1.1\r\nHost: a\r\nHost: b"), BAD),
        ("a list of hosts", get("/v1/models HTTP/1.1\r\nHost: a, b"), BAD),
        ("a host with a path", get("/v1/models HTTP/1.1\r\nHost: a/b"), BAD),
        ("a host with a user", get("/v1/models HTTP/1.1\r\nHost: u@a"), BAD),
        ("a folded field", get("/v1/models HTTP/1.1\r\nHost: h\r\nA: b\r\n c"), BAD),
        ("a field without a colon", get("/v1/models HTTP/1.1\r\nHost: h\r\nabc"), BAD),
        ("a field without a name", get("/v1/models HTTP/1.1\r\nHost: h\r\n: b"), BAD),
        ("a name with a space", get("/v1/models HTTP/1.1\r\nHost: h\r\na b: c"), BAD),
        ("NUL in a value", get("/v1/models HTTP/1.1\r\nHost: h\r\nA: b\0c"), BAD),
        ("NUL in a name", get("/v1/models HTTP/1.1\r\nHost: h\r\nA\0: b"), BAD),
        ("DEL in a value", get("/v1/models HTTP/1.1\r\nHost: h\r\nA: b\x7fc"), BAD),
        ("CR in a value", get("/v1/models HTTP/1.1\r\nHost: h\r\nA: b\rc"), BAD),
        ("LF between fields", get("/v1/models HTTP/1.1\r\nHost: h\nA: b"), BAD),
        ("LF only", "GET /v1/models HTTP/1.1\nHost: h\n\n".to_owned(), BAD),
        ("a CR alone at the end", "GET /v1/models HTTP/1.1\r\nHost: h\r\r\n\r\n".to_owned(), BAD),
        ("an empty line first", format!("\r\n{}", get("/ HTTP/1.1\r\nHost: h")), BAD),
        ("a space in the target", get("/v1/mo dels HTTP/1.1\r\nHost: h"), BAD),
        ("a tab in the target", get("/v1/mo\tdels HTTP/1.1\r\nHost: h"), BAD),
        ("two spaces", get(" /v1/models HTTP/1.1\r\nHost: h"), BAD),
        ("bytes beyond ASCII", get("/v1/möd HTTP/1.1\r\nHost: h"), BAD),
        ("no target", get("HTTP/1.1\r\nHost: h"), BAD),
        ("HTTP/0.9", get("/v1/models"), BAD),
        ("HTTP/2.0 in words", get("/v1/models HTTP/2.0\r\nHost: h"), BAD),
        ("HTTP/1.2", get("/v1/models HTTP/1.2\r\nHost: h"), BAD),
        ("another protocol", get("/v1/models ICAP/1.0\r\nHost: h"), BAD),
        ("a method that is none", "G(T / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), BAD),
        ("a TLS handshake", "\x16\x03\x01\x02\0\x01\0".to_owned(), BAD),
        ("300 fields", get(&format!("/ HTTP/1.1\r\nHost: h{}", "\r\nA: b".repeat(300))), TOO_LARGE),
        ("a field of 1 MiB", with(&format!("A: {}", "b".repeat(1 << 20))), TOO_LARGE),
        ("a name of 100 KB", with(&format!("{}: b", "a".repeat(100_000))), TOO_LARGE),
        ("a target of 100 KB", get(&format!("/{} HTTP/1.1", "a".repeat(100_000))), TOO_LARGE),
        ("half of HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(), Closed),
    ]
}

fn targets() -> Vec<(&'static str, String, Fate)> {
    let unknown = Kept(404, "unknown_url");
    let get = |target: &str| get(&format!("{target} HTTP/1.1\r\nHost: h"));
    vec![
        ("absolute form", get("http://h/v1/models"), Answer(200)),
        ("absolute form, another host", get("http://other/v1/models"), BAD),
        ("absolute form, a user", get("http://u@h/v1/models"), BAD),
        ("absolute form, admin", get("http://h/sleep"), unknown),
        ("another scheme", get("ftp://h/v1/models"), BAD),
        ("no slash", get("v1/models"), BAD),
        ("a fragment", get("/v1/models#x"), BAD),
        ("a backslash", get("\\v1\\models"), BAD),
        ("a backslash inside", get("/v1\\models"), unknown),
        ("brackets", get("/v1/<models>"), BAD),
        ("a back-quote", get("/v1/`models"), BAD),
        ("braces and quotes", get("/v1/{\"|^}"), unknown),
        ("asterisk form", get("*").replace("GET", "OPTIONS"), unknown),
        (
            "authority form",
            get("h:80").replace("GET", "CONNECT"),
            Refused(405, "method_not_allowed"),
        ),
        (
            "absolute CONNECT",
            get("http://h/").replace("GET", "CONNECT"),
            Refused(405, "method_not_allowed"),
        ),
        ("dots", get("/v1/../metrics"), unknown),
        ("encoded dots", get("/v1/%2e%2e/metrics"), unknown),
        ("encoded slash", get("/v1%2f..%2fmetrics"), unknown),
        ("encoded letters", get("/%6detrics"), unknown),
        ("encoded twice", get("/v1/%256dodels"), unknown),
        ("encoded NUL", get("/v1/models%00"), unknown),
        ("broken encoding", get("/v1/%zzmodels"), unknown),
        ("encoded beyond UTF-8", get("/v1/%ff%fe"), unknown),
        ("two slashes", get("//metrics"), unknown),
        ("a parameter", get("/v1/models;a=b"), unknown),
        ("an adapter to load", get("/v1/load_lora_adapter").replace("GET", "POST"), unknown),
        ("TRACE", get("/v1/models").replace("GET", "TRACE"), Kept(405, "method_not_allowed")),
        ("a lower-case method", get("/v1/models").replace("GET", "get"), Answer(405)),
        ("HTTP/1.0 without a host", "GET /v1/models HTTP/1.0\r\n\r\n".to_owned(), Answer(200)),
    ]
}

#[tokio::test]
async fn heads_with_two_readings_are_refused_and_the_connection_closed() {
    let siege = Siege::begin().await;
    for (name, bytes, fate) in lengths_and_encodings().into_iter().chain(hosts_and_lines()) {
        siege.meets(name, bytes.as_bytes(), fate).await;
    }
    siege.end().await;
}

#[tokio::test]
async fn no_spelling_of_a_target_reaches_what_is_not_for_clients() {
    let siege = Siege::begin().await;
    for (name, bytes, fate) in targets() {
        siege.meets(name, bytes.as_bytes(), fate).await;
    }
    let paths = siege.pod.requests().into_iter().map(|request| request.path);
    let strange: Vec<_> =
        paths.filter(|it| !["/v1/models", "/v1/completions"].contains(&it.as_str())).collect();
    assert!(strange.is_empty(), "the pod was asked for {strange:?}");
    siege.end().await;
}
