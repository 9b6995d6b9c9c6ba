//! What one request carries through Pingora's phases: facts for the log, and guards.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{StatusCode, header};
use jiff::Timestamp;
use kv_index::Slot;
use router::query::Query;
use router::session::SessionKey;
use router::{Decision, Placement};

use super::books::Sent;
use super::observe::Seen;
use super::seat::Seat;
use crate::refuse::{CLIENT_GONE, Shape};
use crate::telemetry::access_log::{FailedAttempt, Record};
use crate::telemetry::metrics::{Held, Metrics, TokenCounts};
use crate::telemetry::traces::Trace;
use crate::telemetry::{Decided, Ended};

/// One request.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// When its head was complete.
    pub started: Instant,
    pub(super) start_time: Timestamp,
    /// The client's own, or one of ours.
    pub request_id: String,
    /// The door it took, for metrics and log.
    pub route: &'static str,
    /// What its path was before the name of a model was taken out of it.
    pub sent_path: Option<Box<str>>,
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
    /// The pod of the last attempt.
    pub upstream: Option<SocketAddr>,
    /// When the last attempt began.
    pub upstream_sent: Option<Instant>,
    /// When the pod's head came.
    pub upstream_head: Option<Instant>,
    /// Attempts made.
    pub attempts: u32,
    /// Times that its stream went on at another pod.
    pub moves: u32,
    /// Those that failed, as far as the log tells them.
    pub failed: Vec<FailedAttempt>,
    /// A WebSocket, which Pingora carries.
    pub websocket: Option<Query>,
    /// Pods tried for it.
    pub tried: Vec<Slot>,
    /// The place taken for it.
    pub native: Option<Placement>,
    /// What was seen of the answer.
    pub seen: Seen,
    /// What was seen of the prefill leg, if there was one.
    pub split: SplitSeen,
    /// Milliseconds per output token after the first.
    pub tpot_ms: Option<f64>,
    /// Why the router found no pod for the native path.
    pub refusal: Option<router::Refusal>,
    /// Why Hearth answered, or why the answer was cut.
    pub error: Option<&'static str>,
    /// Counts it as in flight.
    pub in_flight: Option<Held>,
    /// Keeps the process from ending under it.
    pub drain: Option<crate::drain::InFlight>,
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

// === impl Ctx ===

