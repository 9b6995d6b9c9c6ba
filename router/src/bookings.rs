//! Load is what we booked: nobody polls a gauge to learn how busy a pod is.

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
    /// Learned cost of one uncached prompt token, in milliseconds.
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
    tickets: u64,
}

/// A place taken on a pod; given back on drop, whatever happens.
#[derive(Debug)]
pub struct Booking {
    bookings: Arc<Bookings>,
    slot: Slot,
    cold_tokens: u32,
    queued_before: u64,
    booked_at: Instant,
    prefilling: bool,
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

/// Weight of the newest observation of a rate.
const LEARN_WEIGHT: f64 = 0.1;

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
        let mut desk = self.desk.lock();
        let (result, slot, cold_tokens) = choose(&mut desk)?;
        let queued_before = desk.enter(slot, cold_tokens);
        drop(desk);
        let bookings = Arc::clone(self);
        let (booked_at, prefilling) = (now, true);
        let booking = Booking { bookings, slot, cold_tokens, queued_before, booked_at, prefilling };
        Some((result, booking))
    }

    /// The pod is gone: what is still booked on it is nobody's load.
    pub fn forget(&self, slot: Slot) {
        let mut desk = self.desk.lock();
        if let Some((owner, load)) = desk.loads.get_mut(slot.index())
            && *owner == Some(slot)
        {
            (*owner, *load) = (None, Load::default());
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
        }
        let owner = &mut self.loads[slot.index()];
        // An old snapshot may still name the predecessor, which must not undo the successor.
        let is_newer = owner.0.is_none_or(|known| known.generation() < slot.generation());
        if is_newer {
            *owner = (Some(slot), load);
        }
        load
    }

    /// What is booked on a pod, or what a newcomer would start with.
    fn load(&self, slot: Slot) -> Load {
        match self.loads.get(slot.index()) {
            Some((Some(owner), load)) if *owner == slot => *load,
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
        let mut rates = 0.0;
        for (_, other) in self.loads.iter().filter(|(owner, _)| owner.is_some()) {
            known += 1.0;
            load.recent_tokens += other.recent_tokens;
            rates += other.prefill_ms_per_token;
        }
        if known > 0.0 {
            load.recent_tokens /= known;
            load.prefill_ms_per_token = rates / known;
        }
        load
    }

    fn enter(&mut self, slot: Slot, cold_tokens: u32) -> u64 {
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
            load.recent_tokens += f64::from(cold_tokens);
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

// === impl Booking ===

impl Booking {
    /// The pod that it is booked on.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
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
        self.bookings.desk.lock().change(self.slot, |load| {
            load.prefill_tokens = load.prefill_tokens.saturating_sub(u64::from(cold_tokens));
            if cold_tokens >= LEARN_FROM_TOKENS {
                #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
                let seen = (ttft_ms / ahead as f64).clamp(RATE_RANGE_MS.0, RATE_RANGE_MS.1);
                load.prefill_ms_per_token += LEARN_WEIGHT * (seen - load.prefill_ms_per_token);
            }
        });
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        let prefill = if self.prefilling { u64::from(self.cold_tokens) } else { 0 };
        self.bookings.desk.lock().change(self.slot, |load| {
            load.prefill_tokens = load.prefill_tokens.saturating_sub(prefill);
            load.requests = load.requests.saturating_sub(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_index::Slots;
    use std::time::Duration;

    fn book(bookings: &Arc<Bookings>, slot: Slot, cold: u32) -> Booking {
        let choose = |desk: &mut Desk| {
            desk.admit(slot);
            Some(((), slot, cold))
        };
        bookings.book(Instant::now(), choose).unwrap().1
    }

    fn answer(booking: &mut Booking, after_ms: u64) {
        booking.first_token(booking.booked_at + Duration::from_millis(after_ms));
    }

    #[test]
    fn a_booking_is_given_back_on_drop_before_and_after_the_first_token() {
        let (bookings, slot) = (Arc::new(Bookings::default()), Slots::default().acquire());
        let (mut a, b) = (book(&bookings, slot, 100), book(&bookings, slot, 50));
        assert_eq!(bookings.totals(), Totals { prefill_tokens: 150, requests: 2 });
        answer(&mut a, 5);
        answer(&mut a, 5);
        assert_eq!(bookings.totals(), Totals { prefill_tokens: 50, requests: 2 });
        drop((a, b));
        assert_eq!(bookings.totals(), Totals::default());
    }

    #[test]
    fn a_late_booking_of_a_dead_pod_does_not_touch_its_successor() {
        let (bookings, mut slots) = (Arc::new(Bookings::default()), Slots::default());
        let old = slots.acquire();
        let late = book(&bookings, old, 10);
        slots.release(old);
        let new = slots.acquire();
        let current = book(&bookings, new, 7);
        drop(late);
        assert_eq!(bookings.totals(), Totals { prefill_tokens: 7, requests: 1 });
        drop(book(&bookings, old, 3));
        let sum = bookings.totals();
        assert_eq!(
            sum,
            Totals { prefill_tokens: 7, requests: 1 },
            "a stale snapshot books nothing"
        );
        drop(current);
        assert_eq!(bookings.totals(), Totals::default());
    }

    #[test]
    fn rates_are_learned_from_long_prompts_only_and_count_the_queue() {
        let (bookings, slot) = (Arc::new(Bookings::default()), Slots::default().acquire());
        answer(&mut book(&bookings, slot, 16), 1_000);
        assert!((bookings.load(slot).prefill_ms_per_token - 0.1).abs() < 1e-9);
        for _ in 0..100 {
            let _ahead = book(&bookings, slot, 1_000);
            answer(&mut book(&bookings, slot, 1_000), 4_000);
        }
        assert!((bookings.load(slot).prefill_ms_per_token - 2.0).abs() < 0.01);
    }

    #[test]
    fn a_newcomer_starts_at_the_mean() {
        let (bookings, mut slots) = (Arc::new(Bookings::default()), Slots::default());
        let (a, b, c) = (slots.acquire(), slots.acquire(), slots.acquire());
        assert!(bookings.load(a).recent_tokens + bookings.load(b).recent_tokens < 1e-9);
        drop((book(&bookings, a, 0), book(&bookings, b, 0)));
        drop((book(&bookings, a, 1_000), book(&bookings, b, 3_000)));
        let recent = bookings.load(c).recent_tokens;
        assert!((1_990.0..2_010.0).contains(&recent), "{recent}");
        bookings.forget(b);
        let recent = bookings.load(c).recent_tokens;
        assert!((990.0..1_010.0).contains(&recent), "a pod that left does not count: {recent}");
    }
}
