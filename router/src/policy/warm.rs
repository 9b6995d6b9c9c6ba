//! Least expected milliseconds.
//!
//! Per candidate, with `r` its learned milliseconds per uncached prompt token:
//!
//! ```text
//! cost = overhead + (queued + uncached) * r  time to the first token: what is booked before, and us
//!      + requests * decode_ms              every running request slows each decode step
//!      + 2 * cold * r * exp(-age / reuse)  warm blocks of others that our cold ones push out
//!      - share * on_its_way * r            a prefill that is under way need not be done twice
//!      - session                           for the session's own pod, or
//!        matched * r / 4                   for the pod where the conversation is at home
//! and for a new conversation
//!      + balance * min(lead, new) * r      what nobody holds goes to who had least of late
//!      - min(arrears, missing) * r         a prefix that others share is worth a second copy
//! ```
//!
//! The shape is that of "LMetric" (arXiv 2603.15202: new prefill tokens and batch size, in units
//! of work, from our own bookings and not from polled gauges). The last two terms close a hole of
//! every such metric: conversations that are paced so that nothing is ever in flight see no load,
//! and any shared system prompt would pull them all to one pod, however many they are.
//!
//! Both are measured by the prompt at hand and not by a constant, so they hold for prompts of any
//! length. `lead` is how much more cold work than the least busy pod one had of late, `new` what no
//! pod holds of the prompt: idle pods alternate, and work in flight outweighs it. `missing` is what
//! a pod lacks of what the best one holds. To compute it costs time once, and from then on the
//! prefix can be reused on both: it is paid for when the pod's `arrears` of recent work behind the
//! best one have reached most of it, as one buys what one has rented for long enough. A conversation that
//! is at home somewhere, or a prompt that some pod holds whole, gains nothing by a copy: it is not
//! spread.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ask, Candidate, least};

/// Weights of the cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// What one request in flight on a pod costs the next one, in milliseconds.
    pub decode_ms: f64,
    /// How much a new conversation minds the work that pods had of late, from 0 (not at all) to 1.
    pub balance: f64,
    /// How long a block is worth keeping, in milliseconds: one that was not used for so long is
    /// used again with a chance of 1/e.
    pub reuse_ms: f64,
    /// What the session's own pod is worth, in uncached tokens.
    pub session_tokens: f64,
}

/// What a cost is the sum of, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Terms {
    /// Prefill that is booked before.
    pub queued_ms: f64,
    /// Our own prefill.
    pub uncached_ms: f64,
    /// What a first token takes whatever the prompt: the same for all pods, it moves no choice.
    pub overhead_ms: f64,
    /// Requests in flight, which slow each decode step.
    pub decode_ms: f64,
    /// Warm blocks that our cold ones push out.
    pub eviction_ms: f64,
    /// Recent work ahead of the least busy pod, for a new conversation.
    pub balance_ms: f64,
    /// Off, for a prefill of the same blocks that is under way.
    pub spared_ms: f64,
    /// Off, for a second copy of a shared prefix.
    pub copy_ms: f64,
    /// Off, for the conversation's own pod.
    pub own_ms: f64,
}

/// Arrears that pay for a copy, as a share of what is missing: a little less than all of it, since
/// both are estimates where we have no tokenizer.
const COPY_PRICE: f64 = 0.8;

/// What of a prefill that is under way counts as spared: it is waited for as long as it would
/// take elsewhere, so that another pod is as fast, but not for less.
const SPARED: f64 = 0.2;

/// What a cold block costs others, in blocks: the warm one that it pushes out is computed again on
/// this pod or on another one, and pushes out a third there. With 1 and `reuse_ms` of 300 s the
/// conversation trace reuses 88 % of what one shared cache does, with 2 it is 90 %, and first tokens
/// come no later.
const EVICTION_PRICE: f64 = 2.0;

/// What of a conversation's history counts once more for the pod that holds it: elsewhere a copy of
/// it would stay behind here, and be of use to nobody.
const HOME_SHARE: f64 = 0.25;

/// The session's own pod begins a new conversation while it leads by less than so much of it: with
/// sessions, too, pods end within 45 to 55.
const SESSION_LEAD: f64 = 0.5;

/// What a new conversation is weighed by.
struct Opening {
    /// Recent work of the pod that had least and of the one that holds most of the prompt, in
    /// tokens.
    least: f64,
    best: f64,
    /// Most prompt tokens that any pod holds, and what is new to all.
    matched: u32,
    new: f64,
}

// === impl Weights ===

