//! Reads a request, looks up who holds its prompt, chooses a pod and books it.

mod elsewhere;
mod follow;
mod names;
mod pairing;
mod place;
mod placement;
mod read;
mod turn;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use kv_index::Overlap;
use parking_lot::Mutex;

use crate::aliases::ModelNames;
use crate::belief::Beliefs;
use crate::bookings::{Booking, Bookings};
use crate::decide::{Leg, View};
use crate::feed::kv_events::Trust;
use crate::knowledge::Knowledge;
use crate::memory::{Assumption, Memory, Sent};
use crate::policy::{self, Candidate, Table};
use crate::pool::{Endpoint, Pool};
use crate::query::Query;
use crate::queue::QueueSettings;
use crate::refusal::Refusal;
use crate::rescue::Forecast;
use crate::split::SplitSettings;
use crate::split::transfer::Transfers;
use crate::text_rate::TextRates;
use crate::tokenizers::Tokenizers;
use crate::why::{Decisions, Made, Sequel};
use names::capacity_blocks;

pub use placement::{Decision, Placement};
pub use turn::Turn;

use pairing::{Chosen, Tables, Wanted};

/// The brain: everything that deciding needs, shared by all requests.
#[derive(Debug)]
pub struct Router {
    pool: Pool,
    settings: policy::Settings,
    split: SplitSettings,
    queue: QueueSettings,
    names: ModelNames,
    transfers: Arc<Mutex<Transfers>>,
    memory: Arc<Memory>,
    decisions: Arc<Decisions>,
    bookings: Arc<Bookings>,
    tokenizers: Tokenizers,
    text_rates: Arc<TextRates>,
    started: Instant,
}

thread_local! {
    /// Scratch of the decision, kept so that deciding allocates nothing.
    static SCRATCH: RefCell<(Overlap, Overlap, Tables)> = RefCell::default();
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
            names: ModelNames::default(),
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

    /// Knows models by these names too.
    #[must_use]
    pub fn with_names(self, names: ModelNames) -> Self {
        Self { names, ..self }
    }

    /// The other names of models.
    #[must_use]
    pub fn names(&self) -> &ModelNames {
        &self.names
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

    fn place_by(
        &self,
        (settings, turn): (&policy::Settings, Turn<'_>),
        query: &Query,
        (tried, queue): (&[kv_index::Slot], Option<&QueueSettings>),
        whole: Option<&'static str>,
    ) -> Result<Placement, Refusal> {
        let snapshot = self.pool.snapshot();
        let now_ms = self.ms_at(turn.now);
        SCRATCH.with_borrow_mut(|(exact, approximate, tables)| {
            let slots = snapshot.endpoints.iter().map(|endpoint| endpoint.slot);
            let prompt = &query.prompt;
            self.memory.overlap(&prompt.milestones, slots, now_ms, approximate);
            let exact = (!prompt.chain.is_empty()).then(|| {
                self.knowledge().exact.overlap(&prompt.chain, exact);
                &*exact
            });
            let beliefs = Beliefs { exact, approximate, now_ms };
            let mut view =
                View { snapshot: &snapshot, beliefs, query, tried, at_need: false, queue };
            let placed = self.book(&Wanted { settings, turn, view: &view, whole }, tables);
            let is_nobody = matches!(placed, Err(Refusal::NoReadyPod | Refusal::AllTried));
            view.at_need = is_nobody && snapshot.endpoints.iter().any(|it| it.may_answer_at_need());
            if !view.at_need {
                return placed;
            }
            self.book(&Wanted { settings, turn, view: &view, whole }, tables).or(placed)
        })
    }

    fn book(&self, wanted: &Wanted<'_>, tables: &mut Tables) -> Result<Placement, Refusal> {
        let Wanted { settings, turn, view, .. } = *wanted;
        let when = (turn.now, view.query.stream.is_some());
        let booked = self.bookings.book_legs(when, |desk| self.choose(wanted, desk, tables));
        let rows = &tables.answering;
        trace(settings, view, rows, booked.as_ref().map(|(chosen, ..)| chosen.row));
        let Some((chosen, booking, prefilling)) = booked else {
            let asked = (view.query, view.at_need);
            let may = |endpoint: &Arc<Endpoint>| Leg::Answer.may_take(endpoint, asked, &[]);
            let any = view.snapshot.endpoints.iter().any(may);
            return Err(match (any, view.queue) {
                (true, Some(_)) => Refusal::Full,
                (true, None) => Refusal::AllTried,
                (false, _) => Refusal::NoReadyPod,
            });
        };
        let mut placement = self.placement(wanted, &rows[chosen.row], booking);
        placement.forecast = forecast(rows, chosen.row);
        placement.sequel = self.keep(wanted, rows, &chosen);
        placement.decision.split = chosen.split;
        placement.assumption = self.assume(view.query, &placement.endpoint, true);
        if let Some((row, booking)) = chosen.prefill.zip(prefilling) {
            let mut prefill = self.placement(wanted, &tables.prefilling[row], booking);
            // The conversation is at home where it is answered.
            prefill.assumption = self.assume(view.query, &prefill.endpoint, false);
            placement.split_with(prefill, rows[chosen.row].uncached_tokens, &self.transfers);
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
                rank: endpoint.pod.rank,
                split: None,
            },
            told_batches: endpoint.kv_events.batches(),
            watch: (chosen.trust != Trust::Approximate && chosen.known_tokens > 0)
                .then(|| self.knowledge().watch(chosen.slot, &query.prompt.chain)),
            endpoint,
            forecast: Forecast::default(),
            prefill: None,
            moved: None,
            booking,
            _visit: visit,
            new_tokens: pairing::new_tokens(query, chosen),
            assumption: None,
            sequel: None,
            knowledge: Arc::clone(self.knowledge()),
            chain: Arc::clone(&query.prompt.chain),
            block_tokens: query.prompt.block_tokens,
            cache_use: query.cache_use,
            last_use: view.beliefs.approximate.last_use(chosen.slot),
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

    fn ms_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.started);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

fn forecast(rows: &[Candidate], chosen: usize) -> Forecast {
    let others = rows.iter().enumerate().filter(|(row, _)| *row != chosen);
    let elsewhere_ms = others.map(|(_, other)| other.ttft_ms()).min_by(f64::total_cmp);
    Forecast { ttft_ms: rows[chosen].ttft_ms(), elsewhere_ms }
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
