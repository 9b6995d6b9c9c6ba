//! One answer's JSON, whole or a stream's chunk: the few fields a measurement needs.
//!
//! Shapes: vLLM 0.32's chat and text completions. Unknown fields are ignored.

use serde::Deserialize;

use super::Usage;

/// What one JSON document says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chunk {
    /// Text that was generated, all choices joined; empty in role, finish and usage chunks.
    pub(super) text: String,
    /// Token counts, where the document carries them.
    pub(super) usage: Option<Usage>,
    /// The engine's error message.
    pub(super) error: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<UsageObject>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Text>,
    message: Option<Text>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Text {
    content: Option<String>,
    reasoning: Option<String>,
}

#[derive(Deserialize)]
struct UsageObject {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Deserialize)]
struct PromptTokensDetails {
    cached_tokens: Option<u64>,
}

// === impl Chunk ===

impl Chunk {
    /// Reads one JSON document.
    ///
    /// # Errors
    /// The text is not JSON, or a field that we need has another type.
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(json)?;
        let mut text = String::new();
        for choice in document.choices {
            for part in [choice.delta, choice.message].into_iter().flatten() {
                text.push_str(part.reasoning.as_deref().unwrap_or_default());
                text.push_str(part.content.as_deref().unwrap_or_default());
            }
            text.push_str(choice.text.as_deref().unwrap_or_default());
        }
        let error = document.error.map(|error| match error.get("message") {
            Some(serde_json::Value::String(message)) => message.clone(),
            _ => error.to_string(),
        });
        Ok(Self { text, usage: document.usage.map(Usage::from), error })
    }
}

// === impl Usage ===

impl From<UsageObject> for Usage {
    fn from(usage: UsageObject) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
        }
    }
}

#[cfg(test)]
mod tests;
