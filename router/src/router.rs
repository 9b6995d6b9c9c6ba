//! Reads a request, looks up who holds its prompt, chooses a pod and books it.

mod follow;
mod names;
mod pairing;
mod place;
mod placement;
mod turn;

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use jiff::Timestamp;
use kv_index::Overlap;
use parking_lot::Mutex;

use crate::belief::Beliefs;
use crate::bookings::{Booking, Bookings};
use crate::conversations::Home;
use crate::decide::{Leg, View};
use crate::knowledge::Knowledge;
use crate::memory::{Assumption, Memory, Sent};
use crate::openai::{self, Api, Fields, Prompt};
use crate::policy::{self, Candidate, Table};
use crate::pool::{Endpoint, Pool, Snapshot};
use crate::prompt;
use crate::query::{PromptBlocks, Query};
use crate::queue::QueueSettings;
use crate::refusal::Refusal;
use crate::session;
use crate::split::SplitSettings;
use crate::split::transfer::Transfers;
use crate::text_rate::TextRates;
use crate::tokenizers::Tokenizers;
use crate::why::{Decisions, Made, Sequel};
use names::{adapter, block_tokens, capacity_blocks, named, resolve, tokenizer};

pub use placement::{Decision, Placement};
pub use turn::{Rule, Turn};

use pairing::{Chosen, Tables, Wanted};

/// The brain: everything that deciding needs, shared by all requests.
#[derive(Debug)]
pub struct Router {
    pool: Pool,
    settings: policy::Settings,
    split: SplitSettings,
    queue: QueueSettings,
    transfers: Arc<Mutex<Transfers>>,
    memory: Arc<Memory>,
    decisions: Arc<Decisions>,
    bookings: Arc<Bookings>,
    tokenizers: Tokenizers,
    text_rates: Arc<TextRates>,
    started: Instant,
}

/// What a thread keeps of [`TEXT`] between requests.
const KEPT_TEXT_BYTES: usize = 1 << 20;

