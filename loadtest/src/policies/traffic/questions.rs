//! Single questions at random times: nothing in common, or nearly everything.

use std::time::Duration;

use rand::Rng;

use super::{Due, Request, Traffic, dice, gap, mix, name, tokens};

const BLOCK_TOKENS: usize = 64;

/// Poisson arrivals of questions that nobody continues.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Questions {
    /// How many.
    pub(crate) count: u64,
    /// Per second.
    pub(crate) rate: f64,
    /// Tokens of the prefix that some begin with.
    pub(crate) hot_tokens: usize,
    /// The share of those.
    pub(crate) hot_share: f64,
    /// Tokens of the rest, in the median.
    pub(crate) own_tokens: f64,
}

// === impl Questions ===

impl Questions {
    /// All of them.
    pub(crate) fn traffic(self, seed: u64) -> Traffic {
        let dice = &mut dice(seed, 0);
        let mut due = Duration::ZERO;
        let requests = (1..=self.count).map(|session| {
            due += gap(dice, 1.0 / self.rate);
            let is_hot = dice.random::<f64>() < self.hot_share;
            let shared = if is_hot { self.hot_tokens } else { 0 };
            let own = tokens(dice, self.own_tokens, 0.7, (16.0, 60_000.0));
            let of = |number: usize| match number < shared / BLOCK_TOKENS {
                true => name(seed, number),
                false => name(mix([seed, session]), number),
            };
            Request {
                session,
                blocks: (0..(shared + own) / BLOCK_TOKENS).map(of).collect(),
                prompt_tokens: shared + own,
                output_tokens: tokens(dice, 150.0, 0.7, (2.0, 1_000.0)),
                due: Due::At(due),
            }
        });
        Traffic { requests: requests.collect(), block_tokens: BLOCK_TOKENS, at_once: 1 }
    }
}
