//! The way of an answer to the client, from its first bytes on.
//!
//! It streams as it comes, and the pod's connection is closed as soon as the client is gone.

use std::pin::pin;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderValue, StatusCode, Version, header, response};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use router::Placement;
use router::continuation::Writing;
use router::openai::Api;
use router::silence::Ear;
use tokio::time::timeout;

use super::Gateway;
use super::connection::Connection;
use super::legs::Request;
use super::passage::Passage;
use super::patience::Heard;
use super::relay::{End, gone};
use super::survive::Onward;
use super::upstream::Answer;
use super::usage::Repair;
use crate::drain::Phase;
use crate::refuse::{CLIENT_GONE, CLIENT_SLOW, ERROR_EVENT, POD_ERROR, Refuse};
use crate::request::account::Account;
use crate::request::failure::Failure;
use crate::request::observe::Observer;

/// Chunks that are ready are joined up to this size: one write instead of many.
const JOIN_BYTES: usize = 64 << 10;

/// What a pod sends.
struct Source {
    first: Option<Bytes>,
    /// None: all of it is in `first`.
    connection: Option<Connection>,
}

/// How a pod's part of an answer ends.
enum Part {
    /// The pod has said all.
    Whole,
    /// The answer is whole before the pod knows it.
    Enough,
    Ends(End),
}

impl Gateway {
    /// Sends the answer on.
    pub(super) async fn answer(
        &self,
        session: &mut Session,
        account: &mut Account,
        (answer, mut placement): (Answer, Placement),
        request: &Request<'_>,
    ) -> Result<End, Refuse> {
        let now = Instant::now();
        account.attempt.head = Some(now);
        let is_stream = answer.is_event_stream();
        let is_success = answer.head.status.is_success();
        let is_pod_error = answer.head.status.is_server_error();
        placement.answered(answer.head.status.as_u16(), now);
        let Answer { head, first, connection, stream, ended, .. } = answer;
        // Where the next request is here already, the connection ends after this answer, and the
        // head has to say so.
        if gone(session).now_or_never().is_some() {
            placement.failed(CLIENT_GONE);
            connection.close().await;
            return Ok(End::ClientGone);
        }
        let head = self.response_head(session, account, head);
        if let Err(error) = session.write_response_header(Box::new(head), false).await {
            placement.failed(CLIENT_GONE);
            connection.close().await;
            return Ok(End::of_write(&error));
        }
        let observer =
            Observer::new(account.started, is_stream, request.query.api.unwrap_or(Api::Chat));
        let reused = account.reused_tokens().filter(|_| is_success);
        let repair = reused.map(|tokens| Repair::new(tokens, is_stream));
        let mut passage =
            Passage { stream, observer, repair, is_success, has_token: true, silence: None };
        let connection = if ended {
            connection.release(&self.connector, self.config.deadlines.upstream_idle.get()).await;
            None
        } else {
            Some(connection)
        };
        let source = Source { first, connection };
        let end =
            self.carry(session, account, (source, &mut passage, &mut placement), request).await;
        passage.observer.finish();
        if is_success {
            account.seen = passage.observer.seen;
            account.seen.cached_tokens = reused.or(account.seen.cached_tokens);
            account.tpot_ms = passage.observer.tpot_ms();
        }
        // An engine that was stopped in the middle counts no cached tokens.
        if account.moves == 0 && !matches!(end, End::PodFailed) {
            if let Some(ms) = account.tpot_ms {
                placement.endpoint.record.pace.learn(ms);
            }
            placement.usage(account.seen.prompt_tokens, account.seen.cached_tokens);
        }
        match end {
            End::PodFailed | End::DrainCut => {
                let cut = (end, is_stream);
                return Ok(self.cut_short(session, account, cut, (&passage, &mut placement)).await);
            }
            End::Answered if passage.observer.seen.has_error => account.error = Some(ERROR_EVENT),
            End::Answered if is_pod_error => account.error = Some(POD_ERROR),
            End::ClientGone => placement.failed(CLIENT_GONE),
            End::ClientSlow => placement.failed(CLIENT_SLOW),
            End::Answered => {}
        }
        Ok(end)
    }

