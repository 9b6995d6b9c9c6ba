//! Load is what we booked: nobody polls a gauge to learn how busy a pod is.

mod desk;
mod overhead;
mod rate;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use kv_index::Slot;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

pub use desk::Desk;

/// What is booked on one pod, and what we learned of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Prompt tokens sent and not yet answered by a first token.
    pub prefill_tokens: u64,
    /// Requests in flight.
    pub requests: u32,
    /// Those of them for which another pod prefills still.
    pub awaiting: u32,
    /// Prompt tokens that were new to it, of late: the last ones count most. What keeps paced
    /// sessions, which never overlap in time, from piling on one pod.
    pub recent_tokens: f64,
    /// Learned cost of one uncached prompt token, in milliseconds. Of a pod that has not shown its
    /// own it is the mean of those that have: an idle pod must not look slow because it is idle.
    pub prefill_ms_per_token: f64,
    /// Learned time that a first token takes whatever the prompt, in milliseconds; the same for all
    /// pods.
    pub overhead_ms: f64,
}

/// All bookings. Pick and booking are one step under one short lock, so that two requests that
/// arrive together do not both see the pod idle.
#[derive(Debug)]
pub struct Bookings {
    desk: Mutex<Desk>,
    freed: Notify,
}

/// A place to be taken on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The pod.
    pub slot: Slot,
    /// Prompt tokens that it will have to compute, in whole new blocks.
    pub cold_tokens: u32,
    /// All that it computes of the prompt before its first token, from which its rate can be learned;
    /// none: another pod does, and the time says nothing of this one.
    pub computed_tokens: Option<u32>,
    /// Prompt tokens that are new to it, those of a last block that is not full included, and those that it
    /// gets from elsewhere.
    pub new_tokens: u32,
}

/// A place taken on a pod; given back on drop, whatever happens.
#[derive(Debug)]
pub struct Booking {
    bookings: Arc<Bookings>,
    slot: Slot,
    cold_tokens: u32,
    computed_tokens: Option<u32>,
    /// What of it is in `recent_tokens`.
    worked_tokens: u32,
    queued_before: u64,
    booked_at: Instant,
    prefilling: bool,
    /// When its prefill is taken to be over, if nobody will tell.
    due: Option<desk::Due>,
    began: bool,
    ended: bool,
}

/// All pods' bookings added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// See [`Load::prefill_tokens`].
    pub prefill_tokens: u64,
    /// See [`Load::requests`].
    pub requests: u64,
}

// === impl Load ===

impl Load {
    /// How long it takes to compute what is booked, in milliseconds.
    #[must_use]
    pub fn queued_ms(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let queued = self.prefill_tokens as f64;
        queued * self.prefill_ms_per_token
    }
}

impl Default for Load {
    fn default() -> Self {
        Self {
            prefill_tokens: 0,
            requests: 0,
            awaiting: 0,
            recent_tokens: 0.0,
            // 10,000 tokens/s: a mid-size model on one current GPU. Learned from the first long
            // prompt on.
            prefill_ms_per_token: 0.1,
            overhead_ms: 0.0,
        }
    }
}

// === impl Bookings ===

impl Default for Bookings {
    fn default() -> Self {
        Self { desk: Mutex::new(Desk::default()), freed: Notify::new() }
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
        let (result, booking, _) = self.book_legs((now, true), |desk| {
            let (result, slot, cold_tokens) = choose(desk)?;
            Some((result, Claim::of(slot, cold_tokens, cold_tokens), None))
        })?;
        Some((result, booking))
    }

    /// The same for a request that may be split: a place on the pod that answers, and one on the pod
    /// that prefills for it, taken in one step. `is_told`: of the answer's first token, or of its end,
    /// which of a plain answer are one.
    pub fn book_legs<R>(
        self: &Arc<Self>,
        (now, is_told): (Instant, bool),
        choose: impl FnOnce(&mut Desk) -> Option<(R, Claim, Option<Claim>)>,
    ) -> Option<(R, Booking, Option<Booking>)> {
        let mut desk = self.desk.lock();
        desk.retire(now);
        let (result, answering, prefilling) = choose(&mut desk)?;
        let mut take = |claim: Claim, is_told: bool| {
            let queued_before = desk.enter(claim);
            let is_untold = !is_told && claim.cold_tokens > 0;
            let due = is_untold.then(|| desk.expect(now, claim, queued_before));
            Booking {
                bookings: Arc::clone(self),
                slot: claim.slot,
                cold_tokens: claim.cold_tokens,
                computed_tokens: claim.computed_tokens,
                worked_tokens: claim.new_tokens,
                queued_before,
                booked_at: now,
                prefilling: true,
                due,
                began: false,
                ended: false,
            }
        };
        let answering = take(answering, is_told);
        // A prefill pod answers when it has prefilled.
        let prefilling = prefilling.map(|claim| take(claim, true));
        Some((result, answering, prefilling))
    }

