//! The answer's half of a call: what is learned from it, and the end of the place.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use super::super::wire::{self, Origin};
use super::Call;
use crate::refuse::{ENVOY, ERROR_EVENT, POD_ERROR};
use crate::request::failure::{Failure, report};
use crate::request::headers;
use crate::request::observe::Observer;

/// What is seen of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) bytes: usize,
    /// Looks into its body, if it gets one.
    pub(super) observer: Option<Observer>,
    pub(super) is_whole: bool,
}

// === impl Call ===

impl Call {
    /// The answer's head.
    pub(super) fn answered(
        &mut self,
        (status, fields): (StatusCode, &HeaderMap),
        origin: Origin,
        whole: bool,
    ) {
        // What Envoy answers before the request is whole is no pod's, and nothing is decided any more.
        self.gathering = None;
        let now = Instant::now();
        self.account.attempt.head = Some(now);
        let observer = self.learn((status, fields), origin, now);
        let stamps: Vec<_> = self.stamps().collect();
        // What is ours to say and is not said here, a pod does not say either.
        let theirs = fields.keys().map(HeaderName::as_str).filter(|name| {
            name.starts_with("x-hearth-") && stamps.iter().all(|(ours, _)| ours != name)
        });
        let theirs = theirs.map(str::to_owned).collect();
        self.said.push_back(self.exchange.answer(wire::mutation(stamps, theirs)));
        if status.is_server_error() {
            let is_envoys = matches!(origin, Origin::Envoy | Origin::Unreached);
            self.account.error.get_or_insert(if is_envoys { ENVOY } else { POD_ERROR });
        }
        self.answer = Some(Answer { status, bytes: 0, observer, is_whole: false });
        if whole {
            self.whole();
        }
    }

    /// What an answer's head says of the pod, and who looks into its body, if anybody does.
    fn learn(
        &mut self,
        (status, fields): (StatusCode, &HeaderMap),
        origin: Origin,
        now: Instant,
    ) -> Option<Observer> {
        let placement = self.placement.as_mut()?;
        let pool = self.desk.router.pool();
        let (slot, chosen) = (placement.endpoint.slot, placement.endpoint.pod.addr);
        match origin {
            Origin::Pod(Some(other)) if other != chosen => {
                self.account.attempt.pod = Some(other);
                placement.failed("served_elsewhere");
                return None;
            }
            Origin::Unreached => {
                let failure = Failure::Reset;
                report(pool, slot, Some(failure));
                self.account.attempt_failed(chosen, failure.reason());
                placement.failed(failure.reason());
                return None;
            }
            // The pod knows nothing of it, and holds nothing of its prompt.
            Origin::Envoy => {
                placement.failed(ENVOY);
                return None;
            }
            // What may be a proxy's word is no sign of the pod's life.
            Origin::Unknown if is_gateways(status) => {}
            Origin::Pod(_) | Origin::Unknown => report(pool, slot, Failure::of_status(status)),
        }
        if let Some(mut prefill) = placement.prefill.take() {
            prefill.answered(status.as_u16(), now);
        }
        placement.answered(status.as_u16(), now);
        let api = self.api.filter(|_| self.desk.config.epp.answers)?;
        Some(Observer::new(self.account.started, headers::is_event_stream(fields), api))
    }

    /// More of the answer's body.
    pub(super) fn watch(&mut self, bytes: Vec<u8>, whole: bool) {
        let bytes = Bytes::from(bytes);
        if let Some(answer) = &mut self.answer {
            answer.bytes += bytes.len();
            let is_first = answer.observer.as_mut().is_some_and(|it| it.look(&bytes));
            if let Some(placement) = self.placement.as_mut().filter(|_| is_first) {
                placement.first_token(Instant::now());
            }
        }
        self.said.extend(self.exchange.pass_answer(bytes, whole));
        if whole {
            self.whole();
        }
    }

    /// The answer is whole: its place is free.
    pub(super) fn whole(&mut self) {
        let Some(answer) = &mut self.answer else { return };
        answer.is_whole = true;
        let mut placement = self.placement.take();
        let Some(observer) = answer.observer.as_mut().filter(|_| answer.status.is_success()) else {
            return;
        };
        observer.finish();
        (self.account.seen, self.account.tpot_ms) = (observer.seen, observer.tpot_ms());
        if observer.seen.has_error {
            self.account.error = Some(ERROR_EVENT);
        }
        if let Some(placement) = &mut placement {
            if let Some(ms) = self.account.tpot_ms {
                placement.endpoint.record.pace.learn(ms);
            }
            placement.usage(self.account.seen.prompt_tokens, self.account.seen.cached_tokens);
        }
    }
}

/// Whether a proxy in between may have said so.
fn is_gateways(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}
