//! An answer as its client sees it, held against what a sound pod says.

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

/// What a sound pod says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Truth {
    pub(crate) text: String,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) finish_reason: String,
}

/// What a client got.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum View {
    /// The answer of a sound pod, and nothing else.
    Whole,
    /// An error event in a stream, and no `[DONE]`.
    Error,
    /// An error event in a stream, with the pod's `[DONE]` behind it.
    ErrorDone,
    /// A stream that ends like a whole one, without `[DONE]` and without a word.
    Closed,
    /// The connection ended in the middle.
    Cut,
    /// Another status.
    Status(StatusCode),
    /// Anything else, with what is wrong about it.
    Wrong(String),
}

/// What a stream said.
#[derive(Debug, Default)]
struct Stream {
    text: String,
    roles: usize,
    finishes: Vec<String>,
    usage: Option<Value>,
    ids: Vec<String>,
    error: bool,
    done: usize,
}

// === impl Truth ===

impl Truth {
    /// Reads a chat answer that is not a stream.
    pub(crate) fn of(answer: &Value) -> Self {
        let choice = &answer["choices"][0];
        let count = |name: &str| answer["usage"][name].as_u64().expect("a number");
        Self {
            text: choice["message"]["content"].as_str().expect("text").to_owned(),
            prompt_tokens: count("prompt_tokens"),
            completion_tokens: count("completion_tokens"),
            finish_reason: choice["finish_reason"].as_str().expect("a reason").to_owned(),
        }
    }
}

// === impl View ===

impl View {
    /// Reads an answer to its end.
    pub(crate) async fn of(response: Response<Incoming>, is_stream: bool, truth: &Truth) -> Self {
        let (head, mut body) = response.into_parts();
        let (mut bytes, mut is_cut) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => is_cut = true,
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match (head.status, is_cut) {
            (_, true) => Self::Cut,
            (StatusCode::OK, _) if is_stream => Stream::read(&text).against(truth),
            (StatusCode::OK, _) => match serde_json::from_str::<Value>(&text) {
                Ok(answer) if Truth::of(&answer) == *truth => Self::Whole,
                _ => Self::Wrong(format!("not {truth:?}: {text}")),
            },
            (status, _) => Self::Status(status),
        }
    }

    /// In the table's word.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Whole => "whole".to_owned(),
            Self::Error => "error".to_owned(),
            Self::ErrorDone => "error+done".to_owned(),
            Self::Closed => "closed".to_owned(),
            Self::Cut => "cut".to_owned(),
            Self::Status(status) => status.as_str().to_owned(),
            Self::Wrong(why) => why.clone(),
        }
    }
}

// === impl Stream ===

impl Stream {
    fn read(events: &str) -> Self {
        let mut stream = Self::default();
        for data in events.lines().filter_map(|line| line.strip_prefix("data: ")) {
            if data == "[DONE]" {
                stream.done += 1;
                continue;
            }
            let event: Value = serde_json::from_str(data).unwrap_or_default();
            stream.error |= event.get("error").is_some();
            if let Some(id) =
                event["id"].as_str().filter(|id| !stream.ids.iter().any(|it| it == id))
            {
                stream.ids.push(id.to_owned());
            }
            if event["usage"].is_object() {
                stream.usage = Some(event["usage"].clone());
            }
            let choice = &event["choices"][0];
            stream.roles += usize::from(choice["delta"]["role"].is_string());
            stream.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            stream.finishes.extend(choice["finish_reason"].as_str().map(str::to_owned));
        }
        stream
    }

    fn against(&self, truth: &Truth) -> View {
        match (self.error, self.done) {
            (true, 0) => return View::Error,
            (true, 1) => return View::ErrorDone,
            (false, 0) => return View::Closed,
            (false, 1) => {}
            _ => return View::Wrong(format!("its end: {self:?}")),
        }
        let count = |name: &str| self.usage.as_ref().and_then(|usage| usage[name].as_u64());
        let counts = (count("prompt_tokens"), count("completion_tokens"));
        let is_right = self.text == truth.text
            && (self.roles, self.ids.len()) == (1, 1)
            && self.finishes == [truth.finish_reason.as_str()]
            && counts == (Some(truth.prompt_tokens), Some(truth.completion_tokens));
        if is_right { View::Whole } else { View::Wrong(format!("not {truth:?}: {self:?}")) }
    }
}
