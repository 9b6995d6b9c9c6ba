//! One attempt at one pod: connect, send, and read the answer up to its first bytes.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header, response};
use kv_index::Slot;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use router::continuation::Stream;
use router::pool::Pod;
use tokio::time::{Instant, timeout};

use super::forwarded::Field;
use super::lease::{Lease, looked_for};
use crate::config::Deadlines;

/// A request to a pod.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) connector: &'a Connector,
    pub(super) pod: &'a Pod,
    pub(super) deadlines: &'a Deadlines,
    pub(super) head: &'a RequestHeader,
    pub(super) body: &'a Bytes,
    /// It may be sent only while this is open.
    pub(super) lease: Option<Lease>,
    /// Set when it goes out: from then on the pod may act upon it.
    pub(super) sent: Option<&'a AtomicBool>,
    /// Its answer begins a lease, and is looked for this often.
    pub(super) look_every: Option<Duration>,
}

/// A pod's answer whose first bytes are here and whose head has not gone to the client yet.
pub(super) struct Answer {
    /// Without the fields that do not pass.
    pub(super) head: response::Parts,
    /// None: the answer has no body, or it is complete.
    pub(super) first: Option<Bytes>,
    pub(super) connection: Connection,
    /// Its events, once they are looked into.
    pub(super) stream: Option<Box<Stream>>,
    /// It was read to its end.
    pub(super) ended: bool,
    /// The last instant at which its head was not here, if it was looked for; else when it was sent.
    pub(super) absent_at: Instant,
}

/// A connection to a pod. Dropped, it is closed, which is how vLLM learns to stop; given back, it
/// can be used again.
pub(super) struct Connection(Box<Line>);

/// Kilobytes, which the futures that hand it on would hold several times over.
struct Line {
    session: HttpSession<()>,
    peer: HttpPeer,
}

/// Why an attempt gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The metric's label.
    pub(super) reason: &'static str,
    /// In a few words, for the client.
    pub(super) cause: &'static str,
    /// Whether another pod may be tried: not after the pod had all the time there is.
    pub(super) is_final: bool,
}

/// How often a pooled connection may turn out to be closed before the pod is blamed. vLLM closes
/// idle ones after 5 s and we after 3, so one is rare and three are a pod that just went.
const STALE_CONNECTIONS: usize = 3;

/// The reason of a failure that proves that the pod's process is gone.
const CONNECT_REFUSED: &str = "connect_refused";

/// The 500s of a vLLM that drains and of one whose engine has died look like this, and are no fault of
/// the request.
const ENGINE_GONE: [&[u8]; 2] =
    [b"cannot schedule new futures after shutdown", b"EngineCore encountered an issue"];

// === impl Connection ===

impl Connection {
    /// The next bytes of the body.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        self.0.session.read_response_body().await.map_err(|error| Failure::of(&error))
    }

    /// Gives a connection back whose answer was read to its end.
    pub(super) async fn release(self, connector: &Connector, idle: Duration) {
        let Line { session, peer } = *self.0;
        connector.release_http_session(session, &peer, Some(idle)).await;
    }

    /// Ends it now, so that the pod stops working for us.
    pub(super) async fn close(mut self) {
        self.0.session.shutdown().await;
    }

    async fn send(&mut self, head: RequestHeader, body: &Bytes) -> Result<(), Box<Error>> {
        self.0.session.write_request_header(Box::new(head)).await?;
        if !body.is_empty() {
            self.0.session.write_request_body(body.clone(), true).await?;
        }
        self.0.session.finish_request_body().await?;
        loop {
            self.0.session.read_response_header().await?;
            let status = self.0.session.response_header().map(|head| head.status);
            if status.is_none_or(|status| !status.is_informational()) {
                return Ok(());
            }
        }
    }
}

// === impl Answer ===

impl Answer {
    /// Sends a request to a pod and waits for the first bytes of its answer, for so long in all: a
    /// pod that drips its head byte by byte has no more time than one that is silent.
    pub(super) async fn of(call: &Call<'_>, limit: Duration) -> Result<Self, Failure> {
        let answer = pin!(Self::by_any_connection(call));
        timeout(limit, answer).await.unwrap_or(Err(Failure::TOO_LATE))
    }

    async fn by_any_connection(call: &Call<'_>) -> Result<Self, Failure> {
        let Call { connector, pod, deadlines, .. } = *call;
        let mut stale = 0;
        loop {
            let peer = peer(pod, deadlines);
            let (mut session, reused) =
                connector.get_http_session(&peer).await.map_err(|error| Failure::of(&error))?;
            session.set_read_timeout(None);
            session.set_write_timeout(Some(deadlines.client_write.get()));
            let mut connection = Connection(Box::new(Line { session, peer }));
            let now = Instant::now();
            if call.lease.is_some_and(|lease| !lease.is_open(now)) {
                return Err(Failure::LEASE_OVER);
            }
            if let Some(sent) = call.sent {
                sent.store(true, Ordering::Relaxed);
            }
            let send = connection.send(call.head.clone(), call.body);
            let (sent, absent_at) = match call.look_every {
                Some(every) => looked_for(send, every).await,
                None => (send.await, now),
            };
            match sent {
                Ok(()) => return Self::begin(connection, deadlines, absent_at).await,
                Err(error) if reused && stale < STALE_CONNECTIONS && was_closed(&error) => {
                    stale += 1;
                    if let Some(sent) = call.sent {
                        sent.store(false, Ordering::Relaxed);
                    }
                }
                Err(error) => return Err(Failure::of(&error)),
            }
        }
    }