    /// The pod is gone: what is still booked on it is nobody's load.
    pub fn forget(&self, slot: Slot) {
        self.desk.lock().forget(slot);
    }

    /// Resolves when a place is given back from now on, once it is enabled or polled.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// All bookings added up: zero when nothing is in flight.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.desk.lock().totals()
    }

    /// What is booked on one pod.
    #[must_use]
    pub fn load(&self, slot: Slot) -> Load {
        self.desk.lock().load(slot)
    }
}

// === impl Claim ===

impl Claim {
    /// Of a pod that computes the whole prompt but for what it holds.
    #[must_use]
    pub fn of(slot: Slot, cold_tokens: u32, computed_tokens: u32) -> Self {
        let computed_tokens = Some(computed_tokens);
        Self { slot, cold_tokens, computed_tokens, new_tokens: cold_tokens }
    }
}

// === impl Booking ===

impl Booking {
    /// The pod that it is booked on.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// How long the pod has to compute, in milliseconds: for others, where another pod prefills for this.
    #[must_use]
    pub fn queued_ms(&self) -> f64 {
        self.bookings.load(self.slot).queued_ms()
    }

    /// The pod has begun a good answer: what was placed on it counts as its work from now on, in
    /// flight or not. Without this it was no work of the pod's, and is taken back.
    pub fn began(&mut self) {
        self.began = true;
    }

    /// The pod has counted the prompt's tokens: so much was its work, and not what we estimated.
    pub fn measured(&mut self, new_tokens: u32) {
        let more = f64::from(new_tokens)
            - f64::from(std::mem::replace(&mut self.worked_tokens, new_tokens));
        self.bookings.desk.lock().change(self.slot, |load| {
            load.recent_tokens = (load.recent_tokens + more).max(0.0);
        });
    }

    /// The first token came: the prefill is over, and the pod's rate is learned from it, or what a
    /// first token takes whatever the prompt. Counted from the booking, so that a slow upload or a
    /// failed attempt elsewhere is not the pod's.
    pub fn first_token(&mut self, now: Instant) {
        if !std::mem::take(&mut self.prefilling) {
            return;
        }
        let ttft_ms = now.saturating_duration_since(self.booked_at).as_secs_f64() * 1e3;
        let mut desk = self.bookings.desk.lock();
        let prefill = self.booked_prefill(&mut desk);
        desk.change(self.slot, |load| {
            load.prefill_tokens = load.prefill_tokens.saturating_sub(prefill);
            load.awaiting = load.awaiting.saturating_sub(self.awaited());
        });
        let Some(computed_tokens) = self.computed_tokens else { return };
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let ahead = self.queued_before as f64;
        desk.learn(self.slot, ttft_ms, (ahead, computed_tokens));
    }
}

impl Booking {
    /// What of its prefill is in `prefill_tokens` still, to be taken out.
    fn booked_prefill(&self, desk: &mut Desk) -> u64 {
        let is_over = self.due.is_some_and(|due| desk.is_over(due));
        if is_over { 0 } else { u64::from(self.cold_tokens) }
    }

    /// One, if another pod prefills for it, else none.
    fn awaited(&self) -> u32 {
        u32::from(self.computed_tokens.is_none())
    }

    /// Gives the place back, once.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let is_prefilling = std::mem::take(&mut self.prefilling);
        let undone = if self.began { 0.0 } else { f64::from(self.worked_tokens) };
        let mut desk = self.bookings.desk.lock();
        let (prefill, awaited) =
            if is_prefilling { (self.booked_prefill(&mut desk), self.awaited()) } else { (0, 0) };
        desk.change(self.slot, |load| {
            load.prefill_tokens = load.prefill_tokens.saturating_sub(prefill);
            load.requests = load.requests.saturating_sub(1);
            load.awaiting = load.awaiting.saturating_sub(awaited);
            load.recent_tokens = (load.recent_tokens - undone).max(0.0);
        });
        drop(desk);
        self.bookings.freed.notify_waiters();
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        self.end();
    }
}
