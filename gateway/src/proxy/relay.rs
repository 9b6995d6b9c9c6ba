//! Carries a request to a pod and the answer back.
//!
//! Until the first bytes of a good answer are here nothing goes to the client, and any failure
//! moves on to another pod. From then on the answer streams, and the pod's connection is closed as
//! soon as the client is gone.

use std::pin::pin;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{StatusCode, Version, header};
use pingora_core::ErrorType;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use router::openai::without;
use router::query::Query;
use router::{Placement, Refusal};
use tokio::time::timeout;
use tower::retry::budget::Budget;

use super::Gateway;
use super::ctx::Ctx;
use super::observe::Observer;
use super::refuse::{ERROR_EVENT, POD_ERROR, Refuse};
use super::upstream::{Answer, Connection, Failure, blame, request_head};
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

/// Chunks that are ready are joined up to this size: one write instead of many.
const JOIN_BYTES: usize = 64 << 10;

impl Gateway {
    /// Relays one generation request.
    pub(super) async fn relay(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        query: &Query,
        body: &Bytes,
    ) -> Result<End, Refuse> {
        let body = without(body, &query.guarded);
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
            let attempt = Answer::of(&self.connector, pod, &self.config.deadlines, &head, &body);
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
                return self.answer(session, ctx, answer, placement).await;
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
                (Err(_), Ok(answer)) => return self.answer(session, ctx, answer, placement).await,
                (Err(refuse), Err(_)) => return Err(refuse),
            }
        }
    }

    fn place(
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

    /// Sends the answer on.
    async fn answer(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        answer: Answer,
        mut placement: Placement,
    ) -> Result<End, Refuse> {
        let now = Instant::now();
        ctx.upstream_head = Some(now);
        let is_stream = answer.is_event_stream();
        let is_success = answer.head.status.is_success();
        let is_pod_error = answer.head.status.is_server_error();
        placement.answered(answer.head.status.as_u16(), now);
        let Answer { head, first, connection } = answer;
        // Where the next request is here already, the connection ends after this answer, and the
        // head has to say so.
        if gone(session).now_or_never().is_some() {
            connection.close().await;
            return Ok(End::ClientGone);
        }
        let head = self.response_head(session, ctx, head);
        if session.write_response_header(Box::new(head), false).await.is_err() {
            connection.close().await;
            return Ok(End::ClientGone);
        }
        let mut observer = Observer::new(ctx.started, is_stream);
        let end = self.stream(session, first, connection, |bytes| {
            if observer.look(bytes) && is_success {
                placement.first_token(Instant::now());
            }
        });
        let end = end.await;
        observer.finish();
        if is_success {
            ctx.seen = observer.seen;
            ctx.tpot_ms = observer.tpot_ms();
        }
        placement.usage(ctx.seen.prompt_tokens, ctx.seen.cached_tokens);
        match end {
            End::Broken | End::Cut => {
                let refuse = if matches!(end, End::Cut) { Refuse::Ended } else { Refuse::Cut };
                if matches!(end, End::Broken) {
                    blame(self.router.pool(), placement.endpoint.slot, Some(Failure::CUT));
                    ctx.attempt_failed(placement.endpoint.pod.addr, Failure::CUT.reason);
                }
                ctx.error = Some(refuse.reason());
                session.set_keepalive(None);
                if is_stream {
                    let event = refuse.event(ctx.shape, observer.is_mid_line());
                    return Ok(self.last_words(session, event).await);
                }
            }
            End::Answered if observer.seen.has_error => ctx.error = Some(ERROR_EVENT),
            End::Answered if is_pod_error => ctx.error = Some(POD_ERROR),
            End::Answered | End::ClientGone => {}
        }
        Ok(end)
    }

    /// The body, to its end or to the first failure of either side.
    async fn stream(
        &self,
        session: &mut Session,
        first: Option<Bytes>,
        mut connection: Connection,
        mut look: impl FnMut(&Bytes),
    ) -> End {
        // Waited for once, not once for every chunk.
        let mut cutting = pin!(self.drain.reached(Phase::Cutting));
        let mut next = Ok(first);
        loop {
            let (bytes, after) = match next {
                Ok(Some(bytes)) => joined(&mut connection, bytes),
                Ok(None) => break,
                Err(_failed) => return End::Broken,
            };
            look(&bytes);
            if session.write_response_body(Some(bytes), false).await.is_err() {
                connection.close().await;
                return End::ClientGone;
            }
            next = match after {
                Some(after) => after,
                None => tokio::select! {
                    biased;
                    bytes = connection.read() => bytes,
                    () = gone(session) => {
                        connection.close().await;
                        return End::ClientGone;
                    }
                    () = &mut cutting => {
                        connection.close().await;
                        return End::Cut;
                    }
                },
            };
        }
        connection.release(&self.connector, self.config.deadlines.upstream_idle.get()).await;
        self.finish(session).await
    }

    /// Ends a stream that cannot be completed with an error event, instead of a silent cut or a
    /// false `[DONE]`.
    async fn last_words(&self, session: &mut Session, event: Bytes) -> End {
        match session.write_response_body(Some(event), false).await {
            Ok(()) => self.finish(session).await,
            Err(_gone) => End::ClientGone,
        }
    }

    /// Ends an answer. Pingora's deadline for writing does not cover the last flush.
    async fn finish(&self, session: &mut Session) -> End {
        let last = session.write_response_body(None, true);
        match timeout(self.config.deadlines.client_write.get(), last).await {
            Ok(Ok(())) => End::Answered,
            _ => End::ClientGone,
        }
    }

    /// The pod's head with our own fields.
    fn response_head(
        &self,
        session: &Session,
        ctx: &Ctx,
        mut head: ResponseHeader,
    ) -> ResponseHeader {
        super::headers::clean_response(&mut head);
        let version = session.req_header().version;
        let has_body = ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        if version == Version::HTTP_11
            && has_body
            && !head.headers.contains_key(header::CONTENT_LENGTH)
        {
            super::set(&mut head, "transfer-encoding", "chunked");
        }
        self.stamp_response(session, ctx, &mut head);
        head
    }
}

/// Joins the chunks that are ready. Returns them, and the end or the error if that was ready too.
fn joined(
    connection: &mut Connection,
    first: Bytes,
) -> (Bytes, Option<Result<Option<Bytes>, Failure>>) {
    let mut joined: Option<BytesMut> = None;
    let mut size = first.len();
    while size < JOIN_BYTES {
        match connection.read().now_or_never() {
            Some(Ok(Some(more))) => {
                size += more.len();
                joined.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&more);
            }
            None => return (joined.map_or(first, BytesMut::freeze), None),
            Some(end) => return (joined.map_or(first, BytesMut::freeze), Some(end)),
        }
    }
    (joined.map_or(first, BytesMut::freeze), None)
}

/// Resolves when the client has hung up.
async fn gone(session: &mut Session) {
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
