//! What the access log says of a request.

use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Longest text in bytes that a client's own words fill in a field.
const CLIP_BYTES: usize = 256;

/// One request. The first 15 keys are those of the Istio access logs that this replaces; all keys
/// are always there, and `null` where there is nothing to say. No prompt, no credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Record {
    /// When its head was read (RFC 3339, milliseconds, UTC).
    #[serde(serialize_with = "rfc3339_ms")]
    pub start_time: Timestamp,
    /// Its method.
    pub method: Clipped,
    /// Its path, without the query.
    pub path: PathOnly,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// Status of the answer; 499 if the client left before one.
    pub response_code: u16,
    /// From head to end of answer, in ms.
    pub duration: u64,
    /// From sending it to the pod to the pod's head, in ms.
    pub upstream_service_time: Option<u64>,
    /// The pod that answered, `ip:port`.
    pub upstream_host: Option<SocketAddr>,
    /// Which route of ours.
    pub route_name: &'static str,
    /// The `Host` or `:authority`.
    pub authority: Option<Clipped>,
    /// The session key.
    pub x_session_id: Option<Clipped>,
    /// The header `x-test-id`.
    pub x_test_id: Option<Clipped>,
    /// The header `user-agent`.
    pub user_agent: Option<Clipped>,
    /// The id that the client got as `x-request-id`.
    pub request_id: Clipped,
    /// The client's end of the connection.
    pub downstream_remote_address: Option<SocketAddr>,
    /// The model asked for.
    pub model: Option<Clipped>,
    /// The routing policy.
    pub policy: Option<&'static str>,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Of these, what the index said the chosen pod holds.
    pub matched_tokens: Option<u64>,
    /// Of these, what the pod said it reused.
    pub cached_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// Choosing the pod, in µs.
    pub decision_us: Option<u64>,
    /// From head to first content token, in ms.
    pub ttft_ms: Option<f64>,
    /// Of it, waiting here for a place at a pod, in ms.
    pub queue_ms: Option<f64>,
    /// Mean time per output token after the first, in ms.
    pub tpot_ms: Option<f64>,
    /// The pod that prefilled for another, `ip:port`.
    pub prefill_host: Option<SocketAddr>,
    /// From sending the prefill leg to its answer, in ms.
    pub prefill_ms: Option<f64>,
    /// From sending the decode leg to its first token, in ms: the transfer and one step.
    pub transfer_ms: Option<f64>,
    /// From head to end of answer, in ms, with fractions.
    pub total_ms: f64,
    /// Pods tried.
    pub attempts: u32,
    /// Of these, those that failed, at most 8.
    pub attempts_failed: Vec<FailedAttempt>,
    /// Times that the stream went on at another pod.
    pub moves: u32,
    /// Why the gateway or the pod answered with an error, or who cut: the label of `hearth_errors_total`.
    pub error: Option<&'static str>,
    /// The header `x-hearth-decision`.
    pub decision: Option<String>,
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FailedAttempt {
    /// The pod, `ip:port`.
    pub pod: SocketAddr,
    /// Why: the label of `hearth_retries_total`.
    pub reason: &'static str,
}

/// A client's own words, cut to 256 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clipped(String);

/// The path of a request target, without its query, cut to 256 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PathOnly(Clipped);

/// An optional number with its unit, or nothing at all.
struct Ms(&'static str, Option<f64>);

// === impl Record ===

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start_time, response_code, method, path, .. } = self;
        write!(f, "{start_time:.3} {response_code} {method} {} {:.1}ms", path.0, self.total_ms)?;
        write!(f, "{}{}", Ms("ttft", self.ttft_ms), Ms("queue", self.queue_ms))?;
        write!(f, "{}", Ms("tpot", self.tpot_ms))?;
        let (prefill, transfer) = (self.prefill_ms, self.transfer_ms);
        write!(f, "{}{}", Ms("prefill", prefill), Ms("transfer", transfer))?;
        if let Some(model) = &self.model {
            write!(f, " model={model}")?;
        }
        if let Some(pod) = self.upstream_host {
            write!(f, " pod={pod}")?;
        }
        if let Some(pod) = self.prefill_host {
            write!(f, " prefilled_by={pod}")?;
        }
        if let Some(decision) = &self.decision {
            write!(f, " decision={decision}")?;
        }
        for (name, tokens) in [("cached", self.cached_tokens), ("output", self.output_tokens)] {
            if let Some(tokens) = tokens {
                write!(f, " {name}={tokens}")?;
            }
        }
        if self.attempts > 1 {
            write!(f, " attempts={}", self.attempts)?;
        }
        for FailedAttempt { pod, reason } in &self.attempts_failed {
            write!(f, " failed={pod}/{reason}")?;
        }
        if self.moves > 0 {
            write!(f, " moves={}", self.moves)?;
        }
        if let Some(error) = self.error {
            write!(f, " error={error}")?;
        }
        write!(f, " id={}", self.request_id)
    }
}

fn rfc3339_ms<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.3}"))
}

// === impl Clipped ===

impl Clipped {
    /// The text that is left.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Clipped {
    fn from(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(CLIP_BYTES)].to_owned())
    }
}

impl From<&http::HeaderValue> for Clipped {
    /// Bytes that are not UTF-8 become U+FFFD.
    fn from(value: &http::HeaderValue) -> Self {
        let bytes = value.as_bytes();
        let bytes = &bytes[..bytes.len().min(CLIP_BYTES)];
        Self::from(&*String::from_utf8_lossy(bytes))
    }
}

impl fmt::Display for Clipped {
    /// Control characters are escaped: a line of text stays one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for it in self.0.chars() {
            if it.is_control() { write!(f, "{}", it.escape_default())? } else { write!(f, "{it}")? }
        }
        Ok(())
    }
}

// === impl PathOnly ===

impl From<&str> for PathOnly {
    fn from(target: &str) -> Self {
        let end = target.find(['?', '#']).unwrap_or(target.len());
        let target = &target[..end];
        // Of a whole URL the path alone: what stands before it may hold a password.
        let path = target
            .split_once("://")
            .map_or(target, |(_scheme, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        Self(Clipped::from(path))
    }
}

// === impl Ms ===

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(name, Some(ms)) => write!(f, " {name}={ms:.1}ms"),
            Self(_, None) => Ok(()),
        }
    }
}
