//! Why an attempt at a pod gave no answer: one table of reasons.

use http::StatusCode;
use kv_index::Slot;
use pingora_core::{Error, ErrorType};
use router::pool::{Outcome, Pool};

/// Why an attempt gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection in time.
    ConnectTimeout,
    /// Nobody listens there.
    ConnectRefused,
    /// No connection for another reason.
    ConnectFailed,
    /// It did not read the request in time.
    WriteTimeout,
    /// The connection broke.
    Reset,
    /// It paused for longer than an answer may.
    Silent,
    /// It is not what it should be.
    Malformed,
    /// The pod has no room: another may have.
    Busy,
    /// It answered 502.
    BadGateway,
    /// It answered 504.
    GatewayTimeout,
    /// It answered 500 to a plain request.
    ServerError,
    /// It answered 500 since its engine drains or has died.
    EngineGone,
    /// It failed in the middle of an answer.
    Cut,
    /// It said so itself: with an error event, or a choice that it gave up.
    ErrorEvent,
    /// It was silent, and is gone, does not answer probes, or stands still.
    Out,
    /// It was silent for longer than it ever is.
    Stalled,
    /// It terminates, and its time is nearly over.
    Leaving,
    /// It did not take what should go on there.
    Refused,
    /// A leg of a split request was answered with a 5xx.
    LegError,
    /// A prefill pod turned the request down, and so will others.
    TurnedDown,
    /// A prefill pod took too long.
    PrefillTooLate,
    /// A prefill was answered, and nothing was handed over.
    NoParams,
    /// A prefill pod's bootstrap server does not tell its engines.
    NoEngine,
    /// A decode pod was silent for longer than a transfer can take.
    NoTransfer,
    /// What was prefilled may be gone.
    LeaseOver,
    /// No answer in all the time that there is.
    TooLate,
}

// === impl Failure ===

impl Failure {
    /// What came of trying to connect, to send, or to read.
    pub(crate) fn of(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ConnectTimedout => Self::ConnectTimeout,
            ErrorType::ConnectRefused => Self::ConnectRefused,
            ErrorType::ConnectNoRoute | ErrorType::ConnectError | ErrorType::SocketError => {
                Self::ConnectFailed
            }
            ErrorType::ReadTimedout => Self::Silent,
            ErrorType::WriteTimedout => Self::WriteTimeout,
            ErrorType::InvalidHTTPHeader => Self::Malformed,
            _ => Self::Reset,
        }
    }

    /// What a pod's status alone says against it.
    pub(crate) fn of_status(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(Self::Busy),
            StatusCode::INTERNAL_SERVER_ERROR => Some(Self::ServerError),
            StatusCode::BAD_GATEWAY => Some(Self::BadGateway),
            StatusCode::GATEWAY_TIMEOUT => Some(Self::GatewayTimeout),
            _ => None,
        }
    }

    /// The metric's label, and a few words for the client.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::ConnectTimeout => ("connect_timeout", "connecting took too long"),
            Self::ConnectRefused => ("connect_refused", "connection refused"),
            Self::ConnectFailed => ("connect_failed", "connecting failed"),
            Self::WriteTimeout => ("write_timeout", "a pod did not read"),
            Self::Reset => ("reset", "a pod closed the connection"),
            Self::Silent => ("silent", "a pod fell silent"),
            Self::Malformed => ("malformed", "a pod's answer was malformed"),
            Self::Busy => ("busy", "the pods are busy"),
            Self::BadGateway => ("status_502", "a pod answered 502"),
            Self::GatewayTimeout => ("status_504", "a pod answered 504"),
            Self::ServerError => ("status_500", "a pod answered 500"),
            Self::EngineGone => ("engine_gone", "a pod's engine has stopped"),
            Self::Cut => ("cut", "a pod failed while answering"),
            Self::ErrorEvent => ("error_event", "a pod failed while answering"),
            Self::Out => ("pod_out", "a pod fell silent"),
            Self::Stalled => ("stalled", "a pod fell silent"),
            Self::Leaving => ("pod_leaving", "a pod terminated"),
            Self::Refused => ("refused", "a pod refused to go on"),
            Self::LegError => ("status_5xx", "a pod failed at a split request"),
            Self::TurnedDown => ("turned_down", "a prefill pod turned the request down"),
            Self::PrefillTooLate => ("prefill_too_late", "a prefill pod did not answer in time"),
            Self::NoParams => ("no_params", "a prefill pod kept nothing"),
            Self::NoEngine => ("no_engine", "a prefill pod is not known"),
            Self::NoTransfer => ("no_transfer", "a transfer between pods took too long"),
            Self::LeaseOver => ("lease_over", "a prefill was too old"),
            Self::TooLate => ("first_byte_too_late", "no answer in time"),
        }
    }

    /// The metric's label.
    pub(crate) const fn reason(self) -> &'static str {
        self.words().0
    }

    /// In a few words, for the client.
    pub(crate) const fn cause(self) -> &'static str {
        self.words().1
    }

    /// What the pool learns of the pod, if anything.
    const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Busy => Some(Outcome::Busy),
            Self::ConnectRefused => Some(Outcome::Refused),
            Self::Stalled => Some(Outcome::Stalled),
            // The request is at fault, and the pod has said so.
            Self::TurnedDown => Some(Outcome::Answered),
            // The pool has said so itself, or it is no fault of this pod.
            Self::Out | Self::Leaving | Self::Refused | Self::LeaseOver => None,
            Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::WriteTimeout
            | Self::Reset
            | Self::Silent
            | Self::Malformed
            | Self::BadGateway
            | Self::GatewayTimeout
            | Self::ServerError
            | Self::EngineGone
            | Self::Cut
            | Self::ErrorEvent
            | Self::LegError
            | Self::PrefillTooLate
            | Self::NoParams
            | Self::NoEngine
            | Self::NoTransfer
            | Self::TooLate => Some(Outcome::Failed),
        }
    }
}

/// Tells the pool what came of an attempt: no failure is an answer.
pub(crate) fn report(pool: &Pool, slot: Slot, failure: Option<Failure>) {
    let outcome = failure.map_or(Some(Outcome::Answered), Failure::outcome);
    if let Some(outcome) = outcome {
        pool.report_because(slot, outcome, failure.map_or("answered", Failure::reason));
    }
}
