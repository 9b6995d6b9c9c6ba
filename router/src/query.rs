//! What is left of a request once it was read: all that deciding needs.

use std::ops::Range;
use std::sync::Arc;

use kv_index::{BlockHash, ChainHasher, Milestones};

use crate::conversations::{Conversations, End, Home};
use crate::openai::{Api, CacheUse, StreamFormat};
use crate::session::SessionKey;
use crate::subset::Subset;

/// A request, ready to be placed.
#[derive(Debug)]
pub struct Query {
    /// Its id in logs and on the admin page `/why`; empty: it is not kept there.
    pub request_id: String,
    /// The API it calls; none: it goes on unread.
    pub api: Option<Api>,
    /// The model, by a name that a pod lists; none: any pod will do.
    pub model: Option<Arc<str>>,
    /// The name of ours that the client asked for, where its body says another one than `model`: the pod
    /// must be told.
    pub alias: Option<Arc<str>>,
    /// The session key, if it has one.
    pub session: Option<SessionKey>,
    /// The pods that it may go to; none: any.
    pub subset: Option<Subset>,
    /// Members to cut out of the body before it goes on.
    pub guarded: Vec<Range<usize>>,
    /// Why one pod has to compute it alone, in a word; none: prefill and decode may be split.
    pub indivisible: Option<&'static str>,
    /// What a pod's cache is to it.
    pub cache_use: CacheUse,
    /// What its stream shows, if it asks for one.
    pub stream: Option<StreamFormat>,
    /// The pod that was sent the prompt which this one repeats or continues.
    pub home: Option<Home>,
    /// The prompt.
    pub prompt: PromptBlocks,
}

/// A prompt as a chain of blocks.
#[derive(Debug, Default)]
pub struct PromptBlocks {
    /// Its full blocks, if it was tokenized.
    pub chain: Arc<Vec<BlockHash>>,
    /// Its full blocks at the milestones, by which we remember what was sent where.
    pub milestones: Arc<Milestones>,
    /// Where it ends.
    pub end: Option<End>,
    /// Its length in tokens, partial last block included; about, unless it was tokenized.
    pub tokens: u32,
    /// Tokens per block; about, unless it was tokenized.
    pub block_tokens: u32,
    /// Bytes of its text, if it was not tokenized: what `tokens` was estimated from.
    pub text_bytes: Option<u32>,
}

/// A block of prompt bytes, where we have no tokenizer.
const BLOCK_BYTES: usize = 64;

// === impl Query ===

impl Query {
    /// A request that any pod can take, and whose body nobody reads.
    #[must_use]
    pub fn any() -> Self {
        let prompt = PromptBlocks { block_tokens: 1, ..PromptBlocks::default() };
        let request_id = String::new();
        Self {
            request_id,
            api: None,
            model: None,
            alias: None,
            session: None,
            subset: None,
            guarded: Vec::new(),
            indivisible: Some("unread"),
            cache_use: CacheUse::Told,
            stream: None,
            home: None,
            prompt,
        }
    }
}

/// What follows may be part of a prompt's last token.
const OPEN_TOKENS: usize = 1;

// === impl PromptBlocks ===

impl PromptBlocks {
    /// The blocks of a tokenized prompt.
    #[must_use]
    pub fn of_tokens(
        hasher: &ChainHasher,
        root: BlockHash,
        tokens: &[u32],
        block_tokens: u32,
    ) -> Self {
        let mut chain = Vec::new();
        hasher.chain_tokens(root, tokens, block_tokens as usize, &mut chain);
        let milestones = Arc::new(Milestones::of(&chain));
        let end = End::of(&milestones, tokens, block_tokens as usize, OPEN_TOKENS);
        let (chain, length) = (Arc::new(chain), saturated(tokens.len()));
        Self { chain, milestones, end, tokens: length, block_tokens, text_bytes: None }
    }

    /// The blocks of a prompt that we cannot tokenize: 64 bytes each of its text, which at four
    /// bytes per token stand for 16 tokens, the size of vLLM's block on a GPU.
    pub fn of_text(hasher: &ChainHasher, root: &[&str], text: &str, bytes_per_token: f64) -> Self {
        let milestones = hasher.milestones(hasher.root(root), text.as_bytes(), BLOCK_BYTES);
        let end = End::of(&milestones, text.as_bytes(), BLOCK_BYTES, 0);
        let milestones = Arc::new(milestones);
        let text_bytes = saturated(text.len());
        let tokens = estimated(text_bytes, bytes_per_token);
        let block_tokens = estimated(saturated(BLOCK_BYTES), bytes_per_token);
        let chain = Arc::default();
        Self { chain, milestones, end, tokens, block_tokens, text_bytes: Some(text_bytes) }
    }

    /// Where the conversation of these tokens is at home.
    pub(crate) fn home_of_tokens(
        &self,
        conversations: &Conversations,
        tokens: &[u32],
    ) -> Option<Home> {
        conversations.home(&self.milestones, tokens, self.block_tokens as usize)
    }

    /// Where the conversation of this text is at home.
    pub(crate) fn home_of_text(&self, conversations: &Conversations, text: &str) -> Option<Home> {
        conversations.home(&self.milestones, text.as_bytes(), BLOCK_BYTES)
    }

    /// Prompt tokens that a pod can reuse if it holds the first `blocks` blocks: whole blocks, and
    /// never the last token, which vLLM always computes (`max_cache_hit_length = num_tokens - 1`).
    #[must_use]
    pub fn matched_tokens(&self, blocks: u32) -> u32 {
        let most = self.tokens.saturating_sub(1) / self.block_tokens.max(1);
        blocks.min(most) * self.block_tokens
    }

    /// Of `uncached` tokens, those in whole new blocks.
    #[must_use]
    pub fn cold_tokens(&self, uncached: u32) -> u32 {
        uncached.saturating_sub(1) / self.block_tokens.max(1) * self.block_tokens
    }
}

/// At least one token, however short the text.
fn estimated(bytes: u32, bytes_per_token: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
    let tokens = (f64::from(bytes) / bytes_per_token).round() as u32;
    tokens.max(1)
}

fn saturated(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(tokens: u32) -> PromptBlocks {
        PromptBlocks { tokens, block_tokens: 16, ..PromptBlocks::default() }
    }

    #[test]
    fn reuse_follows_vllms_rule() {
        for (tokens, blocks, matched) in
            [(193, 12, 192), (192, 12, 176), (159, 9, 144), (16, 1, 0), (17, 1, 16), (0, 5, 0)]
        {
            assert_eq!(prompt(tokens).matched_tokens(blocks), matched, "{tokens} tokens");
        }
        assert_eq!(prompt(193).cold_tokens(1), 0, "what is left of a known prompt is not cold");
        assert_eq!(prompt(193).cold_tokens(193), 192);
    }
}
