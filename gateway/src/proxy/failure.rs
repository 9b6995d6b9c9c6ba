//! Why an attempt at a pod gave no answer: one table of reasons.

use http::StatusCode;
use kv_index::Slot;
use pingora_core::{Error, ErrorType};
use router::pool::{Outcome, Pool};

/// Why an attempt gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The metric's label.
    pub(super) reason: &'static str,
    /// In a few words, for the client.
    pub(super) cause: &'static str,
    /// Whether another pod may be tried: not after the pod had all the time there is.
    pub(super) is_final: bool,
}

/// The reason of a failure that proves that the pod's process is gone.
const CONNECT_REFUSED: &str = "connect_refused";

// === impl Failure ===

impl Failure {
    /// The pod has no room: another may have.
    pub(super) const BUSY: Self = Self::retry("busy", "the pods are busy");
    /// It failed in the middle of an answer.
    pub(super) const CUT: Self = Self::retry("cut", "a pod failed while answering");
    /// It said so itself: with an error event, or a choice that it gave up.
    pub(super) const ERROR_EVENT: Self = Self::retry("error_event", "a pod failed while answering");
    /// It answered 500 to a plain request.
    pub(super) const SERVER_ERROR: Self = Self::retry("status_500", "a pod answered 500");
    /// It was silent, and does not answer probes any more or stands still.
    pub(super) const OUT: Self = Self::retry("pod_out", "a pod fell silent");
    /// It was silent for longer than it ever is.
    pub(super) const STALLED: Self = Self::retry("stalled", "a pod fell silent");
    /// It terminates, and its time is nearly over.
    pub(super) const LEAVING: Self = Self::retry("pod_leaving", "a pod terminated");
    /// It did not take what should go on there.
    pub(super) const REFUSED: Self = Self::retry("refused", "a pod refused to go on");
    /// It is not what it should be.
    pub(super) const MALFORMED: Self = Self::retry("malformed", "a pod's answer was malformed");
    /// A leg of a split request was answered with a 5xx.
    pub(super) const LEG_ERROR: Self = Self::retry("status_5xx", "a pod failed at a split request");
    /// A prefill pod turned the request down, and so will others.
    pub(super) const TURNED_DOWN: Self =
        Self::retry("turned_down", "a prefill pod turned the request down");
    /// A prefill pod took too long.
    pub(super) const PREFILL_TOO_LATE: Self =
        Self::retry("prefill_too_late", "a prefill pod did not answer in time");
    /// A prefill was answered, and nothing was handed over.
    pub(super) const NO_PARAMS: Self = Self::retry("no_params", "a prefill pod kept nothing");
    /// A prefill pod's bootstrap server does not tell its engines.
    pub(super) const NO_ENGINE: Self = Self::retry("no_engine", "a prefill pod is not known");
    /// A decode pod was silent for longer than a transfer can take.
    pub(super) const NO_TRANSFER: Self =
        Self::retry("no_transfer", "a transfer between pods took too long");
    /// What was prefilled may be gone.
    pub(super) const LEASE_OVER: Self = Self::retry("lease_over", "a prefill was too old");
    /// No answer in time.
    pub(super) const TOO_LATE: Self =
        Self { reason: "first_byte_too_late", cause: "no answer in time", is_final: true };

    pub(super) const fn retry(reason: &'static str, cause: &'static str) -> Self {
        Self { reason, cause, is_final: false }
    }

    /// What a pod's status alone says against it.
    pub(super) fn of_status(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::BAD_GATEWAY => Some(Self::retry("status_502", "a pod answered 502")),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(Self::BUSY),
            StatusCode::GATEWAY_TIMEOUT => Some(Self::retry("status_504", "a pod answered 504")),
            StatusCode::INTERNAL_SERVER_ERROR => Some(Self::SERVER_ERROR),
            _ => None,
        }
    }

    pub(super) fn of(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ConnectTimedout => {
                Self::retry("connect_timeout", "connecting took too long")
            }
            ErrorType::ConnectRefused => Self::retry(CONNECT_REFUSED, "connection refused"),
            ErrorType::ConnectNoRoute | ErrorType::ConnectError | ErrorType::SocketError => {
                Self::retry("connect_failed", "connecting failed")
            }
            ErrorType::ReadTimedout => Self::retry("silent", "a pod fell silent"),
            ErrorType::WriteTimedout => Self::retry("write_timeout", "a pod did not read"),
            ErrorType::InvalidHTTPHeader => Self::MALFORMED,
            _ => Self::retry("reset", "a pod closed the connection"),
        }
    }
}

/// Tells the pool what came of an attempt: no failure is an answer.
pub(super) fn report(pool: &Pool, slot: Slot, failure: Option<Failure>) {
    let outcome = match failure {
        None => Outcome::Answered,
        Some(Failure::BUSY) => Outcome::Busy,
        Some(Failure { reason: CONNECT_REFUSED, .. }) => Outcome::Refused,
        Some(Failure::STALLED) => Outcome::Stalled,
        // The pool has said so itself.
        Some(Failure::OUT | Failure::LEAVING) => return,
        Some(_) => Outcome::Failed,
    };
    let reason = failure.map_or("answered", |failure| failure.reason);
    pool.report_because(slot, outcome, reason);
}
