//! A body's bytes to the few fields that routing reads.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use super::anthropic;
use super::cache::CacheUse;
use super::first::First;
use super::guard;
use super::legs;
use super::members::Members;
use super::responses;
use super::scan::{self, BadJson, Scanner};
use super::text::{self, Text};
use super::tree;
use super::{Api, StreamFormat};

/// Why a body cannot be routed: it is refused, since bytes that we cannot read are bytes that we
/// cannot guard.
#[derive(Debug, thiserror::Error)]
pub enum BadBody {
    /// vLLM would read UTF-16 or UTF-32; we do not.
    #[error("the request body is not valid UTF-8")]
    NotUtf8,
    /// Not JSON, or nested deeper than 128 levels where routing must look.
    #[error("the request body is not valid JSON: {0}")]
    NotJson(#[from] BadJson),
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
    /// The prompt's text in one spelling, in the order in which the engine sees it.
    pub text: &'a str,
    /// Guarded members to cut out before the body goes on.
    pub guarded: Vec<Range<usize>>,
    /// Why one pod has to compute it alone, in a word; none: prefill and decode may be split.
    pub indivisible: Option<&'static str>,
    /// What a pod's cache is to it.
    pub cache_use: CacheUse,
    /// What its stream shows, if it asks for one.
    pub stream: Option<StreamFormat>,
}

/// A prompt as the client wrote it.
#[derive(Debug)]
pub enum Prompt<'a> {
    /// Messages, to be rendered by the model's chat template; of a batch the first conversation's, which
    /// stand for all.
    Chat {
        /// `messages`
        messages: &'a str,
        /// `tools`
        tools: Option<&'a str>,
        /// `documents`
        documents: Option<&'a str>,
        /// `chat_template_kwargs`
        template_kwargs: Option<&'a str>,
        /// `reasoning_effort`
        reasoning_effort: Option<&'a str>,
        /// `add_generation_prompt`, true unless the body says false.
        add_generation_prompt: bool,
        /// `continue_final_message`
        continue_final_message: bool,
    },
    /// A request of another API that the pod turns into messages: see [`Foreign::messages`].
    Foreign(Foreign<'a>),
    /// One text, as `/v1/completions` takes it, or the first of a list, which stands for all.
    Text {
        /// `prompt`, a JSON string.
        prompt: &'a str,
        /// `add_special_tokens`, true unless the body says false.
        add_special_tokens: bool,
    },
    /// One prompt of token ids.
    Tokens(Vec<u32>),
    /// Anything else.
    Other,
}

/// What `/v1/messages` and `/v1/responses` have instead of a chat's messages.
#[derive(Debug)]
pub struct Foreign<'a> {
    api: Api,
    /// `system` or `instructions`.
    before: Option<&'a str>,
    /// `messages` or `input`.
    messages: &'a str,
    tools: Option<&'a str>,
    /// `chat_template_kwargs`
    pub template_kwargs: Option<&'a str>,
}

// === impl Foreign ===

impl Foreign<'_> {
    /// The chat messages and tools that the pod makes of it; none where that is not certain, or where
    /// they are too many.
    #[must_use]
    pub fn messages(&self) -> Option<(Value, Option<Value>)> {
        let parts = [self.before, Some(self.messages), self.tools, self.template_kwargs];
        if !tree::may_be_built(parts.into_iter().flatten()) {
            return None;
        }
        let value = |json: &str| serde_json::from_str::<Value>(json).ok();
        let before = match self.before {
            Some(json) => Some(value(json)?),
            None => None,
        };
        let tools = match self.tools.map(value) {
            Some(json) => Some(match self.api {
                Api::Responses => responses::tools(&json?),
                _ => anthropic::tools(&json?),
            }?),
            None => None,
        };
        let messages = value(self.messages)?;
        let messages = match self.api {
            Api::Responses => responses::messages(before.as_ref(), &messages),
            _ => anthropic::messages(before.as_ref(), &messages),
        };
        Some((messages?, tools))
    }
}

