//! Load is what we booked: nobody polls a gauge to learn how busy a pod is.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use kv_index::Slot;
use parking_lot::Mutex;

/// What is booked on one pod, and what we learned of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Prompt tokens sent and not yet answered by a first token.
    pub prefill_tokens: u64,
    /// Requests in flight.
    pub requests: u32,
    /// Cold prompt tokens placed on it of late: the last ones count most. What keeps paced
    /// sessions, which never overlap in time, from piling on one pod.
    pub recent_tokens: f64,
    /// Learned cost of one uncached prompt token, in milliseconds. Of a pod that has not shown its
    /// own it is the mean of those that have: an idle pod must not look slow because it is idle.
    pub prefill_ms_per_token: f64,
}

/// All bookings. Pick and booking are one step under one short lock, so that two requests that
/// arrive together do not both see the pod idle.
#[derive(Debug)]
pub struct Bookings {
    desk: Mutex<Desk>,
}

/// What the lock guards: loads by slot index.
#[derive(Debug, Default)]
pub struct Desk {
    loads: Vec<(Option<Slot>, Load)>,
    /// What was seen of each pod's rate, by slot index.
    rates: Vec<Rate>,
    /// The mean of the learned rates.
    fleet_rate: Option<f64>,
    tickets: u64,
}

/// A pod's rate, as sums over its answers in which the latest count most. Sums and not rates, so
/// that a short prompt, whose time is mostly overhead, says as little as it knows.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    ms: f64,
    tokens: f64,
}

/// A place to be taken on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The pod.
    pub slot: Slot,
    /// Prompt tokens that it will have to compute.
    pub cold_tokens: u32,
    /// Prompt tokens that will be new in its cache: those, and those that it gets from elsewhere.
    pub new_tokens: u32,
}

/// A place taken on a pod; given back on drop, whatever happens.
#[derive(Debug)]
pub struct Booking {
    bookings: Arc<Bookings>,
    slot: Slot,
    cold_tokens: u32,
    /// What of it is in `recent_tokens`.
    worked_tokens: u32,
    queued_before: u64,
    booked_at: Instant,
    prefilling: bool,
    began: bool,
}

/// All pods' bookings added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// See [`Load::prefill_tokens`].
    pub prefill_tokens: u64,
    /// See [`Load::requests`].
    pub requests: u64,
}

/// Placements over which `recent_tokens` fades to 1/e, per pod of the fleet. Long, so that even a
/// 16-token suffix after a 1,000-token shared prefix adds up to a reason to use another pod.
const RECENT_PLACEMENTS_PER_POD: f64 = 1024.0;

/// Fewer cold tokens say more about noise than about the pod's prefill rate.
const LEARN_FROM_TOKENS: u32 = 128;

/// What is left of older observations of a rate when a new one comes.
const RATE_FADE: f64 = 0.9;

/// What a rate may be, in milliseconds per token: from a big GPU (1 M tokens/s) to a slow CPU.
const RATE_RANGE_MS: (f64, f64) = (0.001, 10.0);

// === impl Load ===

impl Default for Load {
    fn default() -> Self {
        // 0.1 ms per token, 10,000 tokens/s: a mid-size model on one current GPU. Learned from the
        // first long prompt on.
        Self { prefill_tokens: 0, requests: 0, recent_tokens: 0.0, prefill_ms_per_token: 0.1 }
    }
}

// === impl Bookings ===

impl Default for Bookings {
    fn default() -> Self {
        Self { desk: Mutex::new(Desk::default()) }
    }
}

impl Bookings {
    /// Runs one decision: `choose` looks at the loads, picks a pod and says how many cold tokens it
    /// books there. Nothing else happens between the look and the booking.
    pub fn book<R>(
        self: &Arc<Self>,
        now: Instant,
        choose: impl FnOnce(&mut Desk) -> Option<(R, Slot, u32)>,
    ) -> Option<(R, Booking)> {
        let (result, booking, _) = self.book_legs(now, |desk| {
            let (result, slot, cold_tokens) = choose(desk)?;
            Some((result, Claim { slot, cold_tokens, new_tokens: cold_tokens }, None))
        })?;
        Some((result, booking))
    }

