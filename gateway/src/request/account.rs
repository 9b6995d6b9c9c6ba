//! The account of a request: what is known of it when it is over. It is closed once, whatever ends the
//! request, and then counted, logged and traced.

mod spans;
#[cfg(test)]
mod tests;
mod told;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request};
use jiff::Timestamp;
use router::query::Query;
use router::session::{SESSION_HEADER, SessionKey};
use router::{Decision, Placement};

use super::books::Books;
use super::observe::Seen;
use super::seat::Seat;
use crate::refuse::{CLIENT_GONE, Refuse, Shape};
use crate::telemetry::access_log::FailedAttempt;
use crate::telemetry::traces::{TRACEPARENT, Trace};

/// One request.
#[derive(Debug)]
pub(crate) struct Account {
    books: Arc<Books>,
    /// None before it is opened, and when it is closed.
    sent: Option<Sent>,
    /// When its head was complete.
    pub started: Instant,
    start_time: Timestamp,
    /// The client's own, or one of ours.
    pub request_id: String,
    /// The door it took, for metrics and log.
    pub route: &'static str,
    /// The model or alias that its path named.
    pub asked: Option<Arc<str>>,
    /// The shape of its errors.
    pub shape: Shape,
    /// Bytes of its body, once that was read.
    pub body_bytes: Option<usize>,
    /// From when to when it was read and tokenized.
    pub reading: Option<(Instant, Instant)>,
    /// Its ids, if it is traced.
    pub trace: Option<Trace>,
    /// Its model, once a pod is known to list it.
    pub model: Option<Arc<str>>,
    /// Its session key.
    pub session: Option<SessionKey>,
    /// Milliseconds that it waited here until a pod had a place for it; none if one had.
    pub queue_ms: Option<f64>,
    /// Why the pod that answers was chosen.
    pub decision: Option<Decision>,
    /// The same as the client was told it, and as the log tells it.
    decision_header: OnceLock<String>,
    /// Time that choosing took, all attempts together.
    pub deciding: Duration,
    /// The attempt that answers, or else the last one.
    pub attempt: Attempt,
    /// Attempts made.
    pub attempts: u32,
    /// Times that its stream went on at another pod.
    pub moves: u32,
    /// Those that failed, as far as the log tells them.
    pub failed: Vec<FailedAttempt>,
    /// What was seen of the answer.
    pub seen: Seen,
    /// Milliseconds per output token after the first.
    pub tpot_ms: Option<f64>,
    /// Why Hearth answered, or why the answer was cut.
    pub error: Option<&'static str>,
}

/// A request as its client sent it, as far as the log tells that.
#[derive(Debug)]
struct Sent {
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    test_id: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// The client's end of the connection.
    client: Option<SocketAddr>,
}

/// Facts about one attempt at an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Attempt {
    /// The pod that answers, or should.
    pub pod: Option<SocketAddr>,
    /// When it began.
    pub sent: Option<Instant>,
    /// When the pod's head came.
    pub head: Option<Instant>,
    /// What was seen of the prefill leg, if there was one.
    pub split: SplitSeen,
}

/// Facts about a split request, for the log and the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SplitSeen {
    /// The pod that prefilled last, or should have.
    pub prefill: Option<SocketAddr>,
    /// From sending the prefill leg to its answer.
    pub prefill_ms: Option<f64>,
    /// Prompt tokens that the prefill pod found in its cache: those that nobody computed.
    pub cached_tokens: Option<u32>,
    /// When the decode leg was sent.
    pub sent: Option<Instant>,
}

/// Failed attempts that a line of the access log tells; `retry.attempts` may be more.
const MOST_FAILED: usize = 8;

/// A field of a head: its name and its value, which may be a client's and unfit.
pub(crate) type Field = (HeaderName, Bytes);

/// The request's id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which pod answered.
const UPSTREAM_HOST: HeaderName = HeaderName::from_static("x-upstream-host");

/// Why that pod.
const DECISION: HeaderName = HeaderName::from_static("x-hearth-decision");

// === impl Account ===

impl Account {
    /// The account of a request that just began.
    #[must_use]
    pub(crate) fn new(books: Arc<Books>) -> Self {
        Self {
            books,
            sent: None,
            started: Instant::now(),
            start_time: Timestamp::now(),
            request_id: String::new(),
            route: "none",
            asked: None,
            shape: Shape::default(),
            body_bytes: None,
            reading: None,
            trace: None,
            model: None,
            session: None,
            queue_ms: None,
            decision: None,
            decision_header: OnceLock::new(),
            deciding: Duration::ZERO,
            attempt: Attempt::default(),
            attempts: 0,
            moves: 0,
            failed: Vec::new(),
            seen: Seen::default(),
            tpot_ms: None,
            error: None,
        }
    }