/// Reads a body; `text` is where the prompt's text is put.
///
/// # Errors
/// See [`BadBody`].
pub fn read<'a>(api: Api, body: &'a [u8], text: &'a mut String) -> Result<Fields<'a>, BadBody> {
    let json = simdutf8::basic::from_utf8(body).map_err(|_not_utf8| BadBody::NotUtf8)?;
    if !json.trim_start().starts_with('{') && scan::is_json(json) {
        return Err(BadBody::Field { param: "body", expected: "a JSON object" });
    }
    text.clear();
    text.reserve(json.len());
    let members = Members::read_with_text(json, |key, first| is_text(api, key, first), text)?;
    let guarded = guard::spans(json, &members)?;
    let model = string(&members, "model")?;
    let cache_salt = string(&members, "cache_salt")?;
    let prompt = prompt(api, &members);
    arrange(parts(api, &members), &members, text)?;
    // The last zero would end a text that another request goes on with.
    let text = text.strip_suffix('\0').unwrap_or(text);
    let indivisible = legs::indivisible(api, &members);
    let cache_use = CacheUse::read(api, &members);
    let stream = StreamFormat::read(api, &members);
    Ok(Fields { model, cache_salt, prompt, text, guarded, indivisible, cache_use, stream })
}

/// Members by which a pod may make another prompt than we would, depending on its flags, its model
/// or what it remembers: with them the prompt is matched by its bytes.
const UNCERTAIN: &[&str] = &[
    "chat_template",
    "truncate_prompt_tokens",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "output_config",
    "previous_response_id",
    "previous_input_messages",
    "mm_processor_kwargs",
    "features",
    "content_parts",
];

/// The members that make the prompt, in the order in which the engine sees them.
fn parts(api: Api, members: &Members<'_>) -> &'static [&'static str] {
    match api {
        Api::Chat | Api::Batch => &["tools", "messages"],
        Api::Tokenize if members.last("messages").is_some() => &["tools", "messages"],
        Api::Tokenize | Api::Completions => &["prompt"],
        Api::Responses => &["tools", "instructions", "input"],
        Api::Messages | Api::CountTokens => &["tools", "system", "messages"],
        Api::Embeddings | Api::Pooling | Api::Classify => &["input", "messages"],
        Api::Rerank => &["query", "documents"],
        Api::Score => &["text_1", "text_2", "queries", "documents"],
        Api::GenerativeScoring => &["query", "items"],
        Api::Decide => &["instructions", "state"],
        Api::Detokenize | Api::Generate | Api::Render => &[],
    }
}

/// Whether a member's text is taken as the body is read. A list under `prompt` is mostly token
/// ids, of which no text is wanted: [`arrange`] looks at it again if it is not.
fn is_text(api: Api, key: &str, first: Option<u8>) -> bool {
    match key {
        "prompt" => matches!(api, Api::Completions | Api::Tokenize) && first != Some(b'['),
        "tools" | "messages" => true,
        "query" => matches!(api, Api::Rerank | Api::GenerativeScoring),
        "documents" => matches!(api, Api::Rerank | Api::Score),
        "text_1" | "text_2" | "queries" => api == Api::Score,
        "items" => api == Api::GenerativeScoring,
        "state" => api == Api::Decide,
        "system" => matches!(api, Api::Messages | Api::CountTokens),
        "instructions" => matches!(api, Api::Responses | Api::Decide),
        "input" => {
            matches!(api, Api::Responses | Api::Embeddings | Api::Pooling | Api::Classify)
        }
        _ => false,
    }
}

/// Puts the parts' texts in the engine's order, if they are not: nearly always they are.
fn arrange(parts: &[&str], members: &Members<'_>, text: &mut String) -> Result<(), BadBody> {
    let texts = || parts.iter().filter_map(|part| members.member(part));
    let mut end = 0;
    let in_order = texts().all(|member| match &member.text {
        Some(range) => std::mem::replace(&mut end, range.end) == range.start,
        None => false,
    });
    if in_order && end == text.len() {
        return Ok(());
    }
    let mut arranged = String::with_capacity(text.len());
    for member in texts() {
        match &member.text {
            Some(range) => arranged.push_str(&text[range.clone()]),
            None if token_ids(member.value).is_none() => {
                Scanner::new(member.value).value(&mut Text(&mut arranged))?;
            }
            None => {}
        }
    }
    *text = arranged;
    Ok(())
}

fn prompt<'a>(api: Api, members: &Members<'a>) -> Prompt<'a> {
    let is_set = |name: &str| members.last(name).is_some_and(|value| value != "null");
    // What a chat's effort does is a rule of vLLM's; elsewhere it depends on more.
    let is_certain = |name: &str| name == "reasoning_effort" && api == Api::Chat;
    if UNCERTAIN.iter().any(|name| is_set(name) && !is_certain(name)) {
        return Prompt::Other;
    }
    let messages = members.last("messages").filter(|_| matches!(api, Api::Chat | Api::Tokenize));
    if let Some(messages) = messages {
        return chat(messages, members);
    }
    if api == Api::Batch {
        let first = members.last("messages").and_then(first_of_list);
        return first.map_or(Prompt::Other, |messages| chat(messages, members));
    }
    if let Some(foreign) = foreign(api, members) {
        return Prompt::Foreign(foreign);
    }
    if api == Api::Generate {
        let ids = members.last("token_ids").and_then(token_ids);
        return ids.map_or(Prompt::Other, Prompt::Tokens);
    }
    match members.last("prompt") {
        Some(prompt) if matches!(api, Api::Completions | Api::Tokenize) => match prompt {
            text if text.starts_with('"') => one_text(text, members),
            list => match token_ids(list) {
                Some(ids) => Prompt::Tokens(ids),
                None => first_text(list).map_or(Prompt::Other, |first| one_text(first, members)),
            },
        },
        _ => Prompt::Other,
    }
}