    /// The same for a request that may be split: a place on the pod that answers, and one on the pod
    /// that prefills for it, taken in one step.
    pub fn book_legs<R>(
        self: &Arc<Self>,
        now: Instant,
        choose: impl FnOnce(&mut Desk) -> Option<(R, Claim, Option<Claim>)>,
    ) -> Option<(R, Booking, Option<Booking>)> {
        let mut desk = self.desk.lock();
        let (result, answering, prefilling) = choose(&mut desk)?;
        let mut take = |claim: Claim| Booking {
            bookings: Arc::clone(self),
            slot: claim.slot,
            cold_tokens: claim.cold_tokens,
            worked_tokens: claim.new_tokens,
            queued_before: desk.enter(claim),
            booked_at: now,
            prefilling: true,
            began: false,
        };
        let answering = take(answering);
        let prefilling = prefilling.map(take);
        Some((result, answering, prefilling))
    }

    /// The pod is gone: what is still booked on it is nobody's load.
    pub fn forget(&self, slot: Slot) {
        let mut desk = self.desk.lock();
        if let Some((owner, load)) = desk.loads.get_mut(slot.index())
            && *owner == Some(slot)
        {
            (*owner, *load) = (None, Load::default());
            desk.unlearn(slot);
        }
    }

    /// All bookings added up: zero when nothing is in flight.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let desk = self.desk.lock();
        desk.loads.iter().fold(Totals::default(), |sum, (_, load)| Totals {
            prefill_tokens: sum.prefill_tokens + load.prefill_tokens,
            requests: sum.requests + u64::from(load.requests),
        })
    }

    /// What is booked on one pod.
    #[must_use]
    pub fn load(&self, slot: Slot) -> Load {
        self.desk.lock().load(slot)
    }
}

// === impl Desk ===

impl Desk {
    /// What is booked on a pod; a pod seen for the first time is admitted.
    pub fn admit(&mut self, slot: Slot) -> Load {
        let load = self.load(slot);
        if self.loads.len() <= slot.index() {
            self.loads.resize(slot.index() + 1, (None, Load::default()));
            self.rates.resize(slot.index() + 1, Rate::default());
        }
        let owner = &mut self.loads[slot.index()];
        // An old snapshot may still name the predecessor, which must not undo the successor.
        let is_newer = owner.0.is_none_or(|known| known.generation() < slot.generation());
        if is_newer {
            *owner = (Some(slot), load);
            self.unlearn(slot);
        }
        load
    }

    /// What is booked on a pod, or what a newcomer would start with.
    fn load(&self, slot: Slot) -> Load {
        match self.loads.get(slot.index()) {
            Some((Some(owner), load)) if *owner == slot => {
                let rate = self.rates[slot.index()].ms_per_token().or(self.fleet_rate);
                let prefill_ms_per_token = rate.unwrap_or(load.prefill_ms_per_token);
                Load { prefill_ms_per_token, ..*load }
            }
            _ => self.newcomer(),
        }
    }

    /// A number that counts decisions.
    pub fn ticket(&mut self) -> u64 {
        self.tickets = self.tickets.wrapping_add(1);
        self.tickets - 1
    }

    /// A pod that just joined stands where the average pod stands: with no recent tokens it would
    /// draw every cold prompt until it had caught up with years of history.
    fn newcomer(&self) -> Load {
        let (mut known, mut load) = (0.0_f64, Load::default());
        for (_, other) in self.loads.iter().filter(|(owner, _)| owner.is_some()) {
            known += 1.0;
            load.recent_tokens += other.recent_tokens;
        }
        if known > 0.0 {
            load.recent_tokens /= known;
        }
        load.prefill_ms_per_token = self.fleet_rate.unwrap_or(load.prefill_ms_per_token);
        load
    }