    async fn begin(
        mut connection: Connection,
        deadlines: &Deadlines,
        absent_at: Instant,
    ) -> Result<Self, Failure> {
        let head = connection.0.session.response_header().ok_or(Failure::MALFORMED)?;
        let head = answer_head(head);
        let first = loop {
            match connection.read().await? {
                Some(bytes) if bytes.is_empty() => {}
                first => break first,
            }
        };
        connection.0.session.set_read_timeout(Some(deadlines.between_bytes.get()));
        Ok(Self { head, first, connection, stream: None, ended: false, absent_at })
    }

    /// Whether the client asked for it and got a stream of events.
    pub(super) fn is_event_stream(&self) -> bool {
        let value = self.head.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
        value.is_some_and(|value| value.starts_with(b"text/event-stream"))
    }

    /// Why another pod should be asked instead, if it should.
    pub(super) fn complaint(&self) -> Option<Failure> {
        let first = self.first.as_deref().unwrap_or_default();
        let is_error_event = || self.is_event_stream() && first.starts_with(b"data: {\"error\"");
        match self.head.status {
            StatusCode::BAD_GATEWAY => Some(Failure::retry("status_502", "a pod answered 502")),
            StatusCode::SERVICE_UNAVAILABLE => Some(Failure::BUSY),
            StatusCode::GATEWAY_TIMEOUT => Some(Failure::retry("status_504", "a pod answered 504")),
            StatusCode::TOO_MANY_REQUESTS => Some(Failure::BUSY),
            StatusCode::INTERNAL_SERVER_ERROR
                if ENGINE_GONE.iter().any(|it| memchr::memmem::find(first, it).is_some()) =>
            {
                Some(Failure::retry("engine_gone", "a pod's engine has stopped"))
            }
            StatusCode::INTERNAL_SERVER_ERROR => Some(Failure::SERVER_ERROR),
            StatusCode::OK if is_error_event() => Some(Failure::ERROR_EVENT),
            _ => None,
        }
    }

    /// The same of an answer to one of two legs: an engine that cannot get what it was told to get says
    /// 500, and so may one that cannot hand it over.
    pub(super) fn complaint_of_leg(&self) -> Option<Failure> {
        let is_error = self.head.status.is_server_error();
        let complaint = self.complaint().filter(|it| *it != Failure::SERVER_ERROR);
        complaint.or(is_error.then_some(Failure::LEG_ERROR))
    }
}

// === impl Failure ===

impl Failure {
    /// The pod has no room: another may have.
    pub(super) const BUSY: Self = Self::retry("busy", "the pods are busy");
    /// It failed in the middle of an answer.
    pub(super) const CUT: Self = Self::retry("cut", "a pod failed while answering");
    /// It said so itself: with an error event, or a choice that it gave up.
    pub(super) const ERROR_EVENT: Self = Self::retry("error_event", "a pod failed while answering");
    /// It answered 500 to a plain request.
    pub(super) const SERVER_ERROR: Self = Self::retry("status_500", "a pod answered 500");
    /// It was silent, and does not answer probes any more or stands still.
    pub(super) const OUT: Self = Self::retry("pod_out", "a pod fell silent");
    /// It was silent for longer than it ever is.
    pub(super) const STALLED: Self = Self::retry("stalled", "a pod fell silent");
    /// It terminates, and its time is nearly over.
    pub(super) const LEAVING: Self = Self::retry("pod_leaving", "a pod terminated");
    /// It did not take what should go on there.
    pub(super) const REFUSED: Self = Self::retry("refused", "a pod refused to go on");
    /// It is not what it should be.
    pub(super) const MALFORMED: Self = Self::retry("malformed", "a pod's answer was malformed");
    /// A leg of a split request was answered with a 5xx.
    const LEG_ERROR: Self = Self::retry("status_5xx", "a pod failed at a split request");
    /// A prefill pod turned the request down, and so will others.
    pub(super) const TURNED_DOWN: Self =
        Self::retry("turned_down", "a prefill pod turned the request down");
    /// A prefill pod took too long.
    pub(super) const PREFILL_TOO_LATE: Self =
        Self::retry("prefill_too_late", "a prefill pod did not answer in time");
    /// A prefill was answered, and nothing was handed over.
    pub(super) const NO_PARAMS: Self = Self::retry("no_params", "a prefill pod kept nothing");
    /// A prefill pod's bootstrap server does not tell its engines.
    pub(super) const NO_ENGINE: Self = Self::retry("no_engine", "a prefill pod is not known");
    /// A decode pod was silent for longer than a transfer can take.
    pub(super) const NO_TRANSFER: Self =
        Self::retry("no_transfer", "a transfer between pods took too long");
    /// What was prefilled may be gone.
    pub(super) const LEASE_OVER: Self = Self::retry("lease_over", "a prefill was too old");
    /// No answer in time.
    pub(super) const TOO_LATE: Self =
        Self { reason: "first_byte_too_late", cause: "no answer in time", is_final: true };

