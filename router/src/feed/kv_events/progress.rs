//! Whether an engine that says nothing has had something to say.

use std::time::Duration;

use tokio::time::Instant;

use crate::pod::{DEFAULT_BLOCK_TOKENS, EngineHints};

/// What the engine has done since its publisher was last heard.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Its counters at the first reading since.
    base: Option<EngineHints>,
    /// When they first proved that blocks were filled.
    owing_since: Option<Instant>,
}

/// A filled block is announced at the end of its step; the stream and our own reading of metrics
/// may be this late.
const GRACE: Duration = Duration::from_secs(5);
/// Blocks, beyond what is sure, before silence is taken for loss: aborted requests are in no count.
const SLACK_BLOCKS: f64 = 16.0;

// === impl Progress ===

impl Progress {
    /// The publisher was heard.
    pub(super) fn heard(&mut self) {
        *self = Self::default();
    }

    /// Takes a reading of the engine's metrics; says whether it owes us a batch for too long.
    ///
    /// A request that computes `n` tokens fills at least `n / block - 1` blocks, each of which is
    /// announced. So if the tokens computed exceed a block for every request that can have computed
    /// some, at least one was filled.
    pub(super) fn read(&mut self, hints: &EngineHints, now: Instant) -> bool {
        let base = *self.base.get_or_insert(*hints);
        let block = f64::from(hints.block_size.unwrap_or(DEFAULT_BLOCK_TOKENS));
        let computed = hints.computed_tokens - base.computed_tokens;
        let ended = hints.ended_requests - base.ended_requests;
        if computed < 0.0 || ended < 0.0 {
            // The engine has restarted.
            *self = Self { base: Some(*hints), owing_since: None };
            return false;
        }
        let requests = ended + base.running + hints.running;
        if computed <= block * (requests + SLACK_BLOCKS) {
            self.owing_since = None;
            return false;
        }
        now.saturating_duration_since(*self.owing_since.get_or_insert(now)) >= GRACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(computed_tokens: f64, ended_requests: f64, running: f64) -> EngineHints {
        let block_size = Some(16);
        EngineHints { computed_tokens, ended_requests, running, block_size, ..Default::default() }
    }

    #[test]
    fn an_engine_that_fills_blocks_and_says_nothing_owes_after_a_grace() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        assert!(!progress.read(&hints(1000.0, 5.0, 1.0), now));
        assert!(!progress.read(&hints(3000.0, 6.0, 1.0), now), "it may be on its way");
        assert!(progress.read(&hints(3000.0, 6.0, 1.0), now + GRACE));
        progress.heard();
        assert!(!progress.read(&hints(3000.0, 6.0, 1.0), now + GRACE));
    }

    #[test]
    fn an_idle_engine_owes_nothing() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        for seconds in 0..100 {
            assert!(!progress.read(&hints(1000.0, 5.0, 0.0), now + Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn many_requests_too_short_for_a_block_owe_nothing() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        for n in 0..1000 {
            let n = f64::from(n);
            let at = now + Duration::from_secs_f64(n);
            assert!(!progress.read(&hints(15.0 * n, n, 2.0), at));
        }
    }

    #[test]
    fn counters_that_run_back_begin_anew() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        assert!(!progress.read(&hints(1e6, 5.0, 1.0), now));
        assert!(!progress.read(&hints(500.0, 0.0, 1.0), now));
        assert!(!progress.read(&hints(600.0, 0.0, 1.0), now + 2 * GRACE));
    }
}
