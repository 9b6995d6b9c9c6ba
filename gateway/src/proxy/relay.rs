//! Carries a request to a pod that answers it.
//!
//! Until the first bytes of a good answer are here nothing goes to the client, and any failure
//! moves on to another pod. What comes after is `answer.rs`.

use std::time::Instant;

use bytes::Bytes;
use pingora_core::ErrorType;
use pingora_proxy::Session;
use router::openai::without;
use router::query::Query;
use router::{Placement, Refusal};
use tower::retry::budget::Budget;

use super::Gateway;
use super::commit::Bounds;
use super::ctx::Ctx;
use super::refuse::Refuse;
use super::survive;
use super::upstream::{Answer, Failure, blame, request_head};
use crate::drain::Phase;

/// How a relay ended when no error is to be answered.
pub(super) enum End {
    /// The answer went out whole, whatever its status.
    Answered,
    /// The client hung up.
    ClientGone,
    /// The pod failed when part of the answer had gone out, and nothing in what went out says so.
    Broken,
    /// We ended it, since the gateway is at its end.
    Cut,
}

impl Gateway {
    /// Relays one generation request.
    pub(super) async fn relay(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        query: &Query,
        body: &Bytes,
    ) -> Result<End, Refuse> {
        let (ask, body) = self.prepare(query, without(body, &query.guarded));
        let request = survive::Request { query, body: &body };
        // What nobody reads may be a sound that plays as it comes: it is not held.
        let hold = if query.api.is_some() { self.config.survive.hold.len() } else { 0 };
        let mut head =
            request_head(session.req_header(), body.len()).map_err(|_invalid| Refuse::Internal)?;
        self.stamp_request(session, &mut head, ctx);
        self.retries.deposit();
        let mut tried = Vec::new();
        let mut placement = self.place(ctx, query, &tried)?;
        loop {
            ctx.attempts += 1;
            let pod = &placement.endpoint.pod;
            ctx.upstream = Some(pod.addr);
            ctx.decision = query.api.map(|_read| placement.decision);
            let deadlines = &self.config.deadlines;
            let first_token = deadlines.first_byte.get();
            let bounds = Bounds { since: tokio::time::Instant::now(), first_token, hold };
            let attempt = async {
                let answer = Answer::of(&self.connector, pod, deadlines, &head, &body).await?;
                if answer.complaint().is_some() {
                    Ok(answer)
                } else {
                    answer.committed(ask, bounds).await
                }
            };
            let attempt = tokio::select! {
                biased;
                attempt = attempt => attempt,
                () = gone(session) => return Ok(End::ClientGone),
                () = self.drain.reached(Phase::Cutting) => return Err(Refuse::Draining),
            };
            let failure = match &attempt {
                Ok(answer) => answer.complaint(),
                Err(failure) => Some(*failure),
            };
            blame(self.router.pool(), placement.endpoint.slot, failure);
            let Some(failure) = failure else {
                let answer = attempt.map_err(|_checked| Refuse::Internal)?;
                return self.answer(session, ctx, (answer, placement), request).await;
            };
            ctx.attempt_failed(pod.addr, failure.reason);
            placement.failed(failure.reason);
            tried.push(placement.endpoint.slot);
            let next = self.another(ctx, query, &tried, failure);
            match (next, attempt) {
                (Ok(next), attempt) => {
                    if let Ok(answer) = attempt {
                        answer.connection.close().await;
                    }
                    placement = next;
                }
                // Nobody else: what the pod said is the best answer that there is.
                (Err(_), Ok(answer)) => {
                    return self.answer(session, ctx, (answer, placement), request).await;
                }
                (Err(refuse), Err(_)) => return Err(refuse),
            }
        }
    }

    pub(super) fn place(
        &self,
        ctx: &mut Ctx,
        query: &Query,
        tried: &[kv_index::Slot],
    ) -> Result<Placement, Refusal> {
        let started = Instant::now();
        let placement = match query.api {
            Some(_) => self.router.place(query, tried),
            None => self.router.place_any(query, tried),
        };
        ctx.deciding += started.elapsed();
        placement
    }

    /// Takes a retry from the budget.
    pub(super) fn may_retry(&self) -> bool {
        self.config.retry.budget > 0.0 && self.retries.withdraw()
    }

    /// Another pod for a request whose last attempt failed.
    fn another(
        &self,
        ctx: &mut Ctx,
        query: &Query,
        tried: &[kv_index::Slot],
        failure: Failure,
    ) -> Result<Placement, Refuse> {
        let refuse = || Refuse::AttemptsFailed { cause: failure.cause };
        if failure.is_final {
            return Err(Refuse::FirstByteTooLate);
        }
        if ctx.attempts >= self.config.retry.attempts {
            return Err(refuse());
        }
        if !self.may_retry() {
            return Err(refuse());
        }
        let placement = self.place(ctx, query, tried).map_err(|_nobody| refuse())?;
        self.metrics.retry(failure.reason);
        Ok(placement)
    }
}

/// Resolves when the client has hung up.
pub(super) async fn gone(session: &mut Session) {
    match session.downstream_session.read_body_or_idle(true).await {
        // It sends on after its request: it is there, but the connection cannot be used again,
        // since a byte of what comes next was read.
        Err(error) if *error.etype() == ErrorType::ConnectError => {
            session.set_keepalive(None);
            std::future::pending::<()>().await;
        }
        _ => {}
    }
}
