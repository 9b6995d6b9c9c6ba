//! A prompt's tokens, where we have the model's tokenizer.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::openai::{Fields, Prompt, may_be_built};
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
            reasoning_effort,
            add_generation_prompt,
            continue_final_message,
        } if tokenizer.has_template() => {
            let parts = [Some(*messages), *tools, *documents, *template_kwargs, *reasoning_effort];
            if !may_be_built(parts.into_iter().flatten()) {
                return Err(TokenizeError::Messages("too many values"));
            }
            let unreadable = |_error| TokenizeError::Messages("not readable");
            let value = |json: &str| serde_json::from_str::<Value>(json).map_err(unreadable);
            let messages = value(messages)?;
            let tools = tools.map(value).transpose()?;
            let documents = documents.map(value).transpose()?;
            let list = |value: &&Value| value.as_array().is_some_and(|list| !list.is_empty());
            let kwargs = template_kwargs.map(value).transpose()?;
            let kwargs = with_effort(kwargs, reasoning_effort.map(value).transpose()?);
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

/// The template's variables with those that vLLM 0.32 makes of `reasoning_effort`.
fn with_effort(kwargs: Option<Value>, effort: Option<Value>) -> Option<Value> {
    let Some(effort) = effort else { return kwargs };
    let mut kwargs = kwargs.filter(Value::is_object).unwrap_or_else(|| Value::Object(Map::new()));
    if let Value::Object(kwargs) = &mut kwargs {
        kwargs.entry("enable_thinking").or_insert_with(|| (effort != "none").into());
        kwargs.insert("reasoning_effort".to_owned(), effort);
    }
    Some(kwargs)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::openai::{self, Api};

    #[test]
    fn a_chat_of_more_values_than_may_be_built_is_not_tokenized() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/assets/tokenizer");
        let tokenizer = Tokenizer::from_dir(dir).expect("it is committed");
        let tokenized = |more: &str| {
            let message = format!(r#"{{"role":"user","content":"hi"{more}}}"#);
            let (body, mut text) = (format!(r#"{{"messages":[{message}]}}"#), String::new());
            let fields = openai::read(Api::Chat, body.as_bytes(), &mut text).expect("JSON");
            tokens(&tokenizer, &fields, Timestamp::UNIX_EPOCH)
        };
        assert!(tokenized("").expect("it is a chat").is_some());
        let many = format!(r#","x":[{}0]"#, "0,".repeat(1 << 16));
        assert!(matches!(tokenized(&many), Err(TokenizeError::Messages("too many values"))));
    }

    #[test]
    fn an_effort_is_two_variables_of_the_template() {
        for (kwargs, effort, want) in [
            (None, None, None),
            (Some(json!({"a": 1})), None, Some(json!({"a": 1}))),
            (None, Some("low"), Some(json!({"enable_thinking": true, "reasoning_effort": "low"}))),
            (
                None,
                Some("none"),
                Some(json!({"enable_thinking": false, "reasoning_effort": "none"})),
            ),
            (
                Some(json!({"enable_thinking": true, "reasoning_effort": "high"})),
                Some("none"),
                Some(json!({"enable_thinking": true, "reasoning_effort": "none"})),
            ),
        ] {
            assert_eq!(with_effort(kwargs, effort.map(Value::from)), want, "{effort:?}");
        }
    }
}
