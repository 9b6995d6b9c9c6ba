//! `usage`, in the shapes of chat, responses and messages.

use serde::Deserialize;

/// What a pod counted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Tokens of the prompt.
    #[serde(alias = "input_tokens")]
    pub prompt_tokens: Option<u32>,
    /// Tokens of the answer.
    #[serde(alias = "output_tokens")]
    pub completion_tokens: Option<u32>,
    #[serde(alias = "input_tokens_details")]
    prompt_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
struct Details {
    cached_tokens: Option<u32>,
}

// === impl Usage ===

impl Usage {
    /// Tokens of the prompt that were cached.
    pub(crate) fn cached_tokens(&self) -> Option<u32> {
        let details = self.prompt_tokens_details.and_then(|details| details.cached_tokens);
        details.or(self.cache_read_input_tokens)
    }
}
