//! One attempt at an answer: by one pod, or by one that prefills and one that goes on from there.
//!
//! Each leg is blamed for its own failure. Where a decode pod answers an error to blocks that it was
//! handed, nobody can say whose fault it is (vLLM says "Internal server error" when the prefill pod is
//! gone): then a pod is asked without them, perhaps the same, and that tells.

mod bootstrap;
mod handed;
mod prefill;

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use kv_index::Slot;
use pingora_http::RequestHeader;
use router::Placement;
use router::connector::{Connector, Handoff, NoHandoff, Order};
use router::openai::{Member, StreamFormat, with};
use router::query::Query;
use router::silence::Ear;
use tokio::time::Instant;

use super::Gateway;
use super::lease::Lease;
use super::patience::Heard;
use super::upstream::{Answer, Call, with_length};
use crate::request::account::Account;
use crate::request::failure::{Failure, report};

pub(super) use bootstrap::Engines;
pub(super) use handed::Handed;

/// A client's request, ready for any pod.
pub(super) struct Request<'a> {
    pub(super) query: &'a Query,
    pub(super) head: RequestHeader,
    pub(super) body: Bytes,
    /// What its stream shows, if it asks for one.
    pub(super) format: Option<StreamFormat>,
}

/// An attempt that gave no answer to send on.
pub(super) struct Missed {
    pub(super) by: By,
    pub(super) failure: Failure,
    /// What the pod said, if it said something: the best answer there is if nobody else is left.
    pub(super) answer: Option<Box<Answer>>,
}

/// Who missed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The pod that should have answered.
    Answering,
    /// The pod that should have prefilled.
    Prefilling,
    /// One of the two.
    Either,
    /// Neither: the blocks may be gone by now.
    Neither,
}

/// What both legs are made of.
struct Legs<'a> {
    gateway: &'a Gateway,
    request: &'a Request<'a>,
    connector: &'static dyn Connector,
    handoff: Handoff<'a>,
    /// The prefill pod's data-parallel rank, where it has to be named.
    rank: Option<u32>,
    /// The pods that were tried, and the one that is to answer.
    asked: Vec<Slot>,
}

/// A decode leg has at least so many times what the pair was expected to take.
const PATIENCE: f64 = 4.0;

// === impl Missed ===

impl Missed {
    fn new(by: By, failure: Failure) -> Self {
        Self { by, failure, answer: None }
    }
}

// === impl Gateway ===

impl Gateway {
    /// One attempt. What was handed over and is not used yet stands in `handed`, whatever ends this;
    /// a pod besides the placement's own that gave nothing joins `tried`.
    pub(super) async fn attempt(
        &self,
        account: &mut Account,
        request: &Request<'_>,
        (placement, tried): (&mut Placement, &mut Vec<Slot>),
        handed: &mut Option<Handed>,
    ) -> Result<Answer, Missed> {
        let connector = self.config.split.connector.connector();
        let Some((connector, from)) = connector.zip(placement.prefill.take()) else {
            account.attempts += 1;
            return self.first_to_speak(account, request, placement, tried).await;
        };
        let prefill = from.endpoint.pod.addr;
        account.attempt.split.prefill = Some(prefill);
        let room = self.rooms.fetch_add(1, Ordering::Relaxed) & ((1 << 53) - 1);
        let id = format!("{}-{room:x}", account.request_id);
        let mut engine = None;
        if connector.asks_for_engine() {
            let asked = self.engine(&from.endpoint.pod, room).await;
            engine = Some(asked.map_err(|failure| self.prefill_missed(&from, failure))?);
        }
        let rank = engine.as_ref().and_then(|engine| engine.rank);
        let engine_id = engine.as_ref().map(|engine| &*engine.id);
        let port = self.config.split.connector_port();
        let handoff = Handoff { id: &id, room, prefill, port, engine_id };
        let asked = [&**tried, &[placement.endpoint.slot]].concat();
        let legs = Legs { gateway: self, request, connector, handoff, rank, asked };
        match connector.order() {
            Order::AfterPrefill => {
                Box::pin(legs.one_by_one(account, *from, placement, handed)).await
            }
            Order::Together => Box::pin(legs.together(account, *from, placement)).await,
        }
    }

