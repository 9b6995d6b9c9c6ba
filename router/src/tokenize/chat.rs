//! What vLLM does to a chat request before its template sees it (observed on vLLM 0.32).

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::TokenizeError;
use crate::openai::may_be_built;

/// The fields of a chat request that its prompt depends on, borrowed from the parsed body.
///
/// Rules, all observed on vLLM 0.32: text parts are joined with `"\n"` (templates that walk over
/// parts themselves get the parts), `content: null` becomes `""`, a tool call's `arguments` is
/// parsed from its JSON string, tools go to the template as given, whatever `tool_choice` says.
#[derive(Debug, Clone, Copy)]
pub struct ChatRequest<'a> {
    /// `messages`: a JSON array of objects.
    pub messages: &'a Value,
    /// `tools`, if given and not empty.
    pub tools: Option<&'a Value>,
    /// `documents`, if given.
    pub documents: Option<&'a Value>,
    /// `chat_template_kwargs`: variables for the template.
    pub chat_template_kwargs: Option<&'a Map<String, Value>>,
    /// `add_generation_prompt`: end with the assistant's header. vLLM's default is true.
    pub add_generation_prompt: bool,
    /// `continue_final_message`: end inside the last message. vLLM's default is false.
    pub continue_final_message: bool,
    /// What `strftime_now` prints. Few templates ask.
    pub now: Timestamp,
}

/// What a template expects `message.content` to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentFormat {
    /// One string.
    Text,
    /// A list of parts: the template has a loop over it.
    Parts,
}

// === impl ChatRequest ===

impl<'a> ChatRequest<'a> {
    /// Reads a `/v1/chat/completions` (or `/tokenize`) body. A missing `messages` is an error.
    pub fn from_body(body: &'a Value, now: Timestamp) -> Result<Self, TokenizeError> {
        let flag = |name| body.get(name).and_then(Value::as_bool);
        let list = |name| body.get(name).filter(|v| v.as_array().is_some_and(|v| !v.is_empty()));
        Ok(Self {
            messages: body.get("messages").ok_or(TokenizeError::Messages("missing"))?,
            tools: list("tools"),
            documents: list("documents"),
            chat_template_kwargs: body.get("chat_template_kwargs").and_then(Value::as_object),
            add_generation_prompt: flag("add_generation_prompt").unwrap_or(true),
            continue_final_message: flag("continue_final_message").unwrap_or(false),
            now,
        })
    }

    /// A request with nothing but messages.
    pub fn new(messages: &'a Value, now: Timestamp) -> Self {
        Self {
            messages,
            tools: None,
            documents: None,
            chat_template_kwargs: None,
            add_generation_prompt: true,
            continue_final_message: false,
            now,
        }
    }
}

// === impl ContentFormat ===

impl ContentFormat {
    /// vLLM looks in the template's syntax tree for a loop over `message.content`; we look for its
    /// usual spellings in the source.
    pub(super) fn of_template(source: &str) -> Self {
        let spellings =
            [" in message['content']", " in message[\"content\"]", " in message.content"];
        let loops = spellings.iter().any(|spelling| {
            source.match_indices(spelling).any(|(at, _)| {
                let statement = source[..at].rfind("{%").map_or("", |start| &source[start..at]);
                statement.trim_start_matches(['{', '%', '-', ' ']).starts_with("for ")
                    && !statement.contains("%}")
            })
        });
        if loops { Self::Parts } else { Self::Text }
    }
}

/// The messages as the template gets them.
pub(super) fn normalise(
    messages: &Value,
    format: ContentFormat,
) -> Result<Vec<Value>, TokenizeError> {
    let messages = messages.as_array().ok_or(TokenizeError::Messages("not a list"))?;
    if !may_be_built(messages.iter().flat_map(arguments)) {
        return Err(TokenizeError::Messages("arguments of too many values"));
    }
    messages.iter().map(|message| normalise_message(message, format)).collect()
}

