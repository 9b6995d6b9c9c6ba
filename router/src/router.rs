//! Reads a request, looks up who holds its prompt, chooses a pod and books it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use jiff::Timestamp;
use kv_index::{BlockHash, Overlap};

use crate::belief::Beliefs;
use crate::bookings::{Booking, Bookings};
use crate::conversations::Home;
use crate::decide::{self, View};
use crate::feed::kv_events::Trust;
use crate::knowledge::Knowledge;
use crate::memory::{Assumption, Memory, Sent};
use crate::openai::{self, Api, Fields, Prompt};
use crate::policy::{self, Ask, Candidate, PolicyName, Table};
use crate::pool::{Endpoint, Pool, Snapshot};
use crate::prompt;
use crate::query::{PromptBlocks, Query};
use crate::refusal::Refusal;
use crate::session;
use crate::text_rate::TextRates;
use crate::tokenize::Tokenizer;
use crate::tokenizers::Tokenizers;

/// The brain: everything that deciding needs, shared by all requests.
#[derive(Debug)]
pub struct Router {
    pool: Pool,
    settings: policy::Settings,
    memory: Arc<Memory>,
    bookings: Arc<Bookings>,
    tokenizers: Tokenizers,
    text_rates: Arc<TextRates>,
    started: Instant,
}

/// Where a request goes, with the place taken there.
#[derive(Debug)]
pub struct Placement {
    /// The pod.
    pub endpoint: Arc<Endpoint>,
    /// Why, in short.
    pub decision: Decision,
    booking: Booking,
    assumption: Option<Assumption>,
    knowledge: Arc<Knowledge>,
    chain: Arc<Vec<BlockHash>>,
    block_tokens: u32,
    held_since_ms: u64,
    placed_ms: u64,
    placed_at: Instant,
    text: Option<(Arc<TextRates>, Arc<str>, u32)>,
}

/// What `x-hearth-decision` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The policy that chose.
    pub policy: PolicyName,
    /// Prompt tokens that the pod is believed to hold.
    pub matched_tokens: u32,
    /// Prompt tokens in all.
    pub prompt_tokens: u32,
    /// How far the belief can be trusted.
    pub trust: Trust,
}

/// A pod that holds less than this share of what we believed has shown that our memory of it is
/// wrong; a little less is the noise of estimated token counts.
const BELIEF_SHARE: u32 = 2;

/// A prompt sent so recently may still be in the making, and says nothing about eviction.
const SETTLED_MS: u64 = 5_000;

/// vLLM's block on a GPU, until a pod has told its own.
const DEFAULT_BLOCK_TOKENS: u32 = 16;

/// What a thread keeps of [`TEXT`] between requests.
const KEPT_TEXT_BYTES: usize = 1 << 20;

thread_local! {
    /// Scratch of the decision, kept so that deciding allocates nothing.
    static SCRATCH: RefCell<(Overlap, Overlap, Vec<Candidate>)> = RefCell::default();
    /// The text of the prompt that is being read, kept so that reading does not ask the kernel for
    /// pages.
    static TEXT: RefCell<String> = RefCell::default();
}

// === impl Router ===

impl Router {
    /// A router over a pool.
    #[must_use]
    pub fn new(
        pool: Pool,
        settings: policy::Settings,
        knowledge: Arc<Knowledge>,
        tokenizers: Tokenizers,
    ) -> Self {
        let (memory, bookings) = (Arc::new(Memory::new(knowledge)), Arc::default());
        let (text_rates, started) = (Arc::default(), Instant::now());
        Self { pool, settings, memory, bookings, tokenizers, text_rates, started }
    }

    /// The pods.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What is booked where.
    #[must_use]
    pub fn bookings(&self) -> &Arc<Bookings> {
        &self.bookings
    }

    /// The tokenizers.
    #[must_use]
    pub fn tokenizers(&self) -> &Tokenizers {
        &self.tokenizers
    }

    /// What we know of the pods' caches.
    #[must_use]
    pub fn knowledge(&self) -> &Arc<Knowledge> {
        &self.memory.knowledge
    }

    /// Reads a request.
    ///
    /// # Errors
    /// When the body cannot be read or no pod lists its model.
    pub fn read(&self, api: Api, headers: &HeaderMap, body: &[u8]) -> Result<Query, Refusal> {
        TEXT.with_borrow_mut(|text| {
            let query = self.read_into(api, headers, body, text);
            text.shrink_to(KEPT_TEXT_BYTES);
            query
        })
    }

