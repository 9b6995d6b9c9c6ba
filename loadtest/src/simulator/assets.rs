//! The files that are compiled in: a small tokenizer and the prompts of the cache-hit job.

use router::tokenize::{TokenizeError, Tokenizer};

const TOKENIZER: &[u8] = include_bytes!("../../assets/tokenizer/tokenizer.json");
const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../assets/tokenizer/tokenizer_config.json");
const CHAT_TEMPLATE: &str = include_str!("../../assets/tokenizer/chat_template.jinja");

/// The cache-hit job's prompt: 193 chat tokens, 159 raw ones (with BOS), under the embedded
/// tokenizer and under Llama 3.1's.
pub const PROMPT: &str = include_str!("../../assets/prompt.txt");

/// The job's health-check message: 37 chat tokens.
pub const HEALTH: &str = include_str!("../../assets/health.txt");

/// The embedded tokenizer, with the dated Llama 3.2 chat layout.
pub fn tokenizer() -> Result<Tokenizer, TokenizeError> {
    Tokenizer::from_bytes(TOKENIZER, Some(CHAT_TEMPLATE), TOKENIZER_CONFIG)
}
