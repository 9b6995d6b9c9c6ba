//! What came of one call: the measurement, complete or not.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::{SseError, Usage};

/// Why a request gave no complete answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// No end before the deadline.
    #[error("no answer in time")]
    Timeout,
    /// The connection ended inside the answer.
    #[error("connection lost: {0}")]
    Reset(String),
    /// A status that is not 200, with the engine's message.
    #[error("HTTP {status}: {message}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The error object's message, or the start of the body.
        message: String,
    },
    /// An error event inside a 200 stream.
    #[error("error event in the stream: {0}")]
    ErrorEvent(String),
    /// A stream that ended without `[DONE]`.
    #[error("the stream ended without [DONE]")]
    Truncated,
    /// An answer that is not what the API promises.
    #[error("malformed answer: {0}")]
    Malformed(String),
}

/// When things happened, from the moment the request was sent.
#[derive(Clone, Debug)]
pub struct Timing {
    /// When the request was handed to the socket.
    pub sent_at: Instant,
    /// To the first content token; for an answer that is not a stream, to its first body byte.
    pub ttft: Option<Duration>,
    /// Gaps between content chunks.
    pub gaps: Vec<Duration>,
    /// To the last byte.
    pub total: Duration,
}

/// What came of one call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status, if a head came.
    pub status: Option<StatusCode>,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The generated text, cut at 64 KiB.
    pub text: String,
    /// Token counts, if told.
    pub usage: Option<Usage>,
    /// When.
    pub timing: Timing,
    /// Why the answer is not complete.
    pub failure: Option<Failure>,
}

// === impl Failure ===

impl Failure {
    /// A short name of the kind, for counting.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect(_) => "connect".into(),
            Self::Timeout => "timeout".into(),
            Self::Reset(_) => "reset".into(),
            Self::Status { status, .. } => format!("http_{}", status.as_u16()),
            Self::ErrorEvent(_) => "error_event".into(),
            Self::Truncated => "truncated".into(),
            Self::Malformed(_) => "malformed".into(),
        }
    }

    pub(super) fn from_reqwest(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect(innermost(error))
        } else {
            Self::Reset(innermost(error))
        }
    }
}

impl From<SseError> for Failure {
    fn from(error: SseError) -> Self {
        Self::Malformed(error.to_string())
    }
}

// === impl Answer ===

impl Answer {
    /// `ip:port` of the pod that answered, as the gateway says.
    pub fn upstream(&self) -> Option<&str> {
        self.header("x-upstream-host")
    }

    /// The gateway's routing decision (`x-hearth-decision`).
    pub fn decision(&self) -> Option<&str> {
        self.header("x-hearth-decision")
    }

    /// Time per output token after the first, in milliseconds: (total − TTFT) / (tokens − 1).
    /// `None` for answers of fewer than two tokens.
    pub fn tpot_ms(&self) -> Option<f64> {
        let gaps = self.usage?.completion_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        let decoding = self.timing.total.saturating_sub(self.timing.ttft?);
        Some(millis(decoding) / gaps as f64)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn begin() -> Self {
        let sent_at = Instant::now();
        Self {
            status: None,
            headers: HeaderMap::new(),
            text: String::new(),
            usage: None,
            timing: Timing { sent_at, ttft: None, gaps: Vec::new(), total: Duration::ZERO },
            failure: None,
        }
    }
}

/// Milliseconds with their fraction.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// reqwest's own message is "error sending request for url": the reason is the innermost source.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