fn one_text<'a>(prompt: &'a str, members: &Members<'_>) -> Prompt<'a> {
    let add_special_tokens = flag(members, "add_special_tokens", true);
    Prompt::Text { prompt, add_special_tokens }
}

/// The first of a list of texts, as it is written.
fn first_text(list: &str) -> Option<&str> {
    first_of_list(list).filter(|first| first.starts_with('"'))
}

pub(super) fn first_of_list(list: &str) -> Option<&str> {
    let First(first) = serde_json::from_str::<First<&RawValue>>(list).ok()?;
    first.map(RawValue::get)
}

fn foreign<'a>(api: Api, members: &Members<'a>) -> Option<Foreign<'a>> {
    let (before, messages) = match api {
        Api::Responses => ("instructions", "input"),
        Api::Messages | Api::CountTokens => ("system", "messages"),
        _ => return None,
    };
    let member = |name| members.last(name).filter(|value| *value != "null");
    Some(Foreign {
        api,
        before: member(before),
        messages: member(messages)?,
        tools: member("tools"),
        template_kwargs: member("chat_template_kwargs"),
    })
}

/// A list of ids, or the first of a list of such lists, which stands for all.
fn token_ids(list: &str) -> Option<Vec<u32>> {
    // One after the other: serde's untagged enum would copy each id twice.
    if let Ok(ids) = serde_json::from_str(list) {
        return Some(ids);
    }
    let First(first) = serde_json::from_str::<First<Vec<u32>>>(list).ok()?;
    Some(first.unwrap_or_default())
}

fn chat<'a>(messages: &'a str, members: &Members<'a>) -> Prompt<'a> {
    Prompt::Chat {
        messages,
        tools: members.last("tools").filter(|tools| *tools != "null"),
        documents: members.last("documents").filter(|documents| *documents != "null"),
        template_kwargs: members.last("chat_template_kwargs"),
        reasoning_effort: members.last("reasoning_effort").filter(|effort| *effort != "null"),
        add_generation_prompt: flag(members, "add_generation_prompt", true),
        continue_final_message: flag(members, "continue_final_message", false),
    }
}

pub(super) fn flag(members: &Members<'_>, key: &str, default: bool) -> bool {
    match members.last(key) {
        Some("true") => true,
        Some("false") => false,
        _ => default,
    }
}

fn string<'a>(members: &Members<'a>, key: &'static str) -> Result<Option<Cow<'a, str>>, BadBody> {
    match members.last(key) {
        None | Some("null") => Ok(None),
        Some(json) if json.starts_with('"') => Ok(Some(text::meaning(json)?)),
        Some(_) => Err(BadBody::Field { param: key, expected: "a string" }),
    }
}

#[cfg(test)]
#[path = "request/tests.rs"]
mod tests;
