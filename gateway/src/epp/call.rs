//! One call of Envoy's: a request with its answer, and everything that is held for it.
//!
//! Envoy calls once per request. What the request has booked is given back at the end of its answer, or
//! else with the call, whatever ends that.

mod answer;
mod request;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use http::StatusCode;
use http::request::Parts as Head;
use router::Placement;
use router::openai::Api;
use router::subset::Subset;

use super::Desk;
use super::exchange::{Event, Exchange, Rest, Violation, immediate};
use super::wire::{self, BadHead, Field};
use crate::drain::Drain;
use crate::refuse::{CLIENT_GONE, Refuse};
use crate::request::account::Account;
use crate::request::body::{Body, Gathering};
use crate::request::books::Presence;
use crate::request::route::Route;
use answer::Answer;

/// Why a call ends without an answer: Envoy is not set up for this, or is no Envoy.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It does not keep to the protocol.
    #[error(transparent)]
    Protocol(#[from] Violation),
    /// It sent a head that is none.
    #[error(transparent)]
    Head(#[from] BadHead),
}

/// One request with its answer.
#[derive(Debug)]
pub(super) struct Call {
    desk: Arc<Desk>,
    exchange: Exchange,
    /// Closed before `presence` ends.
    account: Account,
    presence: Option<Presence>,
    /// None before the first message.
    head: Option<Head>,
    client: Option<SocketAddr>,
    subset: Option<Subset>,
    route: Option<Route>,
    gathering: Option<Gathering>,
    /// What Envoy has not taken back of it yet, with its share of the budget.
    sending: Option<(Rest, Body)>,
    /// The place that was taken.
    placement: Option<Placement>,
    api: Option<Api>,
    answer: Option<Answer>,
    /// What Envoy is told next.
    said: VecDeque<ProcessingResponse>,
    is_over: bool,
}

/// The kind of all that we answer ourselves.
const JSON: Field = (Cow::Borrowed("content-type"), Bytes::from_static(b"application/json"));

// === impl Call ===

impl Call {
    /// A call that begins.
    #[must_use]
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        let account = Account::new(Arc::clone(&desk.books));
        Self {
            desk,
            exchange: Exchange::default(),
            account,
            presence: None,
            head: None,
            client: None,
            subset: None,
            route: None,
            gathering: None,
            sending: None,
            placement: None,
            api: None,
            answer: None,
            said: VecDeque::new(),
            is_over: false,
        }
    }

    /// What Envoy is told next, if there is something.
    pub(super) fn says(&mut self) -> Option<ProcessingResponse> {
        let next = self.said.pop_front().or_else(|| self.sending.as_mut()?.0.next());
        if next.is_none() {
            self.sending = None;
        }
        next
    }

    /// Whether nothing that Envoy could send would change anything.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// When the request's body has to be here, if it is on its way.
    pub(super) fn body_due(&self) -> Option<Instant> {
        let limit = self.desk.config.deadlines.request_body.get();
        self.gathering.is_some().then(|| self.account.started + limit)
    }

    /// Whether its client does not need us any more: the request has its pod, and Envoy does not wait
    /// for us to pass its answer on.
    pub(super) fn is_spare(&self) -> bool {
        self.exchange.is_forwarded() && !self.exchange.holds_answer() && self.answer.is_some()
    }

    /// How far the end of the gateway has come.
    pub(super) fn drain(&self) -> Drain {
        self.desk.drain.clone()
    }

    /// Ends it, since the gateway is at its end. What was sent on Envoy carries without us, but for the
    /// bodies of answers that we hold.
    pub(super) fn cut(&mut self) {
        if !self.exchange.is_forwarded() {
            return self.refuse(&Refuse::Draining);
        }
        if self.exchange.holds_answer() {
            self.account.error.get_or_insert(Refuse::DrainCut.reason());
        }
        self.is_over = true;
    }

    /// Refuses the request, if it was not answered yet.
    pub(super) fn refuse(&mut self, refuse: &Refuse) {
        self.account.error = Some(refuse.reason());
        self.placement = None;
        let mut fields = vec![JSON];
        fields.extend(refuse.headers().into_iter().map(|(name, value)| field(name, value)));
        self.immediate(refuse.status(), (fields, refuse.body(self.account.shape)), refuse.reason());
    }

    /// Refuses a body that is longer than messages may be.
    pub(super) fn refuse_body(&mut self) {
        self.refuse(&Refuse::BodyTooLarge { limit: self.desk.config.limits.body.len() });
    }

    /// Takes a message.
    ///
    /// # Errors
    /// It cannot be understood.
    pub(super) async fn take(&mut self, message: ProcessingRequest) -> Result<(), Broken> {
        if self.head.is_none() {
            (self.subset, self.client) = (wire::subset(&message), wire::source(&message));
        }
        let origin = wire::origin(&message);
        let taken = match self.exchange.on(message)? {
            Event::Head { fields, whole } => {
                let (head, fault) = wire::request_head(&fields)?;
                self.begin(head, fault, whole).await
            }
            Event::Piece { bytes, whole } if self.exchange.is_forwarded() => {
                self.said.extend(self.exchange.pass(bytes, whole));
                Ok(())
            }
            Event::Piece { bytes, whole } => self.gather(bytes.into(), whole).await,
            Event::Answer { fields, whole } => {
                let (status, headers) = wire::response_head(&fields)?;
                self.answered((status, &headers), origin, whole);
                Ok(())
            }
            Event::AnswerPiece { bytes, whole } => {
                self.watch(bytes, whole);
                Ok(())
            }
            Event::AnswerOver => {
                self.said.push_back(self.exchange.end_answer());
                self.whole();
                Ok(())
            }
        };
        if let Err(refuse) = taken {
            self.refuse(&refuse);
        }
        Ok(())
    }

    /// What every answer carries.
    fn stamps(&self) -> impl Iterator<Item = Field> + use<> {
        let stamps = self.account.stamps();
        stamps.map(|(name, value)| (name.as_str().to_owned().into(), value.into()))
    }

    /// Answers JSON.
    fn json(&mut self, body: Bytes) {
        let fields = if body.is_empty() { Vec::new() } else { vec![JSON] };
        self.immediate(StatusCode::OK, (fields, body), "answered");
    }

    fn immediate(
        &mut self,
        status: StatusCode,
        (mut fields, body): (Vec<Field>, Bytes),
        details: &'static str,
    ) {
        fields.extend(self.stamps());
        let bytes = body.len();
        self.said.push_back(immediate(status, wire::mutation(fields, Vec::new()), (body, details)));
        self.answer = Some(Answer { status, bytes, observer: None, is_whole: true });
        (self.is_over, self.gathering) = (true, None);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // The account says itself that we have panicked.
        if self.head.is_none() || thread::panicking() {
            return;
        }
        let (status, bytes) =
            self.answer.as_ref().map_or((None, 0), |it| (Some(it.status), it.bytes));
        // Of an answer whose body Envoy keeps to itself, nobody can say whether it came to its end.
        let is_cut = self.answer.as_ref().is_none_or(|it| it.observer.is_some() && !it.is_whole);
        if is_cut {
            self.account.error.get_or_insert(CLIENT_GONE);
            if let Some(placement) = &mut self.placement {
                placement.failed(CLIENT_GONE);
            }
        }
        self.account.close(status, bytes);
    }
}

fn field(name: &'static str, value: impl Into<Bytes>) -> Field {
    (name.into(), value.into())
}
