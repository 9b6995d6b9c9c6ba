//! Who asks what when, in blocks: the workloads of policies in virtual time.
//!
//! A block is known by a name, so no text and no tokens are needed; equal names behind equal names
//! are equal prefixes. All of it is a pure function of a seed, or of a trace.

mod agentic;
mod conversation;
mod documents;
mod questions;
mod trace;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::workload::mix;

pub use trace::TraceError;

pub(super) use agentic::agentic;
pub(super) use conversation::conversation;
pub(super) use documents::Documents;
pub(super) use questions::Questions;
pub(super) use trace::read as read_trace;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its session: the key that a client would send.
    pub session: u64,
    /// Names of its full blocks: the prompt's, then the answer's as far as anybody comes back to
    /// them.
    pub blocks: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub output_tokens: usize,
    /// When it is sent.
    pub due: Due,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this time.
    At(Duration),
    /// So long after the answer to another one.
    After(usize, Duration),
    /// When its turn comes in a closed loop, and the request that it names, if any, is answered.
    InTurn(Option<usize>),
}

/// A workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// In the order of their turns.
    pub requests: Vec<Request>,
    /// Tokens per block.
    pub block_tokens: usize,
    /// Requests in flight, of those that are sent in turn.
    pub at_once: usize,
}

// === impl Traffic ===

impl Traffic {
    /// The same, `factor` times faster.
    #[must_use]
    pub fn faster(mut self, factor: f64) -> Self {
        for request in &mut self.requests {
            match &mut request.due {
                Due::At(time) | Due::After(_, time) => *time = time.div_f64(factor),
                Due::InTurn(_) => {}
            }
        }
        self
    }
}

/// A generator of its own for each part of a workload.
fn dice(seed: u64, part: u64) -> StdRng {
    StdRng::seed_from_u64(mix([seed, part]))
}

/// The name of block `number` of text `text`.
fn name(text: u64, number: usize) -> u32 {
    // The high half: SplitMix64's best mixed bits.
    u32::try_from(mix([text, number as u64]) >> 32).unwrap_or_default()
}

/// A number of tokens around `median`, log-normal: lengths of prompts and answers are.
fn tokens(dice: &mut StdRng, median: f64, sigma: f64, (least, most): (f64, f64)) -> usize {
    let tokens = (median * (sigma * normal(dice)).exp()).clamp(least, most);
    Duration::from_secs_f64(tokens).as_secs().try_into().unwrap_or(usize::MAX)
}

/// A wait around `median`, log-normal.
fn wait(dice: &mut StdRng, median_s: f64, sigma: f64, most_s: f64) -> Duration {
    Duration::from_secs_f64((median_s * (sigma * normal(dice)).exp()).min(most_s))
}

/// Exponential, of this mean: the gaps of a Poisson process.
fn gap(dice: &mut StdRng, mean_s: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - dice.random::<f64>()).ln() * mean_s)
}

/// Box and Muller's normal deviate.
fn normal(dice: &mut StdRng) -> f64 {
    let radius = (-2.0 * (1.0 - dice.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * dice.random::<f64>()).cos()
}

/// The rank, from 0, of a draw among `count` by Zipf's law.
fn zipf(dice: &mut StdRng, count: usize, exponent: f64) -> usize {
    let weight = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
    let total: f64 = (0..count).map(weight).sum();
    let mut left = dice.random::<f64>() * total;
    let drawn = (0..count).find(|rank| {
        left -= weight(*rank);
        left < 0.0
    });
    drawn.unwrap_or(count.saturating_sub(1))
}