    fn learn(&mut self, slot: Slot, ms: f64, tokens: f64) {
        let is_current =
            self.loads.get(slot.index()).is_some_and(|(owner, _)| *owner == Some(slot));
        if is_current && let Some(rate) = self.rates.get_mut(slot.index()) {
            rate.ms = rate.ms * RATE_FADE + ms;
            rate.tokens = rate.tokens * RATE_FADE + tokens;
            self.average();
        }
    }

    fn unlearn(&mut self, slot: Slot) {
        self.rates[slot.index()] = Rate::default();
        self.average();
    }

    fn average(&mut self) {
        let learned = self.rates.iter().filter_map(|rate| rate.ms_per_token());
        let (count, sum) = learned.fold((0.0, 0.0), |(count, sum), rate| (count + 1.0, sum + rate));
        self.fleet_rate = (count > 0.0).then(|| sum / count);
    }

    fn enter(&mut self, claim: Claim) -> u64 {
        let Claim { slot, cold_tokens, new_tokens } = claim;
        self.admit(slot);
        let pods = self.loads.iter().filter(|(owner, _)| owner.is_some()).count();
        let pods = u32::try_from(pods.max(1)).unwrap_or(u32::MAX);
        let fade = 1.0 - 1.0 / (RECENT_PLACEMENTS_PER_POD * f64::from(pods));
        for (_, load) in &mut self.loads {
            load.recent_tokens *= fade;
        }
        let mut queued_before = 0;
        self.change(slot, |load| {
            queued_before = load.prefill_tokens;
            load.prefill_tokens += u64::from(cold_tokens);
            load.requests += 1;
            load.recent_tokens += f64::from(new_tokens);
        });
        queued_before
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Load)) {
        if let Some((Some(owner), load)) = self.loads.get_mut(slot.index())
            && *owner == slot
        {
            change(load);
        }
    }
}

// === impl Rate ===

impl Rate {
    fn ms_per_token(self) -> Option<f64> {
        let is_learned = self.tokens > 0.0;
        is_learned.then(|| (self.ms / self.tokens).clamp(RATE_RANGE_MS.0, RATE_RANGE_MS.1))
    }
}

// === impl Booking ===

impl Booking {
    /// The pod that it is booked on.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The pod has begun a good answer: what was placed on it counts as its work from now on, in
    /// flight or not. Without this it was no work of the pod's, and is taken back.
    pub fn began(&mut self) {
        self.began = true;
    }

    /// The pod has counted the prompt's tokens: so much was its work, and not what we estimated.
    pub fn measured(&mut self, cold_tokens: u32) {
        let more = f64::from(cold_tokens)
            - f64::from(std::mem::replace(&mut self.worked_tokens, cold_tokens));
        self.bookings.desk.lock().change(self.slot, |load| {
            load.recent_tokens = (load.recent_tokens + more).max(0.0);
        });
    }

    /// The first token came: the prefill is over, and the pod's rate is learned from it. Counted
    /// from the booking, so that a slow upload or a failed attempt elsewhere is not the pod's.
    pub fn first_token(&mut self, now: Instant) {
        if !std::mem::take(&mut self.prefilling) {
            return;
        }
        let cold_tokens = self.cold_tokens;
        let ttft_ms = now.saturating_duration_since(self.booked_at).as_secs_f64() * 1e3;
        let ahead = self.queued_before + u64::from(cold_tokens);
        let mut desk = self.bookings.desk.lock();
        desk.change(self.slot, |load| {
            load.prefill_tokens = load.prefill_tokens.saturating_sub(u64::from(cold_tokens));
        });
        if cold_tokens >= LEARN_FROM_TOKENS {
            #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
            desk.learn(self.slot, ttft_ms, ahead as f64);
        }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        let prefill = if self.prefilling { u64::from(self.cold_tokens) } else { 0 };
        let undone = if self.began { 0.0 } else { f64::from(self.worked_tokens) };
        self.bookings.desk.lock().change(self.slot, |load| {
            load.prefill_tokens = load.prefill_tokens.saturating_sub(prefill);
            load.requests = load.requests.saturating_sub(1);
            load.recent_tokens = (load.recent_tokens - undone).max(0.0);
        });
    }
}
