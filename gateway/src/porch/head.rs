//! A strict reading of HTTP/1 heads: what two servers could read in two ways is refused.
//!
//! Sources: RFC 9112 §2.2 (bare CR and LF), §3.2 (Host), §5.1 (white space before the colon),
//! §5.2 (obs-fold), §6.1 and §6.3 (framing), RFC 9110 §5.5 (field values).

use memchr::memchr_iter;

/// How a head ends.
pub(crate) const END: &[u8] = b"\r\n\r\n";

/// More fields than any client of these APIs sends.
const MAX_FIELDS: usize = 128;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line break of one byte.
    #[error("a bare carriage return or line feed in the request head")]
    BareLineBreak,
    /// A byte that no head may hold.
    #[error("a control character in the request head")]
    ControlCharacter,
    /// Not `METHOD target HTTP/1.x`.
    #[error("a malformed request line")]
    RequestLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("an unsupported HTTP version")]
    Version,
    /// No colon, an empty name, white space around the name, or a folded line.
    #[error("a malformed header field")]
    Field,
    /// More than 128 fields.
    #[error("too many header fields")]
    TooManyFields,
    /// None in HTTP/1.1, more than one, or one with impossible characters.
    #[error("a missing, repeated or malformed Host header")]
    Host,
    /// Repeated, not digits only, or beyond 2^63.
    #[error("a repeated or malformed Content-Length header")]
    ContentLength,
    /// Anything but one `chunked`, or in HTTP/1.0.
    #[error("an unsupported Transfer-Encoding header")]
    TransferEncoding,
    /// Both ways of framing at once: the root of request smuggling.
    #[error("both Content-Length and Transfer-Encoding headers")]
    BothFramings,
}

/// What was seen of the fields that decide framing.
#[derive(Default)]
struct Seen {
    hosts: usize,
    lengths: usize,
    encodings: usize,
}

/// Checks a head that ends with [`END`].
///
/// # Errors
/// The first [`Fault`] found.
pub(crate) fn check(head: &[u8]) -> Result<(), Fault> {
    check_bytes(head)?;
    let mut lines = Lines(head);
    let is_1_1 = check_request_line(lines.next().ok_or(Fault::RequestLine)?)?;
    let mut seen = Seen::default();
    for (count, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        if count == MAX_FIELDS {
            return Err(Fault::TooManyFields);
        }
        check_field(line, &mut seen)?;
    }
    match seen {
        Seen { hosts: 2.., .. } => Err(Fault::Host),
        Seen { hosts: 0, .. } if is_1_1 => Err(Fault::Host),
        Seen { lengths: 2.., .. } => Err(Fault::ContentLength),
        Seen { encodings: 2.., .. } => Err(Fault::TransferEncoding),
        Seen { encodings: 1, .. } if !is_1_1 => Err(Fault::TransferEncoding),
        Seen { lengths: 1, encodings: 1, .. } => Err(Fault::BothFramings),
        _ => Ok(()),
    }
}

/// Looks at the beginning of a head for what would be waited for until its deadline: bytes that
/// begin no method (a TLS handshake on the plain port), or an empty line that is not spelled
/// [`END`].
///
/// # Errors
/// The [`Fault`] that no further byte can mend.
pub(crate) fn check_beginning(bytes: &[u8]) -> Result<(), Fault> {
    if bytes.first().is_some_and(|b| !is_token(*b)) {
        return Err(Fault::RequestLine);
    }
    if memchr::memmem::find(bytes, b"\n\n").is_some() {
        return Err(Fault::BareLineBreak);
    }
    Ok(())
}

/// Line breaks are CR LF, and nothing else below space but HTAB occurs.
fn check_bytes(head: &[u8]) -> Result<(), Fault> {
    let after = |i: usize| head.get(i + 1).copied();
    for i in memchr_iter(b'\r', head) {
        if after(i) != Some(b'\n') {
            return Err(Fault::BareLineBreak);
        }
    }
    for i in memchr_iter(b'\n', head) {
        if i == 0 || head[i - 1] != b'\r' {
            return Err(Fault::BareLineBreak);
        }
    }
    let is_control = |b: &u8| (*b < b' ' && !matches!(*b, b'\t' | b'\r' | b'\n')) || *b == 0x7f;
    if head.iter().any(is_control) { Err(Fault::ControlCharacter) } else { Ok(()) }
}

/// Says whether the version is 1.1.
fn check_request_line(line: &[u8]) -> Result<bool, Fault> {
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Fault::RequestLine);
    };
    let target_is_fine = !target.is_empty() && target.iter().all(u8::is_ascii_graphic);
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) || !target_is_fine {
        return Err(Fault::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ if version.starts_with(b"HTTP/") => Err(Fault::Version),
        _ => Err(Fault::RequestLine),
    }
}

fn check_field(line: &[u8], seen: &mut Seen) -> Result<(), Fault> {
    let colon = line.iter().position(|b| *b == b':').ok_or(Fault::Field)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(Fault::Field);
    }
    if name.eq_ignore_ascii_case(b"host") {
        seen.hosts += 1;
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b".-_~:[]%!$&'()*+;=".contains(b);
        return if value.iter().all(fits) { Ok(()) } else { Err(Fault::Host) };
    }
    if name.eq_ignore_ascii_case(b"content-length") {
        seen.lengths += 1;
        // 18 digits stay below 2^63.
        let fits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        return if fits { Ok(()) } else { Err(Fault::ContentLength) };
    }
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        seen.encodings += 1;
        let fits = value.eq_ignore_ascii_case(b"chunked");
        return if fits { Ok(()) } else { Err(Fault::TransferEncoding) };
    }
    Ok(())
}

/// RFC 9110 §5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// The lines of a head, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memmem::find(self.0, b"\r\n")?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 2..];
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(head: &str) -> Result<(), Fault> {
        check(head.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn honest_heads_pass() {
        for head in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET http://a/v1/models?x=1 HTTP/1.1\nhost: [::1]:80\n\n",
            "POST /v1 HTTP/1.1\nHost: a\nContent-Length: 0\nx_y: caf\u{e9}\n\n",
            "POST /v1 HTTP/1.1\nHost:\nTransfer-Encoding:\tChunked \nX-Empty:\n\n",
            "GET / HTTP/1.0\n\n",
        ] {
            assert_eq!(faults(head), Ok(()), "{head}");
        }
    }

    #[test]
    fn what_two_servers_could_read_in_two_ways_is_refused() {
        use Fault::{
            BothFramings, ContentLength, Field, Host, RequestLine, TransferEncoding, Version,
        };
        for (head, fault) in [
            ("GET / HTTP/1.1\n\n", Host),
            ("GET / HTTP/1.1\nHost: a\nHost: a\n\n", Host),
            ("GET / HTTP/1.1\nHost: a, b\n\n", Host),
            ("GET / HTTP/1.1\nHost: a/b\n\n", Host),
            ("GET /a b HTTP/1.1\nHost: a\n\n", RequestLine),
            ("GET  / HTTP/1.1\nHost: a\n\n", RequestLine),
            ("G(T / HTTP/1.1\nHost: a\n\n", RequestLine),
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
            (
                "P / HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n\n",
                BothFramings,
            ),
        ] {
            assert_eq!(faults(head), Err(fault), "{head}");
        }
        let many = "x: y\n".repeat(300);
        assert_eq!(
            faults(&format!("GET / HTTP/1.1\nHost: a\n{many}\n")),
            Err(Fault::TooManyFields)
        );
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
            let _: Result<(), Fault> = check(&[&bytes[..], END].concat());
        }
    }
}