thread_local! {
    /// Scratch of the decision, kept so that deciding allocates nothing.
    static SCRATCH: RefCell<(Overlap, Overlap, Tables)> = RefCell::default();
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
        (knowledge, bookings): (Arc<Knowledge>, Arc<Bookings>),
        tokenizers: Tokenizers,
    ) -> Self {
        let memory = Arc::new(Memory::new(knowledge));
        let decisions = Arc::new(Decisions::new(settings.decisions_kept));
        let (split, queue) = (SplitSettings::default(), QueueSettings::default());
        let (text_rates, started) = (Arc::default(), Instant::now());
        Self {
            pool,
            settings,
            split,
            queue,
            transfers: Arc::default(),
            memory,
            decisions,
            bookings,
            tokenizers,
            text_rates,
            started,
        }
    }

    /// Splits by these settings.
    #[must_use]
    pub fn with_split(self, split: SplitSettings) -> Self {
        Self { split, ..self }
    }

    /// Bounds what pods get at once by these settings.
    #[must_use]
    pub fn with_queue(self, queue: QueueSettings) -> Self {
        Self { queue, ..self }
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

    /// The tokenizers. Where there are some, reading a long prompt takes many times longer.
    #[must_use]
    pub fn tokenizers(&self) -> &Tokenizers {
        &self.tokenizers
    }

    /// What we know of the pods' caches.
    #[must_use]
    pub fn knowledge(&self) -> &Arc<Knowledge> {
        &self.memory.knowledge
    }

    /// Why no ready pod lists this model: whether it does not exist, or nobody can serve it now.
    #[must_use]
    pub fn absent(&self, model: &str) -> Refusal {
        names::absent(&self.pool.snapshot(), model)
    }

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
        let (request_id, model, indivisible) = (String::new(), Some(model), fields.indivisible);
        let (guarded, stream) = (fields.guarded, fields.stream);
        Ok(Query { request_id, api, model, session, guarded, indivisible, stream, home, prompt })
    }

    fn place_by(
        &self,
        (settings, turn): (&policy::Settings, Turn<'_>),
        query: &Query,
        (tried, queue): (&[kv_index::Slot], Option<&QueueSettings>),
        whole: Option<&'static str>,
    ) -> Result<Placement, Refusal> {
        let snapshot = self.pool.snapshot();
        let now_ms = self.ms_at(turn.now);
        SCRATCH.with_borrow_mut(|(told, sent, tables)| {
            let slots = snapshot.endpoints.iter().map(|endpoint| endpoint.slot);
            let prompt = &query.prompt;
            self.memory.overlap(&prompt.milestones, slots, now_ms, sent);
            let told = (!prompt.chain.is_empty()).then(|| {
                self.knowledge().told.overlap(&prompt.chain, told);
                &*told
            });
            let beliefs = Beliefs { told, sent, now_ms };
            let view = View { snapshot: &snapshot, beliefs, query, tried, queue };
            self.book(&Wanted { settings, turn, view: &view, whole }, tables)
        })
    }

    fn book(&self, wanted: &Wanted<'_>, tables: &mut Tables) -> Result<Placement, Refusal> {
        let Wanted { settings, turn, view, .. } = *wanted;
        let booked = self.bookings.book_legs(turn.now, |desk| self.choose(wanted, desk, tables));
        let rows = &tables.answering;
        trace(settings, view, rows, booked.as_ref().map(|(chosen, ..)| chosen.row));
        let Some((chosen, booking, prefilling)) = booked else {
            let may = |endpoint: &Arc<Endpoint>| Leg::Answer.may_take(endpoint, view.query, &[]);
            let any = view.snapshot.endpoints.iter().any(may);
            return Err(match (any, view.queue) {
                (true, Some(_)) => Refusal::Full,
                (true, None) => Refusal::AllTried,
                (false, _) => Refusal::NoReadyPod,
            });
        };
        let mut placement = self.placement(wanted, &rows[chosen.row], booking);
        placement.sequel = self.keep(wanted, rows, &chosen);
        placement.decision.split = chosen.split;
        placement.assumption = self.assume(view.query, &placement.endpoint, true);
        if let Some((row, booking)) = chosen.prefill.zip(prefilling) {
            let mut prefill = self.placement(wanted, &tables.prefilling[row], booking);
            // The conversation is at home where it is answered.
            prefill.assumption = self.assume(view.query, &prefill.endpoint, false);
            placement.is_split(prefill, rows[chosen.row].uncached_tokens, &self.transfers);
        }
        Ok(placement)
    }

    /// A place on a pod, with all that can be learned from its answer.
    fn placement(&self, wanted: &Wanted<'_>, chosen: &Candidate, booking: Booking) -> Placement {
        let view = wanted.view;
        let query = view.query;
        let endpoint = Arc::clone(&view.snapshot.endpoints[chosen.position]);
        let visit = endpoint.record.traffic.visit();
        Placement {
            decision: Decision {
                policy: wanted.settings.policy,
                matched_tokens: chosen.known_tokens,
                prompt_tokens: query.prompt.tokens,
                trust: chosen.trust,
                split: None,
            },
            told_batches: endpoint.kv_events.batches(),
            endpoint,
            prefill: None,
            moved: None,
            booking,
            _visit: visit,
            cold_tokens: chosen.cold_tokens,
            assumption: None,
            sequel: None,
            knowledge: Arc::clone(self.knowledge()),
            chain: Arc::clone(&query.prompt.chain),
            block_tokens: query.prompt.block_tokens,
            last_use: view.beliefs.sent.last_use(chosen.slot),
            placed_ms: view.beliefs.now_ms,
            placed_at: wanted.turn.now,
            text: self.text_of(query),
        }
    }

    /// Keeps the decision for those who ask later.
    fn keep(
        &self,
        wanted: &Wanted<'_>,
        candidates: &[Candidate],
        chosen: &Chosen,
    ) -> Option<Sequel> {
        let view = wanted.view;
        let Query { request_id, model, prompt, .. } = view.query;
        let made = Made {
            request_id,
            model: model.as_ref(),
            policy: wanted.settings.policy,
            prompt_tokens: prompt.tokens,
            candidates,
            chosen: chosen.row,
            split: chosen.split,
        };
        self.decisions.keep(&made, |it| view.snapshot.endpoints[it.position].pod.addr)
    }

    /// What the pod will hold if all goes well.
    fn assume(&self, query: &Query, endpoint: &Endpoint, answers: bool) -> Option<Assumption> {
        query.api.filter(|api| api.fills_cache())?;
        let prompt = &query.prompt;
        Some(self.memory.assume(Sent {
            slot: endpoint.slot,
            milestones: Arc::clone(&prompt.milestones),
            capacity: capacity_blocks(endpoint, prompt.block_tokens),
            end: prompt.end.filter(|_| answers),
            continued: query.home.filter(|_| answers),
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

    fn ms_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.started);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
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
