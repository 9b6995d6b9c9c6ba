//! The bench's requests: prompts of one length, all different behind what they share.

use super::Options;
use crate::client::{Call, CallOptions, Message};
use crate::workload::{TokenRatio, prose};

/// Makes the n-th request.
#[derive(Clone, Debug)]
pub(super) struct Prompts {
    model: String,
    shared: String,
    own_words: usize,
    seed: u64,
    sampling: CallOptions,
}

// === impl Prompts ===

impl Prompts {
    pub(super) fn new(options: &Options, ratio: TokenRatio) -> Self {
        let shared_tokens = options.shared_prefix_tokens.min(options.prompt_tokens);
        let shared = match shared_tokens {
            0 => String::new(),
            tokens => prose(options.seed, ratio.words(tokens)) + " ",
        };
        Self {
            model: options.target.model_id.clone(),
            shared,
            own_words: ratio.words(options.prompt_tokens - shared_tokens),
            seed: options.seed,
            sampling: CallOptions {
                max_tokens: options.output_tokens,
                temperature: Some(0.0),
                ignore_eos: true,
                stream: !options.no_stream,
                ..CallOptions::default()
            },
        }
    }

    /// Request `index`: a pure function of seed and index.
    pub(super) fn call(&self, index: u64) -> Call {
        // Another seed's prompts are 2^32 away: two runs do not warm each other's.
        let own = prose((self.seed << 32).wrapping_add(index + 1), self.own_words);
        Call::chat(&self.model, &[Message::user(format!("{}{own}", self.shared))], &self.sampling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_the_wanted_prefix_and_nothing_more() {
        let options = Options { prompt_tokens: 64, shared_prefix_tokens: 32, ..Options::default() };
        let prompts = Prompts::new(&options, TokenRatio::default());
        let text = |index| {
            let body: serde_json::Value =
                serde_json::from_slice(&prompts.call(index).body).expect("JSON");
            body["messages"][0]["content"].as_str().expect("text").to_owned()
        };
        let (first, second) = (text(0), text(1));
        assert_eq!(first.split(' ').count(), 64);
        let same = first.split(' ').zip(second.split(' ')).take_while(|(a, b)| a == b).count();
        assert!((32..40).contains(&same), "{same} words in common");
        assert_eq!(first, text(0));
    }
}
