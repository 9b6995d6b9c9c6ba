//! Prompts of a wanted length in tokens, without a tokenizer.
//!
//! Every word of the built-in prompt is one token under Llama 3's tokenizer and under the small one
//! we ship, so prose made of its words has about one token per word; how many exactly is asked of
//! the engine ([`TokenRatio`]).

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::client::Client;

/// The cache-hit job's prompt: 193 tokens as a chat, 159 as a raw completion, under Llama 3.1's
/// tokenizer and the dated Llama 3.2 template.
pub const PROMPT: &str = include_str!("../../assets/prompt.txt").trim_ascii();
/// The cache-hit job's health check: 37 chat tokens.
pub const HEALTH: &str = include_str!("../../assets/health.txt").trim_ascii();

/// Tokens per word of [`prose`] under the served model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenRatio(f64);

/// `words` words drawn by `seed`. Two seeds differ from the first words on, so that no block of
/// one text is a prefix of another's.
pub fn prose(seed: u64, words: usize) -> String {
    let vocabulary: Vec<&str> = PROMPT
        .split_whitespace()
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()))
        .collect();
    let mut random = StdRng::seed_from_u64(seed);
    let words = (0..words).filter_map(|_index| vocabulary.choose(&mut random).copied());
    words.collect::<Vec<_>>().join(" ")
}

// === impl TokenRatio ===

impl Default for TokenRatio {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TokenRatio {
    /// Asks the engine's `/tokenize` for the length of a sample; one token per word where it does
    /// not answer.
    pub async fn measure(client: &Client, model: &str) -> Self {
        const SAMPLE_WORDS: usize = 512;
        let body = json!({"model": model, "prompt": prose(0, SAMPLE_WORDS)});
        match client.post_json("/tokenize", &body).await {
            Ok(answer) => {
                let count = answer.get("count").and_then(serde_json::Value::as_u64);
                count.map_or_else(Self::default, |tokens| Self(tokens as f64 / SAMPLE_WORDS as f64))
            }
            Err(error) => {
                tracing::info!(%error, "no /tokenize: one token per word is assumed");
                Self::default()
            }
        }
    }

    /// Words that make about `tokens` tokens, at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a quotient of two small positive numbers; `as` saturates besides"
    )]
    pub fn words(self, tokens: u32) -> usize {
        ((f64::from(tokens) / self.0).round() as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_a_function_of_its_seed_and_has_the_wanted_words() {
        assert_eq!(prose(3, 64), prose(3, 64));
        assert_eq!(prose(3, 64).split(' ').count(), 64);
        assert!(
            prose(3, 128).starts_with(&prose(3, 64)),
            "a longer text begins like a shorter one"
        );
    }

    #[test]
    fn two_seeds_differ_within_the_first_block_of_16_words() {
        let heads: std::collections::BTreeSet<_> = (0..1000).map(|seed| prose(seed, 8)).collect();
        assert_eq!(heads.len(), 1000);
    }

    #[test]
    fn words_follow_the_measured_ratio() {
        assert_eq!(TokenRatio(2.0).words(2048), 1024);
        assert_eq!(TokenRatio::default().words(0), 1);
    }
}
