use super::*;

fn faults(head: &str) -> Result<(), Fault> {
    check(head.replace('\n', "\r\n").as_bytes()).map(drop)
}

#[test]
fn honest_heads_pass() {
    for head in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET HTTP://[::1]:80/v1/models?x=1 HTTP/1.1\nhost: [::1]:80\n\n",
        "OPTIONS * HTTP/1.1\nHost: a\n\n",
        "GET https://a?x HTTP/1.0\n\n",
        "POST /v1 HTTP/1.1\nHost: a\nContent-Length: 0\nx_y: caf\u{e9}\n\n",
        "POST /v1 HTTP/1.1\nHost:\nTransfer-Encoding:\tChunked \nX-Empty:\n\n",
        "GET / HTTP/1.0\n\n",
    ] {
        assert_eq!(faults(head), Ok(()), "{head}");
    }
}

#[test]
fn where_a_request_ends_is_told_if_the_head_tells_it() {
    let body = |fields: &str| check(format!("P / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
    assert_eq!(body(""), Ok(Body::Length(0)));
    assert_eq!(body("Content-Length: 7\r\n"), Ok(Body::Length(7)));
    assert_eq!(body("Transfer-Encoding: chunked\r\n"), Ok(Body::Uncounted));
    assert_eq!(body("Upgrade: websocket\r\n"), Ok(Body::Uncounted));
}

#[test]
fn of_what_is_no_head_only_a_request_line_is_told() {
    for (bytes, line) in [
        (&b"GET /v1?x HTTP/1.1\nA: b"[..], (&b"GET"[..], &b"/v1?x"[..])),
        (b"GET /v1/mo dels", (b"GET", b"/v1/mo")),
        (b"\x16\x03 \x01", (b"", b"")),
        (b"Authorization: Bearer\r\n", (b"", b"")),
        (b"", (b"", b"")),
    ] {
        assert_eq!(request_line(bytes), line);
    }
}

#[test]
fn what_two_servers_could_read_in_two_ways_is_refused() {
    use Fault::{
        BothFramings, Connect, ContentLength, Field, Host, RequestLine, Target, TransferEncoding,
        Version,
    };
    for (head, fault) in [
        ("GET / HTTP/1.1\n\n", Host),
        ("GET / HTTP/1.1\nHost: a\nHost: a\n\n", Host),
        ("GET / HTTP/1.1\nHost: a, b\n\n", Host),
        ("GET / HTTP/1.1\nHost: a/b\n\n", Host),
        ("GET /a b HTTP/1.1\nHost: a\n\n", RequestLine),
        ("GET  / HTTP/1.1\nHost: a\n\n", RequestLine),
        ("G(T / HTTP/1.1\nHost: a\n\n", RequestLine),
        ("CONNECT a:80 HTTP/1.1\nHost: a\n\n", Connect),
        ("GET http://b/ HTTP/1.1\nHost: a\n\n", Target),
        ("GET http://u@a/ HTTP/1.1\nHost: a\n\n", Target),
        ("GET http:///a HTTP/1.1\nHost: a\n\n", Target),
        ("GET ftp://a/ HTTP/1.1\nHost: a\n\n", Target),
        ("GET v1 HTTP/1.1\nHost: a\n\n", Target),
        ("GET /v1#a HTTP/1.1\nHost: a\n\n", Target),
        ("GET / HTTP/2.0\nHost: a\n\n", Version),
        ("GET /\n\n", RequestLine),
        ("GET / HTTP/1.1\nHost: a\nX : 1\n\n", Field),
        ("GET / HTTP/1.1\nHost: a\n folded\n\n", Field),
        ("GET / HTTP/1.1\nHost: a\nnocolon\n\n", Field),
        ("P / HTTP/1.1\nHost: a\nContent-Length: 1\nContent-Length: 1\n\n", ContentLength),
        ("P / HTTP/1.1\nHost: a\nContent-Length: +1\n\n", ContentLength),
        ("P / HTTP/1.1\nHost: a\nContent-Length: 1, 1\n\n", ContentLength),
        ("P / HTTP/1.1\nHost: a\nContent-Length: 9999999999999999999\n\n", ContentLength),
        ("P / HTTP/1.1\nHost: a\nContent-Length:\n\n", ContentLength),
        ("P / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n", TransferEncoding),
        (
            "P / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n",
            TransferEncoding,
        ),
        ("P / HTTP/1.0\nTransfer-Encoding: chunked\n\n", TransferEncoding),
        ("P / HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n\n", BothFramings),
    ] {
        assert_eq!(faults(head), Err(fault), "{head}");
    }
    let many = "x: y\n".repeat(300);
    assert_eq!(faults(&format!("GET / HTTP/1.1\nHost: a\n{many}\n")), Err(Fault::TooManyFields));
}

#[test]
fn bytes_that_no_head_holds_are_refused() {
    for head in
        [&b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n"[..], b"GET / HTTP/1.1\rHost: a\r\n\r\n"]
    {
        assert_eq!(check(head), Err(Fault::BareLineBreak));
    }
    for byte in [0_u8, 1, 0x0b, 0x1f, 0x7f] {
        let head = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &[byte][..], b"\r\n\r\n"].concat();
        assert_eq!(check(&head), Err(Fault::ControlCharacter), "{byte}");
    }
    assert_eq!(check_beginning(b"GET / HTTP/1.1\n\nx"), Err(Fault::BareLineBreak));
    assert_eq!(check_beginning(b"\x16\x03\x01"), Err(Fault::RequestLine));
    assert_eq!(check_beginning(b"GET / HTTP/1.1\r\n"), Ok(()));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        check(&[&bytes[..], END].concat()).map(drop).unwrap_or_default();
    }
}
