//! Where connections arrive: heads are read here, whole and in time, before Pingora parses them.
//!
//! Pingora waits for each read of a head (60 s), not for the head, peeks 24 bytes for HTTP/2 with
//! no limit at all, and forgives much that a strict server refuses. So a connection's head is read
//! under one deadline and one cap, checked ([`crate::head::check`]), and handed on as bytes that were
//! read already.

mod arrival;
mod refused;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::drain::{Drain, Phase};
use arrival::Arrival;
pub(crate) use refused::Refused;

/// Bounds of what a connection may do before it has sent a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From the connection, or a head's first byte, to the head's end. As long again before that for
    /// a TLS handshake.
    pub head: Duration,
    /// From the end of an answer to the next head's first byte.
    pub keep_alive: Duration,
    /// Longest head in bytes.
    pub head_bytes: usize,
}

/// What all listeners share.
pub(crate) struct Shared<A> {
    /// What serves the requests.
    pub app: Arc<A>,
    /// See [`Bounds`].
    pub bounds: Bounds,
    /// A permit for each connection that may be open.
    pub places: Semaphore,
    /// How far the end has come.
    pub drain: Drain,
    /// Hears of every connection that did not become a request.
    pub on_incident: Box<dyn Fn(Incident<'_>) + Send + Sync>,
}

/// A connection that did not become a request.
#[derive(Debug)]
pub(crate) enum Incident<'a> {
    /// There were too many.
    TooMany,
    /// The TLS handshake failed, or took too long.
    Handshake,
    /// The head was refused.
    Head(&'a Refused),
}

/// Wraps the HTTP application behind the strict reading of heads: one for each listener.
pub(crate) struct Ingress<A> {
    shared: Arc<Shared<A>>,
    tls: Option<Acceptor>,
}

// === impl Ingress ===

impl<A> Ingress<A> {
    /// One of the doors of `shared`; with `tls`, one under TLS.
    pub(crate) fn new(shared: Arc<Shared<A>>, tls: Option<Acceptor>) -> Self {
        Self { shared, tls }
    }
}

impl<A> std::fmt::Debug for Ingress<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingress").field("bounds", &self.shared.bounds).finish_non_exhaustive()
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Ingress<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let Ok(_place) = self.shared.places.try_acquire() else {
            (self.shared.on_incident)(Incident::TooMany);
            return None;
        };
        // Whatever may finish has finished when the service is told to stop.
        let mut stopped = shutdown.clone();
        tokio::select! {
            biased;
            () = self.enter(stream, shutdown) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        None
    }

    async fn cleanup(&self) {
        self.shared.app.http_cleanup().await;
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Ingress<A> {
    async fn enter(&self, stream: Stream, shutdown: &ShutdownWatch) {
        match &self.tls {
            None => self.shared.connection(stream, shutdown).await,
            Some(acceptor) => match self.shared.handshake(acceptor, stream).await {
                Some(stream) => self.shared.connection(stream, shutdown).await,
                None => (self.shared.on_incident)(Incident::Handshake),
            },
        }
    }
}

// === impl Shared ===

impl<A: HttpServerApp + Send + Sync + 'static> Shared<A> {
    /// The TLS handshake. Pingora's own listeners would wait 60 s for it.
    async fn handshake(&self, acceptor: &Acceptor, stream: Stream) -> Option<Stream> {
        let socket = stream.into_any().downcast::<L4Stream>().ok()?;
        match timeout(self.bounds.head, acceptor.tls_handshake(*socket)).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_elapsed) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }

    /// A connection to its end.
    async fn connection(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return self.http2(stream).await;
        }
        let mut bytes = BytesMut::new();
        let mut idle = self.bounds.head;
        let mut is_reused = false;
        loop {
            let arrival = Arrival::of(&mut stream, &mut bytes, &self.bounds, idle);
            let arrival = tokio::select! {
                biased;
                arrival = arrival => arrival,
                () = self.drain.reached(Phase::Closing), if is_reused => return,
            };
            match arrival {
                Arrival::Request(end) => {
                    // What lies behind it is the next request, and none of Pingora's business.
                    let next =
                        if end == bytes.len() { BytesMut::new() } else { bytes.split_off(end) };
                    let request = std::mem::replace(&mut bytes, next);
                    let Some(reused) = self.request(stream, request, shutdown).await else {
                        return;
                    };
                    stream = reused;
                    idle = self.bounds.keep_alive;
                    is_reused = true;
                }
                Arrival::Http2 => return self.http2(stream).await,
                Arrival::Nothing => return,
                Arrival::Refused { refuse, first_byte } => {
                    let refused = Refused::new(refuse, first_byte, &bytes, &stream);
                    (self.on_incident)(Incident::Head(&refused));
                    return refused.turn_away(stream).await;
                }
            }
        }
    }

    async fn http2(&self, stream: Stream) {
        // HTTP/2 never gives its connection back.
        drop(self.app.process_new(stream, &self.drain.goaway()).await);
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
        let reused = self.app.process_new_http(session, shutdown).await?;
        Some(reused.consume().0)
    }
}
