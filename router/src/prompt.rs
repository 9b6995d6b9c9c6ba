//! A prompt's tokens, where we have the model's tokenizer.

use jiff::Timestamp;
use serde_json::Value;

use crate::openai::{Fields, Prompt};
use crate::tokenize::{ChatRequest, TokenizeError, Tokenizer};

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
        Prompt::Text { prompt, add_special_tokens } => {
            let prompt: String = serde_json::from_str(prompt)
                .map_err(|_error| TokenizeError::Messages("not readable"))?;
            match add_special_tokens {
                true => tokenizer.encode_with_specials(&prompt),
                false => tokenizer.encode(&prompt),
            }
            .map(Some)
        }
        Prompt::Foreign(foreign) if tokenizer.has_template() => {
            let Some((messages, tools)) = foreign.messages() else { return Ok(None) };
            let kwargs = foreign.template_kwargs.map(serde_json::from_str::<Value>).transpose();
            let kwargs = kwargs.map_err(|_error| TokenizeError::Messages("not readable"))?;
            let request = ChatRequest {
                tools: tools
                    .as_ref()
                    .filter(|tools| tools.as_array().is_some_and(|it| !it.is_empty())),
                chat_template_kwargs: kwargs.as_ref().and_then(Value::as_object),
                ..ChatRequest::new(&messages, now)
            };
            tokenizer.chat_tokens(&request).map(Some)
        }
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
        Prompt::Chat { .. } | Prompt::Foreign(_) | Prompt::Tokens(_) | Prompt::Other => Ok(None),
    }
}
