//! HTTP/2 by hand (RFC 9113, RFC 7541 without Huffman or indexing), to say what no library would.

use std::net::SocketAddr;

use super::wire::Wire;

/// A connection whose preface is sent.
pub(crate) struct Frames(pub(crate) Wire);

/// A frame that the gateway sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame fits");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literal fields.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A request's pseudo-header fields and these.
pub(crate) fn request<'a>(
    method: &'a str,
    path: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut fields =
        vec![(":method", method), (":scheme", "http"), (":authority", "h"), (":path", path)];
    fields.extend_from_slice(more);
    fields
}

/// An integer with a prefix of seven bits.
fn length(length: usize, out: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(127) else {
        out.push(u8::try_from(length).expect("below 127"));
        return;
    };
    out.push(127);
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).expect("below 128") | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).expect("below 128"));
}

// === impl Frames ===

impl Frames {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let mut wire = Wire::connect(addr).await;
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        wire.send(&frame(SETTINGS, 0, 0, &[])).await;
        Self(wire)
    }

    /// Sends a frame; false if the gateway has closed.
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.0.send(&frame(kind, flags, stream, payload)).await
    }

    /// The next frame; none when the connection ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let head = self.0.take(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.0.take(usize::try_from(length).expect("it fits")).await?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The first frame that tells what became of a stream: its answer's head, its reset, or the
    /// end of the connection.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            let tells = matches!(frame.kind, HEADERS | RST_STREAM) && frame.stream == stream;
            if tells || frame.kind == GOAWAY {
                return Some(frame);
            }
        }
    }
}

// === impl Frame ===

impl Frame {
    /// `:status`, if this is an answer's head: indexed, or a literal with the name's index.
    pub(crate) fn status(&self) -> Option<u16> {
        if self.kind != HEADERS {
            return None;
        }
        match *self.payload.first()? {
            indexed @ 0x88..=0x8e => {
                Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)])
            }
            // Three digits in Huffman's code take two bytes; the gateway's encoder uses it.
            0x48 => huffman_digits(self.payload.get(2..)?, self.payload.get(1)?),
            _ => None,
        }
    }
}

/// A number of three digits: each digit's code has five or six bits (RFC 7541, appendix B).
fn huffman_digits(bytes: &[u8], length: &u8) -> Option<u16> {
    if length & 128 == 0 {
        return std::str::from_utf8(bytes.get(..3)?).ok()?.parse().ok();
    }
    let bits: Vec<u8> = bytes
        .iter()
        .take(usize::from(length & 127))
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let number = |range: &[u8]| range.iter().fold(0_u16, |sum, bit| sum * 2 + u16::from(*bit));
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let five = number(bits.get(at..at + 5)?);
        let digit = if five < 3 {
            at += 5;
            five
        } else {
            let six = number(bits.get(at..at + 6)?);
            at += 6;
            six - 0x19 + 3
        };
        value = value * 10 + digit;
    }
    Some(value)
}

#[test]
fn a_status_is_read_back() {
    let head =
        |payload: &[u8]| Frame { kind: HEADERS, flags: 0, stream: 1, payload: payload.to_vec() };
    // RFC 7541, C.6.1: "302" is 6402 in Huffman's code.
    assert_eq!(head(&[0x48, 0x82, 0x64, 0x02]).status(), Some(302));
    assert_eq!(head(&[0x88]).status(), Some(200));
    assert_eq!(head(&[0x48, 3, b'4', b'1', b'3']).status(), Some(413));
}
