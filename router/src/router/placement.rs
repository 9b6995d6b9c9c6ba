//! Where a request goes, with the place taken there, and what is learned from the answer.

use std::sync::Arc;
use std::time::Instant;

use kv_index::{BlockHash, LastUse};
use parking_lot::Mutex;

use crate::bookings::Booking;
use crate::feed::kv_events::{Compared, Outcome, Suspect, Trust};
use crate::knowledge::{Knowledge, Watch};
use crate::memory::Assumption;
use crate::openai::CacheUse;
use crate::pod::Visit;
use crate::policy::PolicyName;
use crate::pool::Endpoint;
use crate::rescue::Forecast;
use crate::split::Split;
use crate::split::transfer::{Transfers, is_far};
use crate::text_rate::TextRates;
use crate::why::{self, Sequel};

/// Where a request goes, with the place taken there.
#[derive(Debug)]
pub struct Placement {
    /// The pod.
    pub endpoint: Arc<Endpoint>,
    /// Why, in short.
    pub decision: Decision,
    /// When its first token is expected, by what was known then.
    pub forecast: Forecast,
    /// The pod that prefills for it, with the place taken there.
    pub prefill: Option<Box<Placement>>,
    /// What it gets from there.
    pub(super) moved: Option<Moved>,
    pub(super) booking: Booking,
    /// Its feeds look more often while a request is there.
    pub(super) _visit: Visit,
    /// What of the prompt is new to it, by our own estimate.
    pub(super) new_tokens: u32,
    pub(super) assumption: Option<Assumption>,
    pub(super) sequel: Option<Sequel>,
    pub(super) knowledge: Arc<Knowledge>,
    pub(super) chain: Arc<Vec<BlockHash>>,
    pub(super) block_tokens: u32,
    pub(super) cache_use: CacheUse,
    /// Batches that the pod had told when it was chosen.
    pub(super) told_batches: u64,
    /// What it was known to hold of the prompt since, if it was known to hold some.
    pub(super) watch: Option<Watch>,
    /// Of what it was sent of the prompt before, when it was chosen.
    pub(super) last_use: LastUse,
    pub(super) placed_ms: u64,
    pub(super) placed_at: Instant,
    pub(super) text: Option<(Arc<TextRates>, Arc<str>, u32)>,
}

/// Blocks that come from another pod.
#[derive(Debug)]
pub(super) struct Moved {
    tokens: u32,
    /// From a pod at another place.
    is_far: bool,
    /// When they were asked for, and how long the pod that answers had to compute for others then.
    sent_at: Option<(Instant, f64)>,
    transfers: Arc<Mutex<Transfers>>,
}

/// What `x-hearth-decision` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The policy that chose.
    pub policy: PolicyName,
    /// Prompt tokens that the pod is believed to hold.
    pub matched_tokens: u32,
    /// Prompt tokens in all.
    pub prompt_tokens: u32,
    /// How far the belief can be trusted.
    pub trust: Trust,
    /// Which of the data-parallel ranks at the pod's address; none: it is alone there.
    pub rank: Option<u16>,
    /// Whether another pod prefills for it, and why not; none where no pod only prefills.
    pub split: Option<Split>,
}

/// A pod that holds less than this share of what we believed has shown that our memory of it is
/// wrong; a little less is the noise of estimated token counts.
const BELIEF_SHARE: u32 = 2;

