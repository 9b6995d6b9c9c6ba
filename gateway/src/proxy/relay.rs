//! Carries a request to a pod that answers it.
//!
//! Until the first bytes of a good answer are here nothing goes to the client, and any failure
//! moves on to another pod. What comes after is `answer.rs`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kv_index::Slot;
use pingora_core::{Error, ErrorType};
use pingora_proxy::Session;
use router::pool::Endpoint;
use router::query::Query;
use router::{Placement, Split};
use tower::retry::budget::Budget;

use super::Gateway;
use super::legs::{By, Missed, Request};
use super::upstream::{Answer, request_head};
use crate::drain::Phase;
use crate::refuse::Refuse;
use crate::request::account::Account;
use crate::request::failure::Failure;
use crate::request::read::for_any_pod;

/// How a relay ended when no error is to be answered.
pub(super) enum End {
    /// The answer went out whole, whatever its status.
    Answered,
    /// The client hung up.
    ClientGone,
    /// The client took nothing for `deadlines.client_write`.
    ClientSlow,
    /// The pod failed when part of the answer had gone out, and nothing in what went out says so.
    PodFailed,
    /// We ended it, since the gateway is at its end.
    DrainCut,
}

/// What came first.
enum Raced {
    Attempt(Box<Result<Answer, Missed>>),
    ClientGone,
    DrainCut,
}

/// The pods that a request cannot go to any more.
#[derive(Default)]
struct Tried {
    slots: Vec<Slot>,
    /// Prefill legs that gave nothing.
    prefills: u32,
    /// Pods that have answered 500.
    errors: u32,
    /// A pair has failed, and nobody can say which of the two: it may be either's fault again.
    has_failed_pair: bool,
}

// === impl End ===

impl End {
    /// What it means that the client could not be written to.
    pub(super) fn of_write(error: &Error) -> Self {
        match error.etype() {
            ErrorType::WriteTimedout => Self::ClientSlow,
            _ => Self::ClientGone,
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Relays one generation request.
    pub(super) async fn relay(
        &self,
        session: &mut Session,
        account: &mut Account,
        query: &Query,
        body: &Bytes,
    ) -> Result<End, Refuse> {
        let request = self.for_pods(session, account, query, body)?;
        self.retries.deposit();
        if request.format.is_some() {
            self.rescues.deposit();
        }
        let (mut tried, mut last_said) = (Tried::default(), None);
        let Some(mut placement) = self.seat(session, account, query).await? else {
            return Ok(End::ClientGone);
        };
        loop {
            account.goes_to(&placement, query);
            let prefilling = placement.prefill.as_ref().map(|it| Arc::clone(&it.endpoint));
            let mut handed = None;
            let raced = {
                // Pinned here: what is selected among is moved, and this is kilobytes.
                let place = (&mut placement, &mut tried.slots);
                let mut attempt = pin!(self.attempt(account, &request, place, &mut handed));
                tokio::select! {
                    biased;
                    attempt = &mut attempt => Raced::Attempt(Box::new(attempt)),
                    () = gone(session) => Raced::ClientGone,
                    () = self.drain.reached(Phase::Cutting) => Raced::DrainCut,
                }
            };
            let missed = match raced {
                Raced::Attempt(attempt) => match *attempt {
                    Ok(answer) => {
                        return self.answer(session, account, (answer, placement), &request).await;
                    }
                    Err(missed) => missed,
                },
                Raced::ClientGone => {
                    self.forsake(handed, &placement.endpoint.pod).await;
                    return Ok(End::ClientGone);
                }
                Raced::DrainCut => {
                    placement.failed(Refuse::DrainCut.reason());
                    return Err(Refuse::Draining);
                }
            };
            placement.failed(missed.failure.reason());
            self.remember(account, &mut tried, &missed, (&placement.endpoint, prefilling));
            let next = self.another(account, query, &tried, &missed);
            let said = missed.answer.map(|answer| (answer, placement, account.attempt));
            // Kept while others are asked; what was kept before is dropped, and its connection closed.
            last_said = said.or(last_said);
            match next {
                Ok(next) => {
                    placement = next;
                    self.give_back(handed, &placement.endpoint.pod).await;
                }
                // Nobody else: what a pod said last is a better answer than any of ours.
                Err(refuse) => {
                    let Some((answer, placement, attempt)) = last_said else { return Err(refuse) };
                    account.goes_to(&placement, query);
                    account.attempt = attempt;
                    return self.answer(session, account, (*answer, placement), &request).await;
                }
            }
        }
    }

    /// Its first place; none if its client left before there was one.
    async fn seat(
        &self,
        session: &mut Session,
        account: &mut Account,
        query: &Query,
    ) -> Result<Option<Placement>, Refuse> {
        let address = self.client_address(session);
        let client = self.seats.client(&session.req_header().headers, address);
        let seat = self.seats.seat(query, client, gone(session)).await?;
        Ok(seat.map(|seat| account.seated(seat)))
    }

    /// The request as pods get it.
    fn for_pods<'a>(
        &self,
        session: &Session,
        account: &Account,
        query: &'a Query,
        body: &Bytes,
    ) -> Result<Request<'a>, Refuse> {
        let (format, body) = self.prepare(query, for_any_pod(query, body)?);
        let told = self.told_to_pod(session, account);
        let head = request_head(session.req_header(), body.len(), told)
            .map_err(|_invalid| Refuse::Internal)?;
        Ok(Request { query, head, body, format })
    }

