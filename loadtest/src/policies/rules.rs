//! The policies side by side: Hearth's, each of its terms left out, and what others do.
//!
//! The others see what ours sees, beliefs and bookings, and more where theirs would ask the pods:
//! only the rule differs. Each is as its project's documents and sources have it.

use std::fmt;
use std::str::FromStr;

use router::policy::warm::Terms;
use router::policy::{self, Ask, Candidate, PolicyName};

/// A policy by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// One of Hearth's.
    Hearth(PolicyName),
    /// `warm` without one of its terms.
    Without(Term),
    /// LMetric (arXiv 2603.15202): new prefill tokens, ours and those booked, times the batch.
    Lmetric,
    /// Dynamo's KV router: prefill blocks, ours and those booked, plus blocks in use.
    Linear,
    /// llm-d's Endpoint Picker by default: queue 2, KV use 2, prefix 3, each scored from 0 to 1.
    LlmD,
}

/// A term of `warm`, as its documentation has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Requests in flight.
    Decode,
    /// Warm blocks that are pushed out.
    Eviction,
    /// Recent work, for a new conversation.
    Balance,
    /// A prefill that is under way.
    Spared,
    /// A second copy of what is shared.
    Copy,
    /// The conversation's own pod.
    Own,
}

/// What rules see beside the table, by a candidate's position.
#[derive(Clone, Copy, Debug)]
pub struct Pods<'a> {
    /// Blocks of the requests that this gateway has in flight there.
    pub held_blocks: &'a [usize],
    /// Requests in the pod's queue.
    pub waiting: &'a [usize],
    /// Share of its blocks in use.
    pub usage: &'a [f64],
    /// Tokens per block.
    pub block_tokens: usize,
}

/// A name that no policy has.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is no policy; there are {known}")]
pub struct UnknownRule {
    name: String,
    known: String,
}

const HEARTH: [PolicyName; 6] = [
    PolicyName::Warm,
    PolicyName::Session,
    PolicyName::P2c,
    PolicyName::LeastRequest,
    PolicyName::RoundRobin,
    PolicyName::Random,
];

const TERMS: [Term; 6] =
    [Term::Decode, Term::Eviction, Term::Balance, Term::Spared, Term::Copy, Term::Own];

// === impl Rule ===

impl Rule {
    /// Every policy, the ablations left out.
    pub fn all() -> Vec<Self> {
        let others = [Self::Lmetric, Self::Linear, Self::LlmD];
        let mut all: Vec<Self> = HEARTH.into_iter().map(Self::Hearth).collect();
        all.splice(1..1, others);
        all.retain(|rule| *rule != Self::Hearth(PolicyName::Random));
        all
    }

    /// `warm`, and `warm` without each of its terms.
    pub fn ablations() -> Vec<Self> {
        let without = TERMS.into_iter().map(Self::Without);
        std::iter::once(Self::Hearth(PolicyName::Warm)).chain(without).collect()
    }

    /// Picks a row.
    pub fn pick(self, pods: Pods<'_>, ask: Ask, rows: &mut [Candidate]) -> Option<usize> {
        let of = |policy| policy::Settings { policy, ..policy::Settings::default() };
        match self {
            Self::Hearth(name) => policy::pick(&of(name), ask, rows),
            Self::Without(term) => {
                policy::pick(&of(PolicyName::Warm), ask, rows)?;
                least(rows, ask, |row| row.cost_ms - term.of(&row.terms))
            }
            Self::Lmetric => least(rows, ask, |row| {
                // Of a prompt that is held whole one token is left, so that the batch still counts.
                prefill_tokens(row) * f64::from(row.load.requests + 1)
            }),
            Self::Linear => least(rows, ask, |row| {
                let held = pods.held_blocks.get(row.position).copied().unwrap_or_default();
                prefill_tokens(row) / pods.block_tokens as f64 + held as f64
            }),
            Self::LlmD => llm_d(pods, ask, rows),
        }
    }

    fn names() -> String {
        let all = Self::all().into_iter().chain(Self::ablations().into_iter().skip(1));
        all.map(|rule| rule.to_string()).collect::<Vec<_>>().join(", ")
    }
}

// === impl Term ===

impl Term {
    fn of(self, terms: &Terms) -> f64 {
        match self {
            Self::Decode => terms.decode_ms,
            Self::Eviction => terms.eviction_ms,
            Self::Balance => terms.balance_ms,
            Self::Spared => terms.spared_ms,
            Self::Copy => terms.copy_ms,
            Self::Own => terms.own_ms,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Eviction => "eviction",
            Self::Balance => "balance",
            Self::Spared => "spared",
            Self::Copy => "copy",
            Self::Own => "own",
        }
    }
}

/// Tokens that the pod computes before the request's first token.
fn prefill_tokens(row: &Candidate) -> f64 {
    row.load.prefill_tokens as f64 + f64::from(row.uncached_tokens)
}

fn llm_d(pods: Pods<'_>, ask: Ask, rows: &[Candidate]) -> Option<usize> {
    let waiting = |row: &Candidate| pods.waiting.get(row.position).copied().unwrap_or_default();
    let least_waiting = rows.iter().map(waiting).min()?;
    let spread = rows.iter().map(waiting).max()? - least_waiting;
    least(rows, ask, |row| {
        let queue = match spread {
            0 => 1.0,
            spread => 1.0 - (waiting(row) - least_waiting) as f64 / spread as f64,
        };
        let room = 1.0 - pods.usage.get(row.position).copied().unwrap_or_default();
        let matched = f64::from(row.matched_tokens);
        let prefix = matched / (matched + f64::from(row.uncached_tokens));
        -(2.0 * queue + 2.0 * room + 3.0 * prefix)
    })
}

/// The row with the least key; the dice decide among equals.
fn least(rows: &[Candidate], ask: Ask, key: impl Fn(&Candidate) -> f64) -> Option<usize> {
    let best = rows.iter().map(&key).reduce(f64::min)?;
    let equal: Vec<usize> = (0..rows.len()).filter(|row| key(&rows[*row]) <= best).collect();
    let count = u64::try_from(equal.len()).ok()?;
    equal.get(usize::try_from(ask.dice.checked_rem(count)?).ok()?).copied()
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hearth(name) => f.write_str(name.name()),
            Self::Without(term) => write!(f, "warm-without-{}", term.name()),
            Self::Lmetric => f.write_str("lmetric"),
            Self::Linear => f.write_str("dynamo-linear"),
            Self::LlmD => f.write_str("llm-d"),
        }
    }
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::all().into_iter().chain(Self::ablations());
        let found = all.find(|rule| rule.to_string() == name);
        found.ok_or_else(|| UnknownRule { name: name.to_owned(), known: Self::names() })
    }
}
