//! What a request's answer needs to go on at another pod: the request for that pod.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::features::{Carry, carry};
use crate::openai::{Api, may_be_built};

/// What is to be done after a cut.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The answer was complete: with these bytes the stream ends properly.
    Over(Vec<u8>),
    /// Another pod goes on with this.
    Pod(Resumption),
    /// Nobody can go on.
    Cannot(Cannot),
}

/// A request to `/v1/completions` that goes on with an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumption {
    /// Its prompt: the first pod's, and the answer so far.
    pub tokens: Vec<u32>,
    /// Its body.
    pub body: Vec<u8>,
    /// The salt under which the prompt is cached.
    pub cache_salt: Option<String>,
}

/// Why an answer cannot go on at another pod; the word in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.label())]
pub enum Cannot {
    /// Ids were not asked for: not a stream, not an API that has them, or not one choice.
    NotAsked,
    /// The pod sent text without ids.
    NoIds,
    /// The pod sends reasoning or tool calls, parsed from text that would come back raw.
    Parsed,
    /// Something that the request asks for: see [`super::FEATURES`].
    Feature,
    /// The prompt is more than text.
    NotText,
    /// Only a tokenizer could tell where the text so far ends in the ids, and there is none.
    NoTokenizer,
    /// The ids do not make the text that went out, or end inside a character.
    Seam,
    /// The answer is longer than what we remember.
    TooLong,
}

/// What a request says about going on.
#[derive(Clone, Debug, Default)]
pub struct ResumeParams {
    /// Members that go on as they are, each with a comma before it.
    same: String,
    model: Option<String>,
    stream_options: Option<String>,
    pub(super) cache_salt: Option<String>,
    /// Tokens of the whole answer, if the client bounds them.
    pub(super) max_tokens: Option<usize>,
    min_tokens: usize,
    pub(super) stops: Vec<String>,
    pub(super) includes_stop: bool,
    pub(super) shows_specials: bool,
}

/// `stop` is one text or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Many(Vec<String>),
}

type Members<'a> = HashMap<String, &'a RawValue>;

/// What `/v1/completions` generates where the client does not say.
const COMPLETION_TOKENS: usize = 16;

// === impl Cannot ===

impl Cannot {
    /// The label in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::NoIds => "no_ids",
            Self::Parsed => "parsed",
            Self::Feature => "feature",
            Self::NotText => "not_text",
            Self::NoTokenizer => "no_tokenizer",
            Self::Seam => "seam",
            Self::TooLong => "too_long",
        }
    }
}

// === impl ResumeParams ===

impl ResumeParams {
    /// Reads them from a request's body.
    ///
    /// # Errors
    /// Why the request's answer cannot go on.
    pub fn read(api: Api, body: &[u8]) -> Result<Self, Cannot> {
        let members: Members<'_> =
            serde_json::from_slice(body).map_err(|_unread| Cannot::Feature)?;
        let mut params = Self::default();
        let built = ["messages", "response_format", "stop"].map(|name| text(&members, name));
        if !may_be_built(built.into_iter()) {
            return Err(Cannot::Feature);
        }
        for (name, value) in &members {
            let value = value.get();
            if value == "null" {
                continue;
            }
            let may = match carry(name).ok_or(Cannot::Feature)? {
                Carry::Spent | Carry::Ours => true,
                Carry::Same => {
                    write!(params.same, ",{}:{value}", Value::from(name.as_str())).is_ok()
                }
                Carry::Only(values) => values.contains(&value),
                Carry::Greedy => is_greedy(&members),
                Carry::Uncalled => value == "[]" || text(&members, "tool_choice") == "\"none\"",
                Carry::Text => is_text_format(value),
            };
            if !may {
                return Err(Cannot::Feature);
            }
        }
        if !is_text(api, &members) {
            return Err(Cannot::NotText);
        }
        params.fill(api, &members);
        // Which stop strings count depends on how many tokens came before: only the pod knows.
        let is_blurred = params.min_tokens > 0 && !params.stops.is_empty();
        if is_blurred { Err(Cannot::Feature) } else { Ok(params) }
    }

