//! Reads a request, looks up who holds its prompt, chooses a pod and books it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use jiff::Timestamp;
use kv_index::{ApproximateIndex, ChainHasher, Overlap};

use crate::bookings::{Booking, Bookings};
use crate::conversations::Home;
use crate::decide::{self, View};
use crate::memory::{Assumption, Memory, Sent};
use crate::openai::{self, Api, Fields, Prompt};
use crate::policy::{self, Ask, Candidate, PolicyName, Table};
use crate::pool::{Endpoint, Pool, Snapshot};
use crate::prompt::{self, Tokenizers};
use crate::query::{PromptBlocks, Query};
use crate::refusal::Refusal;
use crate::session;
use crate::text_rate::TextRates;
use crate::tokenize::Tokenizer;
use crate::why::{self, Decisions, Made, Sequel};

/// The brain: everything that deciding needs, shared by all requests.
#[derive(Debug)]
pub struct Router {
    pool: Pool,
    settings: policy::Settings,
    memory: Arc<Memory>,
    decisions: Arc<Decisions>,
    bookings: Arc<Bookings>,
    hasher: ChainHasher,
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
    sequel: Option<Sequel>,
    index: Arc<ApproximateIndex>,
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

/// Where the belief about a pod's cache comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// From what we sent where.
    Approximate,
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
    static SCRATCH: RefCell<(Overlap, Vec<Candidate>)> = RefCell::default();
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
        index: Arc<ApproximateIndex>,
        tokenizers: Tokenizers,
    ) -> Self {
        let (memory, bookings) = (Arc::new(Memory::new(index)), Arc::default());
        let decisions = Arc::new(Decisions::new(settings.decisions_kept));
        let hasher = ChainHasher::default();
        let (text_rates, started) = (Arc::default(), Instant::now());
        Self {
            pool,
            settings,
            memory,
            decisions,
            bookings,
            hasher,
            tokenizers,
            text_rates,
            started,
        }
    }

    /// The pods.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Why the last requests went where they went.
    #[must_use]
    pub fn decisions(&self) -> &Arc<Decisions> {
        &self.decisions
    }

    /// What is booked where.
    #[must_use]
    pub fn bookings(&self) -> &Arc<Bookings> {
        &self.bookings
    }

    /// What we believe the pods hold.
    #[must_use]
    pub fn index(&self) -> &Arc<ApproximateIndex> {
        &self.memory.index
    }

    /// Why nothing is known of a model that no ready pod lists: whether it does not exist, or nobody
    /// can serve it now.
    #[must_use]
    pub fn absent(&self, model: &str) -> Refusal {
        let snapshot = self.pool.snapshot();
        match snapshot.endpoints.iter().any(|endpoint| endpoint.serves(model)) {
            true => Refusal::NoReadyPod,
            false => absent(&snapshot, model),
        }
    }

    /// The pod's process is gone or began anew: its cache is empty.
    pub fn forget_cache(&self, slot: kv_index::Slot) {
        self.memory.index.forget_until(slot, u64::MAX);
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
        let (request_id, model, guarded) = (String::new(), Some(model), fields.guarded);
        Ok(Query { request_id, api, model, session, guarded, home, prompt })
    }

    /// Chooses a pod that is not among `tried`, and books it.
    ///
    /// # Errors
    /// When no pod is left.
    pub fn place(&self, query: &Query, tried: &[kv_index::Slot]) -> Result<Placement, Refusal> {
        self.place_by(&self.settings, query, tried)
    }

    /// Chooses any ready pod, the least busy one, for a request that we do not read.
    ///
    /// # Errors
    /// When no pod is left.
    pub fn place_any(&self, tried: &[kv_index::Slot]) -> Result<Placement, Refusal> {
        let settings = policy::Settings { policy: PolicyName::LeastRequest, ..self.settings };
        self.place_by(&settings, &Query::any(), tried)
    }

    fn place_by(
        &self,
        settings: &policy::Settings,
        query: &Query,
        tried: &[kv_index::Slot],
    ) -> Result<Placement, Refusal> {
        let snapshot = self.pool.snapshot();
        let now_ms = self.now_ms();
        SCRATCH.with_borrow_mut(|(overlap, candidates)| {
            let slots = snapshot.endpoints.iter().map(|endpoint| endpoint.slot);
            self.memory.overlap(&query.prompt.milestones, slots, now_ms, overlap);
            let view = View { snapshot: &snapshot, overlap, query, tried };
            self.book(settings, &view, candidates, now_ms)
        })
    }

    fn book(
        &self,
        settings: &policy::Settings,
        view: &View<'_>,
        candidates: &mut Vec<Candidate>,
        now_ms: u64,
    ) -> Result<Placement, Refusal> {
        let query = view.query;
        let booked = self.bookings.book(Instant::now(), |desk| {
            let has_session = query.session.is_some();
            let ask = Ask { has_session, ticket: desk.ticket(), dice: rand::random() };
            let row = decide::decide(settings, view, ask, |slot| desk.admit(slot), candidates)?;
            let chosen = candidates[row];
            Some((row, chosen.slot, chosen.cold_tokens))
        });
        let row = booked.as_ref().map(|(row, _)| *row);
        trace(settings, view, candidates, row);
        let Some((row, booking)) = booked else {
            let any = view.snapshot.endpoints.iter().any(|e| decide::is_eligible(e, query, &[]));
            return Err(if any { Refusal::AllTried } else { Refusal::NoReadyPod });
        };
        let chosen = candidates[row];
        let sequel = self.keep(settings, view, candidates, row);
        let endpoint = Arc::clone(&view.snapshot.endpoints[chosen.position]);
        let assumption = self.assume(query, &endpoint);
        Ok(Placement {
            decision: Decision {
                policy: settings.policy,
                matched_tokens: chosen.matched_tokens,
                prompt_tokens: query.prompt.tokens,
                trust: Trust::Approximate,
            },
            endpoint,
            booking,
            assumption,
            sequel,
            index: Arc::clone(&self.memory.index),
            held_since_ms: view.overlap.touched_ms(chosen.slot),
            placed_ms: now_ms,
            placed_at: Instant::now(),
            text: self.text_of(query),
        })
    }

    /// Keeps the decision for those who ask later.
    fn keep(
        &self,
        settings: &policy::Settings,
        view: &View<'_>,
        candidates: &[Candidate],
        chosen: usize,
    ) -> Option<Sequel> {
        let Query { request_id, model, prompt, .. } = view.query;
        let made = Made {
            request_id,
            model: model.as_ref(),
            policy: settings.policy,
            prompt_tokens: prompt.tokens,
            candidates,
            chosen,
        };
        self.decisions.keep(&made, |it| view.snapshot.endpoints[it.position].pod.addr)
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
        let root = [model, fields.cache_salt.as_deref().unwrap_or_default()];
        match self.tokens(snapshot, model, fields) {
            Some(tokens) => {
                let block_tokens = block_tokens(snapshot, model);
                let prompt = PromptBlocks::of_tokens(&self.hasher, &root, &tokens, block_tokens);
                let home = prompt.home_of_tokens(conversations, &tokens);
                (prompt, home)
            }
            None => {
                let rate = self.text_rates.get(model);
                let prompt = PromptBlocks::of_text(&self.hasher, &root, fields.text, rate);
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

/// Tells the decision's whole table to the log, if it wants to hear.
fn trace(settings: &policy::Settings, view: &View<'_>, rows: &[Candidate], chosen: Option<usize>) {
    let pods = &view.snapshot.endpoints;
    let addr = || Some(pods[rows[chosen?].position].pod.addr);
    tracing::trace!(
        target: "router::decide",
        request_id = %view.query.request_id,
        model = view.query.model.as_deref(),
        policy = settings.policy.name(),
        chosen = addr().map(tracing::field::display),
        table = %Table { rows, chosen, pods },
        "decided"
    );
}

/// The model as a pod lists it.
fn resolve(snapshot: &Snapshot, model: Option<&str>) -> Result<Arc<str>, Refusal> {
    let cards = || snapshot.endpoints.iter().flat_map(|endpoint| endpoint.models.iter());
    if cards().next().is_none() {
        return Err(Refusal::NoReadyPod);
    }
    if let Some(model) = model {
        let card = cards().find(|card| &*card.id == model);
        return card.map(|card| Arc::clone(&card.id)).ok_or_else(|| absent(snapshot, model));
    }
    if let Some(name) = base(snapshot) {
        return Ok(Arc::clone(name));
    }
    let mut names: Vec<&Arc<str>> = cards().map(|card| &card.id).collect();
    names.sort_unstable();
    names.dedup();
    Err(Refusal::ModelMissing { names: names.iter().map(|name| name.to_string()).collect() })
}

/// Why no pod lists this model: a pod that has never listed any may serve it, and is waited for.
fn absent(snapshot: &Snapshot, model: &str) -> Refusal {
    let is_silent = |endpoint: &Arc<Endpoint>| endpoint.models.is_empty();
    if snapshot.endpoints.iter().all(|endpoint| !is_silent(endpoint)) {
        return Refusal::NoSuchModel { model: model.to_owned() };
    }
    Refusal::NoReadyPod
}

/// The model of a request that names none, where all pods agree on it. vLLM takes the first name
/// that it was started with: that of the base model, not of an adapter.
fn base(snapshot: &Snapshot) -> Option<&Arc<str>> {
    let mut bases = snapshot.endpoints.iter().filter_map(|endpoint| {
        let base = endpoint.models.iter().find(|card| card.parent.is_none())?;
        Some(&base.id)
    });
    let base = bases.next()?;
    bases.all(|other| other == base).then_some(base)
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
    /// The pod has begun an answer with this status, and its first bytes are here. Only when it is
    /// a good one (2xx), the pod's cache counts as holding the prompt: dropped without it, nothing
    /// is remembered of the attempt.
    pub fn answered(&mut self, status: u16, now: Instant) {
        self.note(|came| came.status = Some(status));
        if !(200..300).contains(&status) {
            return;
        }
        self.booking.began();
        if let Some(assumption) = &mut self.assumption {
            let waited = now.saturating_duration_since(self.placed_at).as_millis();
            assumption.confirm(self.placed_ms + u64::try_from(waited).unwrap_or(0));
        }
    }

    /// The attempt gave no answer to send on; the reason in a word.
    pub fn failed(&self, reason: &'static str) {
        self.note(|came| came.outcome = why::Outcome::Failed(reason));
    }

    fn note(&self, note: impl FnOnce(&mut why::Came)) {
        if let Some(sequel) = &self.sequel {
            sequel.note(note);
        }
    }

    /// The first token came.
    pub fn first_token(&mut self, now: Instant) {
        let waited = now.saturating_duration_since(self.placed_at);
        self.note(|came| came.ttft_ms = Some(waited.as_secs_f64() * 1e3));
        self.booking.first_token(now);
    }

    /// The pod's own counts, from `usage`: prompt tokens, and those that it found in its cache.
    ///
    /// Much fewer cached than we believed: blocks of that age are gone from it, and so is
    /// everything older.
    pub fn usage(&self, prompt_tokens: Option<u32>, cached_tokens: Option<u32>) {
        self.note(|came| (came.prompt_tokens, came.cached_tokens) = (prompt_tokens, cached_tokens));
        if let (Some(tokens), Some((rates, model, bytes))) = (prompt_tokens, &self.text) {
            rates.learn(model, *bytes, tokens);
        }
        let Some(cached_tokens) = cached_tokens else { return };
        let believed = self.decision.matched_tokens;
        let settled = self.held_since_ms.saturating_add(SETTLED_MS) <= self.placed_ms;
        if settled && cached_tokens.saturating_mul(BELIEF_SHARE) < believed {
            self.index.forget_until(self.booking.slot(), self.held_since_ms);
        }
    }
}

// === impl Trust ===

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Approximate => "approximate",
        })
    }
}