impl Ctx {
    /// A request that just began.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            start_time: Timestamp::now(),
            request_id: String::new(),
            route: "none",
            sent_path: None,
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
            upstream: None,
            upstream_sent: None,
            upstream_head: None,
            attempts: 0,
            moves: 0,
            failed: Vec::new(),
            websocket: None,
            tried: Vec::new(),
            native: None,
            seen: Seen::default(),
            split: SplitSeen::default(),
            tpot_ms: None,
            refusal: None,
            error: None,
            in_flight: None,
            drain: None,
        }
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

    /// Notes an attempt that failed.
    pub(crate) fn attempt_failed(&mut self, pod: SocketAddr, reason: &'static str) {
        if self.failed.len() < MOST_FAILED {
            self.failed.push(FailedAttempt { pod, reason });
        }
    }

    /// Tokens of the prompt, and those that the pod was believed to hold. The decision counts in
    /// estimates where there is no tokenizer: once the pod has counted, both are told in its tokens.
    fn prompt_tokens(&self, decision: &Decision) -> (u64, u64) {
        let (matched, estimate) =
            (u64::from(decision.matched_tokens), u64::from(decision.prompt_tokens));
        match self.seen.prompt_tokens.map(u64::from) {
            Some(tokens) if tokens != estimate => {
                (tokens, (matched * tokens / estimate.max(1)).min(tokens))
            }
            _ => (estimate, matched),
        }
    }

    /// Whether the answer came from blocks that another pod has computed.
    pub(super) fn is_split(&self) -> bool {
        let split = self.decision.and_then(|decision| decision.split);
        split.is_some_and(|split| split.prefill.is_some())
    }

    /// Cached prompt tokens that the client is to be told instead of the pod's own count.
    pub(super) fn reused_tokens(&self) -> Option<u32> {
        self.split.cached_tokens.filter(|_| self.is_split())
    }

    /// From sending the request to the pod that answers, to its head. What went before, the client's
    /// body and attempts that failed, is not that pod's time.
    fn service_time(&self) -> Option<Duration> {
        let decode_sent = self.split.sent.filter(|_| self.is_split());
        let sent = decode_sent.or(self.upstream_sent)?;
        Some(self.upstream_head?.saturating_duration_since(sent))
    }

    /// From sending the decode leg to its first token.
    fn transfer_ms(&self) -> Option<f64> {
        let sent_ms = self.split.sent?.duration_since(self.started).as_secs_f64() * 1e3;
        self.seen.ttft_ms.filter(|_| self.is_split()).map(|ttft_ms| (ttft_ms - sent_ms).max(0.0))
    }

    /// Counts the request as ended, with so many bytes of an answer.
    pub(crate) fn count(&self, metrics: &Metrics, status: StatusCode, answer_bytes: usize) {
        let model = self.model.as_deref();
        if let Some((epp, body_bytes)) = metrics.epp.as_ref().zip(self.body_bytes) {
            epp.ended(&Ended {
                model,
                code: status,
                seconds: self.started.elapsed().as_secs_f64(),
                bytes: (body_bytes, answer_bytes),
                decision: self.decision.as_ref().map(|decision| self.decided(decision)),
            });
        }
        metrics.request_ends(self.route, status, model, self.started.elapsed().as_secs_f64());
        match self.error {
            Some(CLIENT_GONE) => metrics.client_gone.inc(),
            Some(reason) => metrics.error(reason),
            None => {}
        }
        let Some(decision) = &self.decision else { return };
        metrics.decision(self.deciding.as_secs_f64());
        if let Some(split) = decision.split {
            let ms = (self.split.prefill_ms, self.transfer_ms());
            metrics.splits.ended(split.verdict, ms);
        }
        if let Some(ttft_ms) = self.seen.ttft_ms {
            metrics.first_token(model, ttft_ms / 1e3);
        }
        if let Some(tpot_ms) = self.tpot_ms {
            metrics.output_token_time(model, tpot_ms / 1e3);
        }
        metrics.tokens(model, self.tokens(decision));
    }

    fn tokens(&self, decision: &Decision) -> TokenCounts {
        let (prompt, matched) = self.prompt_tokens(decision);
        TokenCounts {
            prompt,
            matched,
            cached: u64::from(self.seen.cached_tokens.unwrap_or(0)),
            output: u64::from(self.seen.output_tokens),
        }
    }

    fn decided(&self, decision: &Decision) -> Decided {
        Decided {
            policy: decision.policy.name(),
            is_split: self.is_split(),
            seconds: self.deciding.as_secs_f64(),
            tokens: self.tokens(decision),
        }
    }

    /// The request's line in the access log.
    #[must_use]
    pub(super) fn record(&self, Sent { head, client }: Sent<'_>, status: StatusCode) -> Record {
        let field = |name: &str| head.headers.get(name).map(Into::into);
        let total = self.started.elapsed();
        let answered = self.decision.is_some();
        let usage = |n: u32| answered.then_some(u64::from(n));
        let prompt = self.decision.as_ref().map(|decision| self.prompt_tokens(decision));
        Record {
            start_time: self.start_time,
            method: head.method.as_str().into(),
            path: self.sent_path.as_deref().unwrap_or(head.uri.path()).into(),
            protocol: protocol(head.version),
            response_code: status.as_u16(),
            duration: millis(total),
            upstream_service_time: self.service_time().map(millis),
            upstream_host: self.upstream,
            route_name: self.route,
            authority: head
                .headers
                .get(header::HOST)
                .map(Into::into)
                .or_else(|| head.uri.authority().map(|authority| authority.as_str().into())),
            x_session_id: self.session.as_ref().map(|key| key.to_string().as_str().into()),
            x_test_id: field("x-test-id"),
            user_agent: field("user-agent"),
            request_id: self.request_id.as_str().into(),
            downstream_remote_address: client,
            model: self.model.as_deref().map(Into::into),
            policy: self.decision.map(|decision| decision.policy.name()),
            prompt_tokens: prompt.map(|(tokens, _)| tokens),
            matched_tokens: prompt.map(|(_, matched)| matched),
            cached_tokens: self.seen.cached_tokens.map(u64::from),
            output_tokens: usage(self.seen.output_tokens),
            decision_us: answered.then(|| u64::try_from(self.deciding.as_micros()).unwrap_or(0)),
            ttft_ms: self.seen.ttft_ms,
            queue_ms: self.queue_ms,
            tpot_ms: self.tpot_ms,
            prefill_host: self.split.prefill,
            prefill_ms: self.split.prefill_ms,
            transfer_ms: self.transfer_ms(),
            total_ms: total.as_secs_f64() * 1e3,
            attempts: self.attempts,
            attempts_failed: self.failed.clone(),
            moves: self.moves,
            error: self.error,
            decision: Some(self.decision_header().to_owned()),
        }
    }
}

// === impl SplitSeen ===

impl SplitSeen {
    /// A prefill is done, and the decode leg goes out, or went out with it.
    pub(super) fn prefilled(&mut self, took_ms: f64, cached_tokens: Option<u32>) {
        (self.prefill_ms, self.cached_tokens) = (Some(took_ms), cached_tokens.or(Some(0)));
        self.sent.get_or_insert_with(Instant::now);
    }
}

impl Default for Ctx {
    fn default() -> Self {
        Self::new()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_service_time_begins_when_its_attempt_was_sent() {
        let mut ctx = Ctx::new();
        let at = |s| ctx.started + Duration::from_secs(s);
        let (sent, head) = (at(5), at(7));
        assert_eq!(ctx.service_time(), None);
        (ctx.upstream_sent, ctx.upstream_head) = (Some(sent), Some(head));
        assert_eq!(ctx.service_time(), Some(Duration::from_secs(2)));
    }
}
