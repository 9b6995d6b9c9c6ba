//! Log probabilities, as chat and completions list them. Like everything that a simulated model says
//! they are a pure function: of the token, so that they mean nothing and never change.

use std::sync::Arc;

use router::tokenize::Tokenizer;
use serde_json::{Map, Value, json};

use super::pod::Pod;

/// Lists the log probabilities of tokens.
#[derive(Debug, Clone)]
pub(super) struct Logprobs {
    tokenizer: Arc<Tokenizer>,
    /// Likeliest tokens that are listed for each.
    top: usize,
}

/// How much less likely each next one of the listed tokens is.
const STEP: f64 = 1.0;

// === impl Logprobs ===

impl Logprobs {
    pub(super) fn of(pod: &Pod, top: Option<usize>) -> Option<Self> {
        Some(Self { tokenizer: Arc::clone(&pod.tokenizer), top: top? })
    }

    /// `logprobs` of a chat's choice, or of a chunk of it.
    pub(super) fn chat(&self, tokens: &[u32]) -> Value {
        let entry = |(text, logprob): (String, f64)| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
        let content = tokens.iter().map(|token| {
            let top: Vec<Value> = self.likeliest(*token).take(self.top).map(entry).collect();
            let mut content = entry((self.text(*token), logprob(*token)));
            content["top_logprobs"] = top.into();
            content
        });
        json!({"content": content.collect::<Vec<_>>()})
    }

    /// `logprobs` of a completion's choice, or of a chunk of it whose text begins at `offset`, in
    /// characters; `offset` is then that of the next.
    pub(super) fn completion(&self, tokens: &[u32], offset: &mut usize) -> Value {
        let texts: Vec<String> = tokens.iter().map(|token| self.text(*token)).collect();
        let offsets: Vec<usize> = texts
            .iter()
            .map(|text| std::mem::replace(offset, *offset + text.chars().count()))
            .collect();
        let top = tokens.iter().map(|token| {
            // The sampled one stands among them even if none is asked for.
            let listed = self.likeliest(*token).take(self.top + 1);
            listed.map(|(text, logprob)| (text, json!(logprob))).collect::<Map<_, _>>()
        });
        json!({
            "text_offset": offsets,
            "token_logprobs": tokens.iter().map(|token| logprob(*token)).collect::<Vec<_>>(),
            "tokens": texts,
            "top_logprobs": top.collect::<Vec<_>>(),
        })
    }

    /// The token itself and its neighbours by number.
    fn likeliest(&self, token: u32) -> impl Iterator<Item = (String, f64)> {
        let first = logprob(token);
        (0_u32..)
            .map(move |rank| (self.text(token.wrapping_sub(rank)), first - STEP * f64::from(rank)))
    }

    fn text(&self, token: u32) -> String {
        self.tokenizer.decode(&[token]).unwrap_or_default()
    }
}

/// Between -1 and 0.
fn logprob(token: u32) -> f64 {
    -f64::from(token % 1000) / 1000.0
}
