//! What we ask: the body and headers of one generation request.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

/// One chat message.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
}

/// The sampling fields a job sets; absent ones are not sent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CallOptions {
    /// Most tokens to generate.
    pub max_tokens: u32,
    /// 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Sampling seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Generate all of `max_tokens` (vLLM's extension): benchmarks need equal lengths.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_eos: bool,
    /// Ask for server-sent events.
    #[serde(skip)]
    pub stream: bool,
}

/// One request, ready to be sent as often as wanted.
#[derive(Clone, Debug)]
pub struct Call {
    /// Path below the gateway's URL.
    pub path: &'static str,
    /// JSON body.
    pub body: Bytes,
    /// Whether the body asks for a stream.
    pub stream: bool,
    /// Headers besides `host` and `content-type`.
    pub headers: HeaderMap,
}

#[derive(Serialize)]
struct Body<'a, P: Serialize> {
    model: &'a str,
    #[serde(flatten)]
    prompt: P,
    #[serde(flatten)]
    options: &'a CallOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct ChatPrompt<'a> {
    messages: &'a [Message],
}

#[derive(Serialize)]
struct TextPrompt<'a> {
    prompt: &'a str,
}

// === impl Message ===

impl Message {
    /// What stands before a conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system", content: content.into() }
    }

    /// A user's message.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user", content: content.into() }
    }

    /// An answer given earlier.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant", content: content.into() }
    }
}

// === impl Call ===

impl Call {
    /// `POST /v1/chat/completions`.
    pub fn chat(model: &str, messages: &[Message], options: &CallOptions) -> Self {
        Self::new("/v1/chat/completions", model, ChatPrompt { messages }, options)
    }

    /// `POST /v1/completions` with a text prompt.
    pub fn completion(model: &str, prompt: &str, options: &CallOptions) -> Self {
        Self::new("/v1/completions", model, TextPrompt { prompt }, options)
    }

    /// Adds a header; one whose value no HTTP message can carry is left out with a warning.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                self.headers.append(HeaderName::from_static(name), value);
            }
            Err(error) => tracing::warn!(%error, header = name, "header left out"),
        }
        self
    }

    fn new(path: &'static str, model: &str, prompt: impl Serialize, options: &CallOptions) -> Self {
        let stream = options.stream;
        let body = Body {
            model,
            prompt,
            options,
            stream: stream.then_some(true),
            stream_options: stream.then_some(StreamOptions { include_usage: true }),
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers always serialize");
        Self { path, body: body.into(), stream, headers: HeaderMap::new() }
    }
}
