//! A stream whose pod failed goes on at another pod, and the client does not see it.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, header};
use kv_index::Slot;
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use router::continuation::{Next, Resumption, Stream, Writing, asking_for_ids};
use router::openai::{Api, StreamFormat};
use router::query::Query;
use router::silence::Ear;
use router::{Placement, Refusal};

use super::Gateway;
use super::connection::Connection;
use super::legs::Request;
use super::relay::gone;
use super::upstream::{Answer, request_head};
use crate::drain::Phase;
use crate::request::account::Account;
use crate::request::failure::{Failure, report};

/// How a stream goes on.
pub(super) enum Onward {
    /// Another pod has begun its part.
    Pod(Connection, Option<Bytes>),
    /// It was whole but for these bytes.
    Over(Bytes),
    /// Nobody can go on.
    Nobody,
    ClientGone,
    DrainCut,
}

impl Gateway {
    /// What a request's stream shows, and the body for the pod: it is asked for ids where another pod
    /// could go on with them.
    pub(super) fn prepare(&self, query: &Query, body: Bytes) -> (Option<StreamFormat>, Bytes) {
        let Some(mut format) = query.stream else { return (None, body) };
        let has_ids = matches!(format.api, Api::Chat | Api::Completions) && format.choices == 1;
        format.has_ids = has_ids && (format.wants_ids || self.config.survive.migrate);
        let is_ours = format.has_ids && !format.wants_ids;
        let body = if is_ours { Bytes::from(asking_for_ids(&body)) } else { body };
        (Some(format), body)
    }

    /// Finds out how a stream goes on whose pod has failed.
    pub(super) async fn go_on(
        &self,
        session: &mut Session,
        account: &mut Account,
        (stream, placement): (&mut Stream, &mut Placement),
        request: &Request<'_>,
    ) -> Onward {
        let mut moves_left = self.config.survive.moves.saturating_sub(account.moves);
        if !self.config.survive.migrate {
            moves_left = 0;
        }
        let next = stream.resume(&request.body, self.router.model(request.query));
        let (onward, outcome) = match next {
            Next::Over(rest) => (Onward::Over(Bytes::from(rest)), "completed"),
            Next::Cannot(why) => (Onward::Nobody, why.label()),
            Next::Pod(_) if moves_left == 0 => (Onward::Nobody, "failed"),
            Next::Pod(next) => {
                match self.next_pod(session, account, placement, (request.query, &next)).await {
                    Onward::Nobody => (Onward::Nobody, "failed"),
                    onward => (onward, "continued"),
                }
            }
        };
        if !matches!(onward, Onward::ClientGone | Onward::DrainCut) {
            self.metrics.migration(outcome);
        }
        onward
    }

    async fn next_pod(
        &self,
        session: &mut Session,
        account: &mut Account,
        placement: &mut Placement,
        (query, next): (&Query, &Resumption),
    ) -> Onward {
        let body = Bytes::copy_from_slice(&next.body);
        let Some(head) = self.leg_head(session, account, body.len()) else { return Onward::Nobody };
        let query = self.router.follow(query, next);
        let mut tried = vec![placement.endpoint.slot];
        for _ in 0..self.config.retry.attempts {
            let started = std::time::Instant::now();
            let next = self.place_of_rest(&query, &tried);
            account.deciding += started.elapsed();
            let Ok(mut next) = next else { break };
            let endpoint = Arc::clone(&next.endpoint);
            let pod = &endpoint.pod;
            account.attempts += 1;
            let call = self.call(pod, &head, &body);
            let attempt = pin!(Answer::of(&call, self.config.deadlines.first_byte.get()));
            let attempt = self.while_hopeful((next.endpoint.slot, Ear::Beginning), attempt);
            let attempt = tokio::select! {
                biased;
                attempt = attempt => attempt,
                () = gone(session) => return Onward::ClientGone,
                () = self.drain.reached(Phase::Cutting) => return Onward::DrainCut,
            };
            let failure = match &attempt {
                Ok(answer) if answer.head.status != StatusCode::OK => {
                    Some(answer.complaint().unwrap_or(Failure::Refused))
                }
                Ok(answer) => answer.complaint(),
                Err(failure) => Some(*failure),
            };
            report(self.router.pool(), next.endpoint.slot, failure);
            if let (None, Ok(answer)) = (failure, attempt) {
                *placement = next;
                placement.answered(answer.head.status.as_u16(), std::time::Instant::now());
                account.attempt.pod = Some(placement.endpoint.pod.addr);
                account.moves += 1;
                return Onward::Pod(answer.connection, answer.first);
            }
            let reason = failure.map_or("refused", Failure::reason);
            account.attempt_failed(pod.addr, reason);
            next.failed(reason);
            tried.push(next.endpoint.slot);
        }
        Onward::Nobody
    }

    /// A place for the rest of a stream. One that is free if there is one: what a pod with hundreds of
    /// streams leaves behind comes all at once. But a stream that has begun is refused for want of
    /// neither a place nor a budget: its client would lose an answer that was paid for, and a rest is
    /// no load beyond that which the fleet had before (`survive.moves` bounds how often).
    fn place_of_rest(&self, query: &Query, tried: &[Slot]) -> Result<Placement, Refusal> {
        let free = self.router.place_free(query, tried, "continued");
        free.or_else(|_full| self.router.place(query, tried))
    }

    fn leg_head(
        &self,
        session: &Session,
        account: &Account,
        body_len: usize,
    ) -> Option<RequestHeader> {
        let told = self.told_to_pod(session, account);
        let mut head = request_head(session.req_header(), body_len, told).ok()?;
        head.set_raw_path(Api::Completions.path().as_bytes()).ok()?;
        head.insert_header(header::CONTENT_TYPE, "application/json").ok()?;
        Some(head)
    }

    /// Tells the pool of a pod whose stream ended early.
    pub(super) fn report_cut(
        &self,
        account: &mut Account,
        placement: &mut Placement,
        (stream, silence): (Option<&Stream>, Option<Failure>),
    ) {
        if stream.is_some_and(|stream| stream.is_finished()) {
            // It had said all but `[DONE]`, which some engines never say.
            return;
        }
        let is_error = stream.is_some_and(|stream| stream.state() == Writing::Failed);
        let failure = if is_error { Failure::ErrorEvent } else { silence.unwrap_or(Failure::Cut) };
        report(self.router.pool(), placement.endpoint.slot, Some(failure));
        account.attempt_failed(placement.endpoint.pod.addr, failure.reason());
        placement.failed(failure.reason());
    }
}
