//! What the bookings' lock guards: who has how much booked, and what is known of each pod's rate.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kv_index::Slot;

use super::rate::Rates;
use super::{Claim, Load, Totals};

/// What the lock guards: loads by slot index.
#[derive(Debug, Default)]
pub struct Desk {
    loads: Vec<(Option<Slot>, Load)>,
    rates: Rates,
    tickets: u64,
    /// Prefills whose end nobody will tell, by when they are over.
    untold: BTreeMap<Due, (Slot, u64)>,
    untold_ever: u64,
}

/// When a prefill is over by what was known when it was booked, and a number that makes it the only one.
pub(super) type Due = (Instant, u64);

/// Placements over which `recent_tokens` fades to 1/e, per pod of the fleet. Long, so that even a
/// 16-token suffix after a 1,000-token shared prefix adds up to a reason to use another pod.
const RECENT_PLACEMENTS_PER_POD: f64 = 1024.0;

/// Whatever the rates say, nothing is computed for longer: an hour, in milliseconds.
const LONGEST_UNTOLD_MS: f64 = 3_600_000.0;

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
            self.rates.unlearn(slot);
        }
        load
    }

    /// What is booked on a pod, or what a newcomer would start with.
    pub(super) fn load(&self, slot: Slot) -> Load {
        match self.loads.get(slot.index()) {
            Some((Some(owner), load)) if *owner == slot => {
                let rate = self.rates.ms_per_token(slot);
                let prefill_ms_per_token = rate.unwrap_or(load.prefill_ms_per_token);
                Load { prefill_ms_per_token, overhead_ms: self.rates.overhead_ms(), ..*load }
            }
            _ => self.newcomer(),
        }
    }

    /// Prefills are over that nobody tells of and that were to end by now.
    pub(super) fn retire(&mut self, now: Instant) {
        while let Some(first) = self.untold.first_entry()
            && first.key().0 <= now
        {
            let (slot, tokens) = first.remove();
            self.change(slot, |load| {
                load.prefill_tokens = load.prefill_tokens.saturating_sub(tokens);
            });
        }
    }

    /// Nobody will tell of this prefill: it is over when what is booked before and it are computed.
    pub(super) fn expect(&mut self, now: Instant, claim: Claim, queued_before: u64) -> Due {
        let Load { prefill_ms_per_token, overhead_ms, .. } = self.load(claim.slot);
        let computed = u64::from(claim.computed_tokens.unwrap_or(0));
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let tokens = (queued_before + computed) as f64;
        let ms = (tokens * prefill_ms_per_token + overhead_ms).clamp(0.0, LONGEST_UNTOLD_MS);
        self.untold_ever += 1;
        let due = (now + Duration::from_secs_f64(ms / 1e3), self.untold_ever);
        self.untold.insert(due, (claim.slot, u64::from(claim.cold_tokens)));
        due
    }

    /// It has ended in another way, or its request has. Whether it was over already.
    pub(super) fn is_over(&mut self, due: Due) -> bool {
        self.untold.remove(&due).is_none()
    }

    /// Whether no prefill is waited for that nobody tells of.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.untold.is_empty()
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
        load.prefill_ms_per_token = self.rates.mean().unwrap_or(load.prefill_ms_per_token);
        load.overhead_ms = self.rates.overhead_ms();
        load
    }

    /// The pod is gone.
    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some((owner, load)) = self.loads.get_mut(slot.index())
            && *owner == Some(slot)
        {
            (*owner, *load) = (None, Load::default());
            self.rates.unlearn(slot);
        }
    }

    /// A first token took so long: so many prompt tokens were ahead of it, and so many its own.
    pub(super) fn learn(&mut self, slot: Slot, ms: f64, tokens: (f64, u32)) {
        if self.loads.get(slot.index()).is_some_and(|(owner, _)| *owner == Some(slot)) {
            self.rates.learn(slot, ms, tokens);
        }
    }

    pub(super) fn totals(&self) -> Totals {
        self.loads.iter().fold(Totals::default(), |sum, (_, load)| Totals {
            prefill_tokens: sum.prefill_tokens + load.prefill_tokens,
            requests: sum.requests + u64::from(load.requests),
        })
    }

    pub(super) fn enter(&mut self, claim: Claim) -> u64 {
        let Claim { slot, cold_tokens, computed_tokens, new_tokens } = claim;
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
            load.awaiting += u32::from(computed_tokens.is_none());
            load.recent_tokens += f64::from(new_tokens);
        });
        queued_before
    }

    pub(super) fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Load)) {
        if let Some((Some(owner), load)) = self.loads.get_mut(slot.index())
            && *owner == slot
        {
            change(load);
        }
    }
}