impl Default for Weights {
    fn default() -> Self {
        // decode: a step of a mid-size model is 10 to 30 ms and grows by some percent per request.
        // balance: enough to alternate, and less than work in flight. reuse: of the conversation
        // trace's later turns three of four come within 264 s, 99 of 100 within 25 minutes. session:
        // less than a few blocks, so that a pod that holds the prompt wins over one that merely
        // knows the session.
        Self { decode_ms: 1.0, balance: 0.5, reuse_ms: 600_000.0, session_tokens: 64.0 }
    }
}

pub(super) fn pick(weights: &Weights, ask: Ask, candidates: &mut [Candidate]) -> usize {
    let opening = Opening::of(candidates);
    let own = own_rank(ask, candidates);
    let has_home = candidates.iter().any(|c| c.is_home);
    let own_tokens = opening.as_ref().map_or(weights.session_tokens, |opening| {
        weights.session_tokens.min(SESSION_LEAD * weights.balance * opening.new)
    });
    for candidate in &mut *candidates {
        let is_own = !has_home && own == Some(candidate.session_rank);
        let own_tokens = match (candidate.is_home, is_own) {
            (true, _) => own_tokens.max(HOME_SHARE * f64::from(candidate.matched_tokens)),
            (false, true) => own_tokens,
            (false, false) => 0.0,
        };
        let recent =
            opening.as_ref().map_or((0.0, 0.0), |opening| opening.tokens(weights, candidate));
        candidate.terms = Terms::of(weights, candidate, recent, own_tokens);
        candidate.cost_ms = candidate.terms.total();
    }
    least(candidates, ask.dice, |candidate| candidate.cost_ms)
}

fn own_rank(ask: Ask, candidates: &[Candidate]) -> Option<u64> {
    candidates.iter().map(|c| c.session_rank).max().filter(|_| ask.has_session)
}

// === impl Terms ===

impl Terms {
    fn of(weights: &Weights, pod: &Candidate, (balance, copy): (f64, f64), own: f64) -> Self {
        let ms = pod.load.prefill_ms_per_token;
        Self {
            queued_ms: pod.load.queued_ms(),
            uncached_ms: f64::from(pod.uncached_tokens) * ms,
            overhead_ms: pod.load.overhead_ms,
            decode_ms: f64::from(pod.load.requests) * weights.decode_ms,
            eviction_ms: EVICTION_PRICE
                * f64::from(pod.cold_tokens)
                * reuse(weights, pod.eviction_age_ms)
                * ms,
            balance_ms: balance * ms,
            spared_ms: -SPARED * f64::from(pod.on_its_way_tokens) * ms,
            copy_ms: -copy * ms,
            own_ms: -own * ms,
        }
    }

    /// The cost.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.ttft_ms()
            + self.decode_ms
            + self.eviction_ms
            + self.balance_ms
            + self.spared_ms
            + self.copy_ms
            + self.own_ms
    }

    /// The time to the first token that it predicts.
    #[must_use]
    pub fn ttft_ms(&self) -> f64 {
        self.queued_ms + self.uncached_ms + self.overhead_ms
    }
}

// === impl Opening ===

impl Opening {
    /// None for a conversation that is at home on a pod. A prompt of which a pod holds all whole blocks
    /// may be a new one: a short question under a system prompt.
    fn of(candidates: &[Candidate]) -> Option<Self> {
        if candidates.iter().any(|candidate| candidate.is_home) {
            return None;
        }
        let best = candidates.iter().max_by_key(|c| c.matched_tokens)?;
        let holders = candidates.iter().filter(|c| c.matched_tokens == best.matched_tokens);
        let recent = |c: &Candidate| c.load.recent_tokens;
        Some(Self {
            least: candidates.iter().map(recent).fold(f64::INFINITY, f64::min),
            best: holders.map(recent).fold(f64::INFINITY, f64::min),
            matched: best.matched_tokens,
            new: f64::from(best.uncached_tokens),
        })
    }

    /// What the pod's recent work adds to its cost and what it takes off, in tokens.
    fn tokens(&self, weights: &Weights, candidate: &Candidate) -> (f64, f64) {
        let recent = candidate.load.recent_tokens;
        let missing = f64::from(self.matched.saturating_sub(candidate.matched_tokens));
        let lead = (recent - self.least).min(self.new);
        let arrears = ((self.best - recent) / COPY_PRICE).clamp(0.0, missing);
        (weights.balance * lead, if weights.balance > 0.0 { arrears } else { 0.0 })
    }
}

/// The chance that the block evicted next would have been used again.
fn reuse(weights: &Weights, eviction_age_ms: Option<u64>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "ages are far below 2^52 ms")]
    eviction_age_ms.map_or(0.0, |age_ms| (-(age_ms as f64) / weights.reuse_ms).exp())
}
