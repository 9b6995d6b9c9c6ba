//! The way of an answer to the client, from its first bytes on.
//!
//! It streams as it comes, and the pod's connection is closed as soon as the client is gone.

use std::pin::pin;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{StatusCode, Version, header};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use router::Placement;
use tokio::time::timeout;

use super::Gateway;
use super::ctx::Ctx;
use super::observe::Observer;
use super::refuse::{ERROR_EVENT, POD_ERROR, Refuse};
use super::relay::{End, gone};
use super::upstream::{Answer, Connection, Failure, blame};
use super::usage::Repair;
use crate::drain::Phase;

/// Chunks that are ready are joined up to this size: one write instead of many.
const JOIN_BYTES: usize = 64 << 10;

impl Gateway {
    /// Sends the answer on.
    pub(super) async fn answer(
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
        let Answer { head, first, connection, .. } = answer;
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
        let reused = ctx.reused_tokens().filter(|_| is_success);
        let mut repair = reused.map(|tokens| Repair::new(tokens, is_stream));
        let end = self.stream(session, (first, connection), repair.as_mut(), |bytes| {
            if observer.look(bytes) && is_success {
                placement.first_token(Instant::now());
            }
        });
        let end = end.await;
        observer.finish();
        if is_success {
            ctx.seen = observer.seen;
            ctx.seen.cached_tokens = reused.or(ctx.seen.cached_tokens);
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
        (first, mut connection): (Option<Bytes>, Connection),
        mut repair: Option<&mut Repair>,
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
            let bytes = repair.as_mut().map_or_else(|| bytes.clone(), |it| it.pass(&bytes));
            let is_written =
                bytes.is_empty() || session.write_response_body(Some(bytes), false).await.is_ok();
            if !is_written {
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
        let rest = repair.map(Repair::finish).filter(|rest| !rest.is_empty());
        if rest.is_some() && session.write_response_body(rest, false).await.is_err() {
            return End::ClientGone;
        }
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
        if ctx.reused_tokens().is_some() {
            // Its length changes with a number in it.
            head.remove_header(&header::CONTENT_LENGTH);
        }
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
