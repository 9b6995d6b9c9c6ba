//! Least expected milliseconds.
//!
//! Per candidate, with `r` its learned milliseconds per uncached prompt token:
//!
//! ```text
//! cost = (queued + uncached) * r           time to the first token: what is booked before, and us
//!      + requests * decode_ms              every running request slows each decode step
//!      + cold * r * exp(-age / reuse)      warm blocks of others that our cold ones push out
//!      + balance * (recent - least) * r    only for a request that is cold in part
//!      - session                           for the session's own pod
//! ```
//!
//! The shape is that of "LMetric" (arXiv 2603.15202: new prefill tokens and batch size, in units
//! of work, from our own bookings and not from polled gauges). The balance term closes a hole of
//! every such metric: sessions that are paced so that nothing is ever in flight see no load, and
//! any shared system prompt would pull them all to one pod.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ask, Candidate, least};

/// Weights of the cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// What one request in flight on a pod costs the next one, in milliseconds.
    pub decode_ms: f64,
    /// Share of the difference in recently placed cold tokens that counts as work, 0 to 1.
    pub balance: f64,
    /// How long a block is worth keeping, in milliseconds: one that was not used for so long is
    /// used again with a chance of 1/e.
    pub reuse_ms: f64,
    /// What the session's own pod is worth, in uncached tokens.
    pub session_tokens: f64,
}

/// Difference in recent tokens beyond which more says nothing more.
const BALANCE_CAP_TOKENS: f64 = 16_384.0;

// === impl Weights ===

impl Default for Weights {
    fn default() -> Self {
        // decode: a step of a mid-size model is 10 to 30 ms and grows by some percent per request.
        // balance: above 0 and so small that one cold prompt on a pod never makes a second pod as
        // good for the very same prompt. session: less than a few blocks, so that a pod that holds
        // the prompt wins over one that merely knows the session.
        Self { decode_ms: 1.0, balance: 0.5, reuse_ms: 60_000.0, session_tokens: 64.0 }
    }
}

pub(super) fn pick(weights: &Weights, ask: Ask, candidates: &mut [Candidate]) -> usize {
    let recent = |c: &Candidate| c.load.recent_tokens;
    let least_recent = candidates.iter().map(recent).fold(f64::INFINITY, f64::min);
    let own = candidates.iter().map(|c| c.session_rank).max().filter(|_| ask.has_session);
    let cold_everywhere = candidates.iter().all(|c| c.cold_tokens > 0);
    for candidate in &mut *candidates {
        let mut tokens = f64::from(candidate.uncached_tokens);
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        {
            tokens += candidate.load.prefill_tokens as f64;
        }
        tokens += f64::from(candidate.cold_tokens) * reuse(weights, candidate.eviction_age_ms);
        if cold_everywhere {
            let ahead = (recent(candidate) - least_recent).min(BALANCE_CAP_TOKENS);
            tokens += weights.balance * ahead;
        }
        if own == Some(candidate.session_rank) {
            tokens -= weights.session_tokens;
        }
        candidate.cost_ms = tokens * candidate.load.prefill_ms_per_token
            + f64::from(candidate.load.requests) * weights.decode_ms;
    }
    least(candidates, ask.dice, |candidate| candidate.cost_ms)
}

/// The chance that the block evicted next would have been used again.
fn reuse(weights: &Weights, eviction_age_ms: Option<u64>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "ages are far below 2^52 ms")]
    eviction_age_ms.map_or(0.0, |age_ms| (-(age_ms as f64) / weights.reuse_ms).exp())
}
