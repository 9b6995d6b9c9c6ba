//! A stream whose first token is late is asked of a second pod as well: who speaks first answers.
//!
//! Only a stream that one pod answers alone. A plain answer's first token is not seen before its last;
//! a pair of pods has deadlines of its own, and a second pair would leave blocks behind until their
//! lease is over.

use std::pin::{Pin, pin};

use kv_index::Slot;
use router::Placement;
use tokio::time::{Instant, sleep_until};
use tower::retry::budget::Budget;

use super::Gateway;
use super::legs::{Missed, Request};
use super::upstream::Answer;
use crate::request::account::Account;
use crate::request::failure::Failure;

/// How it went between two pods.
struct Raced {
    /// Of the pod that spoke first, or else of the one that failed last.
    answer: Result<Answer, Missed>,
    is_second: bool,
    /// Why the other pod gave nothing, if it did not merely lose.
    other: Option<Failure>,
}

// === impl Gateway ===

impl Gateway {
    /// The answer of the pod where a request has its place, or of a second one that was asked because
    /// the first was late: then the place is there. A pod that gave nothing meanwhile joins `tried`.
    pub(super) async fn first_to_speak(
        &self,
        account: &mut Account,
        request: &Request<'_>,
        placement: &mut Placement,
        tried: &mut Vec<Slot>,
    ) -> Result<Answer, Missed> {
        let sent = Instant::now();
        let asked_now = [&**tried, &[placement.endpoint.slot]].concat();
        let ear = self.ear(account, request.query, &asked_now);
        let rescue = &self.config.survive.rescue;
        let late_at =
            rescue.late_at(sent, &placement.forecast).filter(|_| request.format.is_some());
        let asked;
        let (mut other, raced) = {
            let mut first = pin!(self.whole(ear, request, placement));
            let Some(late_at) = late_at else { return first.await };
            tokio::select! {
                biased;
                answer = &mut first => return answer,
                () = sleep_until(late_at) => {}
            }
            let Some(second) = self.second(account, request, (placement, sent), tried) else {
                return first.await;
            };
            asked = std::time::Instant::now();
            // Boxed: it is rare, and kilobytes that every request would carry.
            let raced = Box::pin(race(first, self.whole(ear, request, &second))).await;
            (second, raced)
        };
        let Raced { answer, is_second, other: failure } = raced;
        if is_second {
            std::mem::swap(placement, &mut other);
            account.goes_to(placement, request.query);
            account.attempt.sent = Some(asked);
        }
        let reason = match failure {
            Some(failure) => {
                tried.push(other.endpoint.slot);
                other.failed(failure.reason());
                Some(failure.reason())
            }
            None if is_second => {
                other.overtaken(std::time::Instant::now());
                Some("overtaken")
            }
            None => {
                other.failed("not_needed");
                None
            }
        };
        if let Some(reason) = reason {
            account.attempt_failed(other.endpoint.pod.addr, reason);
        }
        self.metrics.rescue(match (&answer, is_second) {
            (Err(_), _) => "failed",
            (Ok(_), true) => "won",
            (Ok(_), false) => "lost",
        });
        answer
    }

    /// A place at a second pod, if it is expected to win and may be asked.
    fn second(
        &self,
        account: &mut Account,
        request: &Request<'_>,
        (first, sent): (&Placement, Instant),
        tried: &[Slot],
    ) -> Option<Placement> {
        let not_asked = |why| {
            self.metrics.rescue(why);
            None
        };
        let tried = [tried, &[first.endpoint.slot]].concat();
        let Ok(mut second) = self.router.place_second(request.query, &tried) else {
            return not_asked("full");
        };
        let elsewhere_ms = second.forecast.ttft_ms;
        let late = self.config.survive.rescue.late_after(first.forecast.ttft_ms, elsewhere_ms);
        // Others may have been placed there meanwhile. The budget comes last: nothing is spent on a
        // request that is not sent.
        let why = if late.is_none_or(|late| sent.elapsed() < late) {
            "not_faster"
        } else if !self.rescues.withdraw() {
            "over_budget"
        } else {
            account.attempts += 1;
            return Some(second);
        };
        second.failed(why);
        not_asked(why)
    }
}

/// Runs both until one of them has an answer or both have failed.
async fn race(
    mut first: Pin<&mut impl Future<Output = Result<Answer, Missed>>>,
    second: impl Future<Output = Result<Answer, Missed>>,
) -> Raced {
    let mut second = pin!(second);
    tokio::select! {
        biased;
        answer = &mut first => match answer {
            Ok(answer) => Raced { answer: Ok(answer), is_second: false, other: None },
            Err(missed) => {
                Raced { answer: second.await, is_second: true, other: Some(missed.failure) }
            }
        },
        answer = &mut second => match answer {
            Ok(answer) => Raced { answer: Ok(answer), is_second: true, other: None },
            Err(missed) => {
                Raced { answer: first.await, is_second: false, other: Some(missed.failure) }
            }
        },
    }
}
