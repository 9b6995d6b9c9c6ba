//! One attempt at one pod: connect, send, and read the answer up to its first bytes.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header, response};
use pingora_core::Error;
use pingora_core::connectors::TransportConnector;
use pingora_http::{RequestHeader, ResponseHeader};
use router::continuation::Stream;
use router::pool::Pod;
use tokio::time::{Instant, timeout};

use super::connection::{Connection, Idle, Unanswered};
use super::lease::{Lease, looked_for};
use crate::config::Deadlines;
use crate::request::account::Field;
use crate::request::failure::Failure;
use crate::request::headers;

/// A request to a pod.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) connector: &'a TransportConnector,
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

/// The 500s of a vLLM that drains and of one whose engine has died look like this, and are no fault of
/// the request.
const ENGINE_GONE: [&[u8]; 2] =
    [b"cannot schedule new futures after shutdown", b"EngineCore encountered an issue"];

// === impl Call ===

impl Call<'_> {
    /// The head as this pod gets it: with its rank, where several answer at its address.
    fn head(&self) -> Cow<'_, RequestHeader> {
        let Some(rank) = self.pod.rank else { return Cow::Borrowed(self.head) };
        let mut head = self.head.clone();
        if head.insert_header("x-data-parallel-rank", rank).is_err() {
            tracing::error!("a number was refused by the head that it was written to");
        }
        Cow::Owned(head)
    }
}

// === impl Answer ===

impl Answer {
    /// Sends a request to a pod and waits for the first bytes of its answer, for so long in all: a
    /// pod that drips its head byte by byte has no more time than one that is silent.
    pub(super) async fn of(call: &Call<'_>, limit: Duration) -> Result<Self, Failure> {
        let answer = pin!(Self::by_any_connection(call));
        timeout(limit, answer).await.unwrap_or(Err(Failure::TooLate))
    }

    /// By a connection that was used before, if there is one. Where the pod had closed that, by a new
    /// one: vLLM closes idle ones after 5 s and we after 3, so this is rare, and no fault of a pod's.
    async fn by_any_connection(call: &Call<'_>) -> Result<Self, Failure> {
        let Call { connector, pod, deadlines, .. } = *call;
        let idle = Idle::get(connector, pod, deadlines).await;
        let idle = idle.map_err(|error| Failure::of(&error))?;
        let answer = match Self::by(idle, call).await {
            Err(Unanswered { is_stale: true, .. }) => {
                if let Some(sent) = call.sent {
                    sent.store(false, Ordering::Relaxed);
                }
                let idle = Idle::new(connector, pod, deadlines).await;
                Self::by(idle.map_err(|error| Failure::of(&error))?, call).await
            }
            answer => answer,
        };
        answer.map_err(|unanswered| unanswered.failure)
    }

    async fn by(idle: Idle, call: &Call<'_>) -> Result<Self, Unanswered> {
        let failed = |failure| Unanswered { failure, is_stale: false };
        let now = Instant::now();
        if call.lease.is_some_and(|lease| !lease.is_open(now)) {
            return Err(failed(Failure::LeaseOver));
        }
        if let Some(sent) = call.sent {
            sent.store(true, Ordering::Relaxed);
        }
        let head = call.head();
        let send = idle.send(&head, call.body, call.deadlines.upstream_write.get());
        let (sent, absent_at) = match call.look_every {
            Some(every) => looked_for(send, every).await,
            None => (send.await, now),
        };
        Self::begin(sent?, call.deadlines, absent_at).await.map_err(failed)
    }

    async fn begin(
        mut connection: Connection,
        deadlines: &Deadlines,
        absent_at: Instant,
    ) -> Result<Self, Failure> {
        let head = answer_head(connection.head().ok_or(Failure::Malformed)?);
        let first = loop {
            match connection.read().await? {
                Some(bytes) if bytes.is_empty() => {}
                first => break first,
            }
        };
        connection.limit_gaps(deadlines.between_bytes.get());
        Ok(Self { head, first, connection, stream: None, ended: false, absent_at })
    }

    /// Whether the client asked for it and got a stream of events.
    pub(super) fn is_event_stream(&self) -> bool {
        headers::is_event_stream(&self.head.headers)
    }

    /// Why another pod should be asked instead, if it should.
    pub(super) fn complaint(&self) -> Option<Failure> {
        let first = self.first.as_deref().unwrap_or_default();
        let is_error_event = || self.is_event_stream() && first.starts_with(b"data: {\"error\"");
        match self.head.status {
            StatusCode::INTERNAL_SERVER_ERROR
                if ENGINE_GONE.iter().any(|it| memchr::memmem::find(first, it).is_some()) =>
            {
                Some(Failure::EngineGone)
            }
            StatusCode::OK if is_error_event() => Some(Failure::ErrorEvent),
            status => Failure::of_status(status),
        }
    }

    /// The same of an answer to one of two legs: an engine that cannot get what it was told to get says
    /// 500, and so may one that cannot hand it over.
    pub(super) fn complaint_of_leg(&self) -> Option<Failure> {
        let is_error = self.head.status.is_server_error();
        let complaint = self.complaint().filter(|it| *it != Failure::ServerError);
        complaint.or(is_error.then_some(Failure::LegError))
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
    let mut fields = headers::for_pod(&client.headers);
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
    head.headers = headers::for_client(&pod.headers);
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
