//! What the rest of an answer needs: where it may go on, and with what.

use std::sync::Arc;

use super::Router;
use super::names::{adapter, block_tokens, max_model_len, tokenizer};
use crate::continuation::{Model, Resumption};
use crate::openai::Api;
use crate::query::{PromptBlocks, Query};

impl Router {
    /// What is known of the request's model.
    #[must_use]
    pub fn model(&self, query: &Query) -> Model<'_> {
        let snapshot = self.pool.snapshot();
        let Some(model) = query.model.as_deref() else { return Model::default() };
        Model {
            tokenizer: tokenizer(&self.tokenizers, &snapshot, model),
            max_len: max_model_len(&snapshot, model),
        }
    }

    /// The rest of an answer as a request of its own: the pod that holds most of its prompt and of what
    /// was made of it is the best one to go on.
    #[must_use]
    pub fn follow(&self, query: &Query, resumption: &Resumption) -> Query {
        let model = query.model.clone().unwrap_or_else(|| Arc::from(""));
        let snapshot = self.pool.snapshot();
        let hasher = &self.knowledge().hasher;
        let block_tokens = block_tokens(&snapshot, &model);
        let salt = resumption.cache_salt.as_deref();
        let root = hasher.prompt_root(adapter(&snapshot, &model), salt, block_tokens);
        let prompt = PromptBlocks::of_tokens(hasher, root, &resumption.tokens, block_tokens);
        let home = prompt.home_of_tokens(&self.memory.conversations, &resumption.tokens);
        Query {
            request_id: query.request_id.clone(),
            api: Some(Api::Completions),
            model: Some(model),
            session: query.session.clone(),
            indivisible: Some("continued"),
            home,
            prompt,
            ..Query::any()
        }
    }
}