    /// Notes that an answer was cut, and tells the client of a stream.
    async fn cut_short(
        &self,
        session: &mut Session,
        account: &mut Account,
        (end, is_stream): (End, bool),
        (passage, placement): (&Passage, &mut Placement),
    ) -> End {
        // What its pod failed at, the placement knows already.
        let (refuse, pods_own) = if let End::DrainCut = end {
            placement.failed(Refuse::DrainCut.reason());
            (Refuse::DrainCut, None)
        } else {
            let pods_own = passage.stream.as_ref().and_then(|stream| stream.error_event());
            (Refuse::PodFailed, pods_own)
        };
        session.set_keepalive(None);
        account.error = Some(pods_own.map_or(refuse.reason(), |_| ERROR_EVENT));
        if !is_stream {
            return end;
        }
        let event = match pods_own {
            Some(event) => Bytes::copy_from_slice(event),
            None => refuse.event(account.shape, passage.is_mid_line()),
        };
        self.last_words(session, event).await
    }

    /// The body, from as many pods as it takes.
    async fn carry(
        &self,
        session: &mut Session,
        account: &mut Account,
        (mut source, passage, placement): (Source, &mut Passage, &mut Placement),
        request: &Request<'_>,
    ) -> End {
        let mut is_first = true;
        loop {
            let part = (source, &mut *passage, &mut *placement);
            let end = self.stream(session, account, part, (request, is_first)).await;
            if !matches!(end, End::PodFailed) {
                return end;
            }
            let silence = passage.silence.take();
            self.report_cut(account, placement, (passage.stream.as_deref(), silence));
            let Some(stream) = &mut passage.stream else { return end };
            // Boxed: it is rare, and kilobytes that every request would carry.
            match Box::pin(self.go_on(session, account, (stream, placement), request)).await {
                Onward::Pod(connection, first) => {
                    source = Source { first, connection: Some(connection) };
                    (passage.has_token, is_first) = (false, false);
                }
                Onward::Over(rest) => {
                    passage.observer.look(&rest);
                    return self.last_words(session, rest).await;
                }
                Onward::Nobody => return end,
                Onward::ClientGone => return End::ClientGone,
                Onward::DrainCut => return End::DrainCut,
            }
        }
    }

    /// One pod's part, to its end or to the first failure of either side. The first bytes of the first
    /// pod have been looked into already.
    async fn stream(
        &self,
        session: &mut Session,
        account: &Account,
        (source, passage, placement): (Source, &mut Passage, &mut Placement),
        (request, mut is_ready): (&Request<'_>, bool),
    ) -> End {
        let Source { first, connection } = source;
        let Some(mut connection) = connection else {
            let whole = passage.whole(first.unwrap_or_default(), placement);
            return self.last_words(session, whole).await;
        };
        // Waited for once, not once for every chunk.
        let mut cutting = pin!(self.drain.reached(Phase::Cutting));
        let (slot, heard) = (placement.endpoint.slot, Heard::now());
        let mut ear = if passage.has_token { Ear::Stream } else { Ear::Beginning };
        let mut given_up = pin!(self.given_up(slot, &heard, ear));
        let mut next = Ok(first);
        let part = 'part: loop {
            let (bytes, after) = match next {
                Ok(Some(bytes)) if is_ready => (bytes, None),
                Ok(Some(bytes)) => joined(&mut connection, bytes),
                Ok(None) if passage.is_unfinished() => break Part::Ends(End::PodFailed),
                Ok(None) => break Part::Whole,
                Err(_) if passage.state() == Some(Writing::Done) => break Part::Enough,
                Err(_failed) => break Part::Ends(End::PodFailed),
            };
            let bytes = (bytes, std::mem::take(&mut is_ready));
            if let Some(part) = self.pass_on(session, bytes, (passage, placement)).await {
                break part;
            }
            if ear == Ear::Beginning && passage.has_token {
                ear = Ear::Stream;
                given_up.set(self.given_up(slot, &heard, ear));
            }
            // A client that was slow to take it was no silence of the pod's.
            heard.again();
            next = match after {
                Some(after) => after,
                None => loop {
                    tokio::select! {
                        biased;
                        bytes = connection.read() => break bytes,
                        () = gone(session) => break 'part Part::Ends(End::ClientGone),
                        () = &mut cutting => break 'part Part::Ends(End::DrainCut),
                        failure = &mut given_up => {
                            let stream = passage.stream.as_deref();
                            if ear == Ear::BoundStream || self.may_move(account, stream, request) {
                                passage.silence = Some(failure);
                                break Err(failure);
                            }
                            ear = Ear::BoundStream;
                            given_up.set(self.given_up(slot, &heard, ear));
                        }
                    }
                },
            };
        };
        self.end_part(session, connection, (part, passage)).await
    }

