//! What a request says: the API it calls and the few fields that routing reads.

mod anthropic;
mod cache;
mod first;
mod format;
mod guard;
mod legs;
mod members;
mod request;
mod responses;
mod scan;
mod text;
mod tree;

pub use cache::CacheUse;
pub use format::StreamFormat;
pub use guard::{GUARDED_FIELDS, without};
pub use legs::{Member, prefill_leg, with};
pub use request::{BadBody, Fields, Foreign, Prompt, read};
pub use scan::BadJson;
pub(crate) use tree::may_be_built;

/// The generation APIs: POSTs whose body decides where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/chat/completions/batch`: several conversations, an answer each
    Batch,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages` (Anthropic's shape)
    Messages,
    /// `/v1/messages/count_tokens`
    CountTokens,
    /// `/inference/v1/generate`: token ids in, token ids out
    Generate,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/rerank`
    Rerank,
    /// `/v1/score`
    Score,
    /// `/generative_scoring`: how likely each of some tokens would come next
    GenerativeScoring,
    /// `/v1/systemone`: decisions by a language model
    Decide,
    /// `/classify`
    Classify,
    /// `/pooling`
    Pooling,
    /// `/v1/chat/completions/render` and its like: from a request to token ids, and back
    Render,
    /// `/tokenize`
    Tokenize,
    /// `/detokenize`
    Detokenize,
}

// === impl Api ===

impl Api {
    /// All of them, for tables over APIs.
    pub const ALL: [Self; 17] = [
        Self::Chat,
        Self::Batch,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::CountTokens,
        Self::Generate,
        Self::Embeddings,
        Self::Rerank,
        Self::Score,
        Self::GenerativeScoring,
        Self::Decide,
        Self::Classify,
        Self::Pooling,
        Self::Render,
        Self::Tokenize,
        Self::Detokenize,
    ];

    /// The path on the pod, as vLLM 0.32 routes it.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Batch => "/v1/chat/completions/batch",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Generate => "/inference/v1/generate",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
            Self::Score => "/v1/score",
            Self::GenerativeScoring => "/generative_scoring",
            Self::Decide => "/v1/systemone",
            Self::Classify => "/classify",
            Self::Pooling => "/pooling",
            Self::Render => "/v1/chat/completions/render",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
        }
    }

    /// The label in metrics and the `route_name` in the access log.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Batch => "batch",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Generate => "generate",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::GenerativeScoring => "generative_scoring",
            Self::Decide => "decide",
            Self::Classify => "classify",
            Self::Pooling => "pooling",
            Self::Render => "render",
            Self::Tokenize => "tokenize",
            Self::Detokenize => "detokenize",
        }
    }

    /// Whether the engine computes the prompt at all.
    #[must_use]
    pub fn prefills(self) -> bool {
        !matches!(self, Self::Tokenize | Self::Detokenize | Self::CountTokens | Self::Render)
    }

    /// Whether the engine prefills the prompt into its KV cache, so that the next one can hit it.
    #[must_use]
    pub fn fills_cache(self) -> bool {
        matches!(
            self,
            Self::Chat
                | Self::Batch
                | Self::Completions
                | Self::Responses
                | Self::Messages
                | Self::Generate
                | Self::GenerativeScoring
                | Self::Decide
        )
    }
}