    const fn retry(reason: &'static str, cause: &'static str) -> Self {
        Self { reason, cause, is_final: false }
    }

    fn of(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ConnectTimedout => {
                Self::retry("connect_timeout", "connecting took too long")
            }
            ErrorType::ConnectRefused => Self::retry(CONNECT_REFUSED, "connection refused"),
            ErrorType::ConnectNoRoute | ErrorType::ConnectError | ErrorType::SocketError => {
                Self::retry("connect_failed", "connecting failed")
            }
            ErrorType::ReadTimedout => Self::retry("silent", "a pod fell silent"),
            ErrorType::WriteTimedout => Self::retry("write_timeout", "a pod did not read"),
            ErrorType::InvalidHTTPHeader => Self::MALFORMED,
            _ => Self::retry("reset", "a pod closed the connection"),
        }
    }
}

/// The head as the pod gets it: the client's own, cleaned, framed by one length, with `told` beside.
///
/// It is built anew and not copied: Pingora keeps the case of each name beside the fields of a head
/// that it has read, which makes changing one cost four times as much. Pods do not mind the case.
pub(super) fn request_head(
    client: &RequestHeader,
    body_len: usize,
    told: Vec<Field>,
) -> Result<RequestHeader, Box<Error>> {
    let mut fields = super::headers::for_pod(&client.headers);
    fields.remove(header::EXPECT);
    if !fields.contains_key(header::HOST) {
        let authority = client.uri.authority().map_or("localhost", |authority| authority.as_str());
        fields
            .extend(value(&header::HOST, authority.to_owned().into()).map(|it| (header::HOST, it)));
    }
    if body_len > 0 || client.method != Method::GET {
        fields.insert(header::CONTENT_LENGTH, body_len.into());
    }
    for (name, text) in told {
        if let Some(value) = value(&name, text) {
            fields.insert(name, value);
        }
    }
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.version, parts.headers) =
        (client.method.clone(), Version::HTTP_11, fields);
    let mut head = RequestHeader::from(parts);
    head.set_raw_path(client.raw_path())?;
    Ok(head)
}

/// A pod's head as the client gets it but for our own fields, built anew like [`request_head`].
fn answer_head(pod: &ResponseHeader) -> response::Parts {
    let (mut head, ()) = http::Response::new(()).into_parts();
    (head.status, head.version) = (pod.status, pod.version);
    head.headers = super::headers::for_client(&pod.headers);
    head
}

/// A field's value, if the text is fit for one.
pub(super) fn value(name: &HeaderName, text: Bytes) -> Option<HeaderValue> {
    let value = HeaderValue::from_maybe_shared(text);
    if value.is_err() {
        tracing::debug!(%name, "a value is not fit for a header");
    }
    value.ok()
}

/// The same head for another body.
pub(super) fn with_length(head: &RequestHeader, body_len: usize) -> RequestHeader {
    let mut head = head.clone();
    if let Err(error) = head.insert_header(header::CONTENT_LENGTH, body_len) {
        tracing::error!(%error, "a length was refused by the head that it was written to");
    }
    head
}

/// A request of our own: JSON to a path.
pub(super) fn request_for(path: &str, body: &Bytes) -> Result<RequestHeader, Box<Error>> {
    let mut head = RequestHeader::build(Method::POST, path.as_bytes(), Some(3))?;
    head.insert_header(header::HOST, "localhost")?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    Ok(head)
}

/// A question of our own.
pub(super) fn get_for(path: &str) -> Result<RequestHeader, Box<Error>> {
    let mut head = RequestHeader::build(Method::GET, path.as_bytes(), Some(1))?;
    head.insert_header(header::HOST, "localhost")?;
    Ok(head)
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

/// Tells the pool what came of an attempt: no failure is an answer.
pub(super) fn report(pool: &router::pool::Pool, slot: Slot, failure: Option<Failure>) {
    use router::pool::Outcome;
    let outcome = match failure {
        None => Outcome::Answered,
        Some(Failure::BUSY) => Outcome::Busy,
        Some(Failure { reason: CONNECT_REFUSED, .. }) => Outcome::Refused,
        Some(Failure::STALLED) => Outcome::Stalled,
        // The pool has said so itself.
        Some(Failure::OUT | Failure::LEAVING) => return,
        Some(_) => Outcome::Failed,
    };
    let reason = failure.map_or("answered", |failure| failure.reason);
    pool.report_because(slot, outcome, reason);
}

fn was_closed(error: &Error) -> bool {
    !matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
}
