//! The bench's requests: prompts of one length, all different behind what they share.

use super::Options;
use crate::client::{Call, CallOptions, Message};
use crate::workload::{TokenRatio, mix, prose};

/// Makes the n-th request.
#[derive(Clone, Debug)]
pub(super) struct Prompts {
    model: String,
    shared: String,
    own_words: usize,
    run: u64,
    sampling: CallOptions,
}

// === impl Prompts ===

impl Prompts {
    /// `run` tells this run's prompts from those of other runs, which may still be cached.
    pub(super) fn new(options: &Options, ratio: TokenRatio, run: u64) -> Self {
        let shared_tokens = options.shared_prefix_tokens.min(options.prompt_tokens);
        let shared = match shared_tokens {
            0 => String::new(),
            tokens => prose(run, ratio.words(tokens)) + " ",
        };
        Self {
            model: options.target.model_id.clone(),
            shared,
            own_words: ratio.words(options.prompt_tokens - shared_tokens),
            run,
            sampling: CallOptions {
                max_tokens: options.output_tokens,
                temperature: Some(0.0),
                ignore_eos: true,
                stream: !options.no_stream,
                ..CallOptions::default()
            },
        }
    }

    /// Request `index` of stage `stage`: a pure function of both and of the run.
    pub(super) fn call(&self, stage: u64, index: u64) -> Call {
        let own = prose(mix([self.run, stage, index]), self.own_words);
        Call::chat(&self.model, &[Message::user(format!("{}{own}", self.shared))], &self.sampling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_the_wanted_prefix_and_nothing_more() {
        let options = Options { prompt_tokens: 64, shared_prefix_tokens: 32, ..Options::default() };
        let prompts = Prompts::new(&options, TokenRatio::default(), 7);
        let text = |stage, index| {
            let body: serde_json::Value =
                serde_json::from_slice(&prompts.call(stage, index).body).expect("JSON");
            body["messages"][0]["content"].as_str().expect("text").to_owned()
        };
        let (first, second) = (text(0, 0), text(0, 1));
        assert_eq!(first.split(' ').count(), 64);
        let same = first.split(' ').zip(second.split(' ')).take_while(|(a, b)| a == b).count();
        assert!((32..40).contains(&same), "{same} words in common");
        assert_eq!(first, text(0, 0));
        assert_ne!(first, text(1, 0), "a stage must not be warmed by the one before");
    }
}
