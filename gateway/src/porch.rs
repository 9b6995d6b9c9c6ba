//! Where connections arrive: heads are read here, whole and in time, before Pingora parses them.
//!
//! Pingora waits for each read of a head (60 s), not for the head, peeks 24 bytes for HTTP/2 with
//! no limit at all, and forgives much that a strict server refuses. So a connection's head is read
//! under one deadline and one cap, checked ([`head::check`]), and handed on as bytes that were
//! read already.

pub(crate) mod head;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::StatusCode;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::proxy::refuse::Refuse;

/// Bounds of what a connection may do before it has sent a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From the connection, or a head's first byte, to the head's end.
    pub head: Duration,
    /// From the end of an answer to the next head's first byte.
    pub keep_alive: Duration,
    /// Longest head in bytes.
    pub head_bytes: usize,
    /// Connections at once; 0: no limit.
    pub connections: usize,
}

/// Wraps the HTTP application behind the strict reading of heads.
pub(crate) struct Porch<A> {
    inner: Arc<A>,
    bounds: Bounds,
    /// A permit for each connection that may be open.
    places: Semaphore,
    on_refusal: Box<dyn Fn(&Refuse) + Send + Sync>,
}

/// What came first on a connection.
enum Arrival {
    /// A whole HTTP/1 head, and what came with it.
    Head(BytesMut),
    /// The preface of HTTP/2, not consumed.
    Http2,
    /// Nothing: closed, or timed out while idle.
    Nothing,
    /// A head that is not accepted.
    Refused(Refuse),
}

/// The first bytes of HTTP/2 with prior knowledge, and as many as no HTTP/1 request begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TELLING: usize = 3;

/// How long a refused connection may go on sending before it is closed: closing at once would
/// reset the connection under the answer.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// First allocation for a head; typical ones fit.
const HEAD_BUFFER: usize = 2048;

// === impl Porch ===

impl<A> Porch<A> {
    /// Stands before `inner`; `on_refusal` hears of every head that is refused.
    pub(crate) fn new(
        inner: A,
        bounds: Bounds,
        on_refusal: impl Fn(&Refuse) + Send + Sync + 'static,
    ) -> Self {
        let places = match bounds.connections {
            0 => Semaphore::MAX_PERMITS,
            limit => limit.min(Semaphore::MAX_PERMITS),
        };
        let places = Semaphore::new(places);
        Self { inner: Arc::new(inner), bounds, places, on_refusal: Box::new(on_refusal) }
    }
}

impl<A> std::fmt::Debug for Porch<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Porch").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Porch<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let Ok(_place) = self.places.try_acquire() else {
            (self.on_refusal)(&Refuse::TooManyConnections);
            return None;
        };
        // Whatever may finish has finished when the service is told to stop.
        let mut stopped = shutdown.clone();
        tokio::select! {
            biased;
            () = self.connection(stream, shutdown) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        None
    }

    async fn cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Porch<A> {
    /// A connection to its end.
    async fn connection(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return self.http2(stream, shutdown).await;
        }
        let mut idle = self.bounds.head;
        loop {
            match self.arrival(&mut stream, idle).await {
                Arrival::Head(bytes) => {
                    let Some(reused) = self.request(stream, bytes, shutdown).await else { return };
                    stream = reused;
                    idle = self.bounds.keep_alive;
                }
                Arrival::Http2 => return self.http2(stream, shutdown).await,
                Arrival::Nothing => return,
                Arrival::Refused(refusal) => {
                    (self.on_refusal)(&refusal);
                    return turn_away(stream, &refusal).await;
                }
            }
        }
    }

    async fn http2(&self, stream: Stream, shutdown: &ShutdownWatch) {
        // HTTP/2 never gives its connection back.
        drop(self.inner.process_new(stream, shutdown).await);
    }

    /// One request; gives the connection back if it can carry another.
    async fn request(
        &self,
        stream: Stream,
        head: BytesMut,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let mut session = ServerSession::new_http1(stream);
        session.set_pipelined_prefix(head);
        let keep_alive = (!*shutdown.borrow()).then_some(self.bounds.keep_alive.as_secs());
        session.set_keepalive(keep_alive);
        let reused = self.inner.process_new_http(session, shutdown).await?;
        Some(reused.consume().0)
    }

    async fn arrival(&self, stream: &mut Stream, idle: Duration) -> Arrival {
        let mut first = BytesMut::new();
        if !matches!(timeout(idle, wait(stream, &mut first)).await, Ok(true)) {
            return Arrival::Nothing;
        }
        let whole = async {
            match begins_http2(stream).await {
                Some(true) if preface(stream).await => Arrival::Http2,
                Some(false) => self.head(stream, first).await,
                _ => Arrival::Nothing,
            }
        };
        let whole = timeout(self.bounds.head, whole).await;
        whole.unwrap_or(Arrival::Refused(Refuse::HeadTooSlow))
    }

    async fn head(&self, stream: &mut Stream, mut bytes: BytesMut) -> Arrival {
        bytes.reserve(HEAD_BUFFER);
        let mut scanned = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&bytes[scanned..], head::END) {
                let end = scanned + at + head::END.len();
                if end > self.bounds.head_bytes {
                    return Arrival::Refused(Refuse::HeadTooLarge);
                }
                return match head::check(&bytes[..end]) {
                    Ok(()) => Arrival::Head(bytes),
                    Err(fault) => Arrival::Refused(fault.into()),
                };
            }
            if bytes.len() > self.bounds.head_bytes {
                return Arrival::Refused(Refuse::HeadTooLarge);
            }
            if let Err(fault) = head::check_beginning(&bytes) {
                return Arrival::Refused(fault.into());
            }
            scanned = bytes.len().saturating_sub(head::END.len());
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return Arrival::Nothing,
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
async fn begins_http2(stream: &mut Stream) -> Option<bool> {
    if stream.get_ssl_digest().is_some() {
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

/// Answers a connection whose head was refused, and closes it.
async fn turn_away(mut stream: Stream, refusal: &Refuse) {
    let bytes = refusal.raw_http1();
    let answer = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        AsyncWriteExt::shutdown(&mut stream).await?;
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // The client may be gone or deaf: nothing more can be done for it.
    if !matches!(timeout(LINGER, answer).await, Ok(Ok(()))) {
        tracing::debug!(status = %StatusCode::from(refusal), "a refused client did not listen");
    }
}
