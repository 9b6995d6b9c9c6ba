//! Every error that Hearth itself answers with, and what each looks like on the wire: one table.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use percent_encoding::percent_decode_str;
use router::Refusal;
use router::openai::BadBody;
use serde_json::json;

use crate::head::Fault;

/// Why Hearth answers instead of a pod.
#[derive(Debug, thiserror::Error)]
pub enum Refuse {
    /// The router found no pod for it.
    #[error(transparent)]
    Router(#[from] Refusal),
    /// The head is malformed.
    #[error("Bad request: {0}.")]
    Head(#[from] Fault),
    /// The head is longer than `limits.head`.
    #[error("The request head is too large.")]
    HeadTooLarge,
    /// The head did not come within `deadlines.request_head`.
    #[error("The request head took too long.")]
    HeadTooSlow,
    /// The body is, or says that it is, longer than `limits.body`.
    #[error("The request body is larger than {limit} bytes.")]
    BodyTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The body did not come within `deadlines.request_body`.
    #[error("The request body took too long.")]
    BodyTooSlow,
    /// The body ended early or its framing is broken.
    #[error("The request body is incomplete or its framing is malformed.")]
    BodyBroken,
    /// As many connections as `limits.connections` allows are open: this one is closed without a
    /// word.
    #[error("The gateway has too many connections.")]
    TooManyConnections,
    /// The bodies in flight fill `limits.bodies_held`.
    #[error("The gateway holds too many request bodies. Try again shortly.")]
    TooManyBodies,
    /// No such path.
    #[error("Unknown request URL: {path}. Please check the URL for typos.")]
    NoSuchPath {
        /// The path, shortened.
        path: String,
    },
    /// The path exists with another method.
    #[error("Not allowed: this URL takes {allowed}.")]
    MethodNotAllowed {
        /// The methods that it takes.
        allowed: &'static str,
    },
    /// Every attempt failed before the first byte of an answer.
    #[error("All attempts to reach a pod failed; the last: {cause}.")]
    AttemptsFailed {
        /// In a few words.
        cause: &'static str,
    },
    /// The pod did not send the first byte in time.
    #[error("The pod did not answer in time.")]
    FirstByteTooLate,
    /// The pod failed when part of its answer had gone out.
    #[error("The pod failed while answering.")]
    PodFailed,
    /// The gateway is shutting down.
    #[error("The gateway is shutting down.")]
    Draining,
    /// The gateway ended when part of the answer had gone out.
    #[error("The gateway was shut down while answering.")]
    DrainCut,
    /// A fault of our own.
    #[error("Internal error.")]
    Internal,
}

/// The shape of the error object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// `{"error": {...}}`
    #[default]
    OpenAi,
    /// `{"type": "error", "error": {...}}`
    Anthropic,
}

/// One row of the table.
struct Row {
    status: StatusCode,
    /// The metric's label, and `code` where OpenAI has no name for it.
    reason: &'static str,
    kind: &'static str,
    param: Option<&'static str>,
}

/// How a request ends without an error of ours: the client left, or was cut since it did not read;
/// the pod itself ended its stream with an error event, or it answered with a 5xx, or the Envoy before
/// it did. In metrics and log these stand beside the reasons of the table.
pub(crate) const CLIENT_GONE: &str = "client_gone";
pub(crate) const CLIENT_SLOW: &str = "client_slow";
pub(crate) const ERROR_EVENT: &str = "error_event";
pub(crate) const POD_ERROR: &str = "pod_error";
pub(crate) const ENVOY: &str = "envoy";

/// How long a refused client may go on sending before its connection is closed: closing at once would
/// reset the connection under the answer.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// Seconds after which a client may try again.
const RETRY_AFTER: &str = "1";

// === impl Shape ===

impl Shape {
    /// The shape of errors on this path, known before anything else is.
    pub(crate) fn of_path(path: &str) -> Self {
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let rest = decoded.strip_prefix("/v1/messages");
        let is_anthropic = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_anthropic { Self::Anthropic } else { Self::OpenAi }
    }
}

// === impl Refuse ===

impl Refuse {
    #[rustfmt::skip]
    fn row(&self) -> Row {
        use StatusCode as S;
        const BAD: &str = "invalid_request_error";
        const BUSY: &str = "service_unavailable";
        let row = |status, reason, kind| Row { status, reason, kind, param: None };
        match self {
            Self::Router(Refusal::NoSuchModel { .. }) => Row { param: Some("model"), ..row(S::NOT_FOUND, "model_not_found", BAD) },
            Self::Router(Refusal::ModelMissing { .. }) => Row { param: Some("model"), ..row(S::BAD_REQUEST, "model_missing", BAD) },
            Self::Router(Refusal::Body(BadBody::Field { param, .. })) => Row { param: Some(param), ..row(S::BAD_REQUEST, "invalid_type", BAD) },
            Self::Router(Refusal::Body(_)) => row(S::BAD_REQUEST, "invalid_json", BAD),
            Self::Router(Refusal::NoReadyPod) => row(S::SERVICE_UNAVAILABLE, "no_ready_pod", BUSY),
            Self::Router(Refusal::AllTried) => row(S::BAD_GATEWAY, "all_tried", "server_error"),
            Self::Router(Refusal::Full) => row(S::TOO_MANY_REQUESTS, "overloaded", "rate_limit_error"),
            Self::Head(Fault::TooManyFields) |
            Self::HeadTooLarge => row(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", BAD),
            Self::Head(Fault::Connect) |
            Self::MethodNotAllowed { .. } => row(S::METHOD_NOT_ALLOWED, "method_not_allowed", BAD),
            Self::Head(_) => row(S::BAD_REQUEST, "bad_head", BAD),
            Self::HeadTooSlow => row(S::REQUEST_TIMEOUT, "head_too_slow", BAD),
            Self::BodyTooLarge { .. } => row(S::PAYLOAD_TOO_LARGE, "body_too_large", BAD),
            Self::BodyTooSlow => row(S::REQUEST_TIMEOUT, "body_too_slow", BAD),
            Self::BodyBroken => row(S::BAD_REQUEST, "body_broken", BAD),
            Self::TooManyConnections => row(S::SERVICE_UNAVAILABLE, "too_many_connections", BUSY),
            Self::TooManyBodies => row(S::SERVICE_UNAVAILABLE, "too_many_bodies", BUSY),
            Self::NoSuchPath { .. } => row(S::NOT_FOUND, "unknown_url", BAD),
            Self::AttemptsFailed { .. } => row(S::BAD_GATEWAY, "attempts_failed", "server_error"),
            Self::FirstByteTooLate => row(S::GATEWAY_TIMEOUT, "first_byte_too_late", "server_error"),
            Self::PodFailed => row(S::BAD_GATEWAY, "upstream_cut", "server_error"),
            Self::Draining => row(S::SERVICE_UNAVAILABLE, "draining", BUSY),
            Self::DrainCut => row(S::SERVICE_UNAVAILABLE, "drain_cut", BUSY),
            Self::Internal => row(S::INTERNAL_SERVER_ERROR, "internal", "server_error"),
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The label in metrics and in the access log.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// Headers beyond the content's own.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, &'static str)> {
        let mut headers = Vec::new();
        let is_busy = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        if is_busy.contains(&self.status()) {
            headers.push(("retry-after", RETRY_AFTER));
        }
        if let Self::MethodNotAllowed { allowed } = self {
            headers.push(("allow", *allowed));
        }
        headers
    }

    /// Whether the rest of the request may still be on its way, so that the connection must end.
    #[must_use]
    pub fn leaves_unread(&self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge { .. }
                | Self::BodyTooSlow
                | Self::BodyBroken
                | Self::TooManyBodies
                | Self::Draining
        )
    }

    /// The error object.
    #[must_use]
    pub fn body(&self, shape: Shape) -> Bytes {
        let Row { status, reason, kind, param } = self.row();
        let message = self.to_string();
        let value = match shape {
            Shape::OpenAi => json!({
                "error": {"message": message, "type": kind, "param": param, "code": reason}
            }),
            Shape::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic_kind(status), "message": message}
            }),
        };
        Bytes::from(value.to_string())
    }

    /// The error as the last event of a stream; `mid_line` if the stream stands inside one.
    #[must_use]
    pub(crate) fn event(&self, shape: Shape, mid_line: bool) -> Bytes {
        let end = if mid_line { "\n\n" } else { "" };
        let name = if shape == Shape::Anthropic { "event: error\n" } else { "" };
        let body = self.body(shape);
        Bytes::from(format!("{end}{name}data: {}\n\n", String::from_utf8_lossy(&body)))
    }

    /// A whole HTTP/1 answer, for a connection that never became a request.
    #[must_use]
    pub fn raw_http1(&self, shape: Shape, request_id: &str) -> Bytes {
        let body = self.body(shape);
        let mut answer = format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             x-request-id: {request_id}\r\nx-hearth-decision: {}\r\nconnection: close\r\n\r\n",
            self.status(),
            body.len(),
            crate::decision::refused(self.reason()),
        )
        .into_bytes();
        answer.extend_from_slice(&body);
        Bytes::from(answer)
    }
}