fn normalise_message(message: &Value, format: ContentFormat) -> Result<Value, TokenizeError> {
    let mut message =
        message.as_object().ok_or(TokenizeError::Messages("an item is not an object"))?.clone();
    let content = match (message.get("content"), format) {
        (None | Some(Value::Null), _) => Value::String(String::new()),
        (Some(Value::String(text)), ContentFormat::Text) => Value::String(text.clone()),
        (Some(Value::String(text)), ContentFormat::Parts) => {
            serde_json::json!([{"type": "text", "text": text}])
        }
        (Some(Value::Array(parts)), ContentFormat::Text) => {
            let texts = parts.iter().map(part_text).collect::<Result<Vec<_>, _>>()?;
            Value::String(texts.join("\n"))
        }
        (Some(Value::Array(parts)), ContentFormat::Parts) => {
            let texts = parts.iter().map(part_text).collect::<Result<Vec<_>, _>>()?;
            texts.iter().map(|text| serde_json::json!({"type": "text", "text": text})).collect()
        }
        _ => return Err(TokenizeError::Messages("content is neither text nor parts")),
    };
    message.insert("content".into(), content);
    let given = |name| message.get(name).filter(|text: &&Value| !text.is_null()).cloned();
    if let Some(reasoning) = given("reasoning").or_else(|| given("reasoning_content")) {
        // Templates know it by either name.
        message.insert("reasoning".into(), reasoning.clone());
        message.insert("reasoning_content".into(), reasoning);
    }
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        calls.iter_mut().for_each(parse_arguments);
    }
    Ok(Value::Object(message))
}

fn part_text(part: &Value) -> Result<&str, TokenizeError> {
    if let Some(text) = part.as_str() {
        return Ok(text);
    }
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
    let field = match kind {
        "text" | "input_text" | "output_text" => "text",
        "refusal" => "refusal",
        "thinking" => "thinking",
        other => return Err(TokenizeError::Multimodal(other.to_owned())),
    };
    part.get(field).and_then(Value::as_str).ok_or(TokenizeError::Messages("a part without text"))
}

/// What a message's calls of tools are given, as JSON.
fn arguments(message: &Value) -> impl Iterator<Item = &str> + Clone {
    let calls = message.get("tool_calls").and_then(Value::as_array);
    calls.into_iter().flatten().filter_map(|call| call.pointer(ARGUMENTS)?.as_str())
}

/// Where a call of a tool has its arguments.
const ARGUMENTS: &str = "/function/arguments";

/// `"{\"city\": \"Köln\"}"` becomes the object; what is no JSON object stays as it is.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.pointer_mut(ARGUMENTS) else { return };
    let Some(text) = arguments.as_str() else { return };
    if text.is_empty() {
        *arguments = Value::Object(Map::new());
    } else if let Ok(parsed) = serde_json::from_str(text) {
        *arguments = parsed;
    }
}

/// The tools as the template gets them: as vLLM's model of a function writes them, its members in
/// order, `description` and `parameters` even if they are null, and nothing that it does not know.
pub(super) fn normalise_tools(tools: &Value) -> Value {
    let normalise = |tool: &Value| {
        let Some(given) = tool.get("function").and_then(Value::as_object) else {
            return tool.clone();
        };
        let mut function = Map::new();
        for name in ["name", "description", "parameters"] {
            function.insert(name.into(), given.get(name).cloned().unwrap_or_default());
        }
        for name in ["strict", "defer_loading"] {
            if let Some(value) = given.get(name).filter(|value| !value.is_null()) {
                function.insert(name.into(), value.clone());
            }
        }
        serde_json::json!({"type": "function", "function": function})
    };
    match tools.as_array() {
        Some(list) => list.iter().map(normalise).collect(),
        None => tools.clone(),
    }
}

/// Cuts the rendered text after the last message's own text, so that the model goes on writing it
/// (transformers' rule: the text as given if it is there, else without its outer whitespace).
pub(super) fn cut_after_final_message(
    mut text: String,
    messages: Option<&Value>,
) -> Result<String, TokenizeError> {
    let last = messages.and_then(Value::as_array).and_then(|messages| messages.last());
    let content = match last.and_then(|message| message.get("content")) {
        Some(Value::String(content)) => content,
        Some(Value::Array(parts)) => parts
            .last()
            .and_then(|part| part.get("text")?.as_str())
            .ok_or(TokenizeError::Messages("the final message has no text"))?,
        _ => return Err(TokenizeError::Messages("there is no final message to continue")),
    };
    let trimmed = content.trim();
    let at = text
        .rfind(trimmed)
        .ok_or(TokenizeError::Messages("the template changed the final message"))?;
    let end = if text[at..].starts_with(content) { content.len() } else { trimmed.len() };
    text.truncate(at + end);
    Ok(text)
}