    /// One pod does it all.
    pub(super) async fn whole(
        &self,
        ear: Ear,
        request: &Request<'_>,
        placement: &Placement,
    ) -> Result<Answer, Missed> {
        let call = self.call(&placement.endpoint.pod, &request.head, &request.body);
        let (since, limit) = (Instant::now(), self.config.deadlines.first_byte.get());
        let attempt = pin!(async {
            let answer = Answer::of(&call, limit).await;
            self.begun(answer, request, (since, limit)).await
        });
        let at = (placement.endpoint.slot, ear);
        let answer = self.while_hopeful(at, attempt).await;
        let failure = match &answer {
            Ok(answer) => answer.complaint(),
            Err(failure) => Some(*failure),
        };
        report(self.router.pool(), placement.endpoint.slot, failure);
        match failure {
            Some(failure) => {
                Err(Missed { by: By::Answering, failure, answer: answer.ok().map(Box::new) })
            }
            None => answer.map_err(|failure| Missed::new(By::Answering, failure)),
        }
    }

    pub(super) fn call<'a>(
        &'a self,
        pod: &'a router::pool::Pod,
        head: &'a RequestHeader,
        body: &'a Bytes,
    ) -> Call<'a> {
        let (connector, deadlines) = (&self.connector, &self.config.deadlines);
        Call { connector, pod, deadlines, head, body, lease: None, sent: None, look_every: None }
    }

    /// The prefill pod gave nothing; it is told to the pool.
    fn prefill_missed(&self, from: &Placement, failure: Failure) -> Missed {
        report(self.router.pool(), from.endpoint.slot, Some(failure));
        self.metrics.splits.failed("prefill", failure.reason());
        Missed::new(By::Prefilling, failure)
    }
}

// === impl Legs ===