    fn read_into(
        &self,
        api: Api,
        headers: &HeaderMap,
        body: &[u8],
        text: &mut String,
    ) -> Result<Query, Refusal> {
        let fields = openai::read(api, body, text)?;
        let snapshot = self.pool.snapshot();
        let model = resolve(&snapshot, fields.model.as_deref())?;
        let session = session::key(headers);
        let (prompt, home) = self.blocks(&snapshot, &model, &fields);
        let api = Some(api);
        Ok(Query { api, model: Some(model), session, guarded: fields.guarded, home, prompt })
    }

    /// Chooses a pod that is not among `tried`, and books it.
    ///
    /// # Errors
    /// When no pod is left.
    pub fn place(&self, query: &Query, tried: &[kv_index::Slot]) -> Result<Placement, Refusal> {
        self.place_by(&self.settings, query, tried)
    }

    /// Chooses the least busy of the ready pods that serve the query's model, for a request that we
    /// do not read.
    ///
    /// # Errors
    /// When no pod is left.
    pub fn place_any(&self, query: &Query, tried: &[kv_index::Slot]) -> Result<Placement, Refusal> {
        let settings = policy::Settings { policy: PolicyName::LeastRequest, ..self.settings };
        self.place_by(&settings, query, tried)
    }

    fn place_by(
        &self,
        settings: &policy::Settings,
        query: &Query,
        tried: &[kv_index::Slot],
    ) -> Result<Placement, Refusal> {
        let snapshot = self.pool.snapshot();
        let now_ms = self.now_ms();
        SCRATCH.with_borrow_mut(|(told, sent, candidates)| {
            let slots = snapshot.endpoints.iter().map(|endpoint| endpoint.slot);
            let prompt = &query.prompt;
            self.memory.overlap(&prompt.milestones, slots, now_ms, sent);
            let told = (!prompt.chain.is_empty()).then(|| {
                self.knowledge().told.overlap(&prompt.chain, told);
                &*told
            });
            let beliefs = Beliefs { told, sent, now_ms };
            let view = View { snapshot: &snapshot, beliefs, query, tried };
            self.book(settings, &view, candidates)
        })
    }

    fn book(
        &self,
        settings: &policy::Settings,
        view: &View<'_>,
        candidates: &mut Vec<Candidate>,
    ) -> Result<Placement, Refusal> {
        let query = view.query;
        let booked = self.bookings.book(Instant::now(), |desk| {
            let has_session = query.session.is_some();
            let ask = Ask { has_session, ticket: desk.ticket(), dice: rand::random() };
            let row = decide::decide(settings, view, ask, |slot| desk.admit(slot), candidates)?;
            let chosen = candidates[row];
            Some((chosen, chosen.slot, chosen.cold_tokens))
        });
        tracing::trace!(target: "router::decide", table = %Table(candidates), "decided");
        let Some((chosen, booking)) = booked else {
            let any = view.snapshot.endpoints.iter().any(|e| decide::is_eligible(e, query, &[]));
            return Err(if any { Refusal::AllTried } else { Refusal::NoReadyPod });
        };
        let endpoint = Arc::clone(&view.snapshot.endpoints[chosen.position]);
        let assumption = self.assume(query, &endpoint);
        Ok(Placement {
            decision: Decision {
                policy: settings.policy,
                matched_tokens: chosen.known_tokens,
                prompt_tokens: query.prompt.tokens,
                trust: chosen.trust,
            },
            endpoint,
            booking,
            assumption,
            knowledge: Arc::clone(self.knowledge()),
            chain: Arc::clone(&query.prompt.chain),
            block_tokens: query.prompt.block_tokens,
            held_since_ms: view.beliefs.sent.touched_ms(chosen.slot),
            placed_ms: view.beliefs.now_ms,
            placed_at: Instant::now(),
            text: self.text_of(query),
        })
    }

    /// What the pod will hold if all goes well.
    fn assume(&self, query: &Query, endpoint: &Endpoint) -> Option<Assumption> {
        query.api.filter(|api| api.fills_cache())?;
        let prompt = &query.prompt;
        Some(self.memory.assume(Sent {
            slot: endpoint.slot,
            milestones: Arc::clone(&prompt.milestones),
            capacity: capacity_blocks(endpoint, prompt.block_tokens),
            end: prompt.end,
            continued: query.home,
        }))
    }

