//! A model's chat template: Jinja as transformers and vLLM run it.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use minijinja::{Environment, Error, ErrorKind, State, syntax::SyntaxConfig};
use serde_json::Value;

use super::{
    TokenizeError,
    chat::{self, ChatRequest, ContentFormat},
    python_json,
};

/// Names such as `bos_token` and the text that a template prints for them.
#[derive(Debug, Clone, Default)]
pub struct SpecialTokens(BTreeMap<&'static str, String>);

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    specials: SpecialTokens,
    content: ContentFormat,
}

/// The one template of the environment. No extension: nothing is HTML-escaped.
const NAME: &str = "chat";

/// Where the request's time travels to `strftime_now`. Seconds since the epoch, UTC.
const NOW: &str = "hearth_now_s";

// === impl SpecialTokens ===

impl SpecialTokens {
    /// Reads `bos_token`, `eos_token`, `unk_token` and `pad_token` of a `tokenizer_config.json`,
    /// each a string or an object with `content`.
    pub fn from_config(config: &Value) -> Self {
        let text = |name| match config.get(name)? {
            Value::String(text) => Some(text.clone()),
            token => Some(token.get("content")?.as_str()?.to_owned()),
        };
        let names = ["bos_token", "eos_token", "unk_token", "pad_token"];
        Self(names.into_iter().filter_map(|name| Some((name, text(name)?))).collect())
    }
}

// === impl ChatTemplate ===

impl ChatTemplate {
    /// Compiles a template.
    pub fn new(source: &str, specials: SpecialTokens) -> Result<Self, TokenizeError> {
        let mut environment = Environment::new();
        environment
            .set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", python_json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Self { environment, specials, content: ContentFormat::of_template(source) })
    }

    /// The prompt text of a request.
    pub fn render(&self, request: &ChatRequest<'_>) -> Result<String, TokenizeError> {
        let messages = chat::normalise(request.messages, self.content)?;
        let mut context = serde_json::Map::new();
        for (name, text) in &self.specials.0 {
            context.insert((*name).to_owned(), text.as_str().into());
        }
        if let Some(kwargs) = request.chat_template_kwargs {
            context.extend(kwargs.clone());
        }
        context
            .insert("tools".into(), request.tools.map(chat::normalise_tools).unwrap_or_default());
        context.insert("documents".into(), request.documents.cloned().unwrap_or_default());
        context.insert("add_generation_prompt".into(), request.add_generation_prompt.into());
        context.insert("messages".into(), Value::Array(messages));
        context.insert(NOW.into(), request.now.as_second().into());
        let template = self.environment.get_template(NAME)?;
        let text = template.render(minijinja::value::Serde(&context))?;
        if request.continue_final_message {
            return chat::cut_after_final_message(text, context.get("messages"));
        }
        Ok(text)
    }
}

/// The template inside a `tokenizer_config.json`: a string, or a list of named ones.
pub(super) fn default_template(config: &Value) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| Some(entry.get("template")?.as_str()?.to_owned())),
        _ => None,
    }
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// transformers' `strftime_now(format)`, in UTC: containers run in it.
fn strftime_now(state: &State<'_, '_>, format: &str) -> Result<String, Error> {
    let seconds = state.lookup(NOW).and_then(|now| i64::try_from(now).ok()).unwrap_or_default();
    let now = Timestamp::from_second(seconds)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))?
        .to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(format, &now)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}
