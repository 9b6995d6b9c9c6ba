//! A connection to a pod, which carries one request at a time.

use std::time::Duration;

use bytes::{Buf, Bytes};
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::{HttpSession, http_req_header_to_wire};
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_core::{Error, ErrorType, OrErr};
use pingora_http::{RequestHeader, ResponseHeader};
use router::pool::Pod;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::config::Deadlines;
use crate::request::failure::Failure;

/// One that carries nothing yet.
pub(super) struct Idle {
    stream: Stream,
    peer: HttpPeer,
    /// It has carried a request before: the pod may have closed it since.
    is_reused: bool,
}

/// A request that got no head of an answer.
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    /// The pod had closed the connection before it saw the request, which may be sent again.
    pub(super) is_stale: bool,
}

/// A pod that had closed an idle connection says so within a round trip, which takes no 50 ms inside a
/// cluster. A connection that ends later carried the request to an engine, and what that has computed
/// it would compute again.
const STALE_WITHIN: Duration = Duration::from_millis(50);

/// One whose request was sent and the head of whose answer is here. Dropped, it is closed, which is
/// how vLLM learns to stop; given back, it can be used again.
pub(super) struct Connection(Box<Line>);

/// Kilobytes, which the futures that hand it on would hold several times over.
struct Line {
    session: HttpSession,
    peer: HttpPeer,
}

// === impl Idle ===

impl Idle {
    /// One to a pod: of those that were given back, else a new one.
    ///
    /// # Errors
    ///
    /// Connecting failed, or took longer than `deadlines.connect`.
    pub(super) async fn get(
        connector: &TransportConnector,
        pod: &Pod,
        deadlines: &Deadlines,
    ) -> Result<Self, Box<Error>> {
        let peer = peer(pod, deadlines);
        let (stream, is_reused) = connector.get_stream(&peer).await?;
        Ok(Self { stream, peer, is_reused })
    }

    /// A new one: where one that was given back is stale, so may the others be.
    ///
    /// # Errors
    ///
    /// As [`Idle::get`].
    pub(super) async fn new(
        connector: &TransportConnector,
        pod: &Pod,
        deadlines: &Deadlines,
    ) -> Result<Self, Box<Error>> {
        let peer = peer(pod, deadlines);
        let stream = connector.new_stream(&peer).await?;
        Ok(Self { stream, peer, is_reused: false })
    }

    /// Sends a request, within `limit`, and reads the head of its answer.
    ///
    /// # Errors
    ///
    /// The head cannot be written, the connection broke, or what came is no answer.
    pub(super) async fn send(
        mut self,
        head: &RequestHeader,
        body: &Bytes,
        limit: Duration,
    ) -> Result<Connection, Unanswered> {
        let sent_at = Instant::now();
        if let Err(error) = self.reach(head, body, limit).await {
            let is_prompt = sent_at.elapsed() < STALE_WITHIN;
            let is_stale = self.is_reused && is_prompt && has_ended(&error);
            return Err(Unanswered { failure: Failure::of(&error), is_stale });
        }
        let mut session = HttpSession::new_with_options(self.stream, &self.peer);
        loop {
            let read = session.read_response().await;
            read.map_err(|error| Unanswered { failure: Failure::of(&error), is_stale: false })?;
            if session.resp_header().is_none_or(|head| !head.status.is_informational()) {
                return Ok(Connection(Box::new(Line { session, peer: self.peer })));
            }
        }
    }

    /// Sends a request. Where the pod may never see it, the first byte of its answer is waited for, and
    /// left to be read.
    async fn reach(
        &mut self,
        head: &RequestHeader,
        body: &Bytes,
        limit: Duration,
    ) -> Result<(), Box<Error>> {
        let wrote = timeout(limit, write(&mut self.stream, head, body)).await;
        wrote.or_err(ErrorType::WriteTimedout, "while writing a request")??;
        if self.is_reused {
            let byte = self.stream.try_peek(&mut [0]).await;
            byte.or_err(ErrorType::ConnectionClosed, "before an answer")?;
        }
        Ok(())
    }
}

// === impl Connection ===

impl Connection {
    /// The head of the answer.
    pub(super) fn head(&self) -> Option<&ResponseHeader> {
        self.0.session.resp_header()
    }

    /// From now on a read fails that waits for longer.
    pub(super) fn limit_gaps(&mut self, limit: Duration) {
        self.0.session.read_timeout = Some(limit);
    }

    /// The next bytes of the body.
    ///
    /// # Errors
    ///
    /// The connection broke, or its framing did.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        self.0.session.read_body_bytes().await.map_err(|error| Failure::of(&error))
    }

    /// Gives a connection back whose answer was read to its end.
    pub(super) async fn release(self, connector: &TransportConnector, idle: Duration) {
        let Line { mut session, peer } = *self.0;
        session.respect_keepalive();
        if let Some(stream) = session.reuse().await {
            connector.release_stream(stream, peer.reuse_hash(), Some(idle));
        }
    }

    /// Ends it now, so that the pod stops working for us.
    pub(super) async fn close(mut self) {
        self.0.session.shutdown().await;
    }
}

/// Head and body in one go. Pingora's session flushes the head before it takes the body, which costs
/// every request a system call, a packet and a wake-up of the pod more.
async fn write(stream: &mut Stream, head: &RequestHeader, body: &Bytes) -> Result<(), Box<Error>> {
    let Some(head) = http_req_header_to_wire(head) else {
        return Error::e_explain(ErrorType::InvalidHTTPHeader, "a head that cannot be written");
    };
    let mut request = head.chain(body.as_ref());
    stream.write_all_buf(&mut request).await.or_err(ErrorType::WriteError, "writing a request")?;
    stream.flush().await.or_err(ErrorType::WriteError, "flushing a request")
}

fn has_ended(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::WriteError | ErrorType::ConnectionClosed)
}

/// A pod as Pingora knows it. The group key keeps a new pod on an old address from getting a
/// connection to its predecessor.
pub(super) fn peer(pod: &Pod, deadlines: &Deadlines) -> HttpPeer {
    let mut peer = HttpPeer::new(pod.addr, false, String::new());
    peer.group_key = group_key(pod);
    peer.options.connection_timeout = Some(deadlines.connect.get());
    peer.options.total_connection_timeout = Some(deadlines.connect.get());
    peer.options.idle_timeout = Some(deadlines.upstream_idle.get());
    peer
}

fn group_key(pod: &Pod) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    pod.uid.hash(&mut hasher);
    hasher.finish()
}