    /// What a pod's count of this prompt's tokens can teach.
    fn text_of(&self, query: &Query) -> Option<(Arc<TextRates>, Arc<str>, u32)> {
        let model = query.model.as_ref()?;
        Some((Arc::clone(&self.text_rates), Arc::clone(model), query.prompt.text_bytes?))
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

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The model as a pod lists it.
fn resolve(snapshot: &Snapshot, model: Option<&str>) -> Result<Arc<str>, Refusal> {
    let cards = || snapshot.endpoints.iter().flat_map(|endpoint| endpoint.models.iter());
    if cards().next().is_none() {
        return Err(Refusal::NoReadyPod);
    }
    if let Some(model) = model {
        return match cards().find(|card| &*card.id == model) {
            Some(card) => Ok(Arc::clone(&card.id)),
            None => Err(Refusal::NoSuchModel { model: model.to_owned() }),
        };
    }
    let mut names: Vec<&Arc<str>> = cards().map(|card| &card.id).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [only] => Ok(Arc::clone(only)),
        _ => {
            let names = names.iter().map(|name| name.to_string()).collect();
            Err(Refusal::ModelMissing { names })
        }
    }
}

/// The model's tokenizer, or that of the model that it adapts.
fn tokenizer<'a>(
    tokenizers: &'a Tokenizers,
    snapshot: &Snapshot,
    model: &str,
) -> Option<&'a Tokenizer> {
    let parent = || {
        let mut cards = snapshot.endpoints.iter().flat_map(|endpoint| endpoint.models.iter());
        let card = cards.find(|card| &*card.id == model)?;
        tokenizers.get(card.parent.as_deref()?)
    };
    tokenizers.get(model).or_else(parent).map(|tokenizer| &**tokenizer)
}

/// The model's name if it is an adapter of another: the part of a block's identity that vLLM adds
/// for it. Models that share tokens otherwise are on different pods.
fn adapter<'a>(snapshot: &Snapshot, model: &'a str) -> Option<&'a str> {
    let mut cards = snapshot.endpoints.iter().flat_map(|endpoint| endpoint.models.iter());
    let card = cards.find(|card| &*card.id == model)?;
    card.parent.is_some().then_some(model)
}

/// Tokens per block on the pods that serve the model, as the first that told says.
fn block_tokens(snapshot: &Snapshot, model: &str) -> u32 {
    let mut pods = snapshot.endpoints.iter().filter(|endpoint| endpoint.serves(model));
    pods.find_map(|endpoint| endpoint.engine.block_size).unwrap_or(DEFAULT_BLOCK_TOKENS)
}

/// How many of our blocks the pod's KV cache can hold.
fn capacity_blocks(endpoint: &Endpoint, block_tokens: u32) -> Option<usize> {
    let tokens = endpoint.engine.num_blocks? * u64::from(endpoint.engine.block_size?);
    usize::try_from(tokens / u64::from(block_tokens.max(1))).ok()
}

// === impl Placement ===

impl Placement {
    /// The pod has begun a good answer (2xx, and its first bytes are here): only now its cache
    /// counts as holding the prompt. Dropped without this, nothing is remembered of the attempt.
    pub fn began(&mut self, now: Instant) {
        self.booking.began();
        if let Some(assumption) = &mut self.assumption {
            let waited = now.saturating_duration_since(self.placed_at).as_millis();
            assumption.confirm(self.placed_ms + u64::try_from(waited).unwrap_or(0));
        }
    }

    /// The first token came.
    pub fn first_token(&mut self, now: Instant) {
        self.booking.first_token(now);
    }

    /// The pod's own counts, from `usage`: prompt tokens, and those that it found in its cache.
    ///
    /// Much fewer cached than we believed: blocks of that age are gone from it, and so is
    /// everything older.
    pub fn usage(&self, prompt_tokens: Option<u32>, cached_tokens: Option<u32>) {
        if let (Some(tokens), Some((rates, model, bytes))) = (prompt_tokens, &self.text) {
            rates.learn(model, *bytes, tokens);
        }
        let Some(cached_tokens) = cached_tokens else { return };
        if self.decision.trust == Trust::Approximate {
            self.correct_what_was_sent(cached_tokens);
        } else if prompt_tokens == Some(self.decision.prompt_tokens) {
            self.correct_what_was_told(cached_tokens);
        }
    }

    fn correct_what_was_sent(&self, cached_tokens: u32) {
        let believed = self.decision.matched_tokens;
        let settled = self.held_since_ms.saturating_add(SETTLED_MS) <= self.placed_ms;
        if settled && cached_tokens.saturating_mul(BELIEF_SHARE) < believed {
            self.knowledge.sent.forget_until(self.booking.slot(), self.held_since_ms);
        }
    }

    /// What the pod claimed to hold and did not use, it does not hold.
    fn correct_what_was_told(&self, cached_tokens: u32) {
        let predicted = self.decision.matched_tokens;
        self.endpoint.kv_events.compare(predicted, cached_tokens);
        if cached_tokens < predicted {
            let depth = (cached_tokens / self.block_tokens.max(1)) as usize;
            self.knowledge.told.truncate(self.booking.slot(), &self.chain, depth);
        }
    }
}
