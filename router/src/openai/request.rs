//! A body's bytes to the few fields that routing reads.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Api;
use super::members::Members;
use super::{canonical, guard};

/// Why a body cannot be routed: it is refused, since bytes that we cannot read are bytes that we
/// cannot guard.
#[derive(Debug, thiserror::Error)]
pub enum BadBody {
    /// vLLM would read UTF-16 or UTF-32; we do not.
    #[error("the request body is not valid UTF-8")]
    NotUtf8,
    /// Not JSON, or nested deeper than 128 levels where routing must look.
    #[error("the request body is not valid JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// Well-formed, but a field has another type than the API says.
    #[error("`{param}` must be {expected}")]
    Field {
        /// Which field.
        param: &'static str,
        /// What it should have been.
        expected: &'static str,
    },
}

/// What routing reads of a body; every other byte is carried untouched.
///
/// A duplicate key counts with its last value, as in the pod's own parser.
#[derive(Debug)]
pub struct Fields<'a> {
    /// The model's name, if the body names one.
    pub model: Option<Cow<'a, str>>,
    /// vLLM's per-tenant salt: prompts under different salts share no block.
    pub cache_salt: Option<Cow<'a, str>>,
    /// The prompt.
    pub prompt: Prompt<'a>,
    /// Guarded members to cut out before the body goes on.
    pub guarded: Vec<Range<usize>>,
}

/// A prompt as the client wrote it.
#[derive(Debug)]
pub enum Prompt<'a> {
    /// Messages, to be rendered by the model's chat template.
    Chat {
        /// `messages`
        messages: &'a RawValue,
        /// `tools`
        tools: Option<&'a RawValue>,
        /// `documents`
        documents: Option<&'a RawValue>,
        /// `chat_template_kwargs`
        template_kwargs: Option<&'a RawValue>,
        /// `add_generation_prompt`, true unless the body says false.
        add_generation_prompt: bool,
        /// `continue_final_message`
        continue_final_message: bool,
    },
    /// One text, as `/v1/completions` takes it.
    Text(Cow<'a, str>),
    /// One prompt of token ids.
    Tokens(Vec<u32>),
    /// Anything else, in the order in which the engine sees it: read as text.
    Parts(Vec<&'a RawValue>),
}

/// Reads a body.
///
/// # Errors
/// See [`BadBody`].
pub fn read(api: Api, body: &[u8]) -> Result<Fields<'_>, BadBody> {
    let text = std::str::from_utf8(body).map_err(|_not_utf8| BadBody::NotUtf8)?;
    if !text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok() {
        return Err(BadBody::Field { param: "body", expected: "a JSON object" });
    }
    let members: Members<'_> = serde_json::from_str(text)?;
    let guarded = guard::spans(text, &members)?;
    let model = string(&members, "model")?;
    let cache_salt = string(&members, "cache_salt")?;
    let prompt = prompt(api, &members)?;
    Ok(Fields { model, cache_salt, prompt, guarded })
}

// === impl Prompt ===

impl Prompt<'_> {
    /// Appends the prompt's text without its JSON spelling, for hashing without a tokenizer.
    ///
    /// # Errors
    /// When a part is not readable JSON (lone surrogates, nesting beyond 128).
    pub fn canonical(&self, out: &mut Vec<u8>) -> Result<(), BadBody> {
        match self {
            Self::Chat { messages, tools, .. } => {
                for part in tools.iter().chain([messages]) {
                    canonical::append(part.get(), out)?;
                }
            }
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Tokens(ids) => out.extend(ids.iter().flat_map(|id| id.to_le_bytes())),
            Self::Parts(parts) => {
                for part in parts {
                    canonical::append(part.get(), out)?;
                }
            }
        }
        Ok(())
    }
}

fn prompt<'a>(api: Api, members: &Members<'a>) -> Result<Prompt<'a>, BadBody> {
    let get = |key: &str| last(members, key);
    let parts = |keys: &'static [&str]| Prompt::Parts(keys.iter().filter_map(|k| get(k)).collect());
    Ok(match api {
        Api::Chat => match get("messages") {
            Some(messages) => chat(messages, members),
            None => parts(&[]),
        },
        Api::Tokenize => match (get("messages"), get("prompt")) {
            (Some(messages), _) => chat(messages, members),
            (None, Some(prompt)) => completion(prompt)?,
            (None, None) => parts(&[]),
        },
        Api::Completions => match get("prompt") {
            Some(prompt) => completion(prompt)?,
            None => parts(&[]),
        },
        Api::Responses => parts(&["tools", "instructions", "input"]),
        Api::Messages | Api::CountTokens => parts(&["tools", "system", "messages"]),
        Api::Embeddings | Api::Pooling => parts(&["input", "messages"]),
        Api::Rerank => parts(&["query", "documents"]),
        Api::Score => parts(&["text_1", "text_2", "queries", "documents"]),
        Api::Detokenize => parts(&[]),
    })
}

fn chat<'a>(messages: &'a RawValue, members: &Members<'a>) -> Prompt<'a> {
    Prompt::Chat {
        messages,
        tools: last(members, "tools").filter(|tools| tools.get() != "null"),
        documents: last(members, "documents").filter(|documents| documents.get() != "null"),
        template_kwargs: last(members, "chat_template_kwargs"),
        add_generation_prompt: flag(members, "add_generation_prompt", true),
        continue_final_message: flag(members, "continue_final_message", false),
    }
}

/// `prompt` is a text, a list of ids, or a list of either: of lists of ids the first stands for
/// all; a list of texts is read whole.
fn completion(prompt: &RawValue) -> Result<Prompt<'_>, BadBody> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(Vec<u32>),
        Many(Vec<Vec<u32>>),
    }
    let text = prompt.get();
    if text.starts_with('"') {
        return Ok(Prompt::Text(unescaped(text)?));
    }
    match serde_json::from_str(text) {
        Ok(Ids::One(ids)) => Ok(Prompt::Tokens(ids)),
        Ok(Ids::Many(batch)) => Ok(Prompt::Tokens(batch.into_iter().next().unwrap_or_default())),
        Err(_) => Ok(Prompt::Parts(vec![prompt])),
    }
}

fn last<'a>(members: &Members<'a>, key: &str) -> Option<&'a RawValue> {
    members.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| *value)
}

fn flag(members: &Members<'_>, key: &str, default: bool) -> bool {
    match last(members, key).map(RawValue::get) {
        Some("true") => true,
        Some("false") => false,
        _ => default,
    }
}

fn string<'a>(members: &Members<'a>, key: &'static str) -> Result<Option<Cow<'a, str>>, BadBody> {
    match last(members, key).map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(text) if text.starts_with('"') => unescaped(text).map(Some),
        Some(_) => Err(BadBody::Field { param: key, expected: "a string" }),
    }
}

/// A JSON string's value, borrowed when it has no escapes.
fn unescaped(json: &str) -> Result<Cow<'_, str>, BadBody> {
    if json.contains('\\') {
        return Ok(Cow::Owned(serde_json::from_str(json)?));
    }
    Ok(Cow::Borrowed(&json[1..json.len() - 1]))
}

#[cfg(test)]
#[path = "request/tests.rs"]
mod tests;
