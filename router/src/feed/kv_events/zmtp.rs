//! As much of ZMTP 3.0 as a subscriber and a dealer need: RFC 23 with the NULL mechanism.
//!
//! Our own, because of what the libraries keep from us: they reconnect behind our back (a
//! reconnection may be another process, and decides what may be believed), allocate whatever length
//! a peer declares, and do not say which peer a message came from.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What we are to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Hears a publisher.
    Subscriber,
    /// Asks a router.
    Dealer,
}

/// An open connection after its handshake.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Bytes received and not yet read.
    received: BytesMut,
    /// Frames of a message that is not complete.
    parts: Vec<Bytes>,
    parts_len: usize,
}

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum ZmtpError {
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer does not speak ZMTP 3 without security")]
    Greeting,
    #[error("the peer's socket is of type {0:?}")]
    SocketType(String),
    #[error("the peer sent a command that is none")]
    Command,
    #[error("a message is longer than {MESSAGE_LIMIT} bytes, or in more than {PARTS_LIMIT} frames")]
    TooLong,
}

/// 16 MiB: a step of three million tokens. vLLM computes some ten thousand in one.
const MESSAGE_LIMIT: usize = 16 << 20;

/// Most frames in one; vLLM's have three. Empty ones cost us 32 bytes each and the sender two.
const PARTS_LIMIT: usize = 16;
/// Peers that are gone without a word are given up 30 s + 3 × 10 s after their last one.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// Signature, version 3.0, mechanism NULL, not a server, filler.
const GREETING_LEN: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// One frame as it lies in the buffer.
#[derive(Clone, Copy)]
struct Head {
    flags: u8,
    /// Bytes before the body.
    head: usize,
    body: usize,
}

fn keepalive() -> TcpKeepalive {
    let (time, interval, retries) = KEEPALIVE;
    TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries)
}

// === impl Role ===

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Subscriber => "SUB",
            Self::Dealer => "DEALER",
        }
    }

    fn may_speak_to(self, peer: &str) -> bool {
        match self {
            Self::Subscriber => matches!(peer, "PUB" | "XPUB"),
            Self::Dealer => matches!(peer, "ROUTER" | "DEALER" | "REP"),
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Shakes hands over a stream, whoever opened it.
    pub(super) async fn open(stream: TcpStream, role: Role) -> Result<Self, ZmtpError> {
        stream.set_nodelay(true)?;
        // A pod that was cut off says nothing for ever, as one does that is idle: the kernel asks.
        SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
        let peer = stream.peer_addr()?;
        let received = BytesMut::new();
        let mut connection = Self { stream, peer, received, parts: Vec::new(), parts_len: 0 };
        connection.stream.write_all(&greeting()).await?;
        while connection.received.len() < GREETING_LEN {
            connection.fill().await?;
        }
        let theirs = connection.received.split_to(GREETING_LEN);
        let null = theirs[12..32].starts_with(b"NULL\0");
        if theirs[0] != 0xff || theirs[9] & 1 == 0 || theirs[10] < 3 || !null {
            return Err(ZmtpError::Greeting);
        }
        connection.stream.write_all(&ready(role)).await?;
        let theirs = loop {
            if let Some((flags, body)) = connection.take_frame()? {
                if flags & COMMAND == 0 {
                    return Err(ZmtpError::Command);
                }
                break socket_type(&body)?;
            }
            connection.fill().await?;
        };
        if role.may_speak_to(&theirs) { Ok(connection) } else { Err(ZmtpError::SocketType(theirs)) }
    }

    /// Where the peer is.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, frames: &[&[u8]]) -> Result<(), ZmtpError> {
        let mut message = Vec::new();
        for (at, frame) in frames.iter().enumerate() {
            let more = if at + 1 < frames.len() { MORE } else { 0 };
            put_frame(&mut message, more, frame);
        }
        self.stream.write_all(&message).await?;
        Ok(())
    }

    /// Asks a publisher for the messages whose first frame begins with `prefix`.
    pub(super) async fn subscribe(&mut self, prefix: &[u8]) -> Result<(), ZmtpError> {
        self.send(&[&[&[1], prefix].concat()]).await
    }

    /// The next message's frames. Safe to cancel: what has come in is kept.
    pub(super) async fn recv(&mut self) -> Result<Vec<Bytes>, ZmtpError> {
        loop {
            while let Some((flags, body)) = self.take_frame()? {
                // A ping, or an error before the end: a subscriber owes no answer.
                if flags & COMMAND != 0 {
                    continue;
                }
                self.parts_len += body.len();
                if self.parts_len > MESSAGE_LIMIT || self.parts.len() == PARTS_LIMIT {
                    return Err(ZmtpError::TooLong);
                }
                self.parts.push(body);
                if flags & MORE == 0 {
                    self.parts_len = 0;
                    return Ok(std::mem::take(&mut self.parts));
                }
            }
            self.fill().await?;
        }
    }

    /// The frame at the front of the buffer, if it is there whole.
    fn take_frame(&mut self) -> Result<Option<(u8, Bytes)>, ZmtpError> {
        let Some(head) = Head::read(&self.received)? else { return Ok(None) };
        if self.received.len() < head.head + head.body {
            return Ok(None);
        }
        self.received.advance(head.head);
        Ok(Some((head.flags, self.received.split_to(head.body).freeze())))
    }

    /// Waits for more bytes. The buffer grows with what comes, not with what is announced.
    async fn fill(&mut self) -> Result<(), ZmtpError> {
        self.received.reserve(16 << 10);
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(ZmtpError::Closed),
            _ => Ok(()),
        }
    }
}

// === impl Head ===

impl Head {
    fn read(bytes: &[u8]) -> Result<Option<Self>, ZmtpError> {
        let Some((&flags, rest)) = bytes.split_first() else { return Ok(None) };
        let (head, body) = if flags & LONG == 0 {
            let Some(&len) = rest.first() else { return Ok(None) };
            (2, u64::from(len))
        } else {
            let Some(len) = rest.first_chunk::<8>() else { return Ok(None) };
            (9, u64::from_be_bytes(*len))
        };
        match usize::try_from(body) {
            Ok(body) if body <= MESSAGE_LIMIT => Ok(Some(Self { flags, head, body })),
            _ => Err(ZmtpError::TooLong),
        }
    }
}

fn greeting() -> [u8; GREETING_LEN] {
    let mut greeting = [0; GREETING_LEN];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// The READY command with our socket's type.
fn ready(role: Role) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend(u32::try_from(role.name().len()).unwrap_or(0).to_be_bytes());
    body.extend(role.name().as_bytes());
    let mut frame = Vec::new();
    put_frame(&mut frame, COMMAND, &body);
    frame
}

fn put_frame(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    if let Ok(len) = u8::try_from(body.len()) {
        out.extend([flags, len]);
    } else {
        out.push(flags | LONG);
        out.extend((body.len() as u64).to_be_bytes());
    }
    out.extend(body);
}

/// The socket type in a READY command.
fn socket_type(command: &[u8]) -> Result<String, ZmtpError> {
    let properties = command.strip_prefix(b"\x05READY").ok_or(ZmtpError::Command)?;
    find_property(properties, b"socket-type").ok_or(ZmtpError::Command)
}

/// A property's value: its name's length in a byte and the name, its length in four and the value.
fn find_property(mut rest: &[u8], wanted: &[u8]) -> Option<String> {
    while let Some((&len, after)) = rest.split_first() {
        let (name, after) = after.split_at_checked(len.into())?;
        let (len, after) = after.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (value, after) = after.split_at_checked(len)?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests;