    /// Notes who missed an attempt, and where the request cannot go for that.
    fn remember(
        &self,
        account: &mut Account,
        tried: &mut Tried,
        missed: &Missed,
        (answering, prefilling): (&Arc<Endpoint>, Option<Arc<Endpoint>>),
    ) {
        let by = match missed.by {
            By::Prefilling => prefilling.as_ref(),
            By::Answering => Some(answering),
            By::Either | By::Neither => None,
        };
        tried.slots.extend(by.map(|endpoint| endpoint.slot));
        let told = by.or(prefilling.as_ref()).unwrap_or(answering);
        account.attempt_failed(told.pod.addr, missed.failure.reason());
        tried.prefills += u32::from(missed.by != By::Answering);
        tried.has_failed_pair |= missed.by == By::Either;
        tried.errors += u32::from(missed.failure == Failure::ServerError);
        if let Some(from) = prefilling {
            self.engines.forget(&from.pod);
        }
    }

    /// Takes a retry from the budget.
    pub(super) fn may_retry(&self) -> bool {
        self.config.retry.budget > 0.0 && self.retries.withdraw()
    }

    /// Another place for a request whose last attempt failed.
    fn another(
        &self,
        account: &mut Account,
        query: &Query,
        tried: &Tried,
        missed: &Missed,
    ) -> Result<Placement, Refuse> {
        let failure = missed.failure;
        let refuse = || Refuse::AttemptsFailed { cause: failure.cause() };
        if failure == Failure::TooLate && missed.by == By::Answering {
            return Err(Refuse::FirstByteTooLate);
        }
        if tried.errors > 1 {
            // Two pods that say the same are right: it is the request.
            return Err(refuse());
        }
        // What a prefill leg missed the pod that answers can compute itself, which doubles nobody's load.
        let is_prefill = matches!(missed.by, By::Prefilling | By::Neither);
        let attempts = self.config.retry.attempts;
        let may_split =
            !tried.has_failed_pair && failure != Failure::TurnedDown && tried.prefills < attempts;
        if !is_prefill && (account.attempts >= attempts || !self.may_retry()) {
            return Err(refuse());
        }
        let started = Instant::now();
        let placement = match may_split && (!is_prefill || self.may_retry()) {
            true => self.router.place(query, &tried.slots),
            false => self.router.place_whole(query, &tried.slots, verdict(failure)),
        };
        account.deciding += started.elapsed();
        let mut placement = placement.map_err(|_nobody| refuse())?;
        if tried.prefills > 0 && placement.prefill.is_none() && placement.decision.split.is_some() {
            placement.decision.split = Some(Split::whole(verdict(failure)));
        }
        self.metrics.retry(failure.reason());
        Ok(placement)
    }
}

/// Why a request that could not be split was not, in a word.
fn verdict(failure: Failure) -> &'static str {
    match failure {
        Failure::LeaseOver => "lease-over",
        Failure::TurnedDown => "turned-down",
        Failure::NoTransfer => "transfer-failed",
        _ => "leg-failed",
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