impl From<&Refuse> for StatusCode {
    fn from(refuse: &Refuse) -> Self {
        refuse.status()
    }
}

/// Anthropic's names, from its API reference ("Errors").
fn anthropic_kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_those_that_sdks_parse() {
        let refuse = Refuse::from(Refusal::NoSuchModel { model: "gpt-9\"\n".into() });
        assert_eq!(refuse.status(), StatusCode::NOT_FOUND);
        insta::assert_snapshot!(String::from_utf8_lossy(&refuse.body(Shape::OpenAi)), @r#"{"error":{"message":"The model `gpt-9\"\n` does not exist.","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#);
        insta::assert_snapshot!(String::from_utf8_lossy(&refuse.body(Shape::Anthropic)), @r#"{"type":"error","error":{"type":"not_found_error","message":"The model `gpt-9\"\n` does not exist."}}"#);
    }

    #[test]
    fn a_busy_answer_says_when_to_come_back_and_a_wrong_method_what_would_be_right() {
        for busy in [Refusal::NoReadyPod, Refusal::Full] {
            assert_eq!(Refuse::from(busy).headers(), [("retry-after", "1")]);
        }
        let wrong = Refuse::MethodNotAllowed { allowed: "POST" };
        assert_eq!(wrong.headers(), [("allow", "POST")]);
    }

    #[test]
    fn a_raw_answer_is_a_whole_http_answer() {
        let raw = Refuse::HeadTooLarge.raw_http1(Shape::OpenAi, "id-1");
        let text = String::from_utf8_lossy(&raw);
        assert!(text.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
    }
}