    fn fill(&mut self, api: Api, members: &Members<'_>) {
        let owned = |name| members.get(name).map(|value| value.get().to_owned());
        self.model = owned("model").filter(|model| model != "null");
        self.stream_options = owned("stream_options").filter(|options| options != "null");
        let salt = members.get("cache_salt");
        self.cache_salt = salt.and_then(|salt| serde_json::from_str(salt.get()).ok());
        let number = |name| members.get(name).and_then(|v| v.get().parse::<usize>().ok());
        self.max_tokens = match api {
            Api::Completions if !members.contains_key("max_tokens") => Some(COMPLETION_TOKENS),
            _ => number("max_completion_tokens").or_else(|| number("max_tokens")),
        };
        self.min_tokens = number("min_tokens").unwrap_or(0);
        let stops = members.get("stop").and_then(|stop| serde_json::from_str(stop.get()).ok());
        self.stops = match stops {
            Some(Stops::One(stop)) => vec![stop],
            Some(Stops::Many(stops)) => stops,
            None => Vec::new(),
        };
        self.stops.retain(|stop| !stop.is_empty());
        self.includes_stop = text(members, "include_stop_str_in_output") == "true";
        self.shows_specials = text(members, "skip_special_tokens") == "false";
    }

    /// The body for a pod that goes on after `made` tokens of the answer.
    pub(super) fn body(&self, tokens: &[u32], made: usize, max_model_len: Option<u32>) -> Vec<u8> {
        let mut body = String::with_capacity(256 + self.same.len() + tokens.len() * 7);
        body.push_str("{\"prompt\":[");
        for (at, id) in tokens.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write(&mut body, format_args!("{comma}{id}"));
        }
        body.push(']');
        if let Some(model) = &self.model {
            write(&mut body, format_args!(",\"model\":{model}"));
        }
        // Always said: completions would end after 16.
        let room = max_model_len.map(|len| (len as usize).saturating_sub(tokens.len()));
        if let Some(max) = self.max_tokens.map(|max| max.saturating_sub(made)).or(room) {
            write(&mut body, format_args!(",\"max_tokens\":{max}"));
        }
        if let Some(min) = self.min_tokens.checked_sub(made).filter(|min| *min > 0) {
            write(&mut body, format_args!(",\"min_tokens\":{min}"));
        }
        body.push_str(",\"stream\":true,\"return_token_ids\":true");
        if let Some(options) = &self.stream_options {
            write(&mut body, format_args!(",\"stream_options\":{options}"));
        }
        body.push_str(&self.same);
        body.push('}');
        body.into_bytes()
    }
}

fn write(body: &mut String, what: std::fmt::Arguments<'_>) {
    body.write_fmt(what).expect("a String takes all that is written");
}

fn text<'a>(members: &Members<'a>, name: &str) -> &'a str {
    members.get(name).map_or("", |value| value.get())
}

fn is_greedy(members: &Members<'_>) -> bool {
    text(members, "temperature").parse::<f64>().is_ok_and(|temperature| temperature == 0.0)
}

fn is_text_format(format: &str) -> bool {
    let format: Value = serde_json::from_str(format).unwrap_or_default();
    format["type"] == "text"
}

/// Whether the prompt is text or ids alone: an image is not in the prompt's ids.
fn is_text(api: Api, members: &Members<'_>) -> bool {
    let is_one_prompt = |prompt: &str| {
        let first = prompt.strip_prefix('[').map(|list| list.trim_start().as_bytes().first());
        prompt.starts_with('"') || matches!(first, Some(Some(b'0'..=b'9')))
    };
    match api {
        Api::Completions => is_one_prompt(text(members, "prompt")),
        Api::Chat => serde_json::from_str::<Vec<Value>>(text(members, "messages"))
            .is_ok_and(|messages| messages.iter().all(has_only_text)),
        _ => false,
    }
}

fn has_only_text(message: &Value) -> bool {
    let is_text =
        |part: &Value| part.is_string() || part["type"] == "text" || part["type"] == "refusal";
    match &message["content"] {
        Value::Array(parts) => parts.iter().all(is_text),
        _ => true,
    }
}
