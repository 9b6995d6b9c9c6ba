//! Whether an engine gets on with what it has, by its own counters: asleep, paused and stuck engines
//! say that they are well.

#[cfg(test)]
mod tests;

use tokio::time::Instant;

use crate::pod::EngineHints;

/// What an engine's counters have said over time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    last: Option<(EngineHints, Instant)>,
    still_since: Option<Instant>,
    idle_since: Option<Instant>,
}

// === impl Standing ===

impl Standing {
    /// Takes in what was read now. An engine that does not count its tokens says nothing.
    pub(super) fn read(&mut self, now: Instant, hints: &EngineHints) {
        let Some(_counts) = hints.prompt_tokens else {
            *self = Self::default();
            return;
        };
        let before = self.last.replace((*hints, now));
        let unmoved = before.filter(|(before, _)| is_unmoved(before, hints));
        let still = unmoved.filter(|(before, _)| before.has_work() && hints.has_work());
        self.still_since = still.map(|(_, then)| self.still_since.unwrap_or(then));
        let idle = !hints.has_work();
        let was_idle = self.idle_since.filter(|_| unmoved.is_some());
        self.idle_since = idle.then(|| was_idle.unwrap_or(now));
    }

    /// Since when it has requests and computes nothing.
    pub(super) fn still_since(&self) -> Option<Instant> {
        self.still_since
    }

    /// Since when it has nothing to do.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }
}

/// Whether nothing was computed between two reads. The blocks in use tell of a long prefill, whose
/// tokens vLLM counts only at its end: they grow with every chunk of it.
#[expect(clippy::float_cmp, reason = "the same number, printed twice, or another one")]
fn is_unmoved(before: &EngineHints, now: &EngineHints) -> bool {
    before.computed_tokens == now.computed_tokens
        && before.prompt_tokens == now.prompt_tokens
        && before.ended_requests == now.ended_requests
        && before.kv_usage == now.kv_usage
        && before.started_s == now.started_s
}