    /// The end of a pod's part: its connection is used again only if it said all.
    async fn end_part(
        &self,
        session: &mut Session,
        connection: Connection,
        (part, passage): (Part, &mut Passage),
    ) -> End {
        match part {
            Part::Whole => {
                let idle = self.config.deadlines.upstream_idle.get();
                connection.release(&self.connector, idle).await;
                let rest = passage.rest();
                self.last_words(session, rest).await
            }
            Part::Enough => {
                connection.close().await;
                self.finish(session).await
            }
            Part::Ends(end) => {
                connection.close().await;
                end
            }
        }
    }

    /// Sends a pod's next bytes on; `is_ready`: they are what the client gets already. Says how its
    /// part ends, if it ends with them.
    async fn pass_on(
        &self,
        session: &mut Session,
        (bytes, is_ready): (Bytes, bool),
        (passage, placement): (&mut Passage, &mut Placement),
    ) -> Option<Part> {
        let bytes = if is_ready { bytes } else { passage.pass(bytes) };
        passage.look(&bytes, placement);
        let bytes = passage.repaired(bytes);
        if !bytes.is_empty()
            && let Err(error) = session.write_response_body(Some(bytes), false).await
        {
            return Some(Part::Ends(End::of_write(&error)));
        }
        if passage.state() == Some(Writing::Failed) {
            return Some(Part::Ends(End::PodFailed));
        }
        let is_ours = passage.stream.as_ref().is_some_and(|stream| stream.is_ended_by_us());
        is_ours.then_some(Part::Enough)
    }

    /// Ends a stream that cannot be completed with an error event, instead of a silent cut or a
    /// false `[DONE]`.
    async fn last_words(&self, session: &mut Session, event: Bytes) -> End {
        if event.is_empty() {
            return self.finish(session).await;
        }
        match session.write_response_body(Some(event), false).await {
            Ok(()) => self.finish(session).await,
            Err(error) => End::of_write(&error),
        }
    }

    /// Ends an answer. Pingora's deadline for writing does not cover the last flush.
    async fn finish(&self, session: &mut Session) -> End {
        let last = session.write_response_body(None, true);
        match timeout(self.config.deadlines.client_write.get(), last).await {
            Ok(Ok(())) => End::Answered,
            Ok(Err(error)) => End::of_write(&error),
            Err(_elapsed) => End::ClientSlow,
        }
    }

    /// The pod's head with our own fields.
    fn response_head(
        &self,
        session: &Session,
        account: &Account,
        mut head: response::Parts,
    ) -> ResponseHeader {
        if account.reused_tokens().is_some() {
            // Its length changes with a number in it.
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let version = session.req_header().version;
        let has_body = ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        if version == Version::HTTP_11
            && has_body
            && !head.headers.contains_key(header::CONTENT_LENGTH)
        {
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        self.stamp(session, account, &mut head.headers);
        ResponseHeader::from(head)
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
