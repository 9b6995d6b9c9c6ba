//! A prompt's tokens, where we have the model's tokenizer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::openai::{Fields, Prompt};
use crate::tokenize::{ChatRequest, Memo, MemoReport, TokenizeError, Tokenizer};

/// Tokenizers by the names of the models that they belong to.
#[derive(Clone, Debug, Default)]
pub struct Tokenizers {
    by_model: HashMap<Arc<str>, Arc<Tokenizer>>,
    memo: Arc<Memo>,
}

// === impl Tokenizers ===

impl Tokenizers {
    /// None yet; what they will make is remembered in at most so many bytes.
    #[must_use]
    pub fn new(memo_bytes: usize) -> Self {
        Self { by_model: HashMap::new(), memo: Arc::new(Memo::new(memo_bytes)) }
    }

    /// What is remembered of earlier prompts.
    #[must_use]
    pub fn memo(&self) -> MemoReport {
        self.memo.report()
    }

    /// Loads a model's tokenizer from its folder.
    ///
    /// # Errors
    /// Missing or malformed files, or a tokenizer that neither engine can load.
    pub fn load(&mut self, model: &str, dir: &Path) -> Result<(), TokenizeError> {
        self.insert(model, Tokenizer::from_dir(dir)?);
        Ok(())
    }

    /// Takes a tokenizer that is loaded already.
    pub fn insert(&mut self, model: &str, tokenizer: Tokenizer) {
        let tokenizer = tokenizer.with_memo(Arc::clone(&self.memo));
        self.by_model.insert(model.into(), Arc::new(tokenizer));
    }

    /// The tokenizer of a model.
    #[must_use]
    pub fn get(&self, model: &str) -> Option<&Arc<Tokenizer>> {
        self.by_model.get(model)
    }
}

/// The prompt's ids as the engine will see them; none when the API's prompt is not one that the
/// chat template or the tokenizer alone makes.
///
/// # Errors
/// When the messages are not what the template can render.
pub(crate) fn tokens(
    tokenizer: &Tokenizer,
    fields: &Fields<'_>,
    now: Timestamp,
) -> Result<Option<Vec<u32>>, TokenizeError> {
    match &fields.prompt {
        Prompt::Text => tokenizer.encode_with_specials(fields.text).map(Some),
        Prompt::Chat {
            messages,
            tools,
            documents,
            template_kwargs,
            add_generation_prompt,
            continue_final_message,
        } if tokenizer.has_template() => {
            let unreadable = |_error| TokenizeError::Messages("not readable");
            let value = |json: &str| serde_json::from_str::<Value>(json).map_err(unreadable);
            let messages = value(messages)?;
            let tools = tools.map(value).transpose()?;
            let documents = documents.map(value).transpose()?;
            let list = |value: &&Value| value.as_array().is_some_and(|list| !list.is_empty());
            let kwargs = template_kwargs.map(value).transpose()?;
            let request = ChatRequest {
                tools: tools.as_ref().filter(list),
                documents: documents.as_ref().filter(list),
                chat_template_kwargs: kwargs.as_ref().and_then(Value::as_object),
                add_generation_prompt: *add_generation_prompt,
                continue_final_message: *continue_final_message,
                ..ChatRequest::new(&messages, now)
            };
            tokenizer.chat_tokens(&request).map(Some)
        }
        Prompt::Chat { .. } | Prompt::Tokens(_) | Prompt::Other => Ok(None),
    }
}
