//! A strict reading of HTTP/1 heads: what two servers could read in two ways is refused.
//!
//! Sources: RFC 9112 §2.2 (bare CR and LF), §3.2 (Host), §5.1 (white space before the colon),
//! §5.2 (obs-fold), §6.1 and §6.3 (framing), RFC 9110 §5.5 (field values).

use memchr::memchr_iter;

#[cfg(test)]
mod tests;

/// How a head ends.
pub(crate) const END: &[u8] = b"\r\n\r\n";

/// More fields than any client of these APIs sends.
pub(crate) const MAX_FIELDS: usize = 128;

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
    /// Neither a path, nor `*`, nor a URL of the host that the Host header names.
    #[error("a malformed request target, or one that names another host")]
    Target,
    /// A tunnel is asked for.
    #[error("CONNECT is not supported")]
    Connect,
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

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes, and then the next request.
    Length(usize),
    /// Chunks, or whatever an upgrade is to: nobody has counted it yet.
    Uncounted,
}

/// What was seen of the fields that decide framing.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    hosts: usize,
    length: usize,
    lengths: usize,
    encodings: usize,
    upgrades: usize,
}

/// Checks a head that ends with [`END`], and says what follows it.
///
/// # Errors
/// The first [`Fault`] found.
pub(crate) fn check(head: &[u8]) -> Result<Body, Fault> {
    check_bytes(head)?;
    let mut lines = Lines(head);
    let (target, is_1_1) = check_request_line(lines.next().ok_or(Fault::RequestLine)?)?;
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
        Seen { host, .. } => check_target(target, host),
    }?;
    let is_uncounted = seen.encodings + seen.upgrades > 0;
    Ok(if is_uncounted { Body::Uncounted } else { Body::Length(seen.length) })
}

/// Method and target of what may be no head at all, for the log and for the shape of the error.
pub(crate) fn request_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let line = bytes.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let method = words.next().filter(|method| method.iter().all(|b| is_token(*b)));
    match (method, words.next()) {
        (Some(method), Some(target)) => (method, target),
        _ => (&[], &[]),
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
    let is_control = |b: u8| (b < b' ' && !matches!(b, b'\t' | b'\r' | b'\n')) || b == 0x7f;
    // Not `any`: without its early exit the compiler looks at many bytes at once.
    let has_control = head.iter().fold(false, |found, b| found | is_control(*b));
    if has_control { Err(Fault::ControlCharacter) } else { Ok(()) }
}

/// Gives the target, and says whether the version is 1.1.
fn check_request_line(line: &[u8]) -> Result<(&[u8], bool), Fault> {
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
    if method == b"CONNECT" {
        return Err(Fault::Connect);
    }
    match version {
        b"HTTP/1.1" => Ok((target, true)),
        b"HTTP/1.0" => Ok((target, false)),
        _ if version.starts_with(b"HTTP/") => Err(Fault::Version),
        _ => Err(Fault::RequestLine),
    }
}

/// Of the four forms of a target (RFC 9112 §3.2) all but that of CONNECT. A URL must name the host
/// that Host names, so that nobody can route by one and answer by the other. A fragment is no part
/// of any of them.
fn check_target(target: &[u8], host: Option<&[u8]>) -> Result<(), Fault> {
    // Pingora would answer what `Uri` cannot read with an empty 400 of its own.
    if target.contains(&b'#') || http::Uri::try_from(target).is_err() {
        return Err(Fault::Target);
    }
    if target.starts_with(b"/") || target == b"*" {
        return Ok(());
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme)))
        .ok_or(Fault::Target)?;
    let rest = &target[scheme.len()..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..end];
    let is_its_own = host.is_none_or(|host| host == authority);
    let is_plain = !authority.is_empty() && !authority.contains(&b'@');
    if is_its_own && is_plain { Ok(()) } else { Err(Fault::Target) }
}

fn check_field<'a>(line: &'a [u8], seen: &mut Seen<'a>) -> Result<(), Fault> {
    let colon = line.iter().position(|b| *b == b':').ok_or(Fault::Field)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(Fault::Field);
    }
    if name.eq_ignore_ascii_case(b"host") {
        seen.hosts += 1;
        seen.host = Some(value);
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b".-_~:[]%!$&'()*+;=".contains(b);
        return if value.iter().all(fits) { Ok(()) } else { Err(Fault::Host) };
    }
    if name.eq_ignore_ascii_case(b"content-length") {
        seen.lengths += 1;
        // 18 digits stay below 2^63.
        let fits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let length =
            std::str::from_utf8(value).ok().filter(|_| fits).and_then(|it| it.parse().ok());
        seen.length = length.ok_or(Fault::ContentLength)?;
        return Ok(());
    }
    seen.upgrades += usize::from(name.eq_ignore_ascii_case(b"upgrade"));
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        seen.encodings += 1;
        let fits = value.eq_ignore_ascii_case(b"chunked");
        return if fits { Ok(()) } else { Err(Fault::TransferEncoding) };
    }
    Ok(())
}

/// RFC 9110 §5.6.2. A table: every byte of every name in a head is asked for.
fn is_token(b: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0_u8;
        while b < 128 {
            table[b as usize] = b.is_ascii_alphanumeric();
            b += 1;
        }
        let mut marks: &[u8] = b"!#$%&'*+-.^_`|~";
        while let [mark, rest @ ..] = marks {
            table[*mark as usize] = true;
            marks = rest;
        }
        table
    };
    TOKEN[b as usize]
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