    /// From here on the request is told of when it ends.
    pub(crate) fn open(&mut self, head: &request::Parts, client: Option<SocketAddr>) {
        let field = |name: HeaderName| head.headers.get(name).cloned();
        self.sent = Some(Sent {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            host: field(header::HOST),
            test_id: field(HeaderName::from_static("x-test-id")),
            user_agent: field(header::USER_AGENT),
            client,
        });
    }

    /// Closes it, with the status of the answer, if there was one, and its bytes.
    pub(crate) fn close(&mut self, status: Option<StatusCode>, bytes: usize) {
        let Some(sent) = self.sent.take() else { return };
        // 499, nginx's word for a client that left before there was a status.
        let gone = || StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        let status = status.unwrap_or_else(gone);
        self.count(&self.books.metrics, status, bytes);
        if let Some((traces, trace)) = self.books.traces.as_ref().zip(self.trace) {
            traces.end(&trace, self.spans(status));
        }
        if let Some(log) = &self.books.access_log {
            log.write(self.record(&sent, status));
        }
    }

    /// What every answer carries: the request's id, the pod, and why that pod.
    pub(crate) fn stamps(&self) -> impl Iterator<Item = (HeaderName, String)> + use<> {
        let upstream = self.attempt.pod.map(|addr| (UPSTREAM_HOST, addr.to_string()));
        let decision = (DECISION, self.decision_header().to_owned());
        [(REQUEST_ID, self.request_id.clone())].into_iter().chain(upstream).chain([decision])
    }

    /// What pods are told of it beyond what the client said.
    pub(crate) fn told_to_pods(&self) -> Vec<Field> {
        let mut fields = Vec::with_capacity(6);
        fields.push((REQUEST_ID, self.request_id.clone().into()));
        if let Some(key) = &self.session {
            fields.push((SESSION_HEADER, key.value.to_string().into()));
        }
        if let Some(trace) = &self.trace {
            fields.push((TRACEPARENT, trace.traceparent().into()));
        }
        fields
    }

    /// `x-hearth-decision` of the answer, made when it is asked for first.
    #[must_use]
    pub(crate) fn decision_header(&self) -> &str {
        self.decision_header.get_or_init(|| match (&self.decision, self.error) {
            (Some(decision), _) => crate::decision::header(decision),
            (None, Some(error)) => crate::decision::refused(error),
            (None, None) => crate::decision::NONE.to_owned(),
        })
    }

    /// Notes what was read.
    pub(crate) fn knows(&mut self, query: &Query) {
        self.model.clone_from(&query.model);
        self.session.clone_from(&query.session);
    }

    /// Notes what its first place cost, and returns it.
    pub(crate) fn seated(&mut self, seat: Seat) -> Placement {
        self.deciding += seat.deciding;
        self.queue_ms = seat.queue_ms;
        seat.placement
    }

    /// Notes where an attempt goes, and why.
    pub(crate) fn goes_to(&mut self, placement: &Placement, query: &Query) {
        let pod = Some(placement.endpoint.pod.addr);
        self.attempt = Attempt { pod, sent: Some(Instant::now()), ..Attempt::default() };
        self.decision = query.api.map(|_read| placement.decision);
    }

    /// Notes an attempt that failed.
    pub(crate) fn attempt_failed(&mut self, pod: SocketAddr, reason: &'static str) {
        if self.failed.len() < MOST_FAILED {
            self.failed.push(FailedAttempt { pod, reason });
        }
    }

    /// Whether the answer came from blocks that another pod has computed.
    pub(crate) fn is_split(&self) -> bool {
        let split = self.decision.and_then(|decision| decision.split);
        split.is_some_and(|split| split.prefill.is_some())
    }

    /// Cached prompt tokens that the client is to be told instead of the pod's own count.
    pub(crate) fn reused_tokens(&self) -> Option<u32> {
        self.attempt.split.cached_tokens.filter(|_| self.is_split())
    }
}

impl Drop for Account {
    /// Nobody has come to its end: the task that carried it has panicked, or was dropped.
    fn drop(&mut self) {
        if thread::panicking() {
            self.error = Some(Refuse::Internal.reason());
            return self.close(Some(StatusCode::INTERNAL_SERVER_ERROR), 0);
        }
        self.error.get_or_insert(CLIENT_GONE);
        self.close(None, 0);
    }
}

// === impl SplitSeen ===

impl SplitSeen {
    /// A prefill is done, and the decode leg goes out, or went out with it.
    pub(crate) fn prefilled(&mut self, took_ms: f64, cached_tokens: Option<u32>) {
        (self.prefill_ms, self.cached_tokens) = (Some(took_ms), cached_tokens.or(Some(0)));
        self.sent.get_or_insert_with(Instant::now);
    }
}
