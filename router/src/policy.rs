//! Which candidate gets the request: pure functions from a table and an [`Ask`] to a row.
//!
//! To add a policy: a file beside these with one function, a variant of [`PolicyName`], a line in
//! [`pick`], and rows in `policy/tests.rs`.

mod least_request;
mod p2c;
mod random;
mod round_robin;
mod session;
pub mod warm;

use std::fmt;
use std::sync::Arc;

use kv_index::Slot;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bookings::Load;
use crate::feed::kv_events::Trust;
use crate::pool::Endpoint;

/// The policies, by the names that the configuration uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    /// Least expected milliseconds: warm blocks, booked work, learned rates.
    #[default]
    Warm,
    /// Each pod in turn.
    RoundRobin,
    /// Any pod.
    Random,
    /// The pod with the fewest requests in flight.
    LeastRequest,
    /// The less busy of two random pods.
    P2c,
    /// The pod that the session key hashes to, unless it is much busier than the mean.
    Session,
}

/// How pods are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// warm, round-robin, random, least-request, p2c or session.
    pub policy: PolicyName,
    /// Weights of the policy `warm`.
    pub warm: warm::Weights,
    /// So many decisions are kept for the admin page `/why`, with at most 64 pods each; 0: none.
    pub decisions_kept: usize,
}

/// One pod that could serve the request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The pod.
    pub slot: Slot,
    /// Its position in the snapshot.
    pub position: usize,
    /// Prompt tokens that it holds already, in all likelihood.
    pub matched_tokens: u32,
    /// Prompt tokens that it is known to hold, as far as `trust` goes.
    pub known_tokens: u32,
    /// How far that can be trusted.
    pub trust: Trust,
    /// Of these, at most, what it is computing only now for another request.
    pub on_its_way_tokens: u32,
    /// Prompt tokens that it would have to compute: at least one, since an engine computes the
    /// last token of a prompt whatever it holds.
    pub uncached_tokens: u32,
    /// Those of them that make whole new blocks. What is left of a fully known prompt is not cold.
    pub cold_tokens: u32,
    /// What is booked on it.
    pub load: Load,
    /// Whether it was sent the very prompt that this one repeats or continues, and still holds it.
    pub is_home: bool,
    /// How long ago the block was used that it would evict next; none while it has room.
    pub eviction_age_ms: Option<u64>,
    /// How well it fits the session key: the highest of all is the session's own pod.
    pub session_rank: u64,
    /// What the policy made of it; lower is better.
    pub cost_ms: f64,
    /// What the cost is the sum of, where the policy is `warm`.
    pub terms: warm::Terms,
}

/// What else a policy may look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Whether the request has a session key.
    pub has_session: bool,
    /// Counts decisions: the turn in round-robin.
    pub ticket: u64,
    /// Random bits.
    pub dice: u64,
}

/// Picks a row of a table, as [`pick`] does.
pub type Rule<'a> = dyn Fn(Ask, &mut [Candidate]) -> Option<usize> + 'a;

/// A decision's whole table, for people.
#[derive(Debug)]
pub struct Table<'a> {
    /// The pods that could serve it.
    pub rows: &'a [Candidate],
    /// The row that was chosen.
    pub chosen: Option<usize>,
    /// All pods, by [`Candidate::position`].
    pub pods: &'a [Arc<Endpoint>],
}

/// Picks a row; none only when there is no row. Writes each row's cost where the policy has one.
pub fn pick(settings: &Settings, ask: Ask, candidates: &mut [Candidate]) -> Option<usize> {
    if candidates.is_empty() {
        return None;
    }
    Some(match settings.policy {
        PolicyName::Warm => warm::pick(&settings.warm, ask, candidates),
        PolicyName::RoundRobin => round_robin::pick(ask, candidates),
        PolicyName::Random => random::pick(ask, candidates),
        PolicyName::LeastRequest => least_request::pick(ask, candidates),
        PolicyName::P2c => p2c::pick(ask, candidates),
        PolicyName::Session => session::pick(ask, candidates),
    })
}

/// The row with the least key; among equals, the dice decide, so that replicas of the gateway do
/// not all choose the same one.
fn least(candidates: &[Candidate], dice: u64, key: impl Fn(&Candidate) -> f64) -> usize {
    let best = candidates.iter().map(&key).fold(f64::INFINITY, f64::min);
    let is_best = |candidate: &&Candidate| key(candidate) <= best;
    let ties = candidates.iter().filter(is_best).count().max(1);
    let chosen = index_below(dice, ties);
    let mut rows = candidates.iter().enumerate().filter(|(_, c)| key(c) <= best);
    rows.nth(chosen).map_or(0, |(row, _)| row)
}

/// `dice` as an index below `len`.
fn index_below(dice: u64, len: usize) -> usize {
    let len = u64::try_from(len.max(1)).unwrap_or(1);
    usize::try_from(dice % len).unwrap_or(0)
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self { policy: PolicyName::default(), warm: warm::Weights::default(), decisions_kept: 256 }
    }
}

// === impl Candidate ===

impl Candidate {
    /// A pod that holds nothing, for a prompt of nothing.
    #[must_use]
    pub fn new(slot: Slot, position: usize, load: Load) -> Self {
        Self {
            slot,
            position,
            matched_tokens: 0,
            known_tokens: 0,
            trust: Trust::Approximate,
            on_its_way_tokens: 0,
            uncached_tokens: 1,
            cold_tokens: 0,
            load,
            is_home: false,
            eviction_age_ms: None,
            session_rank: 0,
            cost_ms: 0.0,
            terms: warm::Terms::default(),
        }
    }

    /// The time to the first token that it predicts: what is booked before, its own prefill, and what
    /// a first token takes whatever the prompt.
    #[must_use]
    pub fn ttft_ms(&self) -> f64 {
        let own_ms = f64::from(self.uncached_tokens) * self.load.prefill_ms_per_token;
        self.load.queued_ms() + own_ms + self.load.overhead_ms
    }
}

// === impl PolicyName ===

impl PolicyName {
    /// The name in the configuration, in `x-hearth-decision` and in the access log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::LeastRequest => "least-request",
            Self::P2c => "p2c",
            Self::Session => "session",
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Table ===

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pod matched uncached queued requests recent eviction_ms cost_ms")?;
        for (index, row) in self.rows.iter().enumerate() {
            if let Some(endpoint) = self.pods.get(row.position) {
                write!(f, "{}", endpoint.pod.addr)?;
            }
            let eviction = row.eviction_age_ms.map_or_else(|| "-".into(), |ms| ms.to_string());
            writeln!(
                f,
                " {} {} {} {} {:.0} {eviction} {:.3}{}",
                row.matched_tokens,
                row.uncached_tokens,
                row.load.prefill_tokens,
                row.load.requests,
                row.load.recent_tokens,
                row.cost_ms,
                if self.chosen == Some(index) { " chosen" } else { "" },
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
