//! From a request's bytes to what deciding needs of it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;

use super::Router;
use super::names::{adapter, block_tokens, named, resolve, tokenizer};
use crate::conversations::Home;
use crate::openai::{self, Api, Fields, Prompt};
use crate::pool::Snapshot;
use crate::prompt;
use crate::query::{PromptBlocks, Query};
use crate::refusal::Refusal;
use crate::session::{self, SessionKey};

/// What a thread keeps of [`TEXT`] between requests.
const KEPT_TEXT_BYTES: usize = 1 << 20;

thread_local! {
    /// The text of the prompt that is being read, kept so that reading does not ask the kernel for
    /// pages.
    static TEXT: RefCell<String> = RefCell::default();
}

// === impl Router ===

impl Router {
    /// A request that goes on unread: to any pod, or to any that serves the model it names.
    ///
    /// # Errors
    /// When no pod lists that model.
    pub fn unread(&self, headers: &HeaderMap, model: Option<&str>) -> Result<Query, Refusal> {
        let model = model.map(|model| named(&self.pool.snapshot(), model)).transpose()?;
        Ok(Query { session: session::key(headers), model, ..Query::any() })
    }

    /// Reads a request.
    ///
    /// # Errors
    /// When the body cannot be read or no pod lists its model.
    pub fn read(&self, api: Api, headers: &HeaderMap, body: &[u8]) -> Result<Query, Refusal> {
        self.read_as(None, api, headers, body)
    }

    /// Reads a request whose path names the model, whatever its body says.
    ///
    /// # Errors
    /// When the body cannot be read or no pod lists its model.
    pub fn read_as(
        &self,
        model: Option<&str>,
        api: Api,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Query, Refusal> {
        TEXT.with_borrow_mut(|text| {
            let query = self.read_into(api, headers, (model, body), text);
            text.shrink_to(KEPT_TEXT_BYTES);
            query
        })
    }

    fn read_into(
        &self,
        api: Api,
        headers: &HeaderMap,
        (asked, body): (Option<&str>, &[u8]),
        text: &mut String,
    ) -> Result<Query, Refusal> {
        let fields = openai::read(api, body, text)?;
        let snapshot = self.pool.snapshot();
        let session = session::key(headers);
        let said = fields.model.as_deref();
        let asked = asked.or(said);
        let meant = asked.and_then(|name| self.meant(&snapshot, name, session.as_ref()));
        let model = resolve(&snapshot, meant.or(asked))?;
        let alias = asked.filter(|_| said != Some(&*model)).map(Arc::from);
        let (prompt, home) = self.blocks(&snapshot, &model, &fields);
        let api = Some(api);
        let (request_id, model, indivisible) = (String::new(), Some(model), fields.indivisible);
        let Fields { guarded, cache_use, stream, .. } = fields;
        Ok(Query {
            request_id,
            api,
            model,
            alias,
            session,
            subset: None,
            guarded,
            indivisible,
            cache_use,
            stream,
            home,
            prompt,
        })
    }

    /// What an alias stands for: for a session always the same, for a request without one by chance.
    fn meant(&self, snapshot: &Snapshot, name: &str, session: Option<&SessionKey>) -> Option<&str> {
        let chance = rand::random::<u64>().to_le_bytes();
        let key = session.map_or(&chance[..], |session| session.value.as_bytes());
        self.names.resolve(name, key, |model| snapshot.ready().any(|pod| pod.serves(model)))
    }

    /// The prompt's blocks, of its tokens or else of its text, and where it is at home.
    fn blocks(
        &self,
        snapshot: &Snapshot,
        model: &str,
        fields: &Fields<'_>,
    ) -> (PromptBlocks, Option<Home>) {
        let conversations = &self.memory.conversations;
        let (hasher, salt) = (&self.knowledge().hasher, fields.cache_salt.as_deref());
        match self.tokens(snapshot, model, fields) {
            Some(tokens) => {
                let block_tokens = block_tokens(snapshot, model);
                let root = hasher.prompt_root(adapter(snapshot, model), salt, block_tokens);
                let prompt = PromptBlocks::of_tokens(hasher, root, &tokens, block_tokens);
                let home = prompt.home_of_tokens(conversations, &tokens);
                (prompt, home)
            }
            None => {
                let rate = self.text_rates.get(model);
                let root = [model, salt.unwrap_or_default()];
                let prompt = PromptBlocks::of_text(hasher, &root, fields.text, rate);
                let home = prompt.home_of_text(conversations, fields.text);
                (prompt, home)
            }
        }
    }

    /// The prompt's token ids, if the client sent them or we can make them.
    fn tokens<'a>(
        &self,
        snapshot: &Snapshot,
        model: &str,
        fields: &'a Fields<'_>,
    ) -> Option<Cow<'a, [u32]>> {
        if let Prompt::Tokens(ids) = &fields.prompt {
            return Some(Cow::Borrowed(ids));
        }
        let tokenizer = tokenizer(&self.tokenizers, snapshot, model)?;
        match prompt::tokens(tokenizer, fields, Timestamp::now()) {
            Ok(tokens) => tokens.map(Cow::Owned),
            Err(error) => {
                // The pod will say what is wrong with it; until then its text is as good.
                tracing::debug!(%error, model, "a prompt could not be tokenized");
                None
            }
        }
    }
}
