//! What comes first on a connection, or next: read whole and in time, and never further than needed.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::Bounds;
use crate::head;
use crate::refuse::Refuse;

/// What came first on a connection.
pub(super) enum Arrival {
    /// A whole HTTP/1 head, so many bytes long with what belongs to its request.
    Request(usize),
    /// The preface of HTTP/2, not consumed.
    Http2,
    /// Nothing: closed, or timed out while idle.
    Nothing,
    /// A head that is not accepted.
    Refused {
        /// Why.
        refuse: Refuse,
        /// When its first byte came.
        first_byte: Instant,
    },
}

/// The first bytes of HTTP/2 with prior knowledge, and as many as no HTTP/1 request begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TELLING: usize = 3;

/// First allocation for a head; typical ones fit.
const HEAD_BUFFER: usize = 2048;

// === impl Arrival ===

impl Arrival {
    /// Waits for what comes, for `idle` until its first byte. `bytes` holds what was read already,
    /// and then what is read.
    pub(super) async fn of(
        stream: &mut Stream,
        bytes: &mut BytesMut,
        bounds: &Bounds,
        idle: Duration,
    ) -> Self {
        let began_before = !bytes.is_empty();
        if !began_before && !matches!(timeout(idle, wait(stream, bytes)).await, Ok(true)) {
            return Self::Nothing;
        }
        let first_byte = Instant::now();
        let whole = async {
            match begins_http2(stream, began_before).await {
                Some(true) if preface(stream).await => Ok(Self::Http2),
                Some(false) => Self::head(stream, bytes, bounds.head_bytes).await,
                _ => Ok(Self::Nothing),
            }
        };
        timeout(bounds.head, whole)
            .await
            .unwrap_or(Err(Refuse::HeadTooSlow))
            .unwrap_or_else(|refuse| Self::Refused { refuse, first_byte })
    }

    async fn head(stream: &mut Stream, bytes: &mut BytesMut, limit: usize) -> Result<Self, Refuse> {
        bytes.reserve(HEAD_BUFFER);
        let mut scanned = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&bytes[scanned..], head::END) {
                let end = scanned + at + head::END.len();
                if end > limit {
                    return Err(Refuse::HeadTooLarge);
                }
                return Ok(Self::Request(match head::check(&bytes[..end])? {
                    head::Body::Length(length) => end.saturating_add(length).min(bytes.len()),
                    head::Body::Uncounted => bytes.len(),
                }));
            }
            if bytes.len() > limit {
                return Err(Refuse::HeadTooLarge);
            }
            head::check_beginning(bytes)?;
            scanned = bytes.len().saturating_sub(head::END.len());
            match stream.read_buf(bytes).await {
                Ok(0) | Err(_) => return Ok(Self::Nothing),
                Ok(_) => {}
            }
        }
    }
}

/// Waits for a first byte. A plain connection is peeked at; one under TLS cannot be, and what it
/// sends goes to `first`.
async fn wait(stream: &mut Stream, first: &mut BytesMut) -> bool {
    if stream.get_ssl_digest().is_some() {
        first.reserve(HEAD_BUFFER);
        return matches!(stream.read_buf(first).await, Ok(1..));
    }
    stream.try_peek(&mut [0]).await.is_ok()
}

/// Says whether the first bytes begin HTTP/2; none when the client closed.
async fn begins_http2(stream: &mut Stream, began_before: bool) -> Option<bool> {
    if began_before || stream.get_ssl_digest().is_some() {
        return Some(false);
    }
    let mut first = [0; TELLING];
    stream.try_peek(&mut first[..1]).await.ok()?;
    if first[0] != PREFACE[0] {
        return Some(false);
    }
    stream.try_peek(&mut first).await.ok()?;
    Some(first == PREFACE[..TELLING])
}

/// Whether the whole preface comes.
async fn preface(stream: &mut Stream) -> bool {
    let mut bytes = [0; PREFACE.len()];
    matches!(stream.try_peek(&mut bytes).await, Ok(true)) && bytes == PREFACE
}