/// A prompt sent so recently may still be in the making, and says nothing about eviction.
const SETTLED_MS: u64 = 5_000;

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

    /// The attempt gave no answer to send on; the reason in a word. The prompt is not on its way to
    /// the pod any more, and its place there is free.
    pub fn failed(&mut self, reason: &'static str) {
        self.assumption = None;
        self.booking.end();
        self.note(|came| came.outcome = why::Outcome::Failed(reason));
    }

    /// Another pod was asked as well, and has spoken first: this one takes so long at least.
    pub fn overtaken(&mut self, now: Instant) {
        self.booking.first_token(now);
        self.failed("overtaken");
    }

    /// Another pod prefills for it, and so many tokens come from there.
    pub(super) fn split_with(
        &mut self,
        prefill: Placement,
        tokens: u32,
        transfers: &Arc<Mutex<Transfers>>,
    ) {
        let place = |placement: &Self| placement.endpoint.pod.topology.clone();
        let is_far = is_far(place(self).as_deref(), place(&prefill).as_deref());
        self.prefill = Some(Box::new(prefill));
        let transfers = Arc::clone(transfers);
        self.moved = Some(Moved { tokens, is_far, sent_at: None, transfers });
    }

    /// The prefill was done, in so many milliseconds, and the decode leg is sent.
    pub fn handed_over(&mut self, prefill_ms: f64, now: Instant) {
        self.note(|came| came.prefill_ms = Some(prefill_ms));
        let queued_ms = self.booking.queued_ms();
        if let Some(moved) = &mut self.moved {
            moved.sent_at = Some((now, queued_ms));
        }
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
        let sent = self.moved.as_ref().and_then(|moved| Some((moved, moved.sent_at?)));
        if let Some((moved, (sent_at, queued_ms))) = sent {
            let ms = now.saturating_duration_since(sent_at).as_secs_f64() * 1e3;
            self.note(|came| came.transfer_ms = Some(ms));
            // What stood in line before it there is no part of a transfer: taken for one, a busy
            // decode pod looks far away, gets all prompts to compute itself, and is busier for it.
            let moving_ms = (ms - queued_ms).max(0.0);
            moved.transfers.lock().observe(now, moved.is_far, moved.tokens, moving_ms);
        }
    }

    /// The pod's own counts, from `usage`: prompt tokens, and those that it found in its cache.
    pub fn usage(&mut self, prompt_tokens: Option<u32>, cached_tokens: Option<u32>) {
        self.note(|came| (came.prompt_tokens, came.cached_tokens) = (prompt_tokens, cached_tokens));
        if let (Some(tokens), Some((rates, model, bytes))) = (prompt_tokens, &self.text) {
            rates.learn(model, *bytes, tokens);
        }
        if let Some(tokens) = prompt_tokens {
            // The share that we believed to be new, in the pod's unit. What it really held does not
            // count: a gateway that has just begun knows of no warm pod, and weighs a copy by what
            // it believes.
            let estimate = u64::from(self.decision.prompt_tokens.max(1));
            let new = u64::from(self.new_tokens) * u64::from(tokens) / estimate;
            self.booking.measured(u32::try_from(new).unwrap_or(u32::MAX));
        }
        // A pod that gets blocks from another counts them as it likes: vLLM 0.26 all, 0.32 none.
        let is_evidence = self.cache_use == CacheUse::Told && self.moved.is_none();
        let Some(cached_tokens) = cached_tokens.filter(|_| is_evidence) else { return };
        if self.decision.trust == Trust::Approximate {
            self.correct_what_was_sent(cached_tokens);
        } else if prompt_tokens == Some(self.decision.prompt_tokens) {
            self.correct_what_was_told(cached_tokens);
        }
    }

    /// Much fewer cached than we believed: blocks of that age are gone from the pod, and so is
    /// everything older.
    fn correct_what_was_sent(&self, cached_tokens: u32) {
        let LastUse::AtMs(used_ms) = self.last_use else { return };
        let believed = self.decision.matched_tokens;
        let settled = used_ms.saturating_add(SETTLED_MS) <= self.placed_ms;
        if settled && cached_tokens.saturating_mul(BELIEF_SHARE) < believed {
            self.knowledge.approximate.forget_until(self.booking.slot(), used_ms);
        }
    }

    /// What the pod claimed to hold and did not use, it does not hold, unless its events explain it, or
    /// it had told of its cache since: then the prediction was old, and what is known now may be right.
    /// An engine whose cache was emptied tells of that together with what it then stored for this very
    /// request, and never tells of a hit.
    fn correct_what_was_told(&mut self, cached: u32) {
        let block_tokens = self.block_tokens.max(1);
        let (watch, knowledge) = (self.watch.take(), Arc::clone(&self.knowledge));
        let least = move || {
            let blocks = watch.as_ref().map_or(u32::MAX, |watch| watch.least(&knowledge.exact));
            blocks.saturating_mul(block_tokens)
        };
        let (trust, predicted) = (self.decision.trust, self.decision.matched_tokens);
        let answer = Compared { trust, predicted, least: least(), cached };
        let status = &self.endpoint.kv_events;
        let is_old = status.batches() != self.told_batches;
        let (later, knowledge) =
            (self.sequel.as_ref().map(Sequel::later), Arc::clone(&self.knowledge));
        let (slot, chain, depth) =
            (self.booking.slot(), Arc::clone(&self.chain), cached / block_tokens);
        let shown = move |outcome| {
            if outcome == Outcome::Over && !is_old {
                knowledge.exact.truncate(slot, &chain, depth as usize);
            }
            if let Some(later) = later {
                later.note(|came| came.prediction = Some(outcome));
            }
        };
        status.compare(Suspect { answer, least: Box::new(least), shown: Box::new(shown) });
    }
}