impl Legs<'_> {
    /// The decode leg is sent when the prefill leg was answered.
    async fn one_by_one(
        &self,
        account: &mut Account,
        mut from: Placement,
        placement: &mut Placement,
        handed: &mut Option<Handed>,
    ) -> Result<Answer, Missed> {
        let gateway = self.gateway;
        let missed = |failure, from: &Placement| gateway.prefill_missed(from, failure);
        let prefilled = self.prefill(&mut from).await.map_err(|it| missed(it, &from))?;
        let members = self.connector.decode(&self.handoff, &prefilled.body);
        let members = members.map_err(|error| {
            tracing::warn!(%error, pod = %from.endpoint.pod.addr, "a prefill handed nothing over");
            missed(no_handoff(error), &from)
        })?;
        // Its work is done, and what it holds from here on is a matter of memory alone.
        let from_slot = from.endpoint.slot;
        drop(from);
        let lease = Lease::new(prefilled.absent_at, gateway.config.split.lease.get());
        let lease = self.connector.has_lease().then_some(lease);
        let body = self.decode_body(&members)?;
        *handed = lease.map(|lease| Handed::new(members, lease, &gateway.metrics.splits));
        account.attempt.split.prefilled(prefilled.took_ms, prefilled.cached_tokens);
        account.attempts += 1;
        placement.handed_over(prefilled.took_ms, std::time::Instant::now());
        let ear = gateway.ear(account, self.request.query, &self.asked);
        let answer = self.decode((placement, from_slot), ear, &body, handed.as_ref()).await;
        let is_settled = match &answer {
            // A pod that is busy turned it down, and has told the prefill pod.
            Err(missed) => missed.failure == Failure::Busy,
            Ok(_) => true,
        };
        if let Some(handed) = handed.as_mut().filter(|_| is_settled) {
            handed.settle();
        }
        answer
    }

    /// Both legs are sent at once. A prefill that fails ends the decode leg, which would otherwise
    /// wait for the engine's own timeout.
    async fn together(
        &self,
        account: &mut Account,
        mut from: Placement,
        placement: &mut Placement,
    ) -> Result<Answer, Missed> {
        let gateway = self.gateway;
        let members = self.connector.decode(&self.handoff, b"");
        let members = members.map_err(|error| gateway.prefill_missed(&from, no_handoff(error)))?;
        let body = self.decode_body(&members)?;
        account.attempts += 1;
        account.attempt.split.sent = Some(std::time::Instant::now());
        placement.handed_over(0.0, std::time::Instant::now());
        let ear = gateway.ear(account, self.request.query, &self.asked);
        let mut decode = pin!(self.decode((placement, from.endpoint.slot), ear, &body, None));
        let failure = {
            let mut prefill = pin!(self.prefill(&mut from));
            tokio::select! {
                biased;
                prefilled = &mut prefill => match prefilled {
                    Ok(prefilled) => {
                        account.attempt.split.prefilled(prefilled.took_ms, prefilled.cached_tokens);
                        None
                    }
                    Err(failure) => Some(failure),
                },
                answer = &mut decode => return answer,
            }
        };
        match failure {
            None => decode.await,
            Some(failure) => Err(gateway.prefill_missed(&from, failure)),
        }
    }

    fn decode_body(&self, members: &[Member]) -> Result<Bytes, Missed> {
        let body = with(&self.request.body, members);
        body.map_err(|_was_read_before| Missed::new(By::Neither, Failure::Malformed))
    }

    /// The decode leg. It waits in vain for blocks of a prefill pod that is gone.
    async fn decode(
        &self,
        (placement, from): (&Placement, Slot),
        ear: Ear,
        body: &Bytes,
        handed: Option<&Handed>,
    ) -> Result<Answer, Missed> {
        let gateway = self.gateway;
        let head = with_length(&self.request.head, body.len());
        let endpoint = &placement.endpoint;
        let (lease, sent) = handed.map(Handed::guard).unzip();
        let call = Call { lease, sent, ..gateway.call(&endpoint.pod, &head, body) };
        let split = &gateway.config.split;
        let expected_ms = placement.decision.split.and_then(|split| split.terms);
        let expected_ms = expected_ms.map_or(0.0, |terms| terms.pair_ms * PATIENCE);
        let expected = Duration::try_from_secs_f64(expected_ms / 1e3).unwrap_or_default();
        let (since, limit) = (Instant::now(), split.transfer_timeout.get().max(expected));
        let attempt = pin!(async {
            let answer = Answer::of(&call, limit).await;
            gateway.begun(answer, self.request, (since, limit)).await
        });
        let heard = Heard::now();
        let answer = tokio::select! {
            biased;
            answer = gateway.while_hopeful((endpoint.slot, ear), attempt) => answer,
            _gone = gateway.given_up(from, &heard, Ear::Handed) => Err(Failure::TooLate),
        };
        let (by, failure) = match &answer {
            Ok(answer) => match answer.complaint_of_leg() {
                None => (By::Neither, None),
                Some(Failure::Busy) => (By::Answering, Some(Failure::Busy)),
                Some(failure) => (By::Either, Some(failure)),
            },
            Err(Failure::LeaseOver) => (By::Neither, Some(Failure::LeaseOver)),
            Err(Failure::ErrorEvent) => (By::Either, Some(Failure::ErrorEvent)),
            Err(Failure::TooLate) => (By::Either, Some(Failure::NoTransfer)),
            Err(failure) => (By::Answering, Some(*failure)),
        };
        if by == By::Answering || failure.is_none() {
            report(gateway.router.pool(), endpoint.slot, failure);
        }
        let Some(failure) = failure else {
            return answer.map_err(|failure| Missed::new(By::Answering, failure));
        };
        gateway.metrics.splits.failed("decode", failure.reason());
        // An error to a split says nothing to the client: it may be no error without one.
        let answer = answer.ok().filter(|_| by == By::Answering).map(Box::new);
        Err(Missed { by, failure, answer })
    }
}

fn no_handoff(error: NoHandoff) -> Failure {
    match error {
        NoHandoff::NoEngine => Failure::NoEngine,
        _ => Failure::NoParams,
    }
}
