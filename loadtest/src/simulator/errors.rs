//! vLLM's error bodies.

use std::io;

use axum::{
    Json,
    body::Body,
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use router::tokenize::TokenizeError;
use serde_json::{Value, json};

use super::engine::Busy;

/// An error as vLLM reports it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// vLLM's `type`.
    pub(super) kind: &'static str,
    pub(super) message: String,
    pub(super) param: Option<String>,
}

/// The kind of [`ApiError::cut`].
const CUT: &str = "cut";

// === impl ApiError ===

impl ApiError {
    /// Semantically wrong: `BadRequestError`, with the parameter and its value in the message.
    pub(super) fn value(message: &str, param: &str, value: impl std::fmt::Display) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "BadRequestError",
            message: format!("{message} (parameter={param}, value={value})"),
            param: Some(param.to_owned()),
        }
    }

    /// Semantically wrong, with no parameter to name.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "BadRequestError",
            message: message.into(),
            param: None,
        }
    }

    /// A field of the wrong type: `Bad Request`, in pydantic's words.
    pub(super) fn field_type(field: &str, kind: &str, words: &str, input: &Value) -> Self {
        let location = format!("body.{field}");
        let message = format!(
            "1 validation error:\n  {{'type': '{kind}', 'loc': '{location}', 'msg': '{words}', \
             'input': {}}}",
            python_repr(input)
        );
        Self::validation(message, Some(location))
    }

    /// The body is not JSON; `offset` is where, in characters.
    pub(super) fn not_json(offset: usize) -> Self {
        let location = format!("body.{offset}");
        let message = format!(
            "1 validation error:\n  {{'type': 'json_invalid', 'loc': '{location}', 'msg': 'JSON \
             decode error', 'input': '<dict of 0 items>', 'ctx': {{'error': 'Expecting value'}}}}"
        );
        Self::validation(message, Some(location))
    }

    /// The content type is not JSON's.
    pub(super) fn media_type() -> Self {
        let message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is \
                       allowed";
        Self::validation(message.to_owned(), None)
    }

    /// A route that the server was not started with.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            kind: "PermissionDeniedError",
            message: message.into(),
            param: None,
        }
    }

    /// A model that this pod does not serve.
    pub(super) fn no_model(name: &str, served: &[String]) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "NotFoundError",
            message: format!(
                "The model `{name}` does not exist. Valid aliases: {}.",
                served.join(", ")
            ),
            param: Some("model".to_owned()),
        }
    }

    /// What a draining vLLM answers to every new request.
    pub(super) fn shutting_down() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "InternalServerError",
            message: "cannot schedule new futures after shutdown".to_owned(),
            param: None,
        }
    }

    /// What vLLM answers when its queue limit is reached.
    pub(super) fn busy() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "Service Unavailable",
            message: "The engine is currently busy and cannot accept new requests. Please try \
                      again later or on a different instance."
                .to_owned(),
            param: None,
        }
    }

    /// The engine went away under a request.
    pub(super) fn engine_dead() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "InternalServerError",
            message: "EngineCore encountered an issue. See stack trace (above) for the root cause."
                .to_owned(),
            param: None,
        }
    }

    /// No error at all: an answer whose connection ends in the middle of it.
    pub(super) fn cut() -> Self {
        Self { status: StatusCode::OK, kind: CUT, message: String::new(), param: None }
    }

    /// What vLLM says of errors that it does not name, a failed KV load among them.
    pub(super) fn internal() -> Self {
        Self { message: "Internal server error".to_owned(), ..Self::engine_dead() }
    }

    /// An error of any status, for fault injection; 500 if the number is no status.
    pub(super) fn of_status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let message = format!("simulated fault {status}");
        Self { status, kind: "SimulatedFault", message, param: None }
    }

    fn validation(message: String, param: Option<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "Bad Request", message, param }
    }

    /// The body, and an SSE error event's data.
    pub(super) fn json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status.as_u16(),
        }})
    }

    /// The same in the shape of `/v1/messages`.
    pub(super) fn anthropic(&self) -> Response {
        let body = json!({"type": "error", "error": {"type": self.kind, "message": self.message}});
        (self.status, Json(body)).into_response()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.kind == CUT {
            let parts = [
                Ok(Bytes::from_static(b"{\"id\":")),
                Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            ];
            let head = [(CONTENT_TYPE, "application/json"), (CONTENT_LENGTH, "680")];
            return (head, Body::from_stream(stream::iter(parts))).into_response();
        }
        (self.status, Json(self.json())).into_response()
    }
}

impl From<Busy> for ApiError {
    fn from(_: Busy) -> Self {
        Self::busy()
    }
}

impl From<TokenizeError> for ApiError {
    fn from(error: TokenizeError) -> Self {
        Self::bad(error.to_string())
    }
}

fn python_repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    }
}
