//! Reading a request body: the few fields that matter here, typed as vLLM's pydantic does.

use axum::http::{HeaderMap, header::CONTENT_TYPE};
use bytes::Bytes;
use serde_json::Value;

use super::{errors::ApiError, sequence::Prompt};

/// A parsed JSON body. Unknown fields are ignored, as vLLM ignores them.
#[derive(Debug)]
pub(super) struct Body(pub(super) Value);

/// Fields that every generating route shares.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    /// Choices per prompt.
    pub(super) n: usize,
    pub(super) stream: bool,
    /// `stream_options.include_usage`: a last chunk with usage.
    pub(super) include_usage: bool,
    /// `stream_options.continuous_usage_stats`: usage in every chunk.
    pub(super) continuous_usage: bool,
    pub(super) return_token_ids: bool,
    pub(super) stop: Vec<String>,
    pub(super) include_stop: bool,
    /// Log probabilities are told, with so many likeliest tokens for each.
    pub(super) logprobs: Option<usize>,
    /// Everything the engine needs but the tokens.
    pub(super) prompt: Prompt,
}

/// Answers to one prompt: vLLM's default of `VLLM_MAX_N_SEQUENCES`.
const MAX_N: usize = 16_384;

// === impl Body ===

impl Body {
    /// Parses a body whose content type must be JSON.
    pub(super) fn parse(headers: &HeaderMap, bytes: &Bytes) -> Result<Self, ApiError> {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        if !essence.trim().eq_ignore_ascii_case("application/json") {
            return Err(ApiError::media_type());
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| ApiError::not_json(offset(bytes, error.line(), error.column())))?;
        if !value.is_object() {
            let words = "Input should be a valid dictionary";
            return Err(ApiError::field_type("", "dict_type", words, &value));
        }
        Ok(Self(value))
    }

    /// A field that is present and not null.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&str>, ApiError> {
        self.typed(field, Value::as_str, "string_type", "Input should be a valid string")
    }

    pub(super) fn flag(&self, field: &str) -> Result<bool, ApiError> {
        let words = "Input should be a valid boolean";
        Ok(self.typed(field, Value::as_bool, "bool_type", words)?.unwrap_or_default())
    }

    pub(super) fn number(&self, field: &str) -> Result<Option<f64>, ApiError> {
        self.typed(field, Value::as_f64, "float_type", "Input should be a valid number")
    }

    pub(super) fn count(&self, field: &str) -> Result<Option<usize>, ApiError> {
        let count = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.typed(field, count, "int_type", "Input should be a valid integer")
    }

    pub(super) fn list(&self, field: &str) -> Result<Option<&Vec<Value>>, ApiError> {
        self.typed(field, Value::as_array, "list_type", "Input should be a valid list")
    }

    fn typed<'a, T>(
        &'a self,
        field: &str,
        read: impl Fn(&'a Value) -> Option<T>,
        kind: &str,
        words: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(ApiError::field_type(field, kind, words, value)),
        }
    }

    /// The shared sampling fields. `max_tokens` is the client's wish; 0 in the result's prompt
    /// until [`limit`] has decided.
    pub(super) fn sampling(&self) -> Result<Sampling, ApiError> {
        let temperature = self.number("temperature")?.unwrap_or(1.0);
        if temperature < 0.0 {
            let message = format!("temperature must be non-negative, got {temperature:?}.");
            return Err(ApiError::value(&message, "temperature", format!("{temperature:?}")));
        }
        let seed = self.get("seed").and_then(Value::as_i64);
        let noise = match (temperature > 0.0, seed) {
            (false, _) => 0,
            (true, Some(seed)) => seed.unsigned_abs().wrapping_add(1),
            (true, None) => rand::random(),
        };
        let option = |name: &str| {
            self.0.pointer(&format!("/stream_options/{name}")).and_then(Value::as_bool)
                == Some(true)
        };
        let stop_token_ids = self.list("stop_token_ids")?.map_or(&[][..], Vec::as_slice);
        let n = self.count("n")?.unwrap_or(1).max(1);
        if n > MAX_N {
            return Err(ApiError::value(&format!("n must be at most {MAX_N}"), "n", n));
        }
        Ok(Sampling {
            n,
            stream: self.flag("stream")?,
            include_usage: option("include_usage"),
            continuous_usage: option("continuous_usage_stats"),
            return_token_ids: self.flag("return_token_ids")?,
            stop: self.stops(),
            include_stop: self.flag("include_stop_str_in_output")?,
            logprobs: self.logprobs()?,
            prompt: Prompt {
                min_tokens: self.count("min_tokens")?.unwrap_or(0),
                ignore_eos: self.flag("ignore_eos")?,
                stop_token_ids: stop_token_ids.iter().filter_map(token_id).collect(),
                cache_salt: self.text("cache_salt")?.unwrap_or_default().to_owned(),
                noise,
                ..Prompt::default()
            },
        })
    }

    /// A flag and `top_logprobs` in chats, a number in completions.
    fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        match self.get("logprobs") {
            Some(Value::Bool(true)) => Ok(Some(self.count("top_logprobs")?.unwrap_or(0))),
            Some(Value::Number(_)) => self.count("logprobs"),
            _ => Ok(None),
        }
    }

    fn stops(&self) -> Vec<String> {
        let all = match self.get("stop") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => {
                many.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        all.into_iter().filter(|stop| !stop.is_empty()).collect()
    }
}

/// A token id, if the value is one.
pub(super) fn token_id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// How many tokens may be generated after `prompt_tokens`, given the client's wish, or vLLM's
/// error.
pub(super) fn limit(
    wish: Option<usize>,
    prompt_tokens: usize,
    context_tokens: usize,
) -> Result<usize, ApiError> {
    if let Some(max_tokens) = wish.filter(|wish| *wish > context_tokens) {
        let message = format!(
            "max_tokens={max_tokens} cannot be greater than max_model_len={context_tokens}. \
             Please request fewer output tokens."
        );
        return Err(ApiError::value(&message, "max_tokens", max_tokens));
    }
    if wish == Some(0) {
        return Err(ApiError::value("max_tokens must be at least 1, got 0.", "max_tokens", 0));
    }
    if prompt_tokens >= context_tokens {
        let least = context_tokens + 1;
        let message = format!(
            "This model's maximum context length is {context_tokens} tokens. However, your prompt \
             contains at least {least} input tokens, which exceeds this limit even without any \
             output tokens. Please reduce the length of the input prompt."
        );
        return Err(ApiError::value(&message, "input_tokens", least));
    }
    let room = context_tokens - prompt_tokens;
    match wish {
        Some(max_tokens) if max_tokens > room => {
            let message = format!(
                "This model's maximum context length is {context_tokens} tokens. However, you \
                 requested {max_tokens} output tokens and your prompt contains {prompt_tokens} \
                 input tokens, for a total of {} tokens. Please reduce the length of the input \
                 prompt or the number of requested output tokens.",
                max_tokens + prompt_tokens
            );
            Err(ApiError::value(&message, "input_tokens", prompt_tokens))
        }
        Some(max_tokens) => Ok(max_tokens),
        None => Ok(room),
    }
}

/// Python's character offset of a serde_json position.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let lines = bytes.split(|byte| *byte == b'\n').take(line.saturating_sub(1));
    let before: usize = lines.map(|line| line.len() + 1).sum();
    before + column.saturating_sub(1)
}
